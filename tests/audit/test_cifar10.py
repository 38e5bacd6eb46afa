"""A trained network that the project never saw trained, read as its scale says."""

import os
from pathlib import Path

import pytest
import torch

from mipriv.data.sources.arrays import Arrays
from mipriv.models.split import split
from mipriv.training import logits
from tasks.audits import threats
from tasks.audits.rows import Row, Victim
from tasks.engine import params
from tests.presets import ROOT

SCALE = params.load(ROOT / "scales" / "audit_cifar10.yaml")
FOLDER = Path(os.environ.get("MIPRIV_DATA", "/nowhere")) / "cifar10"


@pytest.fixture(scope="module")
def row() -> Row:
    return params.validate(Row, SCALE["audit.rows"]["resnet20"], "audit.rows.resnet20")


def test_its_cell_of_membership_says_that_there_are_no_member_records(row: Row) -> None:
    assert threats.membership(row) == "no member records"


@pytest.mark.skipif(not FOLDER.is_dir(), reason="MIPRIV_DATA, with a trained ResNet-20, is unset")
def test_it_names_what_it_was_trained_to_name_and_is_cut_as_its_scale_says(row: Row, tmp_path: Path) -> None:
    source = Arrays(str(FOLDER / "cifar10_test2000.npz"))
    records = source.records()[:200]
    images = torch.stack([torch.from_numpy(source.read(record)) for record in records]).permute(0, 3, 1, 2)
    folders = sorted({record.label for record in source.records()}, key=int)
    with row.brought(tmp_path) as weights:
        victim = Victim.load(row, weights, (3, 32, 32), folders)
    said = logits(victim.model, images.float() / 255).argmax(1)
    truth = torch.tensor(victim.outputs([record.label for record in records]))
    assert (said == truth).double().mean() > 0.87
    for layer in row.layers:
        assert split(victim.model, f"network.{layer}", (3, 32, 32)).feature_shape

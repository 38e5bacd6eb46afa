"""What stage `fisher` says and draws, from made-up information of six layers."""

import csv
import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from mipriv.analysis.fisher import Information, Layer
from mipriv.errors import InputError
from tasks import fisher, information, invert
from tasks.information import (
    CLASSIFICATION,
    DIFFERENCE,
    FIRST,
    INVERSION,
    LAST,
    MEAN,
    SHARE,
    Score,
    Third,
    said,
)
from tasks.page.depth import MARKS, depth
from tasks.tables import write_csv

SIZES = [4, 2, 10, 2, 100, 2, 100, 1000]
LAYERS = tuple(
    Layer(f"layer{i}", "normalisation" if size == 2 else "weights", size) for i, size in enumerate(SIZES)
)
FRONT, BACK = (100.0, 10.0, 1.0, 1.0, 1.0), (1.0, 1.0, 1.0, 10.0, 100.0)
FLAT = (1.0, 1.0, 1.0, 1.0, 1.0)


def made(a_parameter: tuple[float, ...], n: int = 12, spread: float = 0.2) -> Information:
    """Information of `n` images whose weight layers have about these mean-normalised scores."""
    random = np.random.default_rng(0)
    scores = iter(a_parameter)
    centre = [1.0 if layer.group == "normalisation" else next(scores) for layer in LAYERS]
    noise = np.exp(spread * random.normal(size=(n, len(LAYERS))))
    return Information(LAYERS, np.array(centre) * SIZES * noise)


def thirds(inversion: Information, classification: Information, kind: str = "empirical") -> list[Third]:
    tasks = {INVERSION: inversion, CLASSIFICATION: classification}
    return [line for task, seen in tasks.items() for line in fisher.thirds("none", task, kind, seen)]


def scores() -> list[Score]:
    tasks = {INVERSION: made(FRONT), CLASSIFICATION: made(BACK)}
    return [
        line
        for task, seen in tasks.items()
        for kind in fisher.KINDS
        for line in fisher.scores("none", task, kind, seen)
    ]


def test_thirds_are_of_the_layers_of_a_group_and_of_its_information() -> None:
    seen = made(FRONT)
    lines = {
        (line.group, line.normalisation, line.part): line.value
        for line in fisher.thirds("none", INVERSION, "true", seen)
    }
    own = [i for i, layer in enumerate(LAYERS) if layer.group == "weights"]
    for normalisation, divisor in ((MEAN, np.array(SIZES)), (SHARE, 1)):
        held = (seen.sums / divisor).mean(0)[own]
        first, last = (lines["weights", normalisation, part] for part in (FIRST, LAST))
        assert first.point == pytest.approx(held[0] / held.sum())  # of five layers a third is one
        assert last.point == pytest.approx(held[-1] / held.sum())
        assert lines["weights", normalisation, DIFFERENCE].point == pytest.approx(first.point - last.point)
        assert first.low < first.point < first.high and first.n == 12
    assert lines["weights", MEAN, DIFFERENCE].low > 0 > lines["weights", SHARE, DIFFERENCE].high


def test_the_claim_is_confirmed_where_both_intervals_say_so() -> None:
    words = said([line for line in thirds(made(FRONT), made(BACK)) if line.normalisation == MEAN])
    assert "This agrees with the study's claim" in words
    assert "the first third dominates inversion and the last third dominates classification" in words
    assert "inversion lies nearer to the front than classification" in words
    assert words.count("%") == 4 and "reading" not in words


@pytest.mark.parametrize(
    ("inversion", "classification", "words"),
    [
        (
            FRONT,
            FRONT,
            "in part with the study's claim.*: the first third dominates both, and inversion lies no clearly",
        ),
        (FLAT, BACK, "in part with .*neither end dominates inversion and the last third dominates class"),
        (
            BACK,
            FRONT,
            "does not agree with .*the last third dominates inversion and the first third dominates "
            "classification, and inversion lies nearer to the back",
        ),
        (FLAT, FLAT, "does not agree with .*neither end dominates both"),
    ],
)
def test_what_does_not_agree_is_said_plainly(
    inversion: tuple[float, ...], classification: tuple[float, ...], words: str
) -> None:
    lines = thirds(made(inversion), made(classification))
    found = said([line for line in lines if line.normalisation == MEAN])
    assert re.search(words, found), found


def test_an_interval_that_holds_zero_confirms_nothing() -> None:
    near = (1.3, 1.0, 1.0, 1.0, 1.0)
    sharp, wide = (thirds(made(near, spread=spread), made(BACK)) for spread in (0.01, 1.5))
    assert "agrees with" in said([line for line in sharp if line.normalisation == MEAN])
    assert "agrees in part with" in said([line for line in wide if line.normalisation == MEAN])


def test_another_reading_that_agrees_otherwise_is_said() -> None:
    # A parameter, the front dominates; summed, the last layer's thousand parameters do.
    lines = thirds(made(FRONT), made(BACK)) + thirds(made(FLAT), made(FLAT), kind="true")
    words = said(lines)
    assert "This agrees with the study's claim" in words
    assert "The empirical information summed over parameters agrees in part with it" in words
    assert "The true information a parameter does not agree with it: neither end dominates both." in words


def test_the_table_of_thirds_is_read_as_it_was_written(tmp_path: Path) -> None:
    lines, path = thirds(made(FRONT), made(BACK)), tmp_path / information.THIRDS
    write_csv(path, [line.flat() for line in lines])
    again = information.read(path)
    assert said(again) == said(lines)
    assert [line.flat() for line in again] == [line.flat() for line in lines]
    path.write_text("victim,task\nnone,inversion\n")
    with pytest.raises(InputError, match="no table of thirds"):
        information.read(path)


def test_the_table_of_layers_keeps_small_numbers(tmp_path: Path) -> None:
    tiny = Information(LAYERS, made(FRONT).sums * 1e-15)
    write_csv(tmp_path / "table.csv", [s.flat() for s in fisher.scores("none", INVERSION, "true", tiny)])
    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "victim", "task", "kind", "layer", "place", "group", "parameters",
        "mean", "mean_low", "mean_high", "share", "share_low", "share_high", "n",
    ]  # fmt: skip
    assert [int(row["place"]) for row in rows] == list(range(len(LAYERS)))
    assert sum(float(row["share"]) for row in rows) == pytest.approx(1, abs=1e-4)
    for i, row in enumerate(rows):
        assert float(row["mean"]) == pytest.approx(tiny.sums[:, i].mean() / SIZES[i], rel=1e-5)
        assert 0 < float(row["mean_low"]) < float(row["mean"]) < float(row["mean_high"])


def test_the_picture_has_both_tasks_and_both_groups() -> None:
    both = scores()
    picture = np.asarray(Image.open(io.BytesIO(depth(both))).convert("RGB")).astype(int)
    for color, _, _ in MARKS.values():
        wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
        near = np.abs(picture - wanted).sum(2) < 40
        halves = np.array_split(near, 2, axis=1)
        assert all(half.sum() > 100 for half in halves)
    alone = Image.open(io.BytesIO(depth([score for score in both if score.group == "weights"])))
    assert alone.width < 0.6 * picture.shape[1]


def test_zeros_are_drawn_as_nothing() -> None:
    nothing = Information(LAYERS, np.zeros((4, len(LAYERS))))
    lines = fisher.scores("none", INVERSION, "true", nothing)
    assert depth([line for line in lines if line.group == "weights"]).startswith(b"\x89PNG")


def test_one_image_a_person_and_no_more_than_asked(tmp_path: Path) -> None:
    for first in (0, 3):
        people = torch.arange(first, first + 3)
        images = (
            people[:, None, None, None, None].expand(3, 2, 1, 2, 2).float()
            + torch.tensor([0.0, 0.5])[None, :, None, None, None]
        )
        folder = tmp_path / f"ids-{first:05d}"
        folder.mkdir()
        save_file({"images": images.contiguous(), "identities": people}, folder / invert.RECONSTRUCTIONS)
    images, people = fisher._reconstructions(tmp_path)
    assert images.shape == (6, 1, 2, 2) and people.tolist() == list(range(6))
    assert images[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]  # the best one, not the second
    some, names = fisher._some(images, people, 4, INVERSION)
    assert len(some) == 4 and some[:, 0, 0, 0].tolist() == names.tolist() == sorted(names.tolist())
    assert len(fisher._some(images, people, 9, INVERSION)[0]) == 6

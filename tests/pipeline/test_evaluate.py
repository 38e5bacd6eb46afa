"""What `evaluate` refuses, and how it pairs."""

import json
from pathlib import Path

import numpy as np
import pytest

from mipriv import stats
from mipriv.errors import InputError
from tasks import evaluate, finetune, invert
from tasks.leakage import Line


def judged(accuracy: float) -> Line:
    return Line("strict", "judge", "accuracy", "", "", stats.mean(np.full((1, 20), accuracy)))


def test_a_judge_below_the_limit_is_refused() -> None:
    evaluate._refuse_weak([judged(0.9)], 0.9)
    with pytest.raises(
        InputError, match=r"judge 'strict': accuracy 0\.895 on 20 people's.*allowed: at least 0\.9"
    ):
        evaluate._refuse_weak([judged(0.895)], 0.9)


def row(
    victim: str, attack: str = "ppa", prior: str = "eigenfaces", seeds: tuple[int, ...] = (0,)
) -> invert.Row:
    return invert.Row(attack=attack, victim=victim, prior=prior, seeds=list(seeds))


def victim(backbone: str, defense: str) -> finetune.Row:
    return finetune.Row(backbone=backbone, defense=defense, knobs={}, recipe="all", seeds=[0])


def test_a_twin_has_the_same_attack_prior_and_backbone() -> None:
    victims = {
        "none": victim("a", "none"),
        "frozen": victim("a", "tl_dmi"),
        "other": victim("b", "none"),
        "lonely": victim("c", "tl_dmi"),
    }
    rows = {
        "ppa-none": row("none"),
        "ppa-frozen": row("frozen"),
        "ppa-other": row("other"),
        "ppa-lonely": row("lonely"),
        "gmi-frozen": row("frozen", attack="gmi"),
        "ppa-frozen-gan": row("frozen", prior="gan"),
    }
    assert evaluate._twins(rows, victims) == {"ppa-frozen": "ppa-none"}


def test_pairs_are_made_seed_by_seed() -> None:
    measures = {"accuracy@1": np.array([[0.0, 0.1], [1.0, 1.1], [2.0, 2.1]])}
    found = evaluate._of_seeds(measures, [5, 7, 9], [[9, 5], [5, 9, 11]])
    assert found["accuracy@1"].tolist() == [[2.0, 2.1], [0.0, 0.1]]
    with pytest.raises(InputError, match="share none to pair on"):
        evaluate._of_seeds(measures, [5, 7, 9], [[5], [7]])


def write_facts(folder: Path, name: str, processor: str) -> None:
    place = folder / name / "seed-0" / "ids-00000"
    place.mkdir(parents=True)
    facts = {"environment": {"torch": "2", "device": "cpu", "processor": processor}}
    (place / invert.FACTS).write_text(json.dumps(facts))


def test_results_of_different_machines_do_not_pair(tmp_path: Path) -> None:
    rows = {"one": row("none"), "two": row("none")}
    write_facts(tmp_path, "one", "a processor")
    write_facts(tmp_path, "two", "another")
    with pytest.raises(
        InputError, match=r"made under different conditions do not pair.*a processor.*another"
    ):
        evaluate._refuse_mixed(tmp_path, rows)
    evaluate._refuse_mixed(tmp_path, {"one": rows["one"]})

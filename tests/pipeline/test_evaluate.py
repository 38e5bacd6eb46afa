"""What `evaluate` refuses, and how it pairs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mipriv import stats
from mipriv.errors import InputError
from tasks import evaluate, finetune, invert
from tasks.curves import curves
from tasks.evaluation import attacked, matched
from tasks.evaluation.referee import Seen
from tasks.leakage import REFUSED, TOP1, Line
from tasks.people import by_person


def judged(accuracy: float) -> Line:
    return Line("strict", "judge", "accuracy", "", "", stats.mean(np.full((1, 20), accuracy)))


def test_people_without_an_image_are_left_out_and_the_others_keep_their_order() -> None:
    found = by_person(torch.tensor([1.0, 0.0, 0.0, 1.0]), torch.tensor([5, 2, 5, 0]))
    assert found.tolist() == [1.0, 0.0, 0.5]


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


def inversion(rows: dict[str, invert.Row]) -> invert.Invert:
    attacks = {name: {"views": 1} for name in ("ppa", "gmi")}
    return invert.Invert(identities=None, identities_a_cell=10, seed=0, attacks=attacks, rows=rows)


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
    assert attacked.twins(inversion(rows), victims) == {"ppa-frozen": "ppa-none"}


def test_a_twin_has_the_same_knobs() -> None:
    victims = {"none": victim("a", "none"), "frozen": victim("a", "tl_dmi")}
    averaged = row("none").model_copy(update={"knobs": {"views": 2}})
    rows = {"averaged": averaged, "ppa-frozen": row("frozen")}
    assert attacked.twins(inversion(rows), victims) == {}
    rows["both"] = row("frozen").model_copy(update={"knobs": {"views": 2}})
    assert attacked.twins(inversion(rows), victims) == {"both": "averaged"}


def test_a_defence_is_one_curve_over_its_strengths_with_the_undefended_end() -> None:
    victims = {
        "none": victim("a", "none"),
        "early": victim("a", "tl_dmi"),
        "late": victim("a", "tl_dmi"),
        "bido": victim("a", "bido"),
        "both": victim("a", "bido").model_copy(update={"knobs": {"freeze": {"cut": "x"}}}),
        "other": victim("b", "tl_dmi"),
    }
    rows = {f"ppa-{name}": row(name) for name in victims}
    setting = "ppa with eigenfaces, backbone a"
    assert curves(inversion(rows), victims) == {
        (setting, "tl_dmi"): ["ppa-none", "ppa-early", "ppa-late"],
        (setting, "bido"): ["ppa-none", "ppa-bido"],
        (setting, "bido + tl_dmi"): ["ppa-none", "ppa-both"],
    }


def test_a_curve_is_read_between_its_strengths_and_never_beyond() -> None:
    victims = {"none": victim("a", "none"), "frozen": victim("a", "tl_dmi")}
    rows = {f"ppa-{name}": row(name) for name in victims}
    natural = {"none": np.full((1, 4), 1.0), "frozen": np.full((1, 4), 0.8)}
    made = {"ppa-none": {TOP1: np.full((1, 4), 0.6)}, "ppa-frozen": {TOP1: np.full((1, 4), 0.2)}}
    found = matched.lines(inversion(rows), victims, natural, made, "strict", [0.9, 0.7])
    assert [(line.against, round(line.value.point, 9)) for line in found] == [("0.9", 0.4)]


def test_what_a_judge_accepts_and_the_embedding_refuses_is_a_false_positive() -> None:
    """Two images each of two people: the judge takes three for their targets, the embedding one of those."""
    people = torch.tensor([0, 1])
    judged = Seen(people, torch.tensor([[2.0, 1], [2, 1], [1, 2], [2, 1]]), torch.zeros(4, 1))
    embedded = Seen(people, -torch.tensor([[1.0, 2], [2, 1], [1, 2], [1, 2]]), torch.zeros(4, 1))
    assert attacked.refused(judged, embedded)[REFUSED].tolist() == [0.5, 0.5]
    assert attacked.refused(judged, None) == {}


def test_pairs_are_made_seed_by_seed() -> None:
    measures = {"accuracy@1": np.array([[0.0, 0.1], [1.0, 1.1], [2.0, 2.1]])}
    found = attacked.of_seeds(measures, [5, 7, 9], [[9, 5], [5, 9, 11]])
    assert found["accuracy@1"].tolist() == [[2.0, 2.1], [0.0, 0.1]]
    with pytest.raises(InputError, match="share none to pair on"):
        attacked.of_seeds(measures, [5, 7, 9], [[5], [7]])


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
        attacked.refuse_mixed({name: tmp_path / name for name in rows}, rows)
    attacked.refuse_mixed({"one": tmp_path / "one"}, {"one": rows["one"]})

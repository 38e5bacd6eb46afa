"""Scores by record: kept to the last bit, paired only where records, seeds and attack are the same."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mipriv.errors import InputError
from tasks.memberships import scored
from tasks.memberships.scored import Scored, difference, unpaired

MEMBERS = torch.arange(80).repeat(3, 1) < 40
DRAWN = torch.randn(3, 80, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
OWN = Scored("lira", "faces, pool 0", 0.25, 30, [0, 1, 2], DRAWN + MEMBERS, MEMBERS)


def test_what_is_written_is_read_bit_for_bit_unknown_scores_too(tmp_path: Path) -> None:
    scores = OWN.scores.clone()
    scores[1, 3] = float("nan")
    scores[0, 0] = 1 / 3
    own = replace(OWN, scores=scores)
    scored.write(tmp_path / scored.FILE, {("none", "lira"): own})
    (back,) = scored.read(tmp_path / scored.FILE).values()
    assert (
        torch.equal(back.scores.nan_to_num(7), own.scores.nan_to_num(7)) and back.scores.dtype == scores.dtype
    )
    assert torch.equal(back.members, MEMBERS) and back.same(own) and not back.same(OWN)
    assert replace(back, scores=scores, members=MEMBERS) == replace(own, scores=scores, members=MEMBERS)


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (replace(OWN, attack="loss"), "another attack or rate"),
        (replace(OWN, rate=0.3), "another attack or rate"),
        (replace(OWN, resamples=31), "another number of resamples"),
        (replace(OWN, seeds=[5, 6, 7]), "no training seed in both"),
        (replace(OWN, records="faces, pool 1"), "other records"),
        (replace(OWN, members=MEMBERS.flip(1)), "other records"),
        (replace(OWN, scores=DRAWN[:, :70], members=MEMBERS[:, :70]), "other records"),
    ],
)
def test_others_do_not_pair(other: Scored, why: str) -> None:
    assert unpaired(OWN, other) == unpaired(other, OWN) == why
    assert difference(OWN, other) is None and not OWN.same(other)


def test_seeds_of_both_that_leave_too_few_scores_do_not_pair() -> None:
    sparse = OWN.scores.clone()
    sparse[0, 45:] = float("nan")
    one, other = replace(OWN, scores=sparse), replace(OWN, seeds=[0, 8, 9])
    assert one.at(one.seeds).tpr.point > 0
    assert unpaired(one, other) == unpaired(other, one) == "too few records with a score"
    assert difference(one, other) is None


def test_an_unknown_score_is_no_score_of_zero() -> None:
    unknown, zero = OWN.scores.clone(), OWN.scores.clone()
    unknown[0, 0], zero[0, 0] = float("nan"), 0.0
    assert replace(OWN, scores=unknown).same(replace(OWN, scores=unknown.clone()))
    assert not replace(OWN, scores=unknown).same(replace(OWN, scores=zero))


def test_only_seeds_of_both_are_paired() -> None:
    worse = replace(OWN, scores=DRAWN)
    fewer = replace(worse, seeds=[9, 2, 0], scores=worse.scores[[1, 2, 0]])
    assert fewer.seeds == [9, 2, 0]
    some = replace(OWN, seeds=[0, 2], scores=OWN.scores[[0, 2]], members=MEMBERS[[0, 2]])
    others = replace(worse, seeds=[0, 2], scores=worse.scores[[0, 2]], members=MEMBERS[[0, 2]])
    expected = difference(some, others)
    assert expected is not None and expected.low > 0 and expected.seeds == 2
    assert difference(OWN, fewer) == expected


def test_another_file_is_one_line(tmp_path: Path) -> None:
    for text in ("[]", "{", '{"a": {}}', '{"a\\tb": {"seeds": 3}}'):
        (tmp_path / scored.FILE).write_text(text)
        with pytest.raises(InputError, match="no scores of members"):
            scored.read(tmp_path / scored.FILE)

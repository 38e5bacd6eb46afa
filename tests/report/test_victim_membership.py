"""Attacks on a victim by its shadows: one that remembers is told, one that does not is left to chance."""

from dataclasses import replace

import torch

from mipriv import plugin
from mipriv.attacks.membership import Answers
from tasks.memberships.victims import KIND, Attack, Told, Victims, kept, lines

RECORDS = 400
PLAN = {"attack": "lira", "knobs": {"mode": "online", "variance": "fixed"}}
WANTED = Victims(attacks={"lira": Attack.model_validate(PLAN)}, rate=0.1, resamples=50, undefended="none")


def told(row: str, memory: float) -> Told:
    """LiRA on a victim whose true logit is higher on members, by so many deviations."""
    random = torch.Generator().manual_seed(0)
    half = torch.stack([torch.randperm(RECORDS, generator=random) % 2 == 0 for _ in range(9)])

    def answers(members: torch.Tensor) -> Answers:
        logits = torch.randn(len(members), 2, RECORDS, 3, generator=random)
        logits[..., 0] += memory * members[:, None]
        return Answers(logits, torch.zeros(RECORDS, dtype=torch.int64), members)

    references = answers(torch.cat([half[1:], ~half[1:]]))
    attacker = plugin.load("membership", PLAN["attack"], **PLAN["knobs"])  # type: ignore[arg-type]
    return Told(
        row, row, "lira", "faces, pool 0", [0], attacker(answers(half[:1]), references), half[:1], None
    )


def test_of_a_victim_in_two_rows_the_first_is_kept_which_the_table_shows() -> None:
    first, second = told("none", 0.0), replace(told("none", 2.0), row="again", records="faces, pool 1")
    shown = next(line for line in lines([first, second], WANTED) if line.kind == KIND)
    (own,) = kept([first, second], WANTED).values()
    assert own.records == "faces, pool 0" and own.at(own.seeds).tpr == shown.value


def test_memory_is_told_chance_is_not_and_the_difference_is_paired() -> None:
    table = {(one.subject, one.kind): one.value for one in lines([told("none", 2), told("d", 0)], WANTED)
             if "tpr" in one.figure}  # fmt: skip
    kind = "membership of a victim"
    assert table["none", kind].low > 0.5
    assert table["d", kind].low < 0.1 < table["d", kind].high
    assert table["d", "membership difference"].high < -0.4
    assert table["d", "membership floor"].point == 0.1

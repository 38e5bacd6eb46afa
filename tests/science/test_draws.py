"""Random numbers by key."""

import torch

from mipriv import draws
from mipriv.attacks.search.rows import Rows


def test_a_key_gives_the_same_draws_and_no_other_key_does() -> None:
    assert torch.equal(draws.uniform((4,), 1, 2, "a"), draws.uniform((4,), 1, 2, "a"))
    for other in [(1, 3, "a"), (2, 1, "a"), (1, 2, "b"), (1, 2), (1, 2, "a", 0)]:
        assert not torch.equal(draws.uniform((4,), 1, 2, "a"), draws.uniform((4,), *other))


def test_rows_draw_alike_alone_and_among_others() -> None:
    among = Rows.of(torch.tensor([5, 2, 9]), 4, seed=7).normal(3, name="start")
    alone = Rows.of(torch.tensor([2]), 4, seed=7).normal(3, name="start")
    assert torch.equal(among[4:8], alone)
    assert len({tuple(row) for row in among.tolist()}) == 12


def test_uniform_and_normal_have_their_moments() -> None:
    u, n = draws.uniform((20_000,), 0), draws.normal((20_000,), 0)
    assert abs(u.mean() - 0.5) < 0.01 and abs(u.var() - 1 / 12) < 0.005 and u.min() >= 0 and u.max() < 1
    assert abs(n.mean()) < 0.03 and abs(n.var() - 1) < 0.05


def test_seeded_restores_the_global_stream() -> None:
    torch.manual_seed(4)
    expected = torch.rand(2)
    torch.manual_seed(4)
    with draws.seeded(1, "x"):
        inside = torch.rand(2)
    assert torch.equal(torch.rand(2), expected)
    with draws.seeded(1, "x"):
        assert torch.equal(torch.rand(2), inside)

"""BREP-MI against plain loops, and against victims that answer what a test wants."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mipriv import draws
from mipriv.attacks.inversion.brepmi import BREPMI
from mipriv.errors import InputError
from mipriv.models.generators import Generator

DIM = 4


class Plain(Generator):
    """Images that are their latents."""

    def __init__(self) -> None:
        super().__init__()
        self.latent_dim = DIM
        self.register_buffer("nothing", torch.zeros(1, dtype=torch.float64))

    def forward(self, z: Tensor) -> Tensor:
        """[n, 4] to [n, 1, 2, 2]."""
        return z.view(-1, 1, 2, 2)


def half(images: Tensor) -> Tensor:
    """Class 1 where the coordinates sum to more than one."""
    return (images.sum((1, 2, 3)) > 1).long()


class Scripted:
    """Answers calls one by one, each with labels for the images that it is asked about."""

    def __init__(self, *answers: Callable[[int], Tensor]) -> None:
        self.answers, self.asked = list(answers), []  # type: ignore[var-annotated]

    def __call__(self, images: Tensor) -> Tensor:
        """Labels [n]; the last answer is given for ever."""
        self.asked.append(len(images))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer(len(images))


def first(count: int) -> Callable[[int], Tensor]:
    """Class 1 for that many, class 0 for the others."""
    return lambda n: (torch.arange(n) < count).long()


def every(n: int) -> Tensor:
    """Class 1 for all."""
    return torch.ones(n, dtype=torch.long)


def latents(images: Tensor) -> Tensor:
    return images.flatten(2)


def one_step(z: Tensor, u: Tensor, identity: int, radius: float) -> Tensor:
    """Point by point."""
    push = torch.zeros(DIM, dtype=torch.float64)
    for direction in u:
        direction = direction / direction.square().sum().sqrt()
        if half((z + radius * direction).view(1, 1, 2, 2)).item() != identity:
            push = push - direction
    moved = (z + (radius / 3) * push / len(u)).clamp(-1.5, 1.5)
    return moved if half(moved.view(1, 1, 2, 2)).item() == identity else z


def test_one_step_is_a_loop_over_the_points() -> None:
    found = BREPMI(restarts=3, points=7, steps=1, radius=1.2)(half, Plain(), torch.tensor([1, 0]), seed=5)
    for identity, starts, ends in zip([1, 0], latents(found.start), found.latents, strict=True):
        u = [draws.normal((7, DIM), 5, identity, restart, "sphere", 0) for restart in range(3)]
        orders = itertools.permutations(range(3))  # radius orders them: which restart is which is to be found
        wanted = [
            torch.stack([one_step(z, u[i], identity, 1.2) for z, i in zip(starts, order, strict=True)])
            for order in orders
        ]
        assert min((ends - of).abs().max().item() for of in wanted) < 1e-12
    assert not torch.equal(latents(found.start), found.latents)


@pytest.mark.parametrize(("inside", "radius"), [(24, 2.0), (25, 2.6), (32, 2.6)])
def test_a_sphere_grows_only_with_more_than_three_quarters_inside(inside: int, radius: float) -> None:
    found = BREPMI(steps=1)(Scripted(every, first(inside), every), Plain(), torch.tensor([1]), seed=0)
    assert found.scores.item() == pytest.approx(radius)


def test_a_step_is_a_third_of_the_radius_and_three_at_most() -> None:
    ends = {}
    for radius in (3.0, 30.0):
        attack = BREPMI(steps=1, radius=radius, clip=100.0)
        victim = Scripted(every, first(0), every)
        found = attack(victim, Plain(), torch.tensor([1]), seed=0)
        u = draws.normal((32, DIM), 0, 1, 0, "sphere", 0)
        mean = (u / u.norm(dim=1, keepdim=True)).mean(0)
        ends[radius] = (found.latents[0, 0] - latents(found.start)[0, 0]) / -mean
    assert torch.allclose(ends[3.0], torch.tensor(1.0).double())
    assert torch.allclose(ends[30.0], torch.tensor(3.0).double())


def test_a_move_that_leaves_the_class_is_taken_back() -> None:
    stays = BREPMI(steps=1)(Scripted(every, first(10), first(0)), Plain(), torch.tensor([1]), seed=0)
    assert torch.equal(stays.latents, latents(stays.start))
    goes = BREPMI(steps=1)(Scripted(every, first(10), every), Plain(), torch.tensor([1]), seed=0)
    assert not torch.equal(goes.latents, latents(goes.start))


def test_no_row_ends_outside_its_class_or_its_box() -> None:
    found = BREPMI(restarts=4, steps=30)(half, Plain(), torch.tensor([0, 1]), seed=2)
    labels = half(found.images.flatten(0, 1)).view(2, 4)
    assert (labels == torch.tensor([[0], [1]])).all() and found.latents.abs().max() <= 1.5
    assert found.latents[1].sum(1).mean() > latents(found.start)[1].sum(1).mean()


def test_a_row_without_growth_retires_and_asks_no_more() -> None:
    victim, steps = Scripted(every, first(0)), []
    attack = BREPMI(points=8, patience=3, steps=50)
    found = attack(victim, Plain(), torch.tensor([1]), seed=0, progress=lambda *at: steps.append(at))
    assert victim.asked == [256] + [8, 1] * 3 and found.queries == sum(victim.asked)
    assert steps[:2] == [(1, 50), (2, 50)]


def test_growth_renews_patience() -> None:
    script = [every, first(0), every, first(0), every, first(8), first(0)]
    victim = Scripted(*script)
    BREPMI(points=8, patience=3, steps=50)(victim, Plain(), torch.tensor([1]), seed=0)
    # Two idle steps, one that grows and has nothing to move from, three idle ones.
    assert victim.asked == [256] + [8, 1] * 2 + [8] + [8, 1] * 3


def test_a_retired_row_leaves_the_others_running() -> None:
    """Class 1 is everything but a corner: its row outgrows the box while the other goes on."""

    def corner(images: Tensor) -> Tensor:
        return (images.flatten(1) > -1.0).any(1).long()

    asked: list[int] = []

    def counted(images: Tensor) -> Tensor:
        asked.append(len(images))
        return corner(images)

    attack = BREPMI(points=16, steps=40, patience=1_000, start_samples=20_000)
    both = attack(counted, Plain(), torch.tensor([0, 1]), seed=1)
    assert both.scores[1].item() >= 2 * 1.5 * DIM**0.5 > both.scores[0].item() > 0
    assert asked[-2] == 16, "one row's sphere alone at the end"
    assert both.queries == sum(asked)


def test_an_identity_that_is_never_met_reports_a_guess_and_scores_nothing() -> None:
    victim = Scripted(first(0))
    found = BREPMI(restarts=2, start_samples=300)(victim, Plain(), torch.tensor([1]), seed=0)
    assert victim.asked == [256, 44] and found.queries == 300
    assert (found.scores == 0).all() and torch.equal(found.images, found.start)
    assert not torch.equal(found.images[0, 0], found.images[0, 1]), "each row guesses for itself"


def test_restarts_begin_at_different_latents_of_the_class() -> None:
    found = BREPMI(restarts=5, steps=1)(half, Plain(), torch.tensor([1]), seed=3)
    assert half(found.start[0]).all() and len(latents(found.start)[0].unique(dim=0)) == 5


def test_an_identity_met_less_often_than_restarts_keeps_what_it_has() -> None:
    met = first(1)  # one of the block
    found = BREPMI(restarts=2, start_samples=256, steps=1)(
        Scripted(met, every), Plain(), torch.tensor([1]), seed=0
    )
    assert found.scores[0].tolist() == [pytest.approx(2.6), 0.0]


def test_labels_are_all_that_is_used_of_the_victim() -> None:
    """The victim is a function: whatever else the attack would ask of it fails."""

    class Opaque:
        def __call__(self, images: Tensor) -> Tensor:
            return half(images)

        def __getattribute__(self, name: str) -> object:
            raise AssertionError(f"the attack looked at {name}")

    opaque = BREPMI(steps=3)(Opaque(), Plain(), torch.tensor([0, 1]), seed=0)
    plain = BREPMI(steps=3)(half, Plain(), torch.tensor([0, 1]), seed=0)
    assert torch.equal(opaque.images, plain.images)


@pytest.mark.parametrize("knobs", [{"points": 0}, {"growth": 1.0}, {"inside": 1.0}, {"clip": 0.0}])
def test_impossible_knobs_are_refused(knobs: dict[str, float]) -> None:
    with pytest.raises(InputError, match="allowed: "):
        BREPMI(**knobs)  # type: ignore[arg-type]

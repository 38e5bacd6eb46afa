"""MIRROR's genetic search against its definition, on populations of a few."""

import pytest
import torch
from torch import Tensor

from mipriv import draws
from mipriv.attacks.inversion.mirror import MIRROR
from mipriv.attacks.search.rows import Rows
from mipriv.errors import InputError
from mipriv.models.generators import Generator

DIM = 3


class Plain(Generator):
    """Images that are their latents, believed within three."""

    def __init__(self) -> None:
        super().__init__()
        self.latent_dim = DIM
        self.register_buffer("nothing", torch.zeros(1, dtype=torch.float64))

    def forward(self, z: Tensor) -> Tensor:
        """[n, 3] to [n, 1, 1, 3]."""
        return z.view(-1, 1, 1, DIM)

    def bound(self, z: Tensor) -> Tensor:
        """Within three."""
        return z.clamp(-3, 3)


def victim(images: Tensor) -> Tensor:
    """Class k is what lies in the direction of axis k."""
    return (2 * images.flatten(1)).softmax(1)


class Counted:
    """Counts what it is asked."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def __call__(self, images: Tensor) -> Tensor:
        """As the victim."""
        self.seen.append(len(images))
        return victim(images)


def bred(attack: MIRROR, z: Tensor, fitness: Tensor, spread: Tensor, generations: int) -> Tensor:
    """Children [generations * C, d] of one population."""
    rows = Rows.of(torch.tensor([0]), 1, 3)
    return torch.cat(
        [attack._breed(rows, z[None], fitness[None], spread, step)[0] for step in range(generations)]
    )


def test_parents_and_crossover_follow_their_probabilities() -> None:
    """Children's two coordinates, named by the parent that they come from, against the sum over all pairs."""
    attack = MIRROR(samples=3, population=3, mutation=0.0)
    fitness = torch.tensor([0.6, 0.3, 0.05], dtype=torch.float64)
    z = torch.arange(3.0).double()[:, None].expand(3, 2)
    children = bred(attack, z, fitness, torch.ones(2), 3_000).long()
    seen = torch.zeros(3, 3).index_put((children[:, 0], children[:, 1]), torch.ones(6_000), accumulate=True)
    wanted = torch.zeros(3, 3)
    weight = (fitness / fitness.sum()).tolist()
    for i, p in enumerate(fitness.tolist()):
        for j, q in enumerate(fitness.tolist()):
            for a, pa in ((i, p / (p + q)), (j, q / (p + q))):
                for b, pb in ((i, p / (p + q)), (j, q / (p + q))):
                    wanted[a, b] += weight[i] * weight[j] * pa * pb
    assert torch.allclose(seen / 6_000, wanted, atol=0.03)
    assert seen[0, 0] > seen[1, 1] > seen[2, 2], "the better parent gives more (the released code gives less)"


def test_mutation_is_gaussian_noise_on_single_coordinates() -> None:
    attack = MIRROR(samples=3, population=3, mutation=0.3, strength=0.1)
    spread = torch.tensor([1.0, 5.0], dtype=torch.float64)
    children = bred(attack, torch.zeros(3, 2).double(), torch.ones(3).double(), spread, 3_000)
    changed = children != 0
    assert changed.double().mean(0).tolist() == pytest.approx([0.3, 0.3], abs=0.03)
    assert changed.all(1).double().mean().item() == pytest.approx(0.09, abs=0.02), "coordinate by coordinate"
    deviations = [children[changed[:, c], c].std().item() for c in range(2)]
    assert deviations == pytest.approx([0.1, 0.5], rel=0.08)
    inside = (children[changed[:, 0], 0].abs() < 0.1).double().mean().item()
    assert inside == pytest.approx(0.683, abs=0.04), "normal, not uniform"
    assert len(children[changed[:, 0], 0].unique()) == changed[:, 0].sum(), "no two children share a draw"


def test_confidences_that_vanish_breed_all_the_same() -> None:
    attack = MIRROR(samples=3, population=3)
    z = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    assert bred(attack, z, torch.zeros(3), torch.ones(2), 5).isfinite().all()


def test_the_first_population_is_what_the_victim_believes_most_of_the_pool() -> None:
    attack = MIRROR(samples=30, population=4, keep=4, steps=1, stop=0.0)
    found = attack(victim, Plain(), torch.tensor([2, 0]), seed=9)
    pool = Plain().bound(draws.normal((30, DIM), 9, "pool"))
    for identity, images, scores in zip([2, 0], found.start, found.scores, strict=True):
        confidence = [victim(z[None])[0, identity].item() for z in pool]
        best = sorted(range(30), key=lambda i: -confidence[i])[:4]
        assert torch.equal(images.flatten(1), pool[best])
        assert scores.tolist() == pytest.approx([confidence[i] for i in best])
    assert found.queries == 30, "nobody is bred past the confidence that was wanted"


def test_the_best_never_gets_worse() -> None:
    best = [
        MIRROR(samples=8, population=6, steps=steps, stop=1.0)(victim, Plain(), torch.tensor([1]), seed=4)
        .scores[0, 0]
        .item()
        for steps in range(1, 15)
    ]
    assert best == sorted(best) and best[-1] > best[0]


def test_an_identity_stops_at_its_confidence_and_the_others_go_on() -> None:
    attack = MIRROR(samples=40, population=10, steps=60, stop=0.98)
    alone = {}
    for identity in (0, 1, 2):
        counted = Counted()
        found = attack(counted, Plain(), torch.tensor([identity]), seed=1)
        assert found.scores[0, 0] >= 0.98 and found.queries == sum(counted.seen)
        alone[identity] = (found, found.queries - 40)
    assert len({spent for _, spent in alone.values()}) > 1 and all(s < 60 * 9 for _, s in alone.values())
    counted, steps = Counted(), []
    progress = lambda *at: steps.append(at)  # noqa: E731
    together = attack(counted, Plain(), torch.tensor([0, 1, 2]), seed=1, progress=progress)
    assert together.queries == sum(counted.seen) == 40 + sum(spent for _, spent in alone.values())
    for row, (found, _) in enumerate(alone.values()):
        assert torch.equal(together.latents[row], found.latents[0])
    assert all(done <= total == 180 for done, total in steps)


def test_children_stay_where_the_prior_has_support() -> None:
    attack = MIRROR(samples=20, population=10, keep=10, steps=20, mutation=1.0, strength=3.0, stop=1.0)
    found = attack(victim, Plain(), torch.tensor([0]), seed=1)
    assert found.latents.abs().max() == 3


def test_scores_are_all_that_is_used_of_the_victim() -> None:
    class Opaque:
        def __call__(self, images: Tensor) -> Tensor:
            return victim(images)

        def __getattribute__(self, name: str) -> object:
            raise AssertionError(f"the attack looked at {name}")

    attack = MIRROR(samples=20, population=5, steps=2, stop=1.0)
    one, two = (attack(asked, Plain(), torch.tensor([0]), seed=0) for asked in (Opaque(), victim))
    assert torch.equal(one.images, two.images)


@pytest.mark.parametrize(
    "knobs", [{"population": 30, "samples": 20}, {"keep": 0}, {"elites": 1_000}, {"mutation": 1.5}]
)
def test_impossible_knobs_are_refused(knobs: dict[str, float]) -> None:
    with pytest.raises(InputError, match="allowed: "):
        MIRROR(**knobs)  # type: ignore[arg-type]

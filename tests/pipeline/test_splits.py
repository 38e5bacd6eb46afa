"""Split inference between its stages: who knows which images, what gains are over, bounds that are held."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mipriv.analysis.entropy_limit import UpperLimit
from mipriv.errors import InputError
from mipriv.models.simulator import Design, Simulator
from tasks.knowledge import Setting, known_by, targets_of
from tasks.leakage import MSE, Line
from tasks.reconstruct import SIMULATED, Reconstruct, Row, _residual, _simulate
from tasks.split import Splits
from tasks.splits import certificates, gains
from tasks.splits.clients import Client
from tasks.splits.recovered import Recovered, class_means

PEOPLE, IMAGES = 3, 5


class Numbered:
    """A dataset whose every image is its own number, in a shuffled order of people."""

    def split(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        first = {"private/train": 0, "private/validation": 100, "private/test": 200}.get(name, 300)
        count = 0 if name == "public/validation" else PEOPLE * IMAGES
        numbers = first + torch.arange(count)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(1))
        labels = (torch.arange(count) % PEOPLE)[order]
        return numbers.float().view(-1, 1, 1, 1), labels

    def task(self, split: str, name: str | None) -> torch.Tensor:
        """Who it is, or whether the person's number is odd."""
        people = self.split(split)[1]
        return people if name is None else people % 2


DATA: Any = Numbered()


def numbers(images: torch.Tensor) -> set[int]:
    return set(images.flatten().int().tolist())


def test_targets_are_the_first_half_of_each_persons_test_images_and_nobody_learns_from_them() -> None:
    images, labels = DATA.split("private/test")
    chosen = targets_of(DATA)
    for person in range(PEOPLE):
        own = images[labels == person]
        assert numbers(chosen.images[chosen.labels == person]) == numbers(own[:3])
    for setting in ("training", "inference", "public"):
        learnt, held = known_by(DATA, setting)
        assert len(learnt) and len(held) and not numbers(learnt) & numbers(held)
        assert not (numbers(learnt) | numbers(held)) & numbers(chosen.images)
    learnt, held = known_by(DATA, "inference")
    assert numbers(learnt) | numbers(held) == numbers(images) - numbers(chosen.images)
    assert numbers(known_by(DATA, "training")[0]) == set(range(15))
    assert numbers(known_by(DATA, "training")[1]) == set(range(100, 115))
    assert min(numbers(known_by(DATA, "public")[0])) >= 300


@pytest.mark.parametrize("setting", ["training", "inference"])
@pytest.mark.parametrize("task", [None, "odd"])
def test_a_class_mean_is_over_the_attackers_own_images_of_the_targets_class(
    setting: Setting, task: str | None
) -> None:
    splits = ["private/train"] if setting == "training" else ["private/test"]
    classes = {
        int(image): int(label)
        for split in splits
        for image, label in zip(DATA.split(split)[0].flatten(), DATA.task(split, task), strict=True)
    }
    learnt, chosen = numbers(known_by(DATA, setting)[0]), targets_of(DATA)
    ((name, found),) = class_means(DATA, setting, chosen, task).items()
    assert name == f"mean image of its {task or 'class'}"
    wanted = DATA.task("private/test", task)[chosen.places]
    for image, label in zip(found.flatten().tolist(), wanted.tolist(), strict=True):
        own = [number for number in learnt if classes[number] == label]
        assert image == pytest.approx(sum(own) / len(own))


def test_strangers_say_nothing_of_a_class_and_a_class_unseen_has_the_mean_of_all() -> None:
    assert class_means(DATA, "public", targets_of(DATA), None) == {}

    class Lacking(Numbered):
        def task(self, split: str, name: str | None) -> torch.Tensor:
            return torch.full_like(self.split(split)[1], int(split == "private/test"))

    lacking: Any = Lacking()
    (found,) = class_means(lacking, "training", targets_of(DATA), None).values()
    assert found.unique().tolist() == [sum(range(15)) / 15]


def test_decoders_inside_a_training_are_scored_on_what_the_attack_is_given(tmp_path: Path) -> None:
    torch.manual_seed(0)
    images, labels = torch.rand(15, 1, 4, 4), torch.arange(15) % PEOPLE
    data: Any = SimpleNamespace(split=lambda name: (images, labels))
    design = Design((2, 2, 2), (1, 4, 4), True, 0, (), True, 2, 2)
    inside = Simulator(design, "test").eval()
    chosen, sent = targets_of(data), torch.rand(9, 2, 2, 2)
    _simulate(tmp_path, inside, data, None, sent)
    found = load_file(tmp_path / SIMULATED)["error"]
    for row in range(9):
        made = sum(decoder(sent[row : row + 1])[0] for decoder in inside.decoders) / 2
        assert found[row].item() == pytest.approx(((made - chosen.images[row]) ** 2).mean().item(), rel=1e-5)
    row = Row(attack="decoder", of="split", victim="v", data="d", seeds=[0], knowledge="inference")
    errors = {MSE: np.ones((1, 9))}
    one = Recovered("row/arm", row, "arm", errors, chosen.labels, [{}], found.double().numpy()[None])
    (told,) = one.simulated()
    assert told.mean == pytest.approx(float(found.mean())) and (told.figure, told.n) == (MSE, 9)
    with pytest.raises(InputError):
        Line("row/arm", "reconstruction", MSE, "", "v/arm", told)  # type: ignore[arg-type]
    assert not list(Recovered("row/arm", row, "arm", errors, chosen.labels, [{}]).simulated())


def test_where_nothing_was_sent_what_comes_back_is_all_off_or_nothing() -> None:
    sent = torch.tensor([[[3.0, 4.0]], [[0.0, 0.0]], [[0.0, 0.0]]])  # three images, asked once
    client: Any = SimpleNamespace(network=lambda images: images)
    found = _residual(client, torch.tensor([[3.0, 5.0], [1e-3, 0.0], [0.0, 0.0]]), sent)
    assert found.tolist() == pytest.approx([0.2, 1.0, 0.0])


def test_a_few_targets_are_as_many_of_each_person() -> None:
    few = targets_of(DATA, 6)
    assert torch.bincount(few.labels).tolist() == [2, 2, 2]
    assert numbers(few.images) < numbers(targets_of(DATA).images)
    assert len(targets_of(DATA, 1000).images) == 9
    images, labels = DATA.split("private/test")
    for chosen in (few, targets_of(DATA)):
        assert torch.equal(images[chosen.places], chosen.images)
        assert torch.equal(labels[chosen.places], chosen.labels)
    assert set(few.places.tolist()) < set(targets_of(DATA).places.tolist())


def test_an_attacker_with_too_few_images_is_refused() -> None:
    short: Any = SimpleNamespace(split=lambda name: (torch.zeros(2, 1, 1, 1), torch.tensor([0, 0])))
    with pytest.raises(InputError, match=r"'inference': 0 \+ 1 images; allowed: 2 \+ 1 or more"):
        known_by(short, "inference")


VICTIMS = Splits.model_validate(
    {
        "networks": {"net": {"arch": "slim_vgg", "knobs": {}, "cut": "trunk.conv2", "bottleneck": None}},
        "recipes": {},
        "rows": {
            "noise": {
                "data": "d",
                "network": "net",
                "defense": "noise",
                "knobs": {},
                "arms": {"plain": {}, "cem": {"cem": {}}, "more": {"knobs": {"sigma": 1.0}}},
                "recipe": "r",
                "seeds": [0],
            }
        },
    }
)
ROW = Row.model_validate(
    {"attack": "a", "of": "split", "victim": "noise", "data": "d", "seeds": [0], "knowledge": "training"}
)
ATTACKS = Reconstruct.model_validate(
    {"targets": None, "seed": 0, "attacks": {"a": {}}, "rows": {"a-noise": ROW.model_dump()}}
)


def client(arm: str, accuracy: float, **more: Any) -> Client:
    known = {"limits": [], "entropy": None, **more}
    natural = np.full((1, 4), accuracy)
    return Client(f"noise/{arm}", "d", [Path()], [0], natural, dim=2, cost={}, **known)


def recovered(arm: str, error: float) -> Recovered:
    row = ATTACKS.rows["a-noise"]
    images, labels = {MSE: np.full((1, 4), error)}, torch.arange(4)
    return Recovered(f"a-noise/{arm}", row, arm, images, labels, [{"validation_error": 0.1}])


def test_cem_is_held_against_its_host_and_against_noise_of_the_same_accuracy() -> None:
    """Noise goes from accuracy .9, error 1 to .5, error 3: at .7 the error is 2, and CEM's is 2.2."""
    seen = {f"noise/{arm}": client(arm, a) for arm, a in (("plain", 0.9), ("cem", 0.7), ("more", 0.5))}
    found = {f"a-noise/{arm}": recovered(arm, e) for arm, e in (("plain", 1.0), ("cem", 2.2), ("more", 3.0))}
    lines = gains.lines(VICTIMS, ATTACKS, seen, found, ["noise"])
    told = {(line.subject, line.against): line.value.point for line in lines if line.kind == "gain"}
    assert told["a-noise/cem", "a-noise/plain"] == pytest.approx(1.2)
    assert told["a-noise/cem", gains.NOISE] == pytest.approx(0.1)
    assert ("a-noise/plain", gains.NOISE) not in told and ("a-noise/more", gains.NOISE) not in told
    assert told["a, d, slim_vgg, training", gains.HOSTS] == pytest.approx(1.2)
    # Where noise was not swept there is nothing to be held against.
    bare = gains.lines(VICTIMS, ATTACKS, seen, found, [])
    assert not [line for line in bare if line.against == gains.NOISE]


def test_an_attack_below_its_bound_ends_the_run() -> None:
    """h = log(2 pi e) / 2 * d for unit variance, I = 0: no error is below 1."""
    entropy = np.log(2 * np.pi * np.e)
    limit = UpperLimit(0.0, 0.0, "student", 9, 0.95)
    own = client("plain", 0.9, limits=[limit], entropy=entropy)
    assert own.bound() == pytest.approx(1.0)
    assert client("plain", 0.9, limits=[limit]).bound() is None  # of images whose law is unknown
    assert client("plain", 0.9, entropy=entropy).bound() is None  # of a client without noise
    certificates._hold(own, [recovered("plain", 1.01)])
    with pytest.raises(certificates.Violation, match=r"a-noise/plain: .* 0\.99 is below its bound 1: a bug"):
        certificates._hold(own, [recovered("plain", 0.99)])

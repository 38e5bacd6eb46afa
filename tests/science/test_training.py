"""The training loop and TL-DMI's freezing."""

import copy

import pytest
import torch
from torch import nn

from mipriv import plugin, training
from mipriv.defenses import Defense
from mipriv.defenses.tl_dmi import TLDMI
from mipriv.errors import InputError
from mipriv.models.classifiers import Classifier, build
from mipriv.models.cut import account
from mipriv.training import Recipe

SHAPE = (1, 16, 16)
RECIPE = Recipe(epochs=4, batch_size=6, optimizer="adam", lr=3e-3)


@pytest.fixture
def model() -> Classifier:
    return build(plugin.load("classifier", "slim_resnet", widths=(4, 8), depth=1), 3, SHAPE, seed=0)


@pytest.fixture
def pair() -> training.Pair:
    """Three classes told apart by brightness."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat_interleave(7)
    return (labels.view(-1, 1, 1, 1) / 3 + 0.2 * torch.rand(21, *SHAPE, generator=random)), labels


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


def test_it_learns_what_can_be_learnt(model: Classifier, pair: training.Pair) -> None:
    recipe = Recipe(epochs=25, batch_size=7, optimizer="adam", lr=1e-2)
    history = training.train(model, pair, pair, recipe, Defense(), seed=0)
    assert history.kept.validation_accuracy > 0.9 and len(history.epochs) == 25
    assert not model.training


def test_same_seed_same_bytes_other_seed_other_bytes(model: Classifier, pair: training.Pair) -> None:
    states = []
    for seed in (0, 0, 1):
        copied = copy.deepcopy(model)
        training.train(copied, pair, pair, RECIPE, Defense(), seed=seed)
        states.append(state(copied))
    assert all(torch.equal(v, states[1][k]) for k, v in states[0].items())
    assert any(not torch.equal(v, states[2][k]) for k, v in states[0].items())


def test_best_is_chosen_on_validation_and_its_weights_are_kept(
    model: Classifier, pair: training.Pair
) -> None:
    recipe = Recipe(epochs=8, batch_size=6, optimizer="sgd", lr=0.3, momentum=0.0)
    history = training.train(model, pair, pair, recipe, Defense(), seed=0)
    best = max((e.validation_accuracy, -e.validation_loss) for e in history.epochs)
    assert (history.kept.validation_accuracy, -history.kept.validation_loss) == best
    loss, accuracy = training.score(model, pair)
    assert accuracy == history.kept.validation_accuracy
    assert loss == pytest.approx(history.kept.validation_loss, rel=1e-6)


@pytest.mark.parametrize("cut", ["trunk.stem", "trunk.stage1", "trunk.stage2", "trunk"])
@pytest.mark.parametrize("bn_mode", ["strict", "reference"])
def test_frozen_is_bit_identical_and_the_rest_is_not(
    model: Classifier, pair: training.Pair, cut: str, bn_mode: str
) -> None:
    before, defense = state(model), TLDMI(cut=cut, bn_mode=bn_mode)
    frozen = {leaf.name for leaf in defense.front(model, SHAPE)}
    training.train(model, pair, pair, RECIPE, defense, seed=0)
    after, buffers = state(model), {name for name, _ in model.named_buffers()}
    for name, value in after.items():
        same = torch.equal(value, before[name])
        if name.rpartition(".")[0] not in frozen:
            assert not same, name
        elif name in buffers and bn_mode == "reference":
            assert not same, f"{name}: running statistics follow the private images in the released code"
        else:
            assert same, name


def test_account_adds_up_to_the_model(model: Classifier, pair: training.Pair) -> None:
    training.train(model, pair, pair, RECIPE, TLDMI(cut="trunk.stage1"), seed=0)
    rows = account(model, SHAPE)
    assert sum(int(r["trainable"]) + int(r["frozen"]) for r in rows) == sum(
        p.numel() for p in model.parameters()
    )
    assert sum(int(r["trainable"]) for r in rows) == sum(
        p.numel() for p in model.parameters() if p.requires_grad
    )
    assert {r["frozen"] == 0 for r in rows} == {True, False}


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({}, "no cut given; allowed: one of cut, fraction, parameters"),
        ({"cut": "trunk", "fraction": 0.5}, "cut, fraction given"),
        ({"cut": "trunk", "bn_mode": "eval"}, "bn_mode: 'eval' does not exist; allowed: reference, strict"),
    ],
)
def test_a_cut_is_given_in_exactly_one_way(knobs: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        plugin.load("defense", "tl_dmi", **knobs)


@pytest.mark.parametrize("cut", ["head", "nowhere"])
def test_cuts_that_freeze_everything_or_nothing_are_refused(model: Classifier, cut: str) -> None:
    with pytest.raises(InputError, match="allowed"):
        TLDMI(cut=cut).prepare(model, SHAPE)


def test_a_last_batch_of_one_is_joined(model: Classifier) -> None:
    pair = torch.rand(7, *SHAPE), torch.tensor([0, 1, 2, 0, 1, 2, 0])
    recipe = Recipe(epochs=1, batch_size=3, optimizer="sgd", lr=0.1)
    assert training.train(model, pair, pair, recipe, Defense(), seed=0).epochs


def test_cosine_ends_near_zero(model: Classifier, pair: training.Pair) -> None:
    """The last of many steps moves the weights much less than the first."""
    moved: list[float] = []

    class Watch(Defense):
        last: dict[str, torch.Tensor]

        def after_step(self, model: nn.Module, step: int) -> None:
            now = torch.cat([p.detach().flatten() for p in model.parameters()])
            if step:
                moved.append((now - self.last).norm().item())
            self.last = now

    recipe = Recipe(epochs=10, batch_size=7, optimizer="adam", lr=1e-2, schedule="cosine")
    training.train(model, pair, pair, recipe, Watch(), seed=0)
    assert moved[-1] < 0.1 * max(moved)


@pytest.mark.parametrize("wrong", [{"optimizer": "sdg"}, {"epochs": 0}, {"lr": 0.0}, {"select": "test"}])
def test_wrong_recipes_are_refused(wrong: dict[str, object]) -> None:
    values = {"epochs": 1, "batch_size": 2, "optimizer": "sgd", "lr": 0.1, **wrong}
    with pytest.raises(InputError, match=f"^{next(iter(wrong))}: .*allowed"):
        Recipe(**values)  # type: ignore[arg-type]


def test_a_defence_gets_the_attributes_of_the_very_images_of_its_batch(
    model: Classifier, pair: training.Pair
) -> None:
    seen: list[tuple[list[int], list[int]]] = []

    class Nosy(Defense):
        def loss(self, batch, step):
            seen.append((batch.labels.tolist(), batch.attributes["hat"].tolist()))
            return super().loss(batch, step)

    plain = copy.deepcopy(model)
    training.train(model, pair, pair, RECIPE, Nosy(), seed=0, attributes={"hat": 10 + pair[1]})
    assert all(hats == [10 + label for label in labels] for labels, hats in seen)
    assert sum(len(labels) for labels, _ in seen) == RECIPE.epochs * len(pair[1])
    training.train(plain, pair, pair, RECIPE, Defense(), seed=0)
    assert all(torch.equal(value, state(plain)[key]) for key, value in state(model).items())

"""FiLM: what moves, what stays as the public network has it."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from mipriv import plugin, training
from mipriv.defenses.film import NORMS, Film
from mipriv.errors import InputError
from mipriv.models.classifiers import Classifier, build
from tests.science.toy_defenses import KNOBS, RECIPE, SHAPE, bright


def network() -> Classifier:
    return build(plugin.load("classifier", "slim_resnet", **KNOBS), 3, SHAPE, seed=0)


def test_only_scale_and_shift_of_norms_and_the_head_move() -> None:
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    training.train(model, bright(), bright(), RECIPE, Film(), seed=0)
    affine = {
        f"{name}.{own}"
        for name, part in model.named_modules()
        if isinstance(part, NORMS)
        for own, _ in part.named_parameters(recurse=False)
    }
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    head = {name for name in before if name.startswith("head.")}
    assert affine and head
    assert moved == affine | head  # no statistic of a norm, no convolution


class Bare(nn.Module):
    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (lambda: nn.Linear(2, 2), "has no trunk"),
        (lambda: Bare(nn.Conv2d(1, 2, 3)), "no norm with scale and shift"),
        (lambda: Bare(nn.BatchNorm2d(2, affine=False)), "no norm with scale and shift"),
    ],
)
def test_networks_without_something_to_modulate_are_refused(
    model: Callable[[], nn.Module], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        Film().prepare(model(), SHAPE)

"""Cuts follow the order of execution, and name what they cannot find."""

import pytest
import torch
from torch import Tensor, nn

from mipriv import plugin
from mipriv.errors import InputError
from mipriv.models import cut
from mipriv.models.classifiers import build

SHAPE = (3, 32, 32)


class Backwards(nn.Module):
    """Registers its layers in the opposite order of their use, and uses one twice."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(4, 2)
        self.middle = nn.Linear(4, 4)
        self.first = nn.Linear(3 * 32 * 32, 4)

    def forward(self, x: Tensor) -> Tensor:
        """[n, 3, 32, 32] to [n, 2]."""
        out: Tensor = self.last(self.middle(self.middle(self.first(x.flatten(1)))))
        return out


def test_execution_order_is_not_registration_order() -> None:
    assert [leaf.name for leaf in cut.execution_order(Backwards(), SHAPE)] == ["first", "middle", "last"]


@pytest.mark.parametrize("arch", [n for n in plugin.names("classifier") if n != "torchvision"])
def test_every_architecture_is_covered_and_ends_with_its_head(
    arch: str, toy: dict[str, dict[str, object]]
) -> None:
    model = build(plugin.load("classifier", arch, **toy.get(arch, {})), 5, SHAPE, seed=0)
    order = cut.execution_order(model, SHAPE)
    assert sum(leaf.parameters for leaf in order) == sum(p.numel() for p in model.parameters())
    assert order[-1].name == "head"
    assert model.training  # the probe left the mode as it was


def test_probe_changes_no_statistic() -> None:
    model = build(plugin.load("classifier", "slim_resnet"), 5, SHAPE, seed=0)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    cut.execution_order(model, SHAPE)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_named_cut_includes_the_module_and_its_shortcut() -> None:
    model = build(plugin.load("classifier", "slim_resnet"), 5, SHAPE, seed=0)
    names = [leaf.name for leaf in cut.front(cut.execution_order(model, SHAPE), "trunk.stage2")]
    inside = {
        n
        for n, m in model.named_modules()
        if n.startswith(("trunk.stem", "trunk.stage1", "trunk.stage2")) and not list(m.children())
    }
    weighted = {n for n in inside if list(model.get_submodule(n).parameters())}
    assert set(names) == weighted and any("shortcut" in n for n in names)


def test_a_cut_that_names_no_layer_is_refused_with_a_hint() -> None:
    order = cut.execution_order(Backwards(), SHAPE)
    with pytest.raises(
        InputError, match=r"cut: 'midle' does not exist \(did you mean 'middle'\?\); allowed: first, last"
    ):
        cut.front(order, "midle")


def test_a_cut_is_a_whole_name_not_a_prefix_of_one() -> None:
    model = nn.Sequential(*[nn.Conv2d(3, 3, 1) for _ in range(12)])
    assert len(cut.front(cut.execution_order(model, SHAPE), "1")) == 2


@pytest.mark.parametrize("budget", [2 * 4 + 2, 10 + 20, 30 + 5, 100_000])
def test_budget_leaves_as_much_trainable_as_fits(budget: int) -> None:
    order = cut.execution_order(Backwards(), SHAPE)
    frozen = cut.front_by_budget(order, budget)
    left = sum(leaf.parameters for leaf in order[len(frozen) :])
    assert left <= budget
    assert not frozen or left + frozen[-1].parameters > budget


def test_impossible_budget_and_fraction_are_refused() -> None:
    order = cut.execution_order(Backwards(), SHAPE)
    with pytest.raises(InputError, match="allowed: at least 10"):
        cut.front_by_budget(order, 9)
    with pytest.raises(InputError, match="0 <= fraction < 1"):
        cut.front_by_fraction(order, 1.0)


def test_fraction_counts_layers_from_the_front() -> None:
    order = cut.execution_order(Backwards(), SHAPE)
    assert [len(cut.front_by_fraction(order, f)) for f in (0, 0.34, 0.67, 0.99)] == [0, 1, 2, 2]

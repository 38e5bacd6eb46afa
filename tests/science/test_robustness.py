"""Projected gradient descent where the worst case is known in closed form."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mipriv.errors import InputError
from mipriv.metrics.robustness import _slack, robust_hits
from mipriv.models.classifiers import Classifier

N, SHAPE = 200, (1, 4, 4)


class Watched(nn.Module):
    """A linear classifier that remembers the range of what it saw."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 2)
        self.seen: list[Tensor] = []
        random = torch.Generator().manual_seed(0)
        with torch.no_grad():
            self.linear.weight.copy_(scale * torch.randn(2, 16, generator=random))
            self.linear.bias.copy_(-self.linear.weight.sum(1) / 2)  # the centre of the cube is undecided

    def forward(self, x: Tensor) -> Tensor:
        """[n, 1, 4, 4] to [n, 2]."""
        self.seen.append(x.detach())
        out: Tensor = self.linear(x.flatten(1))
        return out


def data() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    images = torch.rand(N, *SHAPE, generator=random)
    images[images < 0.2], images[images > 0.8] = 0.0, 1.0  # the box matters
    return images, torch.randint(2, (N,), generator=random)


@pytest.mark.parametrize("scale", [1.0, 40.0])  # 40: too confident for the gradient of a plain cross-entropy
@pytest.mark.parametrize("epsilon", [0.0, 5e-4, 0.02, 0.1, 0.6])
def test_linear_worst_case(epsilon: float, scale: float) -> None:
    model, (images, labels) = Watched(scale), data()
    weight, bias = model.linear.weight.detach(), model.linear.bias.detach()
    expected = []
    for x, y in zip(images.flatten(1), labels.tolist(), strict=True):
        toward = weight[1 - y] - weight[y]
        worst = (x + epsilon * toward.sign()).clamp(0, 1)
        expected.append(bool(weight[y] @ worst + bias[y] > weight[1 - y] @ worst + bias[1 - y]))
    found = robust_hits(model, images, labels, epsilon)
    assert found.tolist() == expected
    assert found.dtype == torch.bool and found.shape == (N,)
    if epsilon in (0.02, 0.1):
        assert 0 < found.sum() < (model(images).argmax(1) == labels).sum()
    for x in model.seen:
        assert x.min() >= 0 and x.max() <= 1


def test_no_iterate_leaves_the_ball_and_chunks_do_not_matter() -> None:
    model, (images, labels) = Watched(), data()
    whole = robust_hits(model, images, labels, 0.05, steps=3)
    assert all((x - images).abs().max() <= 0.05 + 1e-6 for x in model.seen) and len(model.seen) == 4
    assert torch.equal(robust_hits(model, images, labels, 0.05, steps=3, chunk=7), whole)


def test_never_more_than_natural_and_fewer_with_a_larger_ball(victim: Classifier) -> None:
    images = torch.rand(30, *(1, 16, 16), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = victim(images).argmax(1)
    labels[:5] = (labels[:5] + 1) % 6
    rates = [robust_hits(victim, images, labels, e).sum().item() for e in (0.0, 0.01, 0.5)]
    assert rates[0] == 25 > rates[1] > rates[2]
    assert not robust_hits(victim, images, labels, 0.01)[:5].any()
    again = robust_hits(victim, images, labels, 0.01)
    assert torch.equal(again, robust_hits(victim, images, labels, 0.01))


def test_the_model_is_left_as_it_was(victim: Classifier) -> None:
    victim.train()
    victim.trunk.eval()  # a mixed state, as frozen batch normalisation has
    modes = [module.training for module in victim.modules()]
    before = {k: v.clone() for k, v in victim.state_dict().items()}
    images = torch.rand(4, 1, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        robust_hits(victim, images, torch.zeros(4, dtype=torch.int64), 5e-4)
    assert [module.training for module in victim.modules()] == modes
    assert all(torch.equal(v, before[k]) for k, v in victim.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in victim.parameters())
    assert not images.requires_grad


def test_the_slack_is_the_cross_entropy_in_other_words() -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(9, 5, dtype=torch.float64, generator=random).requires_grad_()
    labels = torch.randint(5, (9,), generator=random)
    entropy, slack = F.cross_entropy(logits, labels, reduction="none"), _slack(logits, labels)
    assert torch.allclose(entropy, F.softplus(slack))
    slopes = [torch.autograd.grad(part.sum(), logits)[0] for part in (entropy, slack)]
    assert torch.equal(*(slope.sign() for slope in slopes))


@pytest.mark.parametrize(("epsilon", "steps"), [(-0.1, 5), (0.1, 0)])
def test_no_ball_and_no_step_are_refused(epsilon: float, steps: int) -> None:
    with pytest.raises(InputError, match="allowed"):
        robust_hits(Watched(), *data(), epsilon, steps)

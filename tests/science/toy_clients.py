"""What tests of reconstruction share: clients that send features, small knobs, what an attacker knows."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mipriv import plugin
from mipriv.attacks.reconstruction import Client, Knowledge, Recovered, offer
from mipriv.attacks.search.inverse import InverseRecipe
from mipriv.attacks.search.stages import Descent, Level, Posterior
from tests.science.conftest import SHAPE

ATTACKS = plugin.names("reconstruction")
TINY = InverseRecipe(width=4, blocks=1, epochs=2, batch_size=12, lr=1e-2)
# Knobs that make an attack small. A new attack adds a line.
SMALL: dict[str, dict[str, object]] = {
    "affine": {"views": 2},
    "decoder": vars(TINY),
    "gan": {"decoder": TINY, "epochs": 2, "batch_size": 12, "critic_width": 2, "critic_steps": 2},
    "peel": {
        "levels": (Level(1e-4, 1, 2), Level(1e-6, 2, 3)),
        "descents": (Descent(2, 0.05, 1e-4),),
        "polish": (Level(1e-8, 1, 2),),
        "posterior": Posterior(2, 3),
        "selection": 6,
    },
    "optimise": {"steps": 4, "draws": 2, "selection": 2, "tv_weights": (0.0, 0.1), "chunk": 2},
}
LEARNS = InverseRecipe(width=8, blocks=0, epochs=12, batch_size=12, lr=2e-2)
# Of a longer run, where an attack is to be good.
LONG: dict[str, dict[str, object]] = {
    "affine": {},
    "decoder": vars(LEARNS),
    "gan": {"decoder": LEARNS, "epochs": 3, "batch_size": 12, "critic_width": 2, "critic_steps": 2},
    "peel": {"levels": (Level(1e-3, 4, 10), Level(1e-5, 4, 20)), "descents": (Descent(40, 0.05, 1e-3),)},
    "optimise": {"steps": 40, "draws": 4, "prior": "gaussian", "lr": 0.1},
}
KINDS = ["still", "random"]


def blobs(count: int, seed: int) -> Tensor:
    """Smooth random images [count, *SHAPE] in [0, 1], in float64."""
    coarse = torch.randn(count, 1, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, SHAPE[1:], mode="bicubic", align_corners=False).mul(1.5).sigmoid()


class Toy:
    """A client that counts and remembers how it was asked.

    Args:
        kind: `still`, or `random`: dropout masks and noise.
    """

    def __init__(self, kind: str, dtype: torch.dtype = torch.float64) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(5)
            layers = [nn.Conv2d(1, 4, 3, 1, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)]
            self.net = nn.Sequential(*layers, nn.Conv2d(4, 3, 3, 1, 1), nn.Sigmoid()).to(dtype).eval()
            with torch.no_grad():
                self.net[4].weight.mul_(4)
        self.kind, self.seen = kind, 0
        self.states: list[bytes] = []
        self.gradients: list[bool] = []
        self.net.register_forward_pre_hook(lambda _, given: self._note(given[0]))

    def _note(self, images: Tensor) -> None:
        self.seen += len(images)
        self.gradients.append(torch.is_grad_enabled() or images.requires_grad)

    @property
    def network(self) -> nn.Module:
        """What an attacker with `weights` may open."""
        return self.net

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return self.release(self.net(images), generator)

    def release(self, features: Tensor, generator: torch.Generator) -> Tensor:
        """What is sent of features."""
        self.states.append(generator.get_state().numpy().tobytes())
        if self.kind == "still":
            return features
        masks = (torch.rand(features.shape, generator=generator) < 0.95).to(features)
        return features * masks + 0.1 * torch.randn(features.shape, generator=generator).to(features)


class Told:
    """A progress callback that remembers."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def __call__(self, done: int, total: int) -> None:
        self.calls.append((done, total))


def send(client: Client, images: Tensor, repeats: int = 1, seed: int = 77) -> Tensor:
    """What targets [n, ...] send, [n, r, ...]: every one with a generator of its own."""
    rows = []
    with torch.no_grad():
        for place, image in enumerate(images):
            random = torch.Generator().manual_seed(seed + place)
            rows.append(torch.cat([client(image[None], random) for _ in range(repeats)]))
    return torch.stack(rows)


def known(dtype: torch.dtype = torch.float64, bounded: bool = True) -> Knowledge:
    return Knowledge(blobs(48, 1).to(dtype), blobs(6, 2).to(dtype), bounded)


def run(
    name: str, client: Client, observed: Tensor, knobs: dict[str, dict[str, object]] = SMALL
) -> Recovered:
    attack = plugin.load("reconstruction", name, **knobs[name])
    found: Recovered = attack(offer(client, attack.access), known(observed.dtype), observed, seed=3)
    return found


def mse(images: Tensor, truth: Tensor) -> float:
    return (images - truth).square().mean().item()


# A linear client of Gaussian images, of which all is known in closed form.
SIDE, FEATURES = 5, 12


class Linear:
    """x ~ N(mean, root root'), z = map x + sigma noise."""

    def __init__(self, sigma: float, features: int = FEATURES) -> None:
        random = torch.Generator().manual_seed(8)
        d = SIDE**2
        self.sigma, self.mean = sigma, torch.rand(d, generator=random, dtype=torch.float64)
        self.root = torch.randn(d, d, generator=random, dtype=torch.float64) / d**0.5
        self.map = torch.randn(features, d, generator=random, dtype=torch.float64) / d**0.5

    def network(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.map.T

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return self.release(self.network(images), generator)

    def release(self, features: Tensor, generator: torch.Generator) -> Tensor:
        return features + self.sigma * torch.randn(
            features.shape, generator=generator, dtype=torch.float64
        ).to(features)

    def draw(self, count: int, seed: int) -> Tensor:
        random = torch.Generator().manual_seed(seed)
        u = torch.randn(count, len(self.mean), generator=random, dtype=torch.float64)
        return (self.mean + u @ self.root.T).view(count, 1, SIDE, SIDE)

    def posterior(self, sent: Tensor, mean: Tensor, covariance: Tensor, repeats: int = 1) -> Tensor:
        """E[x | mean of `repeats` releases] by the textbook, for images N(mean, covariance)."""
        noise = self.sigma**2 / repeats * torch.eye(len(self.map), dtype=torch.float64)
        gain = covariance @ self.map.T @ torch.linalg.inv(self.map @ covariance @ self.map.T + noise)
        return mean + (sent - mean @ self.map.T) @ gain.T

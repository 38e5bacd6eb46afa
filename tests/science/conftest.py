"""Toy models that every test of the science shares: small, untrained, float64 where rows are compared."""

import pytest
import torch

from mipriv.models.classifiers import Classifier, build
from mipriv.models.classifiers.slim_resnet import SlimResNet
from mipriv.models.generators import Generator
from mipriv.models.generators.eigenfaces import Eigenfaces
from mipriv.models.generators.gan import DCGAN, GAN

SHAPE = (1, 16, 16)
CLASSES = 6
# Knobs of the published architectures at a toy size, for tests that build every classifier.
IR = {"depths": [1, 1, 1, 1], "width": 4, "embedding": 8}
TOY = {
    "vgg16_face": {"width": 2},
    "ir152": IR,
    "facenet64": IR,
    "facenet112": {**IR, "input_size": 32},
    "vgg11": {"widths": (2, 3, 4, 4, 4), "hidden": 6},
    "resnet20": {"widths": (2, 3, 4, 6), "depth": 1},
    "linear_encoder": {"features": 5, "hidden": (4,)},
}


@pytest.fixture
def toy() -> dict[str, dict[str, object]]:
    """Knobs that make a big architecture small, by its name; others are built as they are."""
    return TOY


@pytest.fixture
def victim() -> Classifier:
    """A residual network with batch normalisation that has seen some data, in float64."""
    model = build(SlimResNet(widths=(4, 8), depth=1), CLASSES, SHAPE, seed=3).double()
    model.train()
    with torch.no_grad():
        for _ in range(5):
            model(torch.rand(8, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
        model.head.weight *= 30  # decisive, as a trained head is
    return model.eval()


@pytest.fixture
def faces() -> torch.Tensor:
    """Public images [40, *SHAPE] with structure of low rank."""
    random = torch.Generator().manual_seed(0)
    basis = torch.rand(5, *SHAPE, generator=random)
    return torch.tensordot(torch.rand(40, 5, generator=random), basis, 1).div(5).clamp(0, 1)


@pytest.fixture
def prior(faces: torch.Tensor) -> Generator:
    """Eigenfaces of `faces`, in float64."""
    model, _ = Eigenfaces(components=8).fit(faces, seed=0, device=torch.device("cpu"))
    return model.double()


@pytest.fixture
def gan(faces: torch.Tensor) -> DCGAN:
    """A convolutional GAN of `faces` that has hardly learnt, its contrast raised to matter, in float64."""
    maker = GAN(latent_dim=6, width=4, steps=2, critic_steps=1, batch_size=8, lr=2e-3)
    model, _ = maker.fit(faces, seed=0, device=torch.device("cpu"))
    model.zero_grad(set_to_none=True)
    with torch.no_grad():
        model.up[-2].weight *= 10
    return model.double()

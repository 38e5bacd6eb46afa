"""A split network comes back from its folder as it was, with what its defence put in; nothing else does."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mipriv import plugin, training
from mipriv.defenses import Defense
from mipriv.errors import InputError
from mipriv.models import checkpoint, classifiers, weights
from mipriv.models.checkpoint import Card
from mipriv.models.split_classifier import Shape, SplitClassifier, build
from mipriv.training import Recipe

SHAPE, KNOBS = (1, 16, 16), {"widths": [3, 4, 4, 6], "depth": 1}
CARD = Card("split", "resnet20", KNOBS, SHAPE, 3, {"seed": 7}, cut="trunk.stage1.0", bottleneck="K1C2S2")
WHOLE = Card("classifier", "resnet20", KNOBS, SHAPE, 3, {})


def made(card: Card = CARD, seed: int = 1) -> SplitClassifier:
    """An untrained network whose normalisation has seen data."""
    assert card.cut is not None
    architecture = plugin.load("classifier", card.name, **KNOBS)
    model = build(architecture, 3, SHAPE, card.cut, card.bottleneck, seed)
    with torch.no_grad():
        for i in range(3):
            model(torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(i)))
    return model.eval()


@pytest.fixture
def x() -> Tensor:
    return torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(9))


def edit(folder: Path, **values: Any) -> None:
    """Change a card on disk; None takes a line out."""
    path = folder / checkpoint.CARD
    held = json.loads(path.read_text()) | values
    path.write_text(json.dumps({k: v for k, v in held.items() if v is not None}))


@pytest.mark.parametrize("bottleneck", [None, "K1C2S2", "noRELU_C3S1"])
def test_a_split_network_comes_back(bottleneck: str | None, tmp_path: Path, x: Tensor) -> None:
    card = replace(CARD, bottleneck=bottleneck)
    model = made(card)
    checkpoint.save_split(model, card, tmp_path / "made" / "here")
    torch.manual_seed(3)
    again = checkpoint.load_split(tmp_path / "made" / "here")
    found = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(found, torch.rand(1)), "its first weights draw from nobody's generator"
    assert checkpoint.read_card(tmp_path / "made" / "here") == card
    assert torch.equal(again.client(x), model.client(x)) and torch.equal(again(x), model(x))
    assert again.feature_shape == model.feature_shape and again.num_classes == 3
    assert not any(part.training for part in again.modules())


def test_what_was_released_in_training_is_no_part_of_the_file(tmp_path: Path, x: Tensor) -> None:
    model = made()
    model.release = lambda features: 0 * features
    checkpoint.save_split(model, CARD, tmp_path)
    assert torch.equal(checkpoint.load_split(tmp_path)(x), model.server(model.client(x)))


class Extra(Defense):
    """Puts a convolution of its own behind the client."""

    def prepare(self, model: nn.Module, image_shape: Shape) -> None:
        """See `Defense.prepare`."""
        assert isinstance(model, SplitClassifier) and image_shape == SHAPE
        channels = model.feature_shape[0]
        model.client = nn.Sequential(model.client, nn.Conv2d(channels, channels, 1))


def test_what_a_defence_puts_in_comes_back(tmp_path: Path, x: Tensor) -> None:
    model, pair = made(), (torch.rand(6, *SHAPE), torch.arange(6) % 3)
    training.train(model, pair, pair, Recipe(1, 3, "sgd", 0.1), Extra(), seed=0)
    checkpoint.save_split(model, CARD, tmp_path)
    torch.manual_seed(3)
    again = checkpoint.load_split(tmp_path, Extra().prepare)
    found = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(found, torch.rand(1)), "nor does what is put in"
    assert torch.equal(again(x), model(x)) and not any(part.training for part in again.modules())
    with pytest.raises(InputError, match="is missing"):
        checkpoint.load_split(tmp_path)


def test_weights_of_another_cut_or_bottleneck_are_refused(tmp_path: Path) -> None:
    for i, (line, value) in enumerate(
        [("bottleneck", "K3C2S2"), ("cut", "trunk.stem"), ("bottleneck", None)]
    ):
        checkpoint.save_split(made(), CARD, tmp_path / str(i))
        edit(tmp_path / str(i), **{line: value})
        with pytest.raises(InputError, match="tensor '"):
            checkpoint.load_split(tmp_path / str(i))


def test_weights_go_from_one_split_network_to_another(tmp_path: Path, x: Tensor) -> None:
    one, other = made(seed=1), made(seed=2)
    assert not torch.equal(one(x), other(x))
    weights.save(one, tmp_path / "w.safetensors")
    weights.load_into(other, tmp_path / "w.safetensors")
    assert torch.equal(one(x), other(x))


def test_older_cards_are_read(tmp_path: Path, x: Tensor) -> None:
    model = classifiers.build(plugin.load("classifier", "resnet20", **KNOBS), 3, SHAPE, seed=1).eval()
    checkpoint.save(model, WHOLE, tmp_path)
    edit(tmp_path, cut=None, bottleneck=None, head=None)
    assert "cut" not in json.loads((tmp_path / checkpoint.CARD).read_text())
    assert checkpoint.read_card(tmp_path) == WHOLE
    assert torch.equal(checkpoint.load_classifier(tmp_path)(x), model(x))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"family": "classifier"}, "family 'classifier', 3 classes, cut 'trunk.stage1.0'"),
        ({"cut": None}, "family 'split', 3 classes, cut None"),
        ({"num_classes": None}, "family 'split', None classes"),
    ],
)
def test_a_card_that_says_too_little_is_refused(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"^card: {said}.*; allowed: family 'split' with"):
        checkpoint.save_split(made(), replace(CARD, **change), tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
    checkpoint.save(made(), replace(CARD, **change), tmp_path)
    with pytest.raises(InputError, match=f"{checkpoint.CARD}: {said}.*; allowed: family 'split' with"):
        checkpoint.load_split(tmp_path)


def test_a_split_network_is_no_whole_one(tmp_path: Path) -> None:
    checkpoint.save_split(made(), CARD, tmp_path)
    with pytest.raises(InputError, match="family 'split'; allowed: classifier"):
        checkpoint.load_classifier(tmp_path)

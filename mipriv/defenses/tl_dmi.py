"""TL-DMI (Ho et al., "Model Inversion Robustness: Can Transfer Learning Help?", CVPR 2024).

The front of a publicly pretrained network is frozen; only what lies behind the cut, and the
new head, ever sees private images. No loss is added.
"""

from dataclasses import dataclass, field

from torch import nn

from mipriv.defenses import Defense
from mipriv.errors import InputError
from mipriv.models.cut import Leaf, execution_order
from mipriv.models.freeze import Freeze


@dataclass
class TLDMI(Defense):
    """Freeze the front of the network, cut in exactly one of three ways.

    Attributes:
        cut: see `Freeze`, as the others.
        fraction: of the layers that is frozen.
        parameters: most parameters that may stay trainable.
        bn_mode: `strict` or `reference`.
    """

    cut: str | None = None
    fraction: float | None = None
    parameters: int | None = None
    bn_mode: str = "strict"
    freeze: Freeze = field(init=False, repr=False)

    def __post_init__(self) -> None:
        try:
            self.freeze = Freeze(self.cut, self.fraction, self.parameters, self.bn_mode)
        except InputError as error:
            raise InputError(f"tl_dmi: {error}") from error

    def front(self, model: nn.Module, image_shape: tuple[int, int, int]) -> list[Leaf]:
        """The layers that are frozen; see `Freeze.front`."""
        return self.freeze.front(model, image_shape)

    def head_alone(self, model: nn.Module, image_shape: tuple[int, int, int]) -> bool:
        """The linear probe, its batch normalisation held: all but the head is frozen."""
        frozen = {leaf.name for leaf in self.front(model, image_shape)}
        names = (leaf.name for leaf in execution_order(model, image_shape))
        trained = [name for name in names if name not in frozen]
        return self.bn_mode == "strict" and all(name.split(".")[0] == "head" for name in trained)

"""TL-DMI (Ho et al., "Model Inversion Robustness: Can Transfer Learning Help?", CVPR 2024).

The front of a publicly pretrained network is frozen; only what lies behind the cut, and the
new head, ever sees private images. No loss is added.
"""

from dataclasses import dataclass, field

from torch import nn

from mipriv.defenses import Defense
from mipriv.errors import InputError
from mipriv.models import cut as cuts
from mipriv.plugin import one_of

BN_MODES = ("reference", "strict")


@dataclass
class TLDMI(Defense):
    """Freeze the front of the network, cut in exactly one of three ways.

    Attributes:
        cut: name of the last frozen module; everything executed up to its end is frozen.
        fraction: of the layers, counted from the front in the order of execution, that is frozen.
        parameters: most parameters that may stay trainable; the front is cut as late as that needs.
        bn_mode: `strict` keeps frozen batch normalisation in evaluation mode, so that its buffers
            carry nothing private; `reference` lets its running statistics follow the private
            images, as the released code does.
    """

    cut: str | None = None
    fraction: float | None = None
    parameters: int | None = None
    bn_mode: str = "strict"
    _frozen: list[str] = field(init=False, repr=False, default_factory=list)

    def __post_init__(self) -> None:
        given = [name for name in ("cut", "fraction", "parameters") if getattr(self, name) is not None]
        if len(given) != 1:
            raise InputError(
                f"tl_dmi: {', '.join(given) or 'no cut'} given; allowed: one of cut, fraction, parameters"
            )
        one_of(self.bn_mode, BN_MODES, "bn_mode")

    def front(self, model: nn.Module, image_shape: tuple[int, int, int]) -> list[cuts.Leaf]:
        """The layers that are frozen.

        Raises:
            InputError: the cut names no layer, or leaves nothing to train.
        """
        order = cuts.execution_order(model, image_shape)
        if self.cut is not None:
            leaves = cuts.front(order, self.cut)
        elif self.fraction is not None:
            leaves = cuts.front_by_fraction(order, self.fraction)
        else:
            assert self.parameters is not None
            leaves = cuts.front_by_budget(order, self.parameters)
        if len(leaves) == len(order):
            raise InputError(
                f"cut: {self.cut!r} leaves nothing to train; allowed: a module before {order[-1].name!r}"
            )
        return leaves

    def prepare(self, model: nn.Module, image_shape: tuple[int, int, int]) -> None:
        """Take the front's parameters out of training; see `Defense.prepare`."""
        self._frozen = [leaf.name for leaf in self.front(model, image_shape)]
        for name in self._frozen:
            model.get_submodule(name).requires_grad_(False)

    def before_epoch(self, model: nn.Module, epoch: int) -> None:
        """Keep what is frozen in evaluation mode (`strict`)."""
        if self.bn_mode == "strict":
            for name in self._frozen:
                model.get_submodule(name).eval()

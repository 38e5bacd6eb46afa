"""What of a network is frozen: its front, up to a cut that is stated in exactly one of three ways."""

from dataclasses import dataclass, field

from torch import nn

from mipriv.errors import InputError
from mipriv.models import cut as cuts
from mipriv.plugin import one_of

BN_MODES = ("reference", "strict")


@dataclass(frozen=True)
class Freeze:
    """The front of a network, taken out of training.

    Attributes:
        cut: name of the last frozen module; everything executed up to its end is frozen.
        fraction: of the layers, counted from the front in the order of execution, that is frozen.
        parameters: most parameters that may stay trainable; the front is cut as late as that needs.
        bn_mode: `strict` keeps frozen batch normalisation in evaluation mode, so that its buffers
            carry nothing private; `reference` lets its running statistics follow the private
            images, as the released code of TL-DMI does.
    """

    cut: str | None = None
    fraction: float | None = None
    parameters: int | None = None
    bn_mode: str = "strict"
    # Names of the leaves last frozen, for `hold`; no part of what the freeze is.
    _held: list[str] = field(init=False, repr=False, compare=False, default_factory=list)

    def __post_init__(self) -> None:
        given = [name for name in ("cut", "fraction", "parameters") if getattr(self, name) is not None]
        if len(given) != 1:
            raise InputError(
                f"{', '.join(given) or 'no cut'} given; allowed: one of cut, fraction, parameters"
            )
        one_of(self.bn_mode, BN_MODES, "bn_mode")

    def front(self, model: nn.Module, image_shape: tuple[int, int, int]) -> list[cuts.Leaf]:
        """The layers that are frozen, in the order of execution; the model is left as it is.

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

    def apply(self, model: nn.Module, image_shape: tuple[int, int, int]) -> None:
        """Take the front's parameters out of training.

        Raises:
            InputError: see `front`.
        """
        self._held[:] = [leaf.name for leaf in self.front(model, image_shape)]
        for name in self._held:
            model.get_submodule(name).requires_grad_(False)

    def hold(self, model: nn.Module) -> None:
        """Put what `apply` froze into evaluation mode (`strict`), which every `model.train()` undoes."""
        if self.bn_mode == "strict":
            for name in self._held:
                model.get_submodule(name).eval()

"""FiLM: of a public network only the scale and shift of its normalisation, and the head, see private images.

Feature-wise linear modulation (Perez et al., AAAI 2018), as used to fine-tune few parameters of a pretrained
network by Tobaben et al., "On the Efficacy of Differentially Private Few-shot Image Classification" (TMLR
2023).
"""

from dataclasses import dataclass, field

from torch import nn

from mipriv.defenses import Defense
from mipriv.errors import InputError

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


@dataclass
class Film(Defense):
    """Freeze the trunk but for the affine parameters of its norms, whose statistics stay the public ones."""

    _norms: list[str] = field(init=False, repr=False, compare=False, default_factory=list)

    def prepare(self, model: nn.Module, image_shape: tuple[int, int, int]) -> None:
        """See `Defense`.

        Raises:
            InputError: a network without a trunk, or whose trunk has no norm with scale and shift.
        """
        trunk = getattr(model, "trunk", None)
        if not isinstance(trunk, nn.Module):
            raise InputError(f"film: {type(model).__name__} has no trunk; allowed: a trunk and a head")
        found = {name: part for name, part in trunk.named_modules() if isinstance(part, NORMS)}
        tuned = {name: own for name, part in found.items() if (own := list(part.parameters()))}
        if not tuned:
            raise InputError("film: the trunk has no norm with scale and shift; allowed: one or more")
        trunk.requires_grad_(False)
        for own in tuned.values():
            for parameter in own:
                parameter.requires_grad_(True)
        self._norms[:] = [f"trunk.{name}" for name in found]

    def before_epoch(self, model: nn.Module, epoch: int) -> None:
        """Norms keep their statistics, which `model.train()` would let follow the private images."""
        for name in self._norms:
            model.get_submodule(name).eval()

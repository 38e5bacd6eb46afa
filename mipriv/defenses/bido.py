"""BiDO (Peng et al., "Bilateral Dependency Optimization: Defending Against Model-inversion Attacks", KDD
2022): hidden features are made to depend less on the image and more on the label.
"""

from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.nn import functional as F

from mipriv.analysis import dependence
from mipriv.defenses import Batch, Defense
from mipriv.errors import InputError
from mipriv.models import taps
from mipriv.models.freeze import Freeze
from mipriv.models.taps import Taps
from mipriv.plugin import one_of

MEASURES = ("hsic", "coco")
KERNELS = ("linear", "gaussian")


@dataclass
class BiDO(Defense):
    """CE + lambda_x sum_j d(X, Z_j) - lambda_y sum_j d(Z_j, Y).

    X are the images and Z_j the output of layer j, flattened, Y the one-hot labels, d a measure of dependence
    over the batch.

    Attributes:
        layers: names of the modules whose outputs are the Z_j.
        lambda_x: weight of what hidden features tell of the image.
        lambda_y: weight of what they tell of the label.
        measure: `hsic`, normalised, or `coco`.
        kernel: of X and Z_j, `gaussian` as in the released code, or `linear`; that of Y is linear always
            (of one-hot labels every Gaussian kernel is a multiple of it once centred).
        width: of a Gaussian kernel in units of the root of the number of features.
        eps: regulariser of the normalised HSIC.
        freeze: TL-DMI beside it.
    """

    layers: tuple[str, ...]
    lambda_x: float = 0.05
    lambda_y: float = 0.5
    measure: str = "hsic"
    kernel: str = "gaussian"
    width: float = 5.0
    eps: float = 1e-5
    freeze: Freeze | None = None
    _taps: Taps | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        one_of(self.measure, MEASURES, "measure")
        one_of(self.kernel, KERNELS, "kernel")
        for name in ("lambda_x", "lambda_y"):
            if getattr(self, name) < 0:
                raise InputError(f"{name}: {getattr(self, name)}; allowed: from 0")
        for name in ("width", "eps"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name}: {getattr(self, name)}; allowed: above 0")

    def prepare(self, model: nn.Module, image_shape: tuple[int, int, int]) -> None:
        """Tap the layers; see `Defense.prepare`.

        Raises:
            InputError: also for a layer that does not exist, or that no training can change.
        """
        super().prepare(model, image_shape)
        for name, output in taps.probe(model, self.layers, image_shape).items():
            if not output.requires_grad:
                raise InputError(f"layers: {name!r} lies in the frozen front; allowed: layers behind it")
        self._taps = Taps(model, self.layers)

    def loss(self, batch: Batch, step: int) -> Tensor:
        """See the class and `Defense.loss`."""
        assert self._taps is not None, "prepare comes first"
        plain, hidden = super().loss(batch, step), self._taps.take().values()
        if self.lambda_x == self.lambda_y == 0:
            return plain
        x = self._gram(batch.images.flatten(1))
        y = dependence.linear_kernel(F.one_hot(batch.labels, batch.logits.shape[1]))
        for z in (self._gram(output.flatten(1)) for output in hidden):
            penalty = self.lambda_x * self._dependence(x, z) - self.lambda_y * self._dependence(z, y)
            plain = plain + penalty.to(plain.dtype)
        return plain

    def finish(self, model: nn.Module) -> None:
        """Take the hooks off; see `Defense.finish`."""
        if self._taps is not None:
            self._taps.remove()
            self._taps = None

    def _gram(self, features: Tensor) -> Tensor:
        if self.kernel == "linear":
            return dependence.linear_kernel(features)
        return dependence.gaussian_kernel(features, self.width)

    def _dependence(self, a: Tensor, b: Tensor) -> Tensor:
        if self.measure == "coco":
            return dependence.coco(a, b)
        return dependence.normalised_hsic(a, b, self.eps)

"""Images of a known law: how uncertain an image is, and stays once a linear client has sent it.

x is the C x H x W pixels of an image in a row. Given who is on it, x ~ N(mean of the identity, S) with
S = B^T diag(v) B + n^2 I: principal components B with variances v, and independent pixel noise n. Then every
question below has a closed form (Cover and Thomas, "Elements of Information Theory", 2nd ed., Theorem 8.4.1;
Bishop, "Pattern Recognition and Machine Learning", equations 2.116 and 2.117), against which bounds and
attacks can be held.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mipriv.data.files import one_line
from mipriv.errors import InputError

LAW = "law.safetensors"
ORTHONORMAL = 1e-8  # the furthest that products of rows of a basis may be from 0 and 1


@dataclass(frozen=True, eq=False)
class GaussianLaw:
    """The law of an image given its identity, around the mean of that identity.

    Nothing here inverts S or the covariance of z, which are as ill-conditioned as n and sigma are small. With
    X = W S^(1/2) / sigma, Woodbury's (S^-1 + W^T W / sigma^2)^-1 is S^(1/2) (I + X^T X)^-1 S^(1/2), and the
    singular values of X give I + X^T X without the loss of a digit to a square.

    Attributes:
        basis: B, float64 [k, d], orthonormal rows over pixels in the order C, H, W.
        variances: v, float64 [k], from 0: what varies within an identity.
        noise: n, above 0: standard deviation of each pixel's own noise.

    Raises:
        InputError: none of such a law.
    """

    basis: Tensor
    variances: Tensor
    noise: float

    def __post_init__(self) -> None:
        b, v = self.basis, self.variances
        _require(b.dtype == torch.float64 and b.ndim == 2, "basis", _shape(b), "float64 [k, d]")
        eye = torch.eye(len(b), dtype=torch.float64)
        apart = float((b @ b.T - eye).abs().amax()) if len(b) else 0.0
        _require(apart <= ORTHONORMAL, "basis", f"{apart:.1e} from orthonormal", "orthonormal rows")
        shaped = v.dtype == torch.float64 and v.shape == b.shape[:1]
        _require(shaped, "variances", _shape(v), f"float64 [{len(b)}]")
        good = bool((v.isfinite() & (v >= 0)).all())
        _require(good, "variances", f"{v.tolist()}", "finite, from 0")
        _require(0 < self.noise < math.inf, "noise", f"{self.noise}", "finite, above 0")

    @property
    def dim(self) -> int:
        """d, the pixels of an image in all channels."""
        return self.basis.shape[1]

    @property
    def entropy(self) -> float:
        """h(x | identity) in nats, pixels in their own units: log((2 pi e)^d det S) / 2.

        It is below 0 where the law is narrow, as every differential entropy may be.
        """
        rest = self.dim - len(self.basis)
        log_det = float(self._spread.log().sum()) + rest * 2 * math.log(self.noise)
        return (self.dim * math.log(2 * math.pi * math.e) + log_det) / 2

    def covariance(self) -> Tensor:
        """S, float64 [d, d]."""
        noise = self.noise**2 * torch.eye(self.dim, dtype=torch.float64)
        return self.basis.T @ (self.variances[:, None] * self.basis) + noise

    def information(self, encoder: Tensor, sigma: float) -> float:
        """I(x; z | identity) in nats for z = W x + N(0, sigma^2 I): log det(I + W S W^T / sigma^2) / 2.

        Args:
            encoder: W, [D, d].
            sigma: standard deviation of what is added, above 0.

        Raises:
            InputError: another d, or a sigma of 0, with which z tells without limit.
        """
        told = torch.linalg.svdvals(self._whitened(encoder, sigma))
        return float(told.square().log1p().sum()) / 2

    def posterior(self, encoder: Tensor, sigma: float) -> Tensor:
        """Covariance, float64 [d, d], of x given its identity and z, whatever z is.

        Arguments as `information`.

        Raises:
            InputError: see `information`.
        """
        root = self._posterior_root(encoder, sigma)
        return root @ root.T

    def mmse(self, encoder: Tensor, sigma: float) -> float:
        """Least mean squared error a pixel of any guess at x from its identity and z: tr(posterior) / d.

        Arguments as `information`.

        Raises:
            InputError: see `information`.
        """
        return float(self._posterior_root(encoder, sigma).square().sum()) / self.dim

    def save(self, folder: Path) -> None:
        """Write `LAW` into a folder that is there."""
        noise = torch.tensor(self.noise, dtype=torch.float64)
        tensors = {"basis": self.basis, "variances": self.variances, "noise": noise}
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / LAW)

    @classmethod
    def load(cls, folder: Path) -> "GaussianLaw | None":
        """What `save` wrote into a folder; None where it holds no `LAW`.

        Raises:
            InputError: a file that is damaged, or no such law.
        """
        file = folder / LAW
        if not file.exists():
            return None
        try:
            held = load_file(file)
            return cls(held["basis"], held["variances"], held["noise"].item())
        except InputError as error:
            raise InputError(f"{str(file)!r}: {error}") from error
        except (OSError, SafetensorError, KeyError, RuntimeError) as error:
            raise InputError(f"{str(file)!r}: not a readable law ({one_line(error)})") from error

    @property
    def _spread(self) -> Tensor:
        """[k], eigenvalues of S along the basis; along everything else they are n^2."""
        return self.variances + self.noise**2

    def _rooted(self, rows: Tensor) -> Tensor:
        """[m, d] times S^(1/2) = n I + B^T diag(sqrt(v + n^2) - n) B."""
        more = self._spread.sqrt() - self.noise
        return self.noise * rows + (rows @ self.basis.T * more) @ self.basis

    def _whitened(self, encoder: Tensor, sigma: float) -> Tensor:
        """X, up to a rotation from the left that changes nothing: [min(D, d), d]."""
        good = encoder.ndim == 2 and encoder.shape[1] == self.dim
        _require(good, "encoder", _shape(encoder), f"[D, {self.dim}]")
        _require(0 < sigma < math.inf, "sigma", f"{sigma}", "finite, above 0")
        x = self._rooted(encoder.detach().to("cpu", torch.float64)) / sigma
        return torch.linalg.qr(x, mode="r").R if len(x) > self.dim else x

    def _posterior_root(self, encoder: Tensor, sigma: float) -> Tensor:
        """[d, d] of which the posterior is the square: S^(1/2) V (I + s^2)^(-1/2), X = U s V^T."""
        _, told, directions = torch.linalg.svd(self._whitened(encoder, sigma), full_matrices=True)
        left = torch.ones(self.dim, dtype=torch.float64)
        left[: len(told)] = (1 + told.square()).rsqrt()
        return self._rooted(directions).T * left


def _shape(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _require(good: bool, what: str, given: str, allowed: str) -> None:
    if not good:
        raise InputError(f"law, {what}: {given}; allowed: {allowed}")

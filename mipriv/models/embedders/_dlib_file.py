"""Reads the one file of dlib's face network: numbers only, everything else in it must be as expected.

dlib writes a network from the outside in: the version of every layer down to the input, then each layer's
settings and parameters from the input up. An integer is a byte count (its high bit the sign) and that many
bytes, least first; a floating-point setting is an integer mantissa and a binary exponent; parameters are a
shape and plain 32-bit floats. As the network is known, so is every byte that is no parameter: these are
spelled out and compared rather than interpreted.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mipriv.errors import InputError

MEAN = (122.782, 117.001, 104.298)  # red, green and blue, of 255
SIDE = 150
STEM, KERNEL = 32, 7
# Channels of each residual block, and whether it halves the image, from the input up.
BLOCKS = (
    *((32, False),) * 3,
    *((64, True), *((64, False),) * 3),
    *((128, True), *((128, False),) * 2),
    *((256, True), *((256, False),) * 2),
    (256, True),
)
WIDTH, DIM = 256, 128

Array = NDArray[np.float32]
Piece = tuple[str, bytes | int]  # a layer's name, with bytes to expect or a number of parameters to read


class Convolution(NamedTuple):
    """A convolution [o, i, h, w] with its bias [o], and the scale and shift [o] that follow it."""

    weight: Array
    bias: Array
    scale: Array
    shift: Array


def read(file: Path) -> tuple[list[Convolution], Array]:
    """All 29 convolutions, from the input up, and the matrix [256, 128] that maps features to embeddings.

    Raises:
        InputError: the file cannot be read, or is not the published one: of another length, with another
            layer, setting or shape anywhere, or with a parameter that is not finite.
    """
    pieces = list(_pieces())
    length = sum(len(piece) if isinstance(piece, bytes) else 4 * piece for _, piece in pieces)
    try:
        size = file.stat().st_size
        data = file.read_bytes() if size == length else b""
    except OSError as error:
        raise InputError(f"{str(file)!r}: cannot be read ({error.strerror})") from error
    if len(data) != length:
        raise InputError(f"{str(file)!r}: {size} bytes; allowed: dlib's face network, {length} bytes")
    found, at = [], 0
    for layer, piece in pieces:
        if isinstance(piece, bytes):
            if data[at : at + len(piece)] != piece:
                raise InputError(f"{str(file)!r}: byte {at}: allowed: layer {layer} of dlib's face network")
            at += len(piece)
        else:
            found.append(np.frombuffer(data, "<f4", piece, at).astype(np.float32))
            if not np.isfinite(found[-1]).all():
                raise InputError(f"{str(file)!r}: byte {at}: layer {layer}; allowed: finite parameters")
            at += 4 * piece
    return _shaped(found)


def _shaped(found: list[Array]) -> tuple[list[Convolution], Array]:
    """Parameters as arrays: a convolution's filters come before its biases, scales before shifts."""
    convolutions = []
    for (given, made, kernel, _), both, affine in zip(_shapes(), found[:-1:2], found[1:-1:2], strict=True):
        weight = both[:-made].reshape(made, given, kernel, kernel)
        convolutions.append(Convolution(weight, both[-made:], affine[:made], affine[made:]))
    return convolutions, found[-1].reshape(WIDTH, DIM)


def _shapes() -> Iterator[tuple[int, int, int, int]]:
    """Channels in and out, kernel and stride of every convolution."""
    yield 3, STEM, KERNEL, 2
    given = STEM
    for made, halves in BLOCKS:
        yield given, made, 3, 2 if halves else 1
        yield made, made, 3, 1
        given = made


def _pieces() -> Iterator[Piece]:
    """The file, piece by piece."""
    yield "loss_metric_", _integers(1) + _text("loss_metric_2") + _number(0.04, 24) + _number(0.6, 24)
    yield "versions", _versions()
    means = b"".join(_number(mean, 24) for mean in MEAN)
    yield "input_rgb_image_sized", _text("input_rgb_image_sized") + means + _integers(SIDE, SIDE)
    shapes = _shapes()
    yield from _convolution(*next(shapes), after=_integers(1))
    yield "relu_", _text("relu_") + _state()
    yield "max_pool_", _text("max_pool_2") + _integers(3, 3, 2, 2, 0, 0) + _state()
    for _, halves in BLOCKS:
        yield from _convolution(*next(shapes))
        yield "relu_", _text("relu_") + _state()
        yield from _convolution(*next(shapes), in_place=False)
        if halves:
            yield "avg_pool_", _text("avg_pool_2") + _integers(2, 2, 2, 2, 0, 0) + _state()
        yield "add_prev_", _text("add_prev_") + _state(in_place=True)
        yield "relu_", _text("relu_") + _state()
    yield "avg_pool_", _text("avg_pool_2") + _integers(0, 0, 1, 1, 0, 0) + _state()
    yield "fc_", _text("fc_2") + _integers(DIM, WIDTH) + _tensor(WIDTH, DIM)
    yield "fc_", WIDTH * DIM
    yield "fc_", _integers(1, WIDTH, DIM, 1, 1) + _integers(1, 0, 0, 0, 0, 1) + _rates() + _state()


def _versions() -> bytes:
    """The version of every layer from the outside in: 2 if it computes, 1 if it marks, 3 by the input."""
    written = _integers(2, 2)
    for _, halves in reversed(BLOCKS):
        shortcut = _integers(2, 1, 1) if halves else b""
        written += _integers(2, 2) + shortcut + _integers(2, 2, 2, 2, 2, 1)
    return written + _integers(2, 2, 2, 3)


def _convolution(
    given: int, made: int, kernel: int, stride: int, *, in_place: bool = True, after: bytes = b""
) -> Iterator[Piece]:
    """A convolution, which is padded only if it does not stride, and its affine layer."""
    count = made * given * kernel**2 + made
    pad = kernel // 2 if stride == 1 else 0
    yield "con_", _text("con_4") + _tensor(count, 1)
    yield "con_", count
    settings = _integers(made, kernel, kernel, stride, stride, pad, pad)
    filters, biases = _integers(1, made, given, kernel, kernel), _integers(1, 1, made, 1, 1)
    yield "con_", settings + filters + biases + _rates() + _state() + after
    yield "affine_", _text("affine_") + _tensor(2 * made, 1)
    yield "affine_", 2 * made
    yield "affine_", _integers(1, 1, made, 1, 1) * 2 + _integers(0) + _state(in_place)


def _rates() -> bytes:
    """Multipliers of learning rate and weight decay, for weights and biases."""
    return b"".join(_number(rate, 53) for rate in (1.0, 1.0, 1.0, 0.0))


def _state(in_place: bool = False) -> bytes:
    """What training leaves of a layer: three flags, the last of them whether the next layer overwrites its
    output, and three empty tensors."""
    return b"11" + (b"1" if in_place else b"0") + _tensor(0, 0, 0, 0) * 3


def _tensor(samples: int, channels: int, rows: int = 1, columns: int = 1) -> bytes:
    return _integers(2, samples, channels, rows, columns)


def _text(text: str) -> bytes:
    return _integers(len(text)) + text.encode()


def _number(value: float, digits: int) -> bytes:
    """A mantissa of so many binary digits, without the zero bytes at its end, and its exponent."""
    fraction, exponent = math.frexp(value)
    mantissa, exponent = round(math.ldexp(fraction, digits)), exponent - digits
    for _ in range(8):
        if mantissa % 256 == 0:
            mantissa, exponent = mantissa // 256, exponent + 8
    return _integers(mantissa, exponent)


def _integers(*values: int) -> bytes:
    """Each as the number of its bytes, of which the high bit is the sign, and the bytes, least first."""
    written = b""
    for value in values:
        count = max(1, (abs(value).bit_length() + 7) // 8)
        written += bytes([count | (0x80 if value < 0 else 0)]) + abs(value).to_bytes(count, "little")
    return written

"""Pictures of the report as PNG bytes: faces, trainable and frozen layers; and how all of them look.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; shapes and hatches say the same again.
"""

import io
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

Pixels = NDArray[np.uint8]
MARKS = tuple(zip(("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"), "os^DvP", strict=True))
FROZEN, TRAINABLE, GREY = "#56B4E9", "#E69F00", "#666666"
TILE, NEAR, FAR = 96, 2, 10  # pixels: widest face, gap between faces of one person, gap between people


def marked(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and shape of each name: where colours come again, they come with another shape."""
    many = len(MARKS)
    return {name: (MARKS[i % many][0], MARKS[(i + i // many) % many][1]) for i, name in enumerate(names)}


@dataclass(frozen=True)
class Part:
    """A block of layers with its trainable and frozen parameters."""

    name: str
    trainable: int
    frozen: int


def strip(images: Tensor, width: int) -> Pixels:
    """People side by side: [h, w, 3].

    Args:
        images: [p, k, C, H, W] in [0, 1]; C = 1 or 3.
        width: images that a person has room for, at least k; what is missing stays white.
    """
    people, k, _, *size = images.shape
    size = [round(side * min(1.0, TILE / max(size))) for side in size]
    small = F.interpolate(images.flatten(0, 1), size, mode="area").clamp(0, 1)
    tiles = (small * 255).round().byte().expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
    tiles = tiles.reshape(people, k, *size, 3)
    person = (size[1] + NEAR) * width - NEAR
    sheet = np.full((size[0], (person + FAR) * people - FAR, 3), 255, np.uint8)
    for p in range(people):
        for i in range(k):
            left = p * (person + FAR) + i * (size[1] + NEAR)
            sheet[:, left : left + size[1]] = tiles[p, i]
    return sheet


def png(pixels: Pixels) -> bytes:
    """Pixels [h, w, 3] as a file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return file.getvalue()


def wall(strips: Mapping[str, Pixels], people: Sequence[str]) -> bytes:
    """Strips of one width under each other, each with its name, people named on top."""
    gap = np.full((NEAR * 3, next(iter(strips.values())).shape[1], 3), 255, np.uint8)
    sheet = np.concatenate([part for pixels in strips.values() for part in (pixels, gap)])
    height, width = sheet.shape[:2]
    with style():
        # Names stand in the margin, which grows with the longest.
        names = 0.075 * max(map(len, strips))
        size = (9.4 + names, 9 * height / width + 0.5)
        figure = Canvas(figsize=size, dpi=150, layout="compressed")
        axes = figure.add_subplot()
        axes.imshow(sheet)
        step = (width + FAR) / len(people)
        axes.set_xticks([(i + 0.5) * step - FAR / 2 for i in range(len(people))], people)
        tall = next(iter(strips.values())).shape[0]
        axes.set_yticks([i * (tall + len(gap)) + tall / 2 for i in range(len(strips))], list(strips))
        axes.tick_params(length=0, labeltop=True, labelbottom=False)
        axes.spines[:].set_visible(False)
        return saved(figure)


def account(victims: Mapping[str, Sequence[Part]]) -> bytes:
    """A bar a victim: its blocks in the order of execution, as wide as their share of the parameters."""
    with style():
        figure = Canvas(figsize=(11, 0.55 * len(victims) + 1.1), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        for height, parts in enumerate(victims.values()):
            _bar(axes, height, parts)
        axes.set_yticks(range(len(victims)), list(victims))
        axes.invert_yaxis()
        axes.set(xlim=(0, 100), xlabel="share of the parameters, %, from image (left) to classes (right)")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        key = [Patch(facecolor=FROZEN, hatch="////", edgecolor="white", label="frozen")]
        key.append(Patch(facecolor=TRAINABLE, label="trainable"))
        figure.legend(handles=key, loc="outside upper right", ncols=2, frameon=False)
        return saved(figure)


def _bar(axes: Axes, height: int, parts: Sequence[Part]) -> None:
    total, left = sum(part.trainable + part.frozen for part in parts), 0.0
    for part in parts:
        begun = left
        for count, color, hatch in ((part.frozen, FROZEN, "////"), (part.trainable, TRAINABLE, "")):
            share = 100 * count / total
            axes.barh(height, share, 0.6, left, color=color, hatch=hatch, edgecolor="white", linewidth=0.6)
            left += share
        if left - begun > 0.9 * len(part.name):  # about the width of its name
            box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1}
            axes.text((begun + left) / 2, height, part.name, ha="center", va="center", fontsize=7, bbox=box)


def style() -> AbstractContextManager[None]:
    """Settings of every picture."""
    return matplotlib.rc_context(
        {
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "text.parse_math": False,  # names of rows are the user's
        }
    )


def saved(figure: Canvas) -> bytes:
    """The picture as a file, the same bytes for the same picture."""
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()

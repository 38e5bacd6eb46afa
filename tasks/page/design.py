"""Picture of how far an image comes back from behind ever deeper cuts, a panel a choice of design.

Colours are Okabe and Ito's; shapes say the same again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from mipriv.errors import InputError
from mipriv.stats import Figure
from tasks.page.pictures import GREY, MARKS, saved, style

COLUMNS = 3


@dataclass(frozen=True)
class Leak:
    """What came back from behind one cut of one variant.

    Attributes:
        variant: its name; `factor`, the choice that it stands for.
        cut: the module that ends the client.
        ratio: features a pixel.
        psnr: median over images, dB.
        residual: relative, of the features, median over images.
        solver: whose images these are.
    """

    variant: str
    factor: str
    cut: str
    ratio: float
    psnr: Figure
    residual: Figure
    solver: str

    def flat(self) -> dict[str, Any]:
        """One flat row for a table."""
        return {
            "variant": self.variant,
            "factor": self.factor,
            "cut": self.cut,
            "features a pixel": self.ratio,
            "psnr": self.psnr.point,
            "low": self.psnr.low,
            "high": self.psnr.high,
            "n": self.psnr.n,
            "residual": self.residual.point,
            "solver": self.solver,
        }


def design(leaks: Sequence[Leak], floor: float) -> bytes:
    """Median PSNR over depth: a panel a factor, the first variant in each of them for comparison.

    Args:
        leaks: of every variant the same cuts in the same order; the first variant is the common one.
        floor: median PSNR of the mean image, which needs no feature.

    Raises:
        InputError: none.
    """
    if not leaks:
        raise InputError("design: 0 leaks; allowed: from 1")
    common = leaks[0].variant
    factors = list(dict.fromkeys(leak.factor for leak in leaks if leak.variant != common)) or [
        leaks[0].factor
    ]
    cuts = list(dict.fromkeys(leak.cut for leak in leaks))
    wide, tall = min(COLUMNS, len(factors)), -(-len(factors) // COLUMNS)
    with style():
        figure = Canvas(figsize=(3.4 * wide + 0.5, 2.9 * tall + 0.4), dpi=150, layout="constrained")
        grid = figure.subplots(tall, wide, squeeze=False, sharex=True, sharey=True).ravel()
        for axes, factor in zip(grid, factors, strict=False):
            names = dict.fromkeys(
                leak.variant for leak in leaks if leak.variant == common or leak.factor == factor
            )
            _panel(axes, {name: [leak for leak in leaks if leak.variant == name] for name in names}, cuts)
            axes.set_title(factor, fontsize=9)
            axes.axhline(floor, color=GREY, linestyle="--", linewidth=1)
        for axes in grid[len(factors) :]:
            axes.set_axis_off()
        figure.supxlabel("cut after", fontsize=9)
        figure.supylabel("PSNR of what is recovered, median, dB", fontsize=9)
        return saved(figure)


def _panel(axes: Axes, variants: dict[str, list[Leak]], cuts: Sequence[str]) -> None:
    places = np.arange(len(cuts))
    for (name, line), (color, shape) in zip(variants.items(), MARKS, strict=False):
        points = np.array([[one.psnr.point, one.psnr.low, one.psnr.high] for one in line])
        whiskers = np.abs(points[:, 1:] - points[:, :1]).T
        axes.errorbar(
            places,
            points[:, 0],
            yerr=whiskers,
            color=color,
            marker=shape,
            markersize=4,
            linewidth=1,
            elinewidth=0.6,
            label=name,
        )
    axes.set_xticks(places, [cut.rpartition(".")[2] for cut in cuts], fontsize=8)
    axes.tick_params(labelbottom=True)  # a panel with none below has them too
    axes.legend(frameon=False, fontsize=7)

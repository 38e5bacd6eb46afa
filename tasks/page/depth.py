"""Picture of Fisher information over depth as PNG bytes.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; shapes and strokes say the same again.
"""

import io
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from tasks.information import CLASSIFICATION, INVERSION, Score

MARKS = {CLASSIFICATION: ("#0072B2", "o", "-"), INVERSION: ("#D55E00", "^", "--")}
GROUPS = {"weights": "convolution and linear layers", "normalisation": "normalisation layers"}


def depth(scores: Sequence[Score]) -> bytes:
    """Mean-normalised scores of one victim: a column a group of layers, a row a kind, a curve a task.

    The tasks have losses of their own, so it is the courses of their curves that compare, not the heights.
    """
    groups = [group for group in GROUPS if any(score.group == group for score in scores)]
    kinds = list(dict.fromkeys(score.kind for score in scores))
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        size = (5.5 * len(groups), 3 * len(kinds) + 0.5)
        figure = Canvas(figsize=size, dpi=150, layout="constrained")
        grid = figure.subplots(len(kinds), len(groups), sharex=True, sharey=True, squeeze=False)
        for i, kind in enumerate(kinds):
            grid[i, 0].set_ylabel(f"{kind} Fisher information a parameter")
            for j, group in enumerate(groups):
                _panel(grid[i, j], [s for s in scores if (s.kind, s.group) == (kind, group)])
        for j, group in enumerate(groups):
            grid[0, j].set_title(GROUPS[group])
            grid[-1, j].set_xlabel("layer, from image (left) to classes (right)")
        curves, names = grid[0, 0].get_legend_handles_labels()
        figure.legend(curves, names, loc="outside lower center", ncols=2, frameon=False)
        file = io.BytesIO()
        figure.savefig(file, format="png", metadata={"Software": None})
        return file.getvalue()


def _panel(axes: Axes, scores: Sequence[Score]) -> None:
    """Curves with 95% bands; what is zero has no place on a logarithmic axis."""
    axes.set_yscale("log")
    for task, (color, shape, stroke) in MARKS.items():
        line = sorted((score for score in scores if score.task == task), key=lambda score: score.place)
        places = [score.place for score in line]
        ends = np.array([[s.mean.point, s.mean.low, s.mean.high] for s in line]).reshape(-1, 3)
        ends[ends <= 0] = np.nan
        axes.fill_between(places, ends[:, 1], ends[:, 2], color=color, alpha=0.2, linewidth=0)
        axes.plot(
            places,
            ends[:, 0],
            color=color,
            marker=shape,
            linestyle=stroke,
            markersize=3,
            linewidth=0.9,
            label=task,
        )

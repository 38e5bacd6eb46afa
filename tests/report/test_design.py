"""The picture of what comes back over depth, a panel a choice of design."""

from typing import Any

import pytest

from mipriv.errors import InputError
from mipriv.stats import Figure
from tasks.page import design
from tasks.page.design import Leak


def leak(variant: str, factor: str, cut: str, middle: float) -> Leak:
    psnr = Figure(middle, middle - 2, middle + 1, 8, 1, "")
    return Leak(variant, factor, cut, 4.0, psnr, Figure(0.1, 0.0, 0.2, 8, 1, ""), "adam")


LEAKS = [
    leak(variant, factor, f"trunk.stage{depth}", middle - 10 * depth)
    for variant, factor, middle in (
        ("base", "base", 60),
        ("no skip", "skip", 40),
        ("max", "pooling", 50),
        ("average", "pooling", 55),
    )
    for depth in (1, 2)
]


def test_every_factor_has_a_panel_with_the_common_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(design, "saved", lambda figure: figure)
    figure: Any = design.design(LEAKS, 12.5)
    shown = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title() for axes in shown] == ["skip", "pooling"]
    names = [[text.get_text() for text in axes.get_legend().get_texts()] for axes in shown]
    assert names == [["base", "no skip"], ["base", "max", "average"]]
    for axes in shown:
        assert 12.5 in [line.get_ydata()[0] for line in axes.get_lines()]
        assert [label.get_text() for label in axes.get_xticklabels()] == ["stage1", "stage2"]
    for container, middle in zip(shown[1].containers, (60, 50, 55), strict=True):
        points, _, whiskers = container
        assert points.get_ydata().tolist() == [middle - 10, middle - 20]
        first = whiskers[0].get_segments()[0]
        assert first[:, 1].tolist() == [middle - 12, middle - 9]
    bases = {axes.containers[0][0].get_color() for axes in shown}
    assert len(bases) == 1, "one colour for what is common"


def test_no_leak_is_no_picture() -> None:
    with pytest.raises(InputError, match="0 leaks"):
        design.design([], 1.0)

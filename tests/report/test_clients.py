"""Pictures of what features of split clients give away: what is drawn where, and that all can be read."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer
from matplotlib.text import Annotation
from PIL import Image

from mipriv.errors import InputError
from mipriv.stats import Figure
from tasks.page import clients, pictures
from tasks.page.clients import Arm, Host, Panel


def arm(natural: float, error: float, low: float | None = None) -> Arm:
    low = 0.8 * error if low is None else low
    return Arm(
        Figure(natural, natural - 0.02, natural + 0.01, 10, 3, ""), Figure(error, low, 1.5 * error, 10, 3, "")
    )


def panel(hosts: int = 2, setting: str = "decoder on digits") -> Panel:
    pairs = {f"host {i}": Host(arm(0.9 - 0.01 * i, 0.02), arm(0.88 - 0.01 * i, 0.03)) for i in range(hosts)}
    return Panel(
        setting, {**pairs, "alone": Host(arm(0.7, 0.01), None)}, [arm(0.95, 0.01), arm(0.6, 0.05)], 0.07
    )


def drawn(monkeypatch: pytest.MonkeyPatch, *panels: Panel) -> Any:
    """The figure, not its file."""
    with monkeypatch.context() as inside:
        inside.setattr(clients, "saved", lambda figure: figure)
        return clients.clients(panels)


def marks(axes: Any) -> list[tuple[str, bool, list[float]]]:
    """Colour, whether it is filled, and [x, y, then the ends of both whiskers] of every point."""
    found = []
    for one in axes.containers:
        assert isinstance(one, ErrorbarContainer)
        point, _, whiskers = one
        ends = [bar.get_segments()[0] for bar in whiskers]
        place = [*point.get_xydata()[0], *ends[0][:, 0], *ends[1][:, 1]]
        filled = to_hex(point.get_markerfacecolor()) != "#ffffff"
        found.append((to_hex(point.get_color()).upper(), filled, [float(value) for value in place]))
    return found


def test_every_arm_stands_where_its_figures_say(monkeypatch: pytest.MonkeyPatch) -> None:
    axes = drawn(monkeypatch, panel(hosts=1)).axes[0]
    first, second = (color for color, _ in pictures.MARKS[:2])
    expected = [
        (pictures.GREY, True, [95, 0.01, 93, 96, 0.008, 0.015]),
        (pictures.GREY, True, [60, 0.05, 58, 61, 0.04, 0.075]),
        (first, False, [90, 0.02, 88, 91, 0.016, 0.03]),
        (first, True, [88, 0.03, 86, 89, 0.024, 0.045]),
        (second, False, [70, 0.01, 68, 71, 0.008, 0.015]),
    ]
    for (color, filled, place), seen in zip(expected, marks(axes), strict=True):
        assert seen[:2] == (color, filled) and seen[2] == pytest.approx(place)
    assert axes.get_yscale() == "log" and axes.get_title() == "decoder on digits"


def test_an_arrow_leads_from_the_host_to_the_host_with_cem(monkeypatch: pytest.MonkeyPatch) -> None:
    axes = drawn(monkeypatch, panel(hosts=1)).axes[0]
    (arrow,) = (text for text in axes.texts if isinstance(text, Annotation))
    assert arrow.xyann == pytest.approx((90, 0.02)) and arrow.xy == pytest.approx((88, 0.03))
    assert arrow.arrowprops["arrowstyle"] == "-|>" and arrow.arrowprops["color"] == pictures.MARKS[0][0]


def test_noise_is_a_line_and_the_mean_image_a_level(monkeypatch: pytest.MonkeyPatch) -> None:
    axes = drawn(monkeypatch, panel(hosts=1)).axes[0]
    lines = [line.get_xydata().tolist() for line in axes.lines if line.get_linestyle() != "None"]
    assert [[95, 0.01], [60, 0.05]] in [np.round(line, 9).tolist() for line in lines]
    assert any(line.get_linestyle() == "--" and set(line.get_ydata()) == {0.07} for line in axes.lines)


def test_perfect_recovery_has_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(arm(0.9, 0.0), arm(0.8, 2e-6, low=0.0))
    axes = drawn(monkeypatch, Panel("peel", {"host": host}, [], 0.0)).axes[0]
    (_, _, exact), (_, _, near) = marks(axes)
    assert exact[1] == exact[4] == clients.LEAST == near[4]
    assert axes.get_ylim()[0] > clients.LEAST / 10


def test_many_hosts_differ_in_colour_or_shape_over_all_panels(monkeypatch: pytest.MonkeyPatch) -> None:
    figure = drawn(monkeypatch, panel(9), panel(3, "gan"), panel(11, "faces"))
    key = figure.legends[0].legend_handles
    named = {one.get_label(): (one.get_color(), one.get_marker()) for one in key}
    hosts = [named[f"host {i}"] for i in range(11)] + [named["alone"]]
    assert len(set(hosts)) == 12
    assert [axes.get_title() for axes in figure.axes if axes.axison] == ["decoder on digits", "gan", "faces"]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_nothing_is_cut_off(count: int) -> None:
    picture = clients.clients([panel(6, "a long name of an attack on data of a kind")] * count)
    assert picture == clients.clients([panel(6, "a long name of an attack on data of a kind")] * count)
    assert framed(picture)


def framed(picture: bytes) -> bool:
    """Whether all of the picture's border is white."""
    grey = np.asarray(Image.open(io.BytesIO(picture)).convert("L"))
    return all((edge == 255).all() for edge in (grey[:2], grey[-2:], grey[:, :2], grey[:, -2:]))


def test_no_panel_is_refused() -> None:
    with pytest.raises(InputError, match="0 panels; allowed: from 1"):
        clients.clients([])


def test_rows_of_the_wall_are_targets_side_by_side() -> None:
    real = torch.stack([torch.full((1, 4, 4), level) for level in (0.2, 0.6, 1.0)])
    shown = clients.strips(real, {"host": real / 2, "host with CEM": real * 0})
    assert list(shown) == ["real, sent", "host", "host with CEM"]
    for name, scale in zip(shown, (1, 0.5, 0), strict=True):
        for target, level in enumerate((0.2, 0.6, 1.0)):
            left = target * (4 + pictures.FAR)
            assert (shown[name][:, left : left + 4] == round(255 * level * scale)).all(), (name, target)
    assert shown["host"].shape == (4, 3 * 4 + 2 * pictures.FAR, 3)


def test_pixels_that_are_no_grey_levels_are_shown_on_one_scale() -> None:
    real = torch.tensor([-1.0, 3.0])[:, None, None, None].expand(2, 1, 2, 2)
    shown = clients.strips(real, {"host": torch.ones(2, 1, 2, 2), "beyond": 2 * real})
    ends = {name: [int(row[0, 0, 0]), int(row[0, -1, 0])] for name, row in shown.items()}
    assert ends == {"real, sent": [0, 255], "host": [128, 128], "beyond": [0, 255]}


def test_images_of_other_targets_are_refused() -> None:
    with pytest.raises(InputError, match=r"host: images \[1, 1, 2, 2\]; allowed: \[2, 1, 2, 2\]"):
        clients.strips(torch.zeros(2, 1, 2, 2), {"host": torch.zeros(1, 1, 2, 2)})


@pytest.mark.parametrize("targets", [3, 20])
def test_long_names_stand_beside_the_wall_whole(targets: int) -> None:
    images = torch.rand(targets, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    rows = {f"information bottleneck with CEM, number {i}": images for i in range(4)}
    assert framed(pictures.wall(clients.strips(images, rows), ["who"] * targets))

"""The figure of all circuit heads by role, read back from its artists."""

from __future__ import annotations

import matplotlib

matplotlib.use("agg")

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from helpers.heads import head_index
from helpers.plots.roles import GAP, head_places, plot_roles, roles_figure
from helpers.plots.style import GREY, role_colour
from helpers.reference import published
from helpers.reference.circuits import IOI_POST, Circuit

ROLES = {
    "Name Mover": ((9, 6), (29, 8)),
    "Induction": (),
    "Previous Token": ((2, 2),),
    "no role found": ((0, 1), (3, 3)),
}
CIRCUIT = Circuit("made up", 30, 9, ROLES, "made up")


@pytest.fixture
def ax() -> Iterator[Axes]:
    fig, ax = plt.subplots()
    yield ax
    plt.close(fig)


@pytest.fixture
def table() -> pd.DataFrame:
    """Shifts of 30 layers x 9 heads, each with an interval that is not centred."""
    heads, rng = head_index(30, 9), np.random.default_rng(0)
    for column in ("d_kl", "d_chi"):
        heads[column] = rng.normal(size=len(heads))
        heads[f"{column}_low"], heads[f"{column}_high"] = heads[column] - 0.5, heads[column] + 0.25
    return heads


def test_places_are_grouped_by_role() -> None:
    """Heads follow each other in the order of the roles, with one gap between two roles that have heads."""
    places = head_places(CIRCUIT)
    assert list(places) == list(CIRCUIT.heads)
    assert [*places.values()] == pytest.approx([0, 1, 2 + GAP, 3 + 2 * GAP, 4 + 2 * GAP])


@pytest.mark.parametrize("column", ["d_kl", "d_chi"])
def test_dots_are_the_shifts_in_the_colours_of_their_roles(ax: Axes, table: pd.DataFrame, column: str) -> None:
    """A head's dot stands at its shift on its line, its thin line spans its interval, its thick line starts at 0."""
    assert plot_roles(ax, table, CIRCUIT, column) is ax
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    lines = [line for line in ax.lines[1:] if line.get_marker() != "o"]
    rows = table.set_index(["layer", "head"])
    for (head, place), dot, bar, interval in zip(
        head_places(CIRCUIT).items(), dots, lines[::2], lines[1::2], strict=True
    ):
        row = rows.loc[head]
        assert dot.get_xydata() == pytest.approx(np.array([[row[column], place]]))
        assert bar.get_xydata() == pytest.approx(np.array([[0, place], [row[column], place]]))
        assert interval.get_xdata() == pytest.approx([row[column] - 0.5, row[column] + 0.25])
        assert to_hex(dot.get_color()) == to_hex(bar.get_color()) == role_colour(CIRCUIT.role(*head)).lower()
    assert to_hex(dots[-1].get_color()) == GREY


def test_names_of_heads_and_roles(ax: Axes, table: pd.DataFrame) -> None:
    """Each line is named by its head, each group that has heads by its role and their number; both can be left out."""
    plot_roles(ax, table, CIRCUIT)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["9.6", "29.8", "2.2", "0.1", "3.3"]
    assert [text.get_text() for text in ax.texts] == ["Name Mover (2)", "Previous Token (1)", "no role found (2)"]
    assert ax.texts[0].xy[1] == pytest.approx(0.5)
    top, bottom = ax.get_ylim()[1], ax.get_ylim()[0]
    assert top < 0 < max(head_places(CIRCUIT).values()) < bottom
    ax.clear()
    plot_roles(ax, table, CIRCUIT, names=False, roles=False)
    assert {tick.get_text() for tick in ax.get_yticklabels()} == {""}
    assert not ax.texts


def test_without_intervals(ax: Axes, table: pd.DataFrame) -> None:
    """A table of shifts alone has dots and no thin lines."""
    plot_roles(ax, table[["layer", "head", "d_kl"]], CIRCUIT)
    assert len(ax.lines) == 1 + 2 * len(CIRCUIT.heads)


def count(fig: Any, column: int) -> str:
    return fig.axes[column].get_title(loc="left").split("> 0 ")[1]


def test_figure_of_the_post() -> None:
    """GPT-2 small's 23 published heads: titles count the rises, all seven roles are named once, labels fit the page."""
    table = published.circuit_heads()
    fig = roles_figure(table, IOI_POST)
    assert count(fig, 0) == f"in {(table.d_kl > 0).sum()} of 23 heads"
    assert count(fig, 1) == f"in {(table.d_chi > 0).sum()} of 23 heads"
    assert not fig.axes[0].texts
    FigureCanvasAgg(fig).draw()
    page = fig.bbox
    for text in fig.axes[1].texts:
        box = text.get_window_extent()
        assert page.x0 <= box.x0 < box.x1 <= page.x1
    assert len(fig.axes[1].texts) == 7


def test_figure_grows_with_the_circuit(table: pd.DataFrame) -> None:
    """All 270 heads of a 30 x 9 model stand on lines of their own, no two labels on top of each other."""
    every = tuple((int(layer), int(head)) for layer, head in zip(table.layer, table["head"], strict=True))
    fig = roles_figure(table, Circuit("all", 30, 9, {"causal": every}, "made up"))
    FigureCanvasAgg(fig).draw()
    boxes = [tick.get_window_extent() for tick in fig.axes[0].get_yticklabels()]
    assert len(boxes) == 270
    assert all(above.y0 >= below.y1 - 1 for above, below in pairwise(boxes))


def test_refusals(ax: Axes, table: pd.DataFrame) -> None:
    """An unknown column, a head that the table lacks and an empty circuit are refused, and nothing is drawn."""
    with pytest.raises(ValueError, match=r"^column: expected a shift that the table has, of d_kl, d_chi, got 'd_x'$"):
        plot_roles(ax, table, CIRCUIT, "d_x")
    with pytest.raises(ValueError, match=r"^table: expected a row for every head of 'made up', got none for 29\.8$"):
        plot_roles(ax, table[table.layer < 29], CIRCUIT)
    with pytest.raises(ValueError, match=r"^circuit: expected at least one head, got none in 'empty'$"):
        plot_roles(ax, table, Circuit("empty", 30, 9, {"Induction": ()}, "made up"))
    assert not ax.lines

"""Figures of notebooks 05 and 06, tested by their artists."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from models import CIRCUIT, HEADS, LAYERS

from helpers.plots.coupling import plot_coupling_null
from helpers.plots.positions import plot_power, plot_two_parts
from helpers.plots.scores import NEEDS, plot_scores
from helpers.statistics.shuffles import CouplingNull

RNG = np.random.default_rng(0)


@pytest.fixture
def ax() -> Axes:
    return Figure().subplots()


def test_power(ax: Axes) -> None:
    """One line a design, through its numbers."""
    table = pd.DataFrame(
        [(n, d, n * k, n * k - 1, n * k + 1, 0.0) for n in (5, 10) for d, k in (("pairs", 2), ("two sets", 1))],
        columns=["n", "design", "found", "low", "high", "false_alarm"],
    )
    plot_power(ax, table)
    assert {line.get_label(): list(line.get_ydata()) for line in ax.lines} == {"pairs": [10, 20], "two sets": [5, 10]}
    assert ax.get_xscale() == "log"


def test_two_parts(ax: Axes) -> None:
    """Every head a dot, circuit heads again on top, and the line on which the parts cancel."""
    first, second = RNG.normal(size=(2, LAYERS, HEADS))
    plot_two_parts(ax, first, second, names=("sink", "rest"), circuit=CIRCUIT)
    everyone, inside = ax.collections
    np.testing.assert_array_equal(everyone.get_offsets(), np.column_stack([first.ravel(), second.ravel()]))
    np.testing.assert_array_equal(inside.get_offsets(), [(first[h], second[h]) for h in CIRCUIT.heads])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("sink", "rest")
    assert any(line.get_linestyle() == "--" for line in ax.lines)


def test_scores(ax: Axes) -> None:
    """The first score on top; a dot at AUROC in the colour of what it needs, a bar over the interval, a tick within."""
    table = pd.DataFrame(
        {
            "auroc": [0.3, 0.8],
            "low": [0.2, 0.6],
            "high": [0.4, 0.9],
            "within": [0.5, 0.7],
            "needs": ["nothing", "pairs"],
        },
        index=["layer index", "x"],
    )
    plot_scores(ax, table)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["layer index", "x"]
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in dots] == [(0.3, 1), (0.8, 0)]
    assert [to_hex(line.get_color()) for line in dots] == [NEEDS["nothing"].lower(), NEEDS["pairs"].lower()]
    assert [0.6, 0.9] in [list(line.get_xdata()) for line in ax.lines]
    assert {0.5, 0.3} <= {line.get_xdata()[0] for line in ax.lines if line.get_linestyle() in ("--", ":")}


def test_coupling_null(ax: Axes) -> None:
    """All permutations are in the histogram; one line at the observed value, one at the 95 % point."""
    null = CouplingNull(0.9, RNG.uniform(0.3, 0.8, 500), 0.2, np.full(500, 0.2), 48)
    plot_coupling_null(ax, null)
    assert sum(patch.get_height() for patch in ax.patches) == 500
    assert [line.get_xdata()[0] for line in ax.lines] == [0.9, pytest.approx(np.quantile(null.largest, 0.95))]

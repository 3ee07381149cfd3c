"""The pictures of the knob, by their artists, on made-up tables with the columns of `MeasuredKnob`."""

from __future__ import annotations

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection

from helpers.diagnostics.rows import kl_selectivity
from helpers.heads import Head, head_index
from helpers.knob import TurnedHead
from helpers.plots import (
    knob_figure,
    plot_curvature,
    plot_direction_ratios,
    plot_kl_of_length,
    plot_loss_slopes,
    plot_natural_shuffled,
    plot_predictor,
    plot_predictor_correlations,
    plot_reach,
    plot_response_errors,
    plot_slope_kinds,
    plot_slope_map,
    plot_tangents,
    plot_turned_answers,
)
from helpers.plots.style import BLUE, GREY, VERMILION

BETAS = [0.5, 0.9, 1.1, 2.0]


@pytest.fixture
def ax() -> Axes:
    return plt.figure().subplots()


def at_betas(**columns: object) -> pd.DataFrame:
    """A row a head (2 x 2) and beta."""
    return head_index(2, 2).merge(pd.DataFrame({"beta": BETAS, **columns}), how="cross")


def test_first_order_is_a_straight_line_through_beta_1(ax: Axes) -> None:
    """The curve goes through the measured KL and the KL at 1, the dashed line through what chi foretold."""
    response = at_betas(kl=[0.5, 0.8, 1.1, 1.5], predicted=[0.0, 0.8, 1.0, 1.9])
    reach = head_index(2, 2).assign(kl=0.9)
    plot_tangents(ax, response, reach, [(0, 1)])
    curve, straight = ax.lines[:2]
    assert list(curve.get_xdata()) == [0.5, 0.9, 1.0, 1.1, 2.0]
    assert list(curve.get_ydata()) == [0.5, 0.8, 0.9, 1.1, 1.5]
    assert list(straight.get_ydata()) == [0.0, 0.8, 0.9, 1.0, 1.9]
    assert ax.get_legend_handles_labels()[1] == ["0.1"]


def test_errors_are_medians_over_heads(ax: Axes) -> None:
    """At each beta a dot at the median over heads; the limit is a line."""
    response = at_betas(error=0.0)
    response["error"] = np.linspace(0.01, 0.5, len(response))
    plot_response_errors(ax, response, limit=0.1)
    dots, limit = ax.lines
    np.testing.assert_allclose(dots.get_ydata(), response.groupby("beta").error.median())
    assert limit.get_ydata()[0] == 0.1
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0.5", "0.9", "1.1", "2"]


def test_reach_counts_heads(ax: Axes) -> None:
    """At a beta the curve is the share of resolved heads that are still good there: all at 1, those that reach at the ends."""
    reach = head_index(2, 2).assign(
        reach_low=[0, 0.5, 0.8, 0.9], reach_high=[1.2, 2, 8, 8], resolved=[True, True, True, False]
    )
    plot_reach(ax, reach)
    beta, share = np.expm1(ax.lines[0].get_xdata()), ax.lines[0].get_ydata()
    for at, expected in ((0.0, 1 / 3), (0.6, 2 / 3), (1.0, 1), (1.5, 2 / 3), (3.0, 1 / 3), (8.0, 1 / 3)):
        assert share[np.abs(beta - at).argmin()] == pytest.approx(expected), at


def test_predictor_against_slope(ax: Axes) -> None:
    """A dot a head at its predictor and the size of its slope; causal heads are another collection, the steepest named."""
    slopes = head_index(2, 2).assign(slope=[-1, 0.1, 0.2, 3.0], chi=[1.0, 2, 3, 4], causal=[True, False, False, False])
    plot_predictor(ax, slopes, "chi", name=1)
    others, causal = ax.collections
    np.testing.assert_allclose(others.get_offsets(), [[2, 0.1], [3, 0.2], [4, 3]])
    np.testing.assert_allclose(causal.get_offsets(), [[1, 1]])
    assert [t.get_text() for t in ax.texts] == ["1.1"]


def test_correlations_and_their_null(ax: Axes) -> None:
    """A row a predictor, the first on top: interval, value within layers, value over all as a diamond; the named one in colour."""
    table = pd.DataFrame({
        "predictor": ["a", "b"], "rho": [0.5, 0.1], "within": [0.6, 0.2], "within_low": [0.5, 0.1], "within_high": [0.7, 0.3],
        "null_low": -0.1, "null_high": 0.1,
    })  # fmt: skip
    plot_predictor_correlations(ax, table, named="a")
    assert [t.get_text() for t in ax.get_yticklabels()] == ["b", "a"]
    interval, within, rho = ax.lines[3:6]
    assert (list(interval.get_xdata()), within.get_xdata()[0], rho.get_xdata()[0]) == ([0.5, 0.7], 0.6, 0.5)
    assert [line.get_color() for line in (ax.lines[0], interval)] == [BLUE, VERMILION]


def test_answers_go_through_no_change_at_beta_1(ax: Axes) -> None:
    """A line a head over all betas, 0 at beta = 1; dots where q < 0.05; the largest changes are named."""
    turned = at_betas(effect=[-0.2, 0.0, 0.1, 0.4], q=[0.01, 0.5, 0.5, 0.04])
    turned.loc[turned["head"] == 1, "effect"] *= 10
    plot_turned_answers(ax, turned, colour=GREY, name=2)
    assert len(ax.lines) == 2 * 4 + 1
    np.testing.assert_allclose(np.expm1(ax.lines[0].get_xdata()), [0.5, 0.9, 1, 1.1, 2])
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [-0.2, 0, 0, 0.1, 0.4])
    np.testing.assert_allclose(ax.lines[1].get_ydata(), [-0.2, 0.4])
    assert {t.get_text() for t in ax.texts} == {"0.1", "1.1"}


def test_ratios_beside_random_directions(ax: Axes) -> None:
    """Two histograms of density; lines at the median of the heads and at its limit."""
    plot_direction_ratios(ax, np.array([0.5, 1.0, 2.0]), np.linspace(0, 3, 100), limit=0.7)
    assert [line.get_xdata()[0] for line in ax.lines] == [1.0, 0.7]
    bars = ax.patches[:25]
    assert sum(bar.get_height() * bar.get_width() for bar in bars) == pytest.approx(1)


def test_loss_slopes_by_layer(ax: Axes) -> None:
    """Thousandths of a nat; filled where q < 0.05, blue below 0."""
    loss = head_index(2, 2).assign(slope=[-0.001, 0.002, 0.0, 0.003], low=-0.002, high=0.004, q=[0.01, 0.2, 0.9, 0.01])
    plot_loss_slopes(ax, loss, name=1)
    sure, unsure = ax.collections[1:]
    np.testing.assert_allclose(sure.get_offsets()[:, 1], [-1, 3])
    np.testing.assert_allclose(unsure.get_offsets()[:, 1], [2, 0])
    assert [t.get_text() for t in ax.texts] == ["1.1"]


def test_curvature_marks_the_best_beta(ax: Axes) -> None:
    """A line a head; its best beta is a larger dot; drawn heads are grey."""
    groups = head_index(1, 2).assign(group=["largest slope", "drawn"])
    table = groups.merge(
        pd.DataFrame({"beta": [0.5, 1, 2], "change": [0.002, 0, -0.001], "best": [False, False, True]}), how="cross"
    )
    plot_curvature(ax, table, name=1)
    drawn, its_best, largest, _ = ax.lines[:4]
    assert (drawn.get_color(), largest.get_color()) == (GREY, VERMILION)
    np.testing.assert_allclose(drawn.get_ydata(), [2, 0, -1])
    assert list(its_best.get_xdata()) == [2]


def lengths() -> pd.DataFrame:
    return head_index(2, 2).assign(slope=[1.0, 0.05, 0.5, 0.95], r2=[0.99, 0.95, 0.99, 0.5], low=0.0, high=1.0)


def test_slope_map(ax: Axes) -> None:
    """Layers down, heads across, colours from 0 to 1."""
    plot_slope_map(ax, lengths())
    np.testing.assert_allclose(ax.images[0].get_array(), [[1.0, 0.05], [0.5, 0.95]])
    assert ax.images[0].get_clim() == (0, 1)


def test_slope_kinds_by_the_rule(ax: Axes) -> None:
    """Heads near 0 and near 1 on a straight line are in colour, those between, or bent, are grey."""
    plot_slope_kinds(ax, lengths())
    fixed, spread, neither = (
        dots.get_offsets().tolist() for dots in ax.collections if isinstance(dots, PathCollection)
    )
    assert (spread, fixed, neither) == ([[0.05, 0.95]], [[1.0, 0.99]], [[0.5, 0.99], [0.95, 0.5]])


def test_natural_against_shuffled(ax: Axes) -> None:
    """A dot a head at (shuffled, natural)."""
    plot_natural_shuffled(ax, lengths(), lengths().assign(slope=[0.1, 0.2, 0.3, 0.4]))
    np.testing.assert_allclose(ax.collections[-1].get_offsets(), [[0.1, 1], [0.2, 0.05], [0.3, 0.5], [0.4, 0.95]])


def test_kl_of_length(ax: Axes) -> None:
    """Thin lines of the stretches and a thick one of their mean, over log n."""
    kl = np.array([[1.0, 2, 3], [3.0, 4, 5]])
    plot_kl_of_length(ax, [16, 32, 64], kl)
    assert ax.get_xscale() == "log"
    np.testing.assert_allclose([line.get_ydata() for line in ax.lines], [[1, 2, 3], [3, 4, 5], [2, 3, 4]])


def turned_head() -> TurnedHead:
    """A made-up head that looks at one of three tokens, twice as sure at beta = 2."""
    scores = np.log([0.5, 0.25, 0.25])
    rows = np.array([np.exp(beta * scores) / np.exp(beta * scores).sum() for beta in (0, 1, 2)])
    words = [[("a", 0.5), (" b", 0.2)], [(" Mary", 0.6), (" b", 0.3)], [(" Mary", 0.9), ("c", 0.05)]]
    return TurnedHead(
        Head(2, 1),
        ["BOS", "x", "y"],
        [0, 1, 2],
        rows,
        np.ones(3, bool),
        np.array([0.0, 1.5, 2.5]),
        words,
        "Mary",
        "John",
    )


def test_a_turned_head_in_one_figure() -> None:
    """Both rows over the tokens; the dot of the plane is the row at this beta, the ring the trained one; answer and words."""
    fig = knob_figure(turned_head(), 2)
    strips, plane, words, answer = fig.axes
    np.testing.assert_allclose(strips.images[0].get_array(), turned_head().rows[[1, 2]])
    for line, row in zip(plane.lines[2:], turned_head().rows[[1, 2]], strict=True):
        assert line.get_xdata()[0] == pytest.approx(float(kl_selectivity(row)))
    assert [bar.get_width() for bar in words.patches] == [0.9, 0.05]
    assert words.patches[0].get_facecolor()[:3] == matplotlib.colors.to_rgb(VERMILION)
    assert list(words.lines[0].get_xdata()) == [0.6]
    assert list(answer.lines[0].get_ydata()) == [0.0, 1.5, 2.5]
    assert (np.expm1(answer.lines[1].get_xdata()[0]), answer.lines[1].get_ydata()[0]) == (pytest.approx(2), 2.5)

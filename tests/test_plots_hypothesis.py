"""Figures of the budget problem, read back from their artists."""

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

from helpers.diagnostics.tempering import beta_for_budget, budget, budget_ceiling, tempered
from helpers.plots.hypothesis import (
    CORNERS,
    plot_attention_map,
    plot_budget_curve,
    plot_draws_against_budget,
    plot_draws_excess,
    plot_ratio_histograms,
    plot_row_bars,
    plot_simplex,
    plot_solution_path,
    plot_touching_lines,
    to_plane,
)

Z = np.array([1.0, 0.4, -0.6])


@pytest.fixture
def ax():
    fig, ax = plt.subplots()
    yield ax
    plt.close(fig)


def lines(ax):
    return {line.get_label(): line for line in ax.lines}


def from_plane(points):
    """Weights of points of the triangle: barycentric coordinates."""
    system = np.vstack([CORNERS.T, np.ones(3)])
    return np.linalg.solve(system, np.vstack([np.transpose(points), np.ones(len(points))])).T


def test_to_plane():
    """One-hot rows are the corners, the uniform row their centre; other lengths are refused."""
    assert np.allclose(to_plane(np.eye(3)), CORNERS)
    assert np.allclose(to_plane([1 / 3] * 3), CORNERS.mean(0))
    with pytest.raises(ValueError, match="3 tokens"):
        to_plane([0.5, 0.5])


def test_simplex_contours(ax):
    """Every vertex of a contour is a row with that KL (nats); corners carry the tokens; the null is the centre."""
    assert plot_simplex(ax, tokens=["x", "y", "w"], levels=[0.3, 0.1]) is ax
    assert {text.get_text() for text in ax.texts} == {"x", "y", "w", "0.1", "0.3"}
    assert np.allclose(lines(ax)["uniform row (the null)"].get_xydata(), CORNERS.mean(0))
    for path, level in zip(ax.collections[0].get_paths(), [0.1, 0.3], strict=True):
        rows = from_plane(path.vertices).clip(1e-12)
        assert np.allclose((rows * np.log(3 * rows)).sum(1), level, atol=2e-3)


def test_simplex_without_levels(ax):
    """No levels, no contours."""
    assert not plot_simplex(ax).collections


def test_path_and_touching_lines(ax):
    """The path runs through the rows; on each touching line <z> is constant, and its middle is the row."""
    rows = [tempered(Z, beta_for_budget(Z, level)) for level in (0.1, 0.5)]
    assert plot_solution_path(ax, rows, label="path", lw=3) is ax
    assert np.allclose(lines(ax)["path"].get_xydata(), to_plane(rows))
    assert plot_touching_lines(ax, rows, Z, length=0.2) is ax
    for row, line in zip(rows, ax.lines[1::2], strict=True):
        ends = from_plane(line.get_xydata())
        assert np.allclose(ends @ Z, row @ Z)
        assert np.allclose(ends.mean(0), row)
        assert np.linalg.norm(np.diff(line.get_xydata(), axis=0)) == pytest.approx(0.2)


def test_row_bars(ax):
    """Bars are the weights; ticks are the null, uniform unless given."""
    plot_row_bars(ax, [0.7, 0.2, 0.1], tokens=["a", "b", "c"])
    assert [bar.get_height() for bar in ax.patches] == pytest.approx([0.7, 0.2, 0.1])
    assert [segment[0, 1] for segment in ax.collections[0].get_segments()] == pytest.approx([1 / 3] * 3)
    plot_row_bars(ax, [0.7, 0.2, 0.1], tokens=["a", "b", "c"], null=[0.5, 0.5, 0.0])
    assert [segment[0, 1] for segment in ax.collections[1].get_segments()] == pytest.approx([0.5, 0.5, 0.0])
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["a", "b", "c"]


def test_budget_curve(ax):
    """The curve is rho(beta), below its dashed ceiling log(n / ties); the mark lies on it."""
    tied = [1.0, 1.0, 0.0, 0.0]
    plot_budget_curve(ax, tied, betas=[0, 1, 50], label="tied", mark=2.0)
    found = lines(ax)
    assert found["tied"].get_ydata() == pytest.approx([0, budget(tied, 1.0), np.log(2)])
    assert found["_ceiling"].get_ydata()[0] == budget_ceiling(tied) == pytest.approx(np.log(2))
    assert found["_mark"].get_xydata()[0] == pytest.approx([2.0, budget(tied, 2.0)])
    assert "nats" in ax.get_ylabel()


def test_ratio_histograms(ax):
    """Each histogram has area 1, -inf (an impossible draw) is left out, the threshold is where it was put."""
    plot_ratio_histograms(ax, [-3.0, -1.0, -np.inf, 0.0], [1.0, 2.0, 4.0], threshold=0.5)
    for bars in ax.containers:
        assert sum(bar.get_height() * bar.get_width() for bar in bars) == pytest.approx(1)
    assert list(lines(ax)["threshold $t$"].get_xdata()) == [0.5, 0.5]


def test_draws_against_budget(ax):
    """Dots are (1/KL, N) on log axes; on the line N KL = log(1/delta)."""
    plot_draws_against_budget(ax, [0.1, 1.0], [70, 7], delta=1e-3)
    found = lines(ax)
    assert found["$\\delta = 10^{-3}$"].get_xydata() == pytest.approx(np.array([[10, 70], [1, 7]]))
    x, y = found["_line"].get_data()
    assert np.asarray(y) / np.asarray(x) == pytest.approx(np.log(1e3))
    assert ax.get_xscale() == ax.get_yscale() == "log"


def test_draws_excess(ax):
    """Dots are the ratios given, the line is the formula over the same range, the limit is 1."""
    plot_draws_excess(ax, [1e-3, 1e-9], [1.3, 1.1], formula=lambda delta: 2 * delta, label="row")
    found = lines(ax)
    assert list(found["row"].get_ydata()) == [1.3, 1.1]
    x, y = found["_formula"].get_data()
    assert (max(x), min(x)) == pytest.approx((1e-3, 1e-9))
    assert np.asarray(y) == pytest.approx(2 * np.asarray(x))
    assert found["_limit"].get_ydata()[0] == 1


def test_attention_map(ax):
    """The image is the matrix, on the colour range 0 to vmax."""
    weights = np.tril(np.ones((3, 3))) / np.array([[1], [2], [3]])
    assert plot_attention_map(ax, weights, vmax=0.8) is ax
    assert np.allclose(ax.images[0].get_array(), weights)
    assert ax.images[0].get_clim() == (0, 0.8)

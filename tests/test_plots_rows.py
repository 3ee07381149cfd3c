"""Attention rows over tokens, sink bars and numbered points, read back from their artists."""

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

from helpers.diagnostics.plane import split_sink
from helpers.diagnostics.rows import kl_selectivity
from helpers.plots.rows import plot_numbered_points, plot_sink_bars, plot_token_strips

ROWS = np.array([[0.7, 0.26, 0.04], [0.5, 0.5, 0.0]])
TOKENS = [["<|endoftext|>", " Mary", "to"], ["<|endoftext|>", "red"]]


@pytest.fixture
def ax():
    fig, ax = plt.subplots()
    yield ax
    plt.close(fig)


def test_token_strips_weights(ax):
    """The image is the rows on the range 0 to 1; cells beyond a row's tokens are not drawn."""
    assert plot_token_strips(ax, ROWS, tokens=TOKENS, labels=["one", "two"]) is ax
    image = ax.images[0].get_array()
    assert np.ma.getmaskarray(image).tolist() == [[False] * 3, [False, False, True]]
    assert image.compressed() == pytest.approx([0.7, 0.26, 0.04, 0.5, 0.5])
    assert ax.images[0].get_clim() == (0, 1)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["one", "two"]


def test_token_strips_words(ax):
    """Each token stands in its own cell, BOS readably; weights from ``print_from`` on are printed below it."""
    plot_token_strips(ax, ROWS, tokens=TOKENS, labels=["one", "two"], print_from=0.2)
    at = {(round(t.get_position()[0]), round(t.get_position()[1])): [] for t in ax.texts}
    for text in ax.texts:
        x, y = text.get_position()
        at[round(x), round(y)].append(text.get_text())
    assert at == {
        (0, 0): ["BOS", "0.70"],
        (1, 0): ["Mary", "0.26"],
        (2, 0): ["to"],
        (0, 1): ["BOS", "0.50"],
        (1, 1): ["red", "0.50"],
    }


def test_token_strips_blank_token(ax):
    """A token of white space is shown by its quotes, not as nothing."""
    plot_token_strips(ax, [[1.0]], tokens=[["\n"]], labels=["row"])
    assert ax.texts[0].get_text() == "'\\n'"


def test_token_strips_contrast(ax):
    """Words on dark cells (weight > 0.6) are white, others black."""
    plot_token_strips(ax, ROWS, tokens=TOKENS, labels=["one", "two"])
    colours = {text.get_text(): text.get_color() for text in ax.texts}
    assert (colours["0.70"], colours["0.26"]) == ("white", "#000000")


@pytest.mark.parametrize(
    ("rows", "tokens", "labels", "words"),
    [
        (ROWS, TOKENS, ["one"], r"rows: expected shape \(row, key\) with 1 labels"),
        (ROWS, TOKENS[:1], ["one", "two"], "as many token lists, got .* and 1"),
        (ROWS[0], TOKENS, ["one", "two"], r"got \(3,\)"),
        (ROWS[:, :2], TOKENS, ["one", "two"], "tokens: row 0 has 2 weights, got 3 tokens"),
    ],
)
def test_token_strips_refuses(ax, rows, tokens, labels, words):
    """Rows, tokens and labels must belong together."""
    with pytest.raises(ValueError, match=words):
        plot_token_strips(ax, rows, tokens=tokens, labels=labels)


def test_sink_bars(ax):
    """The two bars of a row stack to its KL in nats; the dashed line is log n."""
    split = split_sink(np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]]))
    assert plot_sink_bars(ax, split.kl_sink, split.kl_rest, labels=["0.0", "0.1"], ceiling=np.log(3), sink="the") is ax
    low, high = ax.containers
    total = kl_selectivity([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]], normalized=False).tolist()
    assert [bar.get_height() for bar in low] == pytest.approx(split.kl_sink.tolist())
    assert [bar.get_y() + bar.get_height() for bar in high] == pytest.approx(total)
    assert ax.lines[0].get_ydata()[0] == pytest.approx(np.log(3))
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0.0", "0.1"]
    assert low.get_label() == "how much goes to the"
    assert "nats" in ax.get_ylabel()


def test_sink_bars_without_ceiling(ax):
    """No ceiling, no line."""
    assert not plot_sink_bars(ax, [0.1], [0.2], labels=["0.0"]).lines


def test_number_points(ax):
    """Circles are at the points; numbers count from 1 and turn inwards at the right edge."""
    assert plot_numbered_points(ax, [0.2, 0.99], [0.1, 0.0]) is ax
    assert ax.lines[0].get_xydata().tolist() == [[0.2, 0.1], [0.99, 0.0]]
    assert [(t.get_text(), t.xy, t.get_ha()) for t in ax.texts] == [
        ("1", (0.2, 0.1), "left"),
        ("2", (0.99, 0.0), "right"),
    ]

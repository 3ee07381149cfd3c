"""Moving pictures, read back from the file and from the artists."""

import matplotlib

matplotlib.use("agg")

from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from helpers.diagnostics.rows import kl_selectivity, susceptibility
from helpers.diagnostics.tempering import tempered
from helpers.plots.moving import arch_figure, moving_picture, moving_png, turned_figure

ROW = np.array([0.5, 0.3, 0.15, 0.05])


def plain(value):
    """A small figure of one colour, darker for larger values."""
    return plt.figure(figsize=(1, 0.5), facecolor=str(1 - value))


def test_frames_in_their_order():
    """Each frame shows the figure of its value; the first is what a still picture shows, and its figures are closed."""
    before = plt.get_fignums()
    shown = Image.open(BytesIO(moving_picture(plain, [0.0, 0.6, 0.2]).data))
    assert (shown.format, shown.n_frames, shown.size) == ("PNG", 3, (100, 50))
    greys = []
    for number in range(3):
        shown.seek(number)
        greys.append(np.asarray(shown.convert("L"))[25, 50])
    assert greys[0] == 255
    assert np.allclose(greys, [255, 102, 204], atol=2)
    assert plt.get_fignums() == before


def test_axes_stand_still():
    """A title of three lines, and labels of other widths, in a later frame do not move the axes."""
    figures = []

    def titled(lines):
        fig, ax = plt.subplots(figsize=(2, 2), layout="constrained")
        ax.set(title="\n".join("abc"[:lines]), yticks=[0, 10**lines])
        figures.append(fig)
        return fig

    moving_picture(titled, [1, 3, 2])
    places = [fig.axes[0].get_position().bounds for fig in figures]
    assert places[0] == places[1] == places[2]
    alone = titled(3)
    alone.canvas.draw()
    assert np.abs(np.subtract(alone.axes[0].get_position().bounds, places[0])).max() > 0.05
    plt.close(alone)


def test_ends_stay_longer_and_it_starts_again():
    """The first and the last frame stay five times as long as those between; the picture repeats without end."""
    shown = Image.open(BytesIO(moving_picture(plain, [0.0, 0.5, 0.9], seconds=0.1).data))
    times = []
    for number in range(3):
        shown.seek(number)
        times.append(shown.info["duration"])
    assert times == [500, 100, 500]
    assert shown.info["loop"] == 0


def test_what_cannot_move_is_refused():
    """One frame, or frames of two sizes, are a ValueError."""
    with pytest.raises(ValueError, match=r"values: expected at least two.*got 1"):
        moving_picture(plain, [0.5])
    with pytest.raises(ValueError, match="draw: expected figures of one size"):
        moving_png([Image.new("RGB", (10, 10)), Image.new("RGB", (10, 11))])


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.5])
def test_turned_row(beta):
    """The bars are pi^beta normalised, pi itself at 1; the dot stands at (beta, KL of the bars in nats)."""
    fig = turned_figure(ROW, beta, tokens=["<s>", " a", "b", "c"])
    left, right = fig.axes
    expected = ROW**beta / (ROW**beta).sum()
    assert np.allclose([bar.get_height() for bar in left.patches], expected)
    assert [label.get_text() for label in left.get_xticklabels()] == ["BOS", "a", "b", "c"]
    dot = next(line for line in right.lines if line.get_label() == "_mark")
    assert np.allclose([*dot.get_xdata(), *dot.get_ydata()], [beta, kl_selectivity(expected, normalized=False)])
    plt.close(fig)


def test_arch_of_a_row():
    """The dot is the tempered row's (KL, chi) and lies on the drawn path, which ends near (0, 0) and (1, 0)."""
    fig = arch_figure(ROW, 2.0)
    path, dot = fig.axes[1].lines[-2:]
    here = tempered(np.log(ROW), 2.0)
    place = np.array([*dot.get_xdata(), *dot.get_ydata()])
    assert np.allclose(place, [kl_selectivity(here), susceptibility(here)])
    assert np.abs(np.column_stack(path.get_data()) - place).sum(1).min() < 0.03
    assert np.allclose([path.get_xydata()[0], path.get_xydata()[-1]], [[0, 0], [1, 0]], atol=0.01)
    plt.close(fig)

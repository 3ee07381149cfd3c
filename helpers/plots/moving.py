"""Pictures that move where no kernel runs: a figure at several values of one number, as an animated PNG."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Image as Shown
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from PIL import Image
from scipy.spatial.distance import cdist

from helpers.diagnostics.rows import kl_selectivity, susceptibility
from helpers.diagnostics.tempering import tempered
from helpers.plots.hypothesis import plot_budget_curve, plot_row_bars
from helpers.plots.plane import label_plane, plot_attainable
from helpers.plots.rows import READABLE
from helpers.plots.style import BLACK, VERMILION

#: Dots per inch of the frames (an 8-inch figure is as wide as a page's text), and colours of their one palette.
DPI, COLOURS = 100, 64


def moving_picture(draw: Callable[[float], Figure], values: Sequence[float], *, seconds: float = 0.15) -> Shown:
    """A figure at each of several values, one after the other and again from the start, for the end of a cell.

    Browsers move it wherever they show PNG files; what can't move it shows the first frame. Axes stand still: in every
    frame where the layout puts them in the first.

    Args:
        draw: makes the figure of one value; it is closed afterwards.
        values: at least two.
        seconds: how long a frame stays; the first and the last stay five times as long.

    Raises:
        ValueError: if there are fewer than two values, or the figures differ in size.
    """
    return Shown(data=moving_png([*_frames(map(draw, values))], seconds=seconds), format="png")


def moving_png(frames: Sequence[Image.Image], *, seconds: float = 0.15) -> bytes:
    """An animated PNG of frames of one size, in the palette that all frames together need.

    Raises:
        ValueError: if there are fewer than two frames, or they differ in size.
    """
    if len(frames) < 2:
        raise ValueError(f"values: expected at least two, for a picture that moves, got {len(frames)}")
    sizes = {frame.size for frame in frames}
    if len(sizes) > 1:
        raise ValueError(f"draw: expected figures of one size, got {sorted(sizes)} pixels")
    first, *others = _in_one_palette(frames)
    times = [seconds * 1000 * (5 if i in (0, len(frames) - 1) else 1) for i in range(len(frames))]
    file = BytesIO()
    first.save(file, "PNG", save_all=True, append_images=others, duration=times, loop=0, optimize=True)
    return file.getvalue()


def turned_figure(row: ArrayLike, beta: float, *, tokens: Sequence[str], betas: tuple[float, float] = (0, 4)) -> Figure:
    """One attention row with its temperature turned: its weights over the tokens, and the budget that it spends.

    The row's scores are its logarithms, which are the scores of the model up to a constant.

    Args:
        row: positive weights at beta = 1, shape ``(key,)``.
        beta: inverse temperature, relative to the row's own.
        tokens: one a key.
        betas: range of the curve.
    """
    scores = np.log(np.asarray(row, dtype=float))
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3), width_ratios=[1.7, 1])
    plot_row_bars(left, tempered(scores, beta), tokens=[READABLE.get(t, t.strip()) for t in tokens])
    left.tick_params(axis="x", rotation=60)
    left.set_title(rf"the row at $\beta$ = {beta:.2f} (black: uniform)")
    plot_budget_curve(right, scores, betas=np.linspace(*betas, 60), mark=beta)
    right.axvline(1, color=BLACK, lw=0.8, ls=":")
    right.set(title=r"dotted: $\beta$ = 1, as trained", xlabel=r"$\beta$, relative to the trained head")
    right.set_ylim(0, 1.08 * np.log(scores.size))
    return fig


def arch_figure(row: ArrayLike, beta: float) -> Figure:
    """One attention row with its temperature turned: its weights, and its place on its path through the (KL, chi) plane.

    Args:
        row: positive weights at beta = 1, shape ``(key,)``.
        beta: inverse temperature, relative to the row's own.
    """
    scores = np.log(np.asarray(row, dtype=float))
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3), width_ratios=[1, 1.3])
    plot_row_bars(left, tempered(scores, beta), tokens=[""] * scores.size)
    left.set(title=rf"the row at $\beta$ = {beta:.2f} (black: uniform)", xlabel="source token")
    label_plane(plot_attainable(right, scores.size), scores.size)
    path = np.array([tempered(scores, b) for b in np.geomspace(0.02, 50, 150)])
    right.plot(kl_selectivity(path), susceptibility(path), color=VERMILION)
    here = tempered(scores, beta)
    right.plot(kl_selectivity(here), susceptibility(here), "o", color=VERMILION, mec=BLACK, ms=9, zorder=4)
    right.set_title("its place in the plane, below the roof")
    return fig


def _frames(figures: Iterable[Figure]) -> Iterator[Image.Image]:
    """Figures as pixels, each drawn once (`savefig` draws twice) and closed, laid out as the first of them."""
    places = None
    for fig in figures:
        fig.set_dpi(DPI)
        if places is not None:
            fig.set_layout_engine("none")
            for axes, place in zip(fig.axes, places, strict=True):
                axes.set_position(place)
        canvas = FigureCanvasAgg(fig)
        canvas.draw()
        places = [axes.get_position() for axes in fig.axes]
        plt.close(fig)
        yield Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _in_one_palette(frames: Sequence[Image.Image]) -> list[Image.Image]:
    """Frames in the colours that are most frequent over all of them, each other colour as the nearest of these."""
    red, green, blue = np.moveaxis(np.stack([np.asarray(frame, dtype=np.uint32) for frame in frames]), -1, 0)
    codes = red << 16 | green << 8 | blue
    there, counts = np.unique(codes, return_counts=True)
    colours = np.stack([there >> 16, there >> 8 & 255, there & 255], axis=1)
    kept = colours[np.argsort(-counts)[:COLOURS]]
    nearest = np.zeros(1 << 24, dtype=np.uint8)
    nearest[there] = cdist(colours, kept).argmin(1)
    numbers = nearest[codes]
    images = [Image.fromarray(frame) for frame in numbers]
    for image in images:
        image.putpalette(kept.astype(np.uint8).tobytes())
    return images

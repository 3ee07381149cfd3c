"""How KL grows with the length of a text, in pictures: some heads, a map of all slopes, and what is described by the law."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes

from helpers.heads import head_names
from helpers.measured.knob.verdicts import EXPLAINED, NEAR_SLOPE, described
from helpers.plots.style import BLACK, BLUE, GREEN, GREY, VERMILION, label_points


def plot_kl_of_length(
    ax: Axes, n: Sequence[int], kl: Float[np.ndarray, "stretch n"], *, colour: str = BLUE, label: str | None = None
) -> Axes:
    """KL in nats against the number of tokens, on a logarithmic axis: the mean over stretches, and each stretch thinly.

    Args:
        n: the lengths.
        kl: of one head.
    """
    ax.semilogx(n, kl.T, color=colour, lw=0.6, alpha=0.35)
    ax.plot(n, kl.mean(0), "o-", color=colour, ms=4, lw=2, label=label)
    ax.set(xlabel="tokens n", ylabel="KL (nats)")
    ax.set_xticks(n[::2], [f"{one:,}" for one in n[::2]])
    ax.minorticks_off()
    return ax


def plot_slope_map(ax: Axes, lengths: pd.DataFrame) -> Axes:
    """Slopes against log n as a map, layers down, heads across: from 0 (light) to 1 (dark).

    Args:
        lengths: one kind and one part of a `MeasuredKnob`'s ``lengths``.
    """
    table = lengths.pivot_table(index="layer", columns="head", values="slope")
    ax.imshow(table, cmap="cividis_r", vmin=0, vmax=1, aspect="auto")
    ax.set_xticks(range(0, table.shape[1], 2))
    ax.set(xlabel="head", ylabel="layer")
    return ax


def plot_slope_kinds(ax: Axes, lengths: pd.DataFrame, *, name: int = 0) -> Axes:
    """Every head by its slope and by how much of its growth log n explains; the law's two boxes shaded.

    Args:
        lengths: one kind and one part of a `MeasuredKnob`'s ``lengths``.
        name: how many of the steepest and of the flattest heads get their name.
    """
    fixed, spread = described(lengths)
    for slope, inside, colour in ((1, fixed, VERMILION), (0, spread, GREEN)):
        ax.fill_between([slope - NEAR_SLOPE, slope + NEAR_SLOPE], EXPLAINED, 1.0, color=colour, alpha=0.25, lw=0)
        ax.scatter(lengths.slope[inside], lengths.r2[inside], s=18, color=colour, lw=0, zorder=3)
    outside = ~(fixed | spread)
    ax.scatter(lengths.slope[outside], lengths.r2[outside], s=14, color=GREY, lw=0, alpha=0.7)
    some = pd.concat([lengths.nsmallest(name, "slope"), lengths.nlargest(name, "slope")])
    label_points(ax, list(zip(some.slope, some.r2, strict=True)), head_names(some), [BLACK] * len(some), near=(0, 0))
    ax.set(xlabel="slope of KL against log n", ylabel="share of variance that log n explains")
    return ax


def plot_natural_shuffled(ax: Axes, natural: pd.DataFrame, shuffled: pd.DataFrame) -> Axes:
    """Slope of every head on natural text against the same tokens shuffled, with intervals; the diagonal is "no difference"."""
    both = natural.merge(shuffled, on=["layer", "head"], suffixes=("", "_shuffled"))
    ax.hlines(both.slope, both.low_shuffled, both.high_shuffled, color=BLUE, lw=0.5, alpha=0.3)
    ax.vlines(both.slope_shuffled, both.low, both.high, color=BLUE, lw=0.5, alpha=0.3)
    ax.scatter(both.slope_shuffled, both.slope, s=12, color=BLUE, lw=0)
    ends = [min(both.slope.min(), both.slope_shuffled.min()), max(both.slope.max(), both.slope_shuffled.max())]
    ax.plot(ends, ends, color=BLACK, lw=0.8, ls="--")
    ax.set(xlabel="slope on shuffled text", ylabel="slope on natural text")
    return ax

"""Is beta = 1 an optimum, in pictures: the knob against random directions, slopes over layers, curvature."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes

from helpers.heads import head_names
from helpers.plots.knob import REAL
from helpers.plots.style import BLACK, BLUE, GREY, VERMILION, label_points


def plot_direction_ratios(
    ax: Axes, ratio: Float[np.ndarray, " head"], null: Float[np.ndarray, " draw"], *, limit: float, colour: str = REAL
) -> Axes:
    """How many random directions the knob of each head is worth, beside the same of random directions.

    Args:
        ratio: R of every head.
        null: R of random directions, any number of draws.
        limit: what the median of R may be at most, dashed; the median itself is the full line.
    """
    top = float(max(np.quantile(ratio, 0.99), np.quantile(null, 0.999)))
    bins = np.linspace(0, top, 26).tolist()
    ax.hist(null, bins, density=True, color=GREY, alpha=0.5, label="random directions")
    ax.hist(
        np.clip(ratio, 0, top), bins, density=True, histtype="step", color=colour, lw=1.8, label="the knob, a head each"
    )
    ax.axvline(float(np.median(ratio)), color=colour, lw=1.5, label="median of the knobs")
    ax.axvline(limit, color=BLACK, lw=1, ls="--", label="97.5 % point of the median")
    ax.set(xlabel="slope / size of the slope along a random direction", ylabel="density", xlim=(0, top))
    return ax


def plot_loss_slopes(ax: Axes, loss: pd.DataFrame, *, name: int = 8) -> Axes:
    """d loss / d beta of every head over its layer, in thousandths of a nat; filled where q < 0.05.

    Args:
        loss: of a `MeasuredKnob`.
        name: how many of the largest slopes get their name.
    """
    slope = 1000 * loss.slope
    at = loss.layer + 0.6 * (loss["head"] / loss["head"].max() - 0.5)
    colours = np.where(slope < 0, BLUE, VERMILION)
    sure = (loss.q < 0.05).to_numpy()
    ax.vlines(at, 1000 * loss.low, 1000 * loss.high, colors=list(colours), lw=0.6, alpha=0.4)
    ax.scatter(at[sure], slope[sure], c=colours[sure], s=16, lw=0)
    ax.scatter(at[~sure], slope[~sure], facecolors="none", edgecolors=colours[~sure], s=12, lw=0.8)
    ax.axhline(0, color=BLACK, lw=0.8)
    top = loss.loc[slope.abs().nlargest(name).index]
    places = list(zip(at[top.index], slope[top.index], strict=True))
    label_points(ax, places, head_names(top), list(colours[top.index]), near=(0, 0))
    ax.set(xlabel="layer", ylabel="d loss / d β (10⁻³ nats a token)")
    return ax


def plot_curvature(ax: Axes, curvature: pd.DataFrame, *, name: int = 4) -> Axes:
    """Change of the loss with beta, a line a head, in thousandths of a nat: largest slopes in colour, the drawn ones grey."""
    for (group, *_), one in curvature.sort_values("beta").groupby(["group", "layer", "head"]):
        colour = VERMILION if group == "largest slope" else GREY
        ax.plot(one.beta, 1000 * one.change, "o-", color=colour, ms=3, lw=1.2)
        best = one[one.best]
        ax.plot(best.beta, 1000 * best.change, "o", color=colour, ms=7, mec=BLACK)
    ax.axhline(0, color=BLACK, lw=0.8)
    last = curvature[curvature.beta == curvature.beta.max()]
    top = last.loc[last.change.abs().nlargest(name).index]
    places = list(zip(top.beta, 1000 * top.change, strict=True))
    label_points(ax, places, head_names(top), [BLACK] * len(top), near=(0, 0))
    ax.set(xlabel="β", ylabel="change of the loss (10⁻³ nats a token)")
    return ax

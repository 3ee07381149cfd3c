"""Which statistic, at what price: intervals of many scores under one protocol."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from helpers.plots.style import BLACK, BLUE, GREY, VERMILION

NEEDS = {"nothing": BLACK, "two sets": BLUE, "pairs": VERMILION}


def plot_scores(ax: Axes, table: pd.DataFrame, *, names: bool = True) -> Axes:
    """AUROC of every score with its interval, in the table's order; diamond: within layers; see `score_legend`.

    Args:
        table: what `helpers.scores.comparison.compare` returns.
        names: write the scores' names at the left (share them between panels).
    """
    places = np.arange(len(table))[::-1]
    ax.axvline(0.5, color=GREY, lw=1, ls="--")
    if "layer index" in table.index:
        ax.axvline(table.auroc["layer index"], color=BLACK, lw=1, ls=":")
    for place, row in zip(places, table.itertuples(), strict=True):
        ax.plot([row.low, row.high], [place, place], color=NEEDS[row.needs], lw=1.6, alpha=0.6, solid_capstyle="butt")
        ax.plot(row.auroc, place, "o", color=NEEDS[row.needs], ms=5.5)
        ax.plot(row.within, place, "D", color=BLACK, ms=4.5, mfc="white")
    ax.set_yticks(places, table.index if names else [""] * len(table), fontsize=8.5)
    ax.tick_params(axis="y", length=0)
    ax.set(xlim=(-0.03, 1.03), xlabel="AUROC")
    return ax


def score_legend() -> list[Line2D]:
    """Handles for a legend of `plot_scores`, e.g. ``fig.legend(handles=score_legend(), loc="outside lower center")``."""
    needs = [Line2D([], [], color=colour, marker="o", label=f"AUROC; needs {name}") for name, colour in NEEDS.items()]
    within = Line2D([], [], color=BLACK, marker="D", mfc="white", ls="", label="within layers")
    chance = Line2D([], [], color=GREY, ls="--", label="chance")
    return [*needs, within, chance, Line2D([], [], color=BLACK, ls=":", label="layer index")]

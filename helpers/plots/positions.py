"""How many prompts it takes to see heads move, and the two parts that a shift of KL is made of."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes

from helpers.plots.style import BLUE, GREY, VERMILION, label_points, role_colour
from helpers.reference.circuits import Circuit


def plot_power(ax: Axes, table: pd.DataFrame) -> Axes:
    """Heads found to move against prompts a side, from `helpers.statistics.pairs.power_curve`."""
    for design, colour in (("pairs", VERMILION), ("two sets", BLUE)):
        some = table[table.design == design]
        ax.fill_between(some.n, some.low, some.high, color=colour, alpha=0.15, lw=0)
        ax.plot(some.n, some.found, "o-", color=colour, label=design)
    ax.set(xscale="log", xlabel="prompts a side", ylabel="heads found (q < 0.05)", ylim=(0, None))
    ax.set_xticks(table.n.unique(), [str(n) for n in table.n.unique()])
    ax.minorticks_off()
    ax.legend()
    return ax


def plot_two_parts(
    ax: Axes, first: Float[np.ndarray, "layer head"], second: Float[np.ndarray, "layer head"], *, names: tuple[str, str],
    circuit: Circuit | None = None,
) -> Axes:  # fmt: skip
    """Two parts of a shift against each other, a dot a head; on the dashed diagonal they cancel."""
    ax.axhline(0, color=GREY, lw=0.8)
    ax.axvline(0, color=GREY, lw=0.8)
    ax.axline((0, 0), slope=-1, color=GREY, lw=0.8, ls="--")
    ax.scatter(first.ravel(), second.ravel(), s=18, color=GREY, alpha=0.7, lw=0)
    ax.set(xlabel=names[0], ylabel=names[1])
    if circuit:
        points = [(float(first[head]), float(second[head])) for head in circuit.heads]
        colours = [role_colour(circuit.role(*head)) for head in circuit.heads]
        ax.scatter([x for x, _ in points], [y for _, y in points], s=30, c=colours, lw=0, zorder=3)
        near = 0.05 * np.ptp(ax.get_xlim()), 0.03 * np.ptp(ax.get_ylim())
        label_points(ax, points, [str(head) for head in circuit.heads], colours, near=near)
    return ax

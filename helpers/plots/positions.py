"""Heads over positions and prompts: where in the sentence heads move, and how many prompts it takes to see it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes

from helpers.plots.style import BLUE, GREY, VERMILION, label_points, role_colour
from helpers.reference.circuits import Circuit


def plot_position_map(
    ax: Axes,
    shifts: Float[np.ndarray, "layer head position"],
    tokens: Sequence[str],
    *,
    circuit: Circuit | None = None,
    limit: float | None = None,
) -> Axes:
    """A head x position heat map of mean shifts; heads of the circuit are named at the right in their role's colour.

    Args:
        shifts: mean difference active - control of one diagnostic (NaN where it is not defined).
        tokens: a label for each position.
        limit: the colour range is -limit to limit; default: the largest |shift|. A colour bar is of ``ax.images[0]``.
    """
    n_layers, n_heads, _ = shifts.shape
    flat = shifts.reshape(n_layers * n_heads, -1)
    limit = limit or float(np.nanmax(np.abs(flat)))
    ax.imshow(flat, cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    ax.set_xticks(range(len(tokens)), tokens, rotation=60, ha="right", rotation_mode="anchor", fontsize=8.5)
    starts = np.arange(n_layers) * n_heads
    ax.set_yticks(starts + (n_heads - 1) / 2, [str(layer) for layer in range(n_layers)])
    ax.set(ylabel="layer", xlabel="query position")
    ax.tick_params(length=0)
    for start in starts[1:]:
        ax.axhline(start - 0.5, color="white", lw=1.2)
    for head in circuit.heads if circuit else ():
        role = circuit.role(*head) if circuit else "other"
        ax.annotate(
            str(head), (1.01, head.layer * n_heads + head.head), xycoords=("axes fraction", "data"), va="center",
            fontsize=7.5, color=role_colour(role),
        )  # fmt: skip
    return ax


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

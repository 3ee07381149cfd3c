"""Do circuit heads shift more? Distributions of |dKL| and |dchi|, and heads against layers."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from helpers.heads import head_names
from helpers.plots.style import BLACK, GREY, label_points, role_colour, role_ink

SYMBOLS = {"d_kl": r"$|\Delta\mathrm{KL}|$", "d_chi": r"$|\Delta\chi|$"}


def plot_shift_distribution(ax: Axes, table: pd.DataFrame, column: str = "d_kl", *, seed: int = 0) -> Axes:
    """|shift| of circuit heads beside the others: a dot a head in its role's colour, a line at each mean.

    Args:
        table: an experiment's table; ``column``: ``"d_kl"`` or ``"d_chi"`` (normalised units).
    """
    rng = np.random.default_rng(seed)
    for x, inside in enumerate((True, False)):
        group = table[table.in_circuit == inside]
        size = group[column].abs()
        jitter = rng.uniform(-0.18, 0.18, len(group))
        ax.scatter(x + jitter, size, s=26, c=[role_colour(r) for r in group.role], alpha=0.8, lw=0)
        ax.hlines(size.mean(), x - 0.28, x + 0.28, color="black", lw=1.6)
    counts = table.in_circuit.sum(), (~table.in_circuit).sum()
    ax.set_xticks([0, 1], [f"circuit ({counts[0]})", f"others ({counts[1]})"])
    ax.set(ylabel=f"{SYMBOLS[column]}  (normalised)", xlim=(-0.5, 1.5), ylim=(0, None))
    return ax


def plot_shift_by_layer(ax: Axes, table: pd.DataFrame, column: str = "d_kl", *, top: int = 3, most: int = 25) -> Axes:
    """|shift| of every head against its layer: what depth alone would explain.

    Ringed are the circuit's heads. Named are the ``top`` others and the circuit's heads, of a large circuit the ``most``
    that shift most; names of others are grey.
    """
    others, circuit = table[~table.in_circuit], table[table.in_circuit]
    ax.scatter(others.layer, others[column].abs(), s=18, color=GREY, alpha=0.7, lw=0, label="others")
    colours = [role_colour(role) for role in circuit.role]
    ax.scatter(circuit.layer, circuit[column].abs(), s=34, c=colours, edgecolors=BLACK, linewidths=0.8, zorder=3)
    ax.set(xlabel="layer", ylabel=f"{SYMBOLS[column]}  (normalised)", ylim=(0, None))
    named = pd.concat(
        [group.loc[group[column].abs().nlargest(n).index] for group, n in ((circuit, most), (others, top))]
    )
    points = list(zip(named.layer, named[column].abs(), strict=True))
    names = head_names(named)
    inks = [role_ink(role) if inside else GREY for role, inside in zip(named.role, named.in_circuit, strict=True)]
    label_points(ax, points, names, inks, near=(0.5, 0.04 * ax.get_ylim()[1]))
    return ax

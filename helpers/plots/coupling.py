"""Cross-head correlations: matrices, active against control, and what chance gives."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from helpers.heads import pairs_of
from helpers.plots.style import BLACK, GREY, SKY, VERMILION, label_points
from helpers.statistics.coupling import Coupling, strongest_pairs
from helpers.statistics.shuffles import CouplingNull

#: From this many heads on, a matrix has more heads than its picture has pixels.
LARGE = 150


def plot_correlation_matrix(
    ax: Axes, matrix: Float[np.ndarray, "head head"], n_heads: int, *, limit: float = 1.0
) -> Axes:
    """A head x head matrix, one tick a layer (at most twelve); the colour range is -limit to limit (share it between panels).

    A colour bar is of ``ax.images[0]``.
    """
    n_layers = len(matrix) // n_heads
    is_large = len(matrix) > LARGE  # then a head is less than a pixel, and neighbours are averaged
    ax.imshow(matrix, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="antialiased" if is_large else "nearest")
    starts = np.arange(n_layers) * n_heads
    shown = np.arange(0, n_layers, -(-n_layers // 12))
    for set_ticks in (ax.set_xticks, ax.set_yticks):
        set_ticks(starts[shown] + (n_heads - 1) / 2, [str(layer) for layer in shown], fontsize=8)
    for start in starts[1:]:
        ax.axhline(start - 0.5, color="white", lw=0.2 if is_large else 0.5)
        ax.axvline(start - 0.5, color="white", lw=0.2 if is_large else 0.5)
    ax.tick_params(length=0)
    ax.set(xlabel="layer of head", ylabel="layer of head")
    ax.spines[:].set_visible(False)
    return ax


def plot_coupling_scatter(ax: Axes, coupling: Coupling, n_heads: int, *, top: int = 6) -> Axes:
    """C_active against C_control, a dot a pair of heads; the pairs that change most are named."""
    upper = np.triu_indices_from(coupling.active, k=1)
    alpha = float(np.clip(3500 / len(upper[0]), 0.12, 0.35))  # many dots lie upon each other
    ax.scatter(coupling.control[upper], coupling.active[upper], s=5, color=GREY, alpha=alpha, lw=0, rasterized=True)
    pairs = strongest_pairs(coupling, n_heads, top=top)
    ax.scatter(pairs.c_control, pairs.c_active, s=22, color=VERMILION, lw=0)
    ax.axline((0, 0), slope=1, color="black", lw=0.8)
    ax.set(
        xlabel="correlation of KL, control prompts", ylabel="correlation of KL, active prompts",
        xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), aspect="equal",
    )  # fmt: skip
    points = list(zip(pairs.c_control, pairs.c_active, strict=True))
    names = [f"{one}–{two}" for one, two in pairs_of(pairs)]
    label_points(ax, points, names, [BLACK] * len(names), near=(0.04, 0.03))
    return ax


def plot_coupling_null(ax: Axes, null: CouplingNull) -> Axes:
    """The largest |C_diff| with labels shuffled, and the observed one."""
    ax.hist(null.largest, bins=60, color=SKY, lw=0, label="labels shuffled")
    ax.axvline(null.observed, color=VERMILION, lw=2, label=f"observed, {null.observed:.2f}")
    ax.axvline(float(np.quantile(null.largest, 0.95)), color=BLACK, lw=1, ls="--", label="95 % of shuffles")
    ax.set(xlabel=r"largest $|C_\mathrm{diff}|$", ylabel="permutations")
    ax.legend(fontsize=8.5)
    return ax

"""Pictures of the budget problem: rows as bars, the 3-token simplex, rho(beta), and draws needed by a test."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray
from scipy.special import xlogy

from helpers.diagnostics.tempering import budget, budget_ceiling
from helpers.plots.style import BLACK, BLUE, GREY, SKY, VERMILION

#: Corners of the 3-token simplex in the plane: lower left, lower right, top.
CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3) / 2]])
_PLACES = (("right", "top"), ("left", "top"), ("center", "bottom"))


def to_plane(rows: ArrayLike) -> NDArray[np.float64]:
    """Rows over 3 tokens, shape ``(*batch, 3)``, as points of the triangle, shape ``(*batch, 2)``."""
    weights = np.asarray(rows, dtype=float)
    if weights.shape[-1] != 3:
        raise ValueError(f"rows: expected rows over 3 tokens, got {weights.shape[-1]}")
    return np.asarray(weights @ CORNERS)


def plot_simplex(
    ax: Axes, *, tokens: Sequence[str] = ("a", "b", "c"), levels: Sequence[float] = (), inline: bool = True
) -> Axes:
    """The triangle of all rows over 3 tokens, its uniform point, and contours of KL(row || uniform) in nats."""
    _kl_contours(ax, levels, inline=inline)
    ax.plot(*np.vstack([CORNERS, CORNERS[:1]]).T, color=BLACK, lw=1, label="_triangle")
    ax.plot(*to_plane(np.full(3, 1 / 3)), "o", color=BLACK, ms=5, label="uniform row (the null)")
    for corner, token, (ha, va) in zip(CORNERS, tokens, _PLACES, strict=True):
        shift = (0, 4 if va == "bottom" else -4)
        ax.annotate(token, corner, shift, textcoords="offset points", ha=ha, va=va)
    ax.set(aspect="equal", xlim=(-0.1, 1.1), ylim=(-0.09, 0.95))
    ax.axis("off")
    return ax


def plot_solution_path(ax: Axes, rows: ArrayLike, *, label: str, colour: str = VERMILION, **line: object) -> Axes:
    """A path of rows over 3 tokens (shape ``(points, 3)``) drawn in the triangle."""
    ax.plot(*to_plane(rows).T, color=colour, label=label, **{"lw": 2, **line})  # type: ignore[arg-type]
    return ax


def plot_touching_lines(ax: Axes, rows: ArrayLike, z: ArrayLike, *, length: float = 0.3) -> Axes:
    """Through each row, a piece of the line on which the mean score <z> is the same, with a dot on the row."""
    scores = np.asarray(z, dtype=float)
    along = to_plane(np.cross(scores, np.ones(3)))  # a direction that changes neither <z> nor the sum of weights
    step = along / np.linalg.norm(along) * length / 2
    for number, point in enumerate(to_plane(np.atleast_2d(rows))):
        label = r"line of equal $\langle z\rangle$" if number == 0 else "_more"
        ax.plot(*np.stack([point - step, point + step]).T, color=BLUE, lw=1.4, label=label)
        ax.plot(*point, "o", color=VERMILION, ms=6, zorder=3, label="_touch")
    return ax


def plot_row_bars(
    ax: Axes, pi: ArrayLike, *, tokens: Sequence[str], null: ArrayLike | None = None, colour: str = VERMILION
) -> Axes:
    """One attention row as bars, over ticks at the weights of its null (uniform unless given)."""
    row = np.asarray(pi, dtype=float)
    level = np.full(row.size, 1 / row.size) if null is None else np.asarray(null, dtype=float)
    places = np.arange(row.size)
    ax.bar(places, row, width=0.7, color=colour)
    ax.hlines(level, places - 0.45, places + 0.45, color=BLACK, lw=1.2, label="null")
    ax.set_xticks(places, tokens)
    ax.set(ylim=(0, 1.02), ylabel=r"attention weight $\pi_i$")
    return ax


def plot_budget_curve(
    ax: Axes, z: ArrayLike, *, betas: ArrayLike, label: str = "", colour: str = VERMILION, mark: float | None = None
) -> Axes:
    """rho(beta) over ``betas`` with its ceiling as a dashed line; ``mark`` puts a dot at one beta."""
    grid = np.asarray(betas, dtype=float)
    ax.plot(grid, [budget(z, float(beta)) for beta in grid], color=colour, lw=2, label=label or "_rho")
    ax.axhline(budget_ceiling(z), color=colour, lw=1, ls="--", label="_ceiling")
    if mark is not None:
        ax.plot(mark, budget(z, mark), "o", color=colour, ms=7, label="_mark")
    ax.set(xlabel=r"inverse temperature $\beta$ (per unit of score)", ylabel=r"budget spent $\rho(\beta)$ (nats)")
    ax.set_ylim(bottom=0)
    return ax


def plot_ratio_histograms(ax: Axes, under_null: ArrayLike, under_pi: ArrayLike, *, threshold: float) -> Axes:
    """Log-likelihood ratios of many experiments, drawn from u and from pi, with the threshold between the verdicts."""
    both = np.concatenate([np.asarray(under_null, dtype=float), np.asarray(under_pi, dtype=float)])
    finite = both[np.isfinite(both)]
    bins = np.linspace(finite.min(), finite.max(), 60).tolist()
    ax.hist(under_null, bins, density=True, color=BLUE, alpha=0.6, label="draws from the uniform row")
    ax.hist(under_pi, bins, density=True, color=VERMILION, alpha=0.6, label=r"draws from $\pi$")
    ax.axvline(threshold, color=BLACK, lw=1.4, ls="--", label="threshold $t$")
    ax.set(xlabel="log-likelihood ratio $L$ (nats)", ylabel="density (per nat)")
    return ax


def plot_draws_against_budget(
    ax: Axes, kl: ArrayLike, draws: ArrayLike, *, delta: float, colour: str = VERMILION
) -> Axes:
    """Draws needed against 1/KL, both on log axes, with the Chernoff-Stein line N = log(1/delta) / KL."""
    inverse = 1 / np.asarray(kl, dtype=float)
    ends = np.array([inverse.min() / 1.5, inverse.max() * 1.5])
    ax.loglog(ends, -np.log(delta) * ends, color=colour, lw=1.2, ls="--", label="_line")
    ax.loglog(inverse, draws, "o", color=colour, ms=5, label=rf"$\delta = 10^{{{round(np.log10(delta))}}}$")
    ax.set(xlabel=r"$1\,/\,\mathrm{KL}(\pi\|u)$ (1/nats)", ylabel="draws needed $N$")
    return ax


def plot_draws_excess(
    ax: Axes,
    deltas: ArrayLike,
    ratio: ArrayLike,
    *,
    formula: Callable[[float], float],
    label: str,
    colour: str = VERMILION,
) -> Axes:
    """N KL / log(1/delta), which Chernoff-Stein sends to 1: simulated (dots) and by a ``formula`` of delta (line)."""
    grid = np.geomspace(np.max(deltas), np.min(deltas), 100)
    ax.semilogx(deltas, ratio, "o", color=colour, ms=5, label=label)
    ax.semilogx(grid, [formula(float(delta)) for delta in grid], color=colour, lw=1.2, label="_formula")
    ax.axhline(1, color=GREY, lw=1, ls="--", label="_limit")
    ax.set(xlabel=r"false alarm allowed, $\delta$", ylabel=r"$N\,\mathrm{KL}\,/\,\log(1/\delta)$")
    return ax


def plot_attention_map(ax: Axes, rows: ArrayLike, *, vmax: float = 1.0) -> Axes:
    """Rows stacked as an image (destination down, source across), weights from 0 (white) to ``vmax``."""
    weights = np.asarray(rows, dtype=float)
    ax.imshow(weights, cmap="Blues", vmin=0, vmax=vmax)
    ax.set(xlabel="source position $i$", ylabel="destination position $t$")
    ax.set_xticks(range(weights.shape[1]))
    ax.set_yticks(range(weights.shape[0]))
    return ax


def _kl_contours(ax: Axes, levels: Sequence[float], *, inline: bool, points: int = 240) -> None:
    x, y = np.meshgrid(np.linspace(0, 1, points), np.linspace(0, CORNERS[2, 1], points))
    top = y / CORNERS[2, 1]
    right = x - top / 2
    weights = np.stack([1 - top - right, right, top])
    kl = np.where((weights >= 0).all(0), xlogy(np.clip(weights, 0, 1), 3 * np.clip(weights, 1e-300, 1)).sum(0), np.nan)
    if levels:
        lines = ax.contour(x, y, kl, levels=sorted(levels), colors=SKY, linewidths=1)
        if inline:
            third = np.linspace(0, 1 / 3, 500)  # labels sit between the centre and the top corner
            rise = xlogy(1 - 2 * third, 3 * (1 - 2 * third)) + 2 * xlogy(third, 3 * np.clip(third, 1e-300, 1))
            places = [(0.5, (1 - 2 * np.interp(-level, -rise, third)) * CORNERS[2, 1]) for level in sorted(levels)]
            ax.clabel(lines, fmt="%.2g", fontsize=9, colors=BLACK, manual=places, inline=True)

"""Do two numbers of heads go together, by rank, and within layers too?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman correlation of two scores of heads; see `rank_correlation`."""

    rho: float
    low: float
    high: float
    within: float
    within_low: float
    within_high: float
    p: float
    null_low: float
    null_high: float


def rank_correlation(
    score: ArrayLike,
    target: ArrayLike,
    layer: ArrayLike,
    *,
    level: float = 0.95,
    n_resamples: int = 2000,
    n_permutations: int = 2000,
    seed: int = 0,
) -> RankCorrelation:
    """Spearman's correlation over heads, and within layers: ranks over all heads, less their mean in the head's layer.

    Args:
        score, target: one number a head, shape ``(head,)``.
        layer: layer of each head.

    Returns:
        `RankCorrelation`: rho and ``within`` with percentile bootstrap intervals over heads; p of ``within``, two-sided, from
        permutations of one score inside layers, p = (1 + #{\\|permuted\\| >= \\|observed\\|}) / (1 + permutations), and the middle 95 %
        (``level``) of those. NaN where a score is constant (the layer itself, within layers).

    Raises:
        ValueError: if lengths differ, there are fewer than three heads, or a value is not finite.
    """
    values = [np.asarray(x, dtype=float) for x in (score, target, layer)]
    if values[0].ndim != 1 or len(values[0]) < 3 or len({x.shape for x in values}) > 1:
        shapes = ", ".join(str(x.shape) for x in values)
        raise ValueError(f"score, target, layer: expected one value for each of at least 3 heads, got shapes {shapes}")
    if not np.isfinite(values).all():
        raise ValueError(
            f"score, target, layer: expected finite values, got {np.count_nonzero(~np.isfinite(values))} others"
        )
    one, other, layers = (x[None] for x in values)
    rng, tails = np.random.default_rng(seed), [(1 - level) / 2, (1 + level) / 2]
    rho, within = (float(x[0]) for x in _both(one, other, layers))
    drawn = rng.integers(0, one.shape[1], (n_resamples, one.shape[1]))
    bounds = [_quantiles(x, tails) for x in _both(*(x[0][drawn] for x in (one, other, layers)))]
    null = _permuted(one, other, layers, n_permutations, rng)
    p = (1 + np.count_nonzero(np.abs(null) >= abs(within) - 1e-12)) / (1 + n_permutations)
    return RankCorrelation(
        rho, *bounds[0], within, *bounds[1], float(p) if np.isfinite(within) else np.nan, *_quantiles(null, tails)
    )


def _both(one: Floats, other: Floats, layers: Floats) -> tuple[Floats, Floats]:
    """rho and within of each row."""
    ranks = [stats.rankdata(x, axis=-1) for x in (one, other)]
    return _pearson(*(x - x.mean(-1, keepdims=True) for x in ranks)), _pearson(*(_centred(x, layers) for x in ranks))


def _centred(ranks: Floats, layers: Floats) -> Floats:
    """Ranks less their mean in the layer, row by row."""
    found = np.zeros(ranks.shape)
    for layer in np.unique(layers):
        here = layers == layer
        total, count = (ranks * here).sum(-1, keepdims=True), here.sum(-1, keepdims=True)
        found += here * (ranks - total / np.maximum(count, 1))
    return found


def _permuted(one: Floats, other: Floats, layers: Floats, n: int, rng: np.random.Generator) -> Floats:
    """Correlations within layers once the ranks of ``one`` are permuted inside each layer."""
    a, b = (_centred(stats.rankdata(x, axis=-1), layers) for x in (one, other))
    shuffled = np.repeat(a, n, axis=0)
    for layer in np.unique(layers):
        here = layers[0] == layer
        shuffled[:, here] = rng.permuted(shuffled[:, here], axis=1)
    return _pearson(shuffled, b)


def _pearson(a: Floats, b: Floats) -> Floats:
    """Of centred values; NaN where one side is constant."""
    size = np.sqrt(np.square(a).sum(-1) * np.square(b).sum(-1))
    return np.asarray(np.divide((a * b).sum(-1), size, out=np.full(size.shape, np.nan), where=size > 1e-9))


def _quantiles(values: Floats, tails: list[float]) -> tuple[float, float]:
    some = values[np.isfinite(values)]
    low, high = np.quantile(some, tails) if len(some) else (np.nan, np.nan)
    return float(low), float(high)

"""Does a score rank circuit heads above the others, and by more than their depth?

The same four numbers stand beside each other everywhere: AUROC, its bootstrap interval, the AUROC of the layer index
alone, and the AUROC within layers with a label-permutation p.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Real
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from helpers.diagnostics.resolution import RESOLUTION, flatten


@dataclass(frozen=True)
class Ranking:
    """How a score ranks circuit heads against the others; see `rank_heads`."""

    n_circuit: int
    n_other: int
    u: float
    p: float
    auroc: float
    low: float
    high: float
    layer_auroc: float
    within_auroc: float
    within_p: float
    mean_circuit: float
    sd_circuit: float
    mean_other: float
    sd_other: float


def rank_heads(
    score: ArrayLike,
    in_circuit: ArrayLike,
    layer: ArrayLike,
    *,
    n_permutations: int = 20_000,
    n_resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    resolution: float = RESOLUTION,
) -> Ranking:
    """Rank heads by a score and ask whether circuit heads come first.

    Args:
        score: one number a head (larger = more circuit-like), shape ``(head,)``.
        in_circuit: True for circuit heads, shape ``(head,)``.
        layer: layer of each head, shape ``(head,)``.
        resolution: what rounding can do to a score, in its own unit. If no two scores differ by more, all are tied
            (`helpers.diagnostics.resolution.flatten`): AUROC 0.5.

    Returns:
        `Ranking`: one-sided Mann-Whitney U and p (circuit > other); AUROC = U / (n_circuit n_other) with a percentile
        bootstrap interval over heads (each group resampled); AUROC of the layer index alone; within-layer AUROC (only
        pairs of one layer count) and the p of 20,000 label permutations inside layers; means and population sds (as the post prints them).

    Raises:
        ValueError: if lengths differ, a score is not finite, or a group has fewer than two heads.
    """
    score, in_circuit, layer = _check(score, in_circuit, layer)
    circuit, other = score[in_circuit], score[~in_circuit]
    tied = flatten(score, resolution)
    test = stats.mannwhitneyu(tied[in_circuit], tied[~in_circuit], alternative="greater", method="asymptotic")
    rng = np.random.default_rng(seed)
    low, high = _auroc_interval(tied[in_circuit], tied[~in_circuit], level, n_resamples, rng)
    within, within_p = within_layer_auroc(tied, in_circuit, layer, n_permutations=n_permutations, rng=rng, resolution=0)
    return Ranking(
        n_circuit=len(circuit),
        n_other=len(other),
        u=float(test.statistic),
        p=float(test.pvalue),
        auroc=auroc(tied, in_circuit, resolution=0),
        low=low,
        high=high,
        layer_auroc=auroc(layer, in_circuit),
        within_auroc=within,
        within_p=within_p,
        mean_circuit=float(circuit.mean()),
        sd_circuit=float(circuit.std()),
        mean_other=float(other.mean()),
        sd_other=float(other.std()),
    )


def auroc(score: ArrayLike, in_circuit: ArrayLike, *, resolution: float = RESOLUTION) -> float:
    """P(a circuit head scores above another head) + P(tie)/2, over all such pairs; scores made of rounding (`flatten`) tie.

    >>> auroc([3, 2, 1, 0], [True, False, True, False])
    0.75
    """
    score, labels = flatten(score, resolution), np.asarray(in_circuit, dtype=bool)
    n_circuit = labels.sum()
    rank_sum = stats.rankdata(score)[labels].sum()
    return float((rank_sum - n_circuit * (n_circuit + 1) / 2) / (n_circuit * (len(labels) - n_circuit)))


def within_layer_auroc(
    score: ArrayLike,
    in_circuit: ArrayLike,
    layer: ArrayLike,
    *,
    n_permutations: int = 20_000,
    rng: np.random.Generator | None = None,
    resolution: float = RESOLUTION,
) -> tuple[float, float]:
    """AUROC over the pairs (circuit, other) that share a layer, and its label-permutation p.

    U of each layer, summed, over the number of such pairs. Labels are permuted inside each layer, so that no depth
    preference can help: for the layer index itself the value is exactly 0.5 and p is 1. Scores made of
    rounding (`flatten`) tie.

    Returns:
        (AUROC, p) with p = (1 + #{permuted >= observed}) / (1 + permutations); (nan, nan) if no layer has both kinds.
    """
    score, labels, layer = flatten(score, resolution), np.asarray(in_circuit, dtype=bool), np.asarray(layer)
    rng = rng or np.random.default_rng(0)
    pairs, observed, null = 0, 0.0, np.zeros(n_permutations)
    for one in np.unique(layer):
        here = layer == one
        k, size = int(labels[here].sum()), int(here.sum())
        if k in (0, size):
            continue
        ranks = stats.rankdata(score[here])
        pairs += k * (size - k)
        observed += ranks[labels[here]].sum() - k * (k + 1) / 2
        shuffled = rng.permuted(np.broadcast_to(ranks, (n_permutations, size)), axis=1)
        null += shuffled[:, :k].sum(1) - k * (k + 1) / 2
    if not pairs:
        return float("nan"), float("nan")
    exceed = int(np.count_nonzero(null >= observed - 1e-9))
    return float(observed) / pairs, float(1 + exceed) / (1 + n_permutations)


def auroc_gain(
    score: ArrayLike,
    baseline: ArrayLike,
    in_circuit: ArrayLike,
    *,
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
    resolution: float = RESOLUTION,
) -> tuple[float, float, float]:
    """What a score adds to another: AUROC(score) - AUROC(baseline), with a bootstrap interval.

    Heads are resampled within each group, the same heads for both scores, so that what they share cancels. A
    score made of rounding (`flatten`) ties throughout.

    Returns:
        (gain, low, high): percentile interval.

    Raises:
        ValueError: as `rank_heads`.
    """
    rng = np.random.default_rng(seed)
    wins = []
    for one in (score, baseline):
        values, labels, _ = _check(one, in_circuit, np.zeros(len(np.asarray(one))))
        values = flatten(values, resolution)
        wins.append((np.sign(values[labels][:, None] - values[~labels][None, :]) + 1) / 2)
    values = _resampled_means(wins[0] - wins[1], n_resamples, rng)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float((wins[0] - wins[1]).mean()), float(low), float(high)


def adjust_for_depth(score: ArrayLike, layer: ArrayLike) -> NDArray[np.float64]:
    """What a straight line in the layer index leaves of a score: score - (a + b layer), least squares over heads.

    Source: the depth confound of post 2; the fit is `scipy.stats.linregress`.
    """
    values, layers = np.asarray(score, dtype=float), np.asarray(layer, dtype=float)
    line = stats.linregress(layers, values)
    return np.asarray(values - (line.intercept + line.slope * layers))


def _auroc_interval(
    circuit: NDArray[np.float64], other: NDArray[np.float64], level: float, n_resamples: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Percentile bootstrap: each group is resampled with replacement, AUROC is the mean of the win matrix."""
    wins = (np.sign(circuit[:, None] - other[None, :]) + 1) / 2
    values = _resampled_means(wins, n_resamples, rng)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _resampled_means(wins: NDArray[np.float64], n_resamples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Means of a (circuit, other) matrix with rows and columns resampled."""
    weights = [rng.multinomial(n, np.full(n, 1 / n), n_resamples) / n for n in wins.shape]
    return np.asarray(np.einsum("ri,ij,rj->r", weights[0], wins, weights[1], optimize=True))


def _check(
    score: ArrayLike, in_circuit: ArrayLike, layer: ArrayLike
) -> tuple[Float64[np.ndarray, " head"], Bool[np.ndarray, " head"], Real[np.ndarray, " head"]]:
    values, labels, layers = np.asarray(score, dtype=float), np.asarray(in_circuit, dtype=bool), np.asarray(layer)
    if not (values.ndim == 1 and values.shape == labels.shape == layers.shape):
        raise ValueError(
            f"score, in_circuit, layer: expected one value a head each, got shapes {values.shape}, {labels.shape}, "
            f"{layers.shape}"
        )
    if not np.isfinite(values).all():
        raise ValueError(f"score: expected finite values, got {np.count_nonzero(~np.isfinite(values))} others")
    if min(labels.sum(), (~labels).sum()) < 2:
        raise ValueError(f"in_circuit: expected at least 2 heads on each side, got {labels.sum()} of {len(labels)}")
    return values, labels, layers

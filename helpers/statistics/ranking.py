"""Does a score rank circuit heads above the others, and by more than their depth?

The same four numbers stand beside each other everywhere: AUROC, its bootstrap interval, the AUROC of the layer index
alone, and the AUROC within layers with a label-permutation p.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Real
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
    (ranking,) = rank_each(
        [score], in_circuit, layer, n_permutations=n_permutations, n_resamples=n_resamples, level=level, seed=seed,
        resolution=resolution,
    )  # fmt: skip
    return ranking


def rank_each(
    scores: Sequence[ArrayLike],
    in_circuit: ArrayLike,
    layer: ArrayLike,
    *,
    n_permutations: int = 20_000,
    n_resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    resolution: float = RESOLUTION,
) -> list[Ranking]:
    """`rank_heads` of many scores of the same heads.

    Resampled heads and permuted labels are the same for every score, as one seed makes them: they are drawn once, which is
    nearly all of the time.

    Raises:
        ValueError: as `rank_heads`.
    """
    if not len(scores):
        return []
    checked, tied, labels, layers = _check_each(scores, in_circuit, layer, resolution)
    rng = np.random.default_rng(seed)
    intervals = _auroc_intervals(tied, labels, level, n_resamples, rng)
    within = _within_layers(tied, labels, layers, n_permutations, rng)
    each = zip(checked, tied, intervals, within, strict=True)
    return [_ranking(score, one, labels, layers, *ends, *inside) for score, one, ends, inside in each]


def _ranking(
    score: NDArray[np.float64], tied: NDArray[np.float64], labels: NDArray[np.bool_], layer: NDArray,
    low: float, high: float, within: float, within_p: float,
) -> Ranking:  # fmt: skip
    circuit, other = score[labels], score[~labels]
    test = stats.mannwhitneyu(tied[labels], tied[~labels], alternative="greater", method="asymptotic")
    return Ranking(
        n_circuit=len(circuit),
        n_other=len(other),
        u=float(test.statistic),
        p=float(test.pvalue),
        auroc=auroc(tied, labels, resolution=0),
        low=low,
        high=high,
        layer_auroc=auroc(layer, labels),
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
    tied, labels = flatten(score, resolution)[None], np.asarray(in_circuit, dtype=bool)
    (found,) = _within_layers(tied, labels, np.asarray(layer), n_permutations, rng or np.random.default_rng(0))
    return found


def chance_within_layers(
    scores: Sequence[ArrayLike],
    in_circuit: ArrayLike,
    layer: ArrayLike,
    *,
    n_permutations: int = 2000,
    seed: int = 0,
    resolution: float = RESOLUTION,
) -> Float[np.ndarray, "permutation score"]:
    """p of `within_layer_auroc` of many scores, had the circuit's heads been drawn from their layers at random.

    Every shuffle keeps how many heads of each layer are in the circuit, and all scores see the same shuffles, so that scores
    that are alike pass together as they would. A shuffle's p is its place among all of them, itself included.

    Returns:
        p for each shuffle and score; NaN throughout if no layer has both kinds.

    Raises:
        ValueError: as `rank_heads`, or if there is no score.
    """
    if not len(scores):
        raise ValueError("scores: expected at least one, got none")
    _, tied, labels, layers = _check_each(scores, in_circuit, layer, resolution)
    pairs, _, null = _shuffled_within(tied, labels, layers, n_permutations, np.random.default_rng(seed))
    if not pairs:
        return np.full(null.shape, np.nan)
    return np.asarray(stats.rankdata(-np.round(null, 6), method="max", axis=0) / n_permutations)


def _within_layers(
    scores: NDArray[np.float64],
    labels: NDArray[np.bool_],
    layer: NDArray,
    n_permutations: int,
    rng: np.random.Generator,
) -> list[tuple[float, float]]:
    """`within_layer_auroc` of scores ``(score, head)``, the same permutations for all."""
    pairs, observed, null = _shuffled_within(scores, labels, layer, n_permutations, rng)
    if not pairs:
        return [(float("nan"), float("nan"))] * len(scores)
    exceed = np.count_nonzero(null >= observed - 1e-9, axis=0)
    return [(float(u) / pairs, float(1 + n) / (1 + n_permutations)) for u, n in zip(observed, exceed, strict=True)]


def _shuffled_within(
    scores: NDArray[np.float64],
    labels: NDArray[np.bool_],
    layer: NDArray,
    n_permutations: int,
    rng: np.random.Generator,
) -> tuple[int, NDArray[np.float64], NDArray[np.float64]]:
    """Pairs that share a layer; U over these, summed over layers, of each score; the same with labels shuffled in each layer."""
    pairs, observed, null = 0, np.zeros(len(scores)), np.zeros((n_permutations, len(scores)))
    for one in np.unique(layer):
        here = layer == one
        k, size = int(labels[here].sum()), int(here.sum())
        if k in (0, size):
            continue
        ranks = stats.rankdata(scores[:, here], axis=1)
        pairs += k * (size - k)
        observed += ranks[:, labels[here]].sum(1) - k * (k + 1) / 2
        shuffled = rng.permuted(np.broadcast_to(np.arange(size), (n_permutations, size)), axis=1)
        null += ranks.T[shuffled[:, :k]].sum(1) - k * (k + 1) / 2
    return pairs, observed, null


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
        wins.append(_wins(values, labels))
    values = _weighted_means(wins[0] - wins[1], _resamples(wins[0].shape, n_resamples, rng))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float((wins[0] - wins[1]).mean()), float(low), float(high)


def adjust_for_depth(score: ArrayLike, layer: ArrayLike) -> NDArray[np.float64]:
    """What a straight line in the layer index leaves of a score: score - (a + b layer), least squares over heads.

    Source: the depth confound of post 2; the fit is `scipy.stats.linregress`.
    """
    values, layers = np.asarray(score, dtype=float), np.asarray(layer, dtype=float)
    line = stats.linregress(layers, values)
    return np.asarray(values - (line.intercept + line.slope * layers))


def _auroc_intervals(
    scores: NDArray[np.float64], labels: NDArray[np.bool_], level: float, n_resamples: int, rng: np.random.Generator
) -> list[tuple[float, float]]:
    """Percentile bootstrap of scores ``(score, head)``: each group is resampled, the same heads for all scores."""
    weights = _resamples((int(labels.sum()), int((~labels).sum())), n_resamples, rng)
    means = [_weighted_means(_wins(score, labels), weights) for score in scores]
    ends = [np.quantile(values, [(1 - level) / 2, (1 + level) / 2]) for values in means]
    return [(float(low), float(high)) for low, high in ends]


def _wins(score: NDArray[np.float64], labels: NDArray[np.bool_]) -> NDArray[np.float64]:
    """1, 1/2 or 0 for a circuit head (row) above, level with or below another (column): AUROC is the mean."""
    return np.asarray((np.sign(score[labels][:, None] - score[~labels][None, :]) + 1) / 2)


def _resamples(sizes: tuple[int, int], n_resamples: int, rng: np.random.Generator) -> list[NDArray[np.float64]]:
    """How often each row and each column is drawn, as shares ``(resample, row)`` and ``(resample, column)``."""
    return [rng.multinomial(n, np.full(n, 1 / n), n_resamples) / n for n in sizes]


def _weighted_means(matrix: NDArray[np.float64], weights: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.asarray(np.einsum("ri,ij,rj->r", weights[0], matrix, weights[1], optimize=True))


def _check_each(
    scores: Sequence[ArrayLike], in_circuit: ArrayLike, layer: ArrayLike, resolution: float
) -> tuple[list[NDArray[np.float64]], NDArray[np.float64], NDArray[np.bool_], NDArray]:
    """Scores of the same heads, at least one, as they are and with ties ``(score, head)``; labels, layers."""
    checked = [_check(score, in_circuit, layer) for score in scores]
    values, (_, labels, layers) = [score for score, *_ in checked], checked[0]
    return values, np.stack([flatten(score, resolution) for score in values]), labels, layers


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

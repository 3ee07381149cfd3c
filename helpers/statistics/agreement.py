"""Do two models agree about scores? The order in which each puts them, with an interval that comes from the heads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from helpers.diagnostics.resolution import flatten
from helpers.statistics.ranking import within_layer_auroc


def resampled_within(
    scores: Float[np.ndarray, "head score"],
    in_circuit: ArrayLike,
    layer: ArrayLike,
    *,
    n_resamples: int = 500,
    seed: int = 0,
) -> tuple[Float[np.ndarray, " score"], Float[np.ndarray, "resample score"]]:
    """Within-layer AUROC of many scores, and of the same heads resampled, the same for every score.

        AUROC = sum_cd w_c v_d [same layer] win(c, d) / sum_cd w_c v_d [same layer]

    over circuit heads c and others d; w and v count how often a resample has a head (1 for the value itself). A resample
    without two heads of one layer, one of each kind, counts as 0.5.

    Args:
        scores: one column a score, larger = more circuit-like.

    Returns:
        (value, resampled).

    Raises:
        ValueError: if lengths differ, or no layer has heads of both kinds.
    """
    labels, layers = np.asarray(in_circuit, dtype=bool), np.asarray(layer)
    if not scores.ndim == 2 or not len(scores) == len(labels) == len(layers):
        raise ValueError(f"scores: expected a row for each of {len(labels)} heads, got shape {scores.shape}")
    same = layers[labels][:, None] == layers[~labels][None, :]
    if not same.any():
        raise ValueError("in_circuit: expected a layer with heads of both kinds, got none")
    rng = np.random.default_rng(seed)
    counts = [rng.multinomial(n, np.full(n, 1 / n), n_resamples).astype(float) for n in same.shape]
    pairs = _weighted(same.astype(float), counts)
    columns = [flatten(column) for column in scores.T]
    value = np.array([within_layer_auroc(c, labels, layers, n_permutations=0, resolution=0)[0] for c in columns])
    wins = [_weighted(same * _wins(column, labels), counts) for column in columns]
    return value, np.stack([np.divide(w, pairs, out=np.full(n_resamples, 0.5), where=pairs > 0) for w in wins], axis=1)


def rank_agreement(
    one: tuple[ArrayLike, ArrayLike], other: tuple[ArrayLike, ArrayLike], *, level: float = 0.95
) -> tuple[float, float, float]:
    """Spearman correlation of two lists of values, with the interval over their resamples.

    Args:
        one, other: (value, resampled) of the same scores (`resampled_within`, or means of several).

    Returns:
        (rho, low, high). Resampling adds the noise of few heads a second time, which draws the interval towards 0.
    """
    rho = float(stats.spearmanr(one[0], other[0]).statistic)
    ranks = (stats.rankdata(resampled, axis=1) for _, resampled in (one, other))
    values = stats.pearsonr(*ranks, axis=1).statistic
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return rho, float(low), float(high)


def mean_of(sides: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> tuple[NDArray, NDArray]:
    """The mean of several (value, resampled), resample by resample."""
    return np.mean([value for value, _ in sides], axis=0), np.mean([resampled for _, resampled in sides], axis=0)


def _wins(score: NDArray[np.float64], labels: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.asarray((np.sign(score[labels][:, None] - score[~labels][None, :]) + 1) / 2)


def _weighted(matrix: NDArray[np.float64], counts: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.asarray(((counts[0] @ matrix) * counts[1]).sum(1))

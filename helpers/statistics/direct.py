"""Direct coupling: which heads stay correlated when every other head is held fixed."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float
from sklearn.covariance import GraphicalLassoCV, LedoitWolf
from sklearn.metrics import average_precision_score
from sklearn.preprocessing import StandardScaler

from helpers.statistics.coupling_null import CONSTANT
from helpers.statistics.shifts import head_index

Method = Literal["graphical lasso", "ledoit-wolf"]


def partial_correlations(
    values: Float[np.ndarray, "prompt layer head"], *, method: Method = "graphical lasso"
) -> Float[np.ndarray, "head head"]:
    """Partial correlations between heads over prompts, from a regularised precision matrix P.

        r_ij = -P_ij / sqrt(P_ii P_jj)

    This is the correlation of i and j given all other heads: 0 for two heads that are correlated only through others.
    With more heads than prompts P must be regularised: ``"graphical lasso"`` (sparse; the penalty is chosen by 5-fold
    cross-validated likelihood) or ``"ledoit-wolf"`` (shrunk towards independence; closed form), both of scikit-learn.
    P of a Gaussian is the maximum-entropy model of the correlations, the simplest direct coupling analysis.

    Returns:
        Matrix over all heads in reading order, 1 on the diagonal, NaN for heads that do not vary.

    Raises:
        ValueError: if there are fewer than 10 prompts or fewer than two heads vary, or the method is unknown.
    """
    if values.ndim != 3 or len(values) < 10:
        raise ValueError(f"values: expected at least 10 prompts, shape (prompt, layer, head), got shape {values.shape}")
    estimators = {"graphical lasso": GraphicalLassoCV(cv=5, max_iter=500), "ledoit-wolf": LedoitWolf()}
    if method not in estimators:
        raise ValueError(f"method: expected one of {', '.join(estimators)}, got {method!r}")
    flat = values.reshape(len(values), -1)
    varies = flat.std(0) > CONSTANT
    if varies.sum() < 2:
        raise ValueError(f"values: expected at least 2 heads that vary, got {varies.sum()}")
    precision = estimators[method].fit(StandardScaler().fit_transform(flat[:, varies])).precision_
    scale = np.sqrt(np.diag(precision))
    partial = -precision / np.outer(scale, scale)
    np.fill_diagonal(partial, 1.0)
    full = np.full((flat.shape[1],) * 2, np.nan)
    full[np.ix_(varies, varies)] = partial
    return full


def edge_table(matrices: dict[str, Float[np.ndarray, "head head"]], n_layers: int, n_heads: int) -> pd.DataFrame:
    """Every pair of heads of different layers, the earlier first, with |entry| of each matrix (0 where it is NaN).

    Returns:
        Columns layer_1, head_1, layer_2, head_2, then one a matrix.
    """
    heads = head_index(n_layers, n_heads).to_numpy()
    i, j = np.triu_indices(len(heads), k=1)
    apart = heads[i, 0] < heads[j, 0]
    i, j = i[apart], j[apart]
    table = pd.DataFrame(np.hstack([heads[i], heads[j]]), columns=["layer_1", "head_1", "layer_2", "head_2"])
    return table.assign(**{name: np.abs(np.nan_to_num(matrix[i, j])) for name, matrix in matrices.items()})


def average_precision_interval(
    score: np.ndarray, truth: np.ndarray, *, level: float = 0.95, n_resamples: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """Average precision of a ranking, with a percentile bootstrap interval over the ranked items.

    Average precision is the mean, over true items, of the precision at their rank; for a random order it is the base
    rate, ``truth.mean()``.

    Returns:
        (average precision, low, high).

    Raises:
        ValueError: if lengths differ, or nothing or everything is true.
    """
    score, truth = np.asarray(score, dtype=float), np.asarray(truth, dtype=bool)
    if score.shape != truth.shape or truth.all() or not truth.any():
        raise ValueError(
            f"truth: expected one value a score, some true and some not, got {truth.sum()} true of {truth.size}"
            f" for {score.size} scores"
        )
    rng, values = np.random.default_rng(seed), []
    while len(values) < n_resamples:
        some = rng.integers(0, len(truth), len(truth))
        if truth[some].any():
            values.append(average_precision_score(truth[some], score[some]))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(average_precision_score(truth, score)), float(low), float(high)

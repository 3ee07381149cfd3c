"""Direct coupling: which heads stay correlated when every other head is held fixed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float
from sklearn.covariance import LedoitWolf, empirical_covariance, graphical_lasso, log_likelihood
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import average_precision_score
from sklearn.model_selection import KFold
from sklearn.preprocessing import StandardScaler

from helpers.diagnostics.resolution import RESOLUTION, flatten
from helpers.heads import head_index, pair_index
from helpers.statistics.ranking import auroc, within_layer_auroc
from helpers.statistics.shifts import Resolution, per_head

Method = Literal["graphical lasso", "ledoit-wolf"]

#: Penalties tried by the graphical lasso, for heads of sd 1: a correlation smaller than the penalty counts for nothing.
PENALTIES = np.geomspace(0.8, 0.001, 18)


def partial_correlations(
    values: Float[np.ndarray, "prompt layer head"],
    *,
    method: Method = "graphical lasso",
    resolution: Resolution = RESOLUTION,
) -> Float[np.ndarray, "layer*head layer*head"]:
    """Partial correlations between heads over prompts, from a regularised precision matrix P.

        r_ij = -P_ij / sqrt(P_ii P_jj)

    This is the correlation of i and j given all other heads: 0 for two heads that are correlated only through others.
    With more heads than prompts P must be regularised: ``"graphical lasso"`` (sparse; the penalty is chosen by 5-fold
    cross-validated likelihood) or ``"ledoit-wolf"`` (shrunk towards independence; closed form), both of scikit-learn.
    P of a Gaussian is the maximum-entropy model of the correlations, the simplest direct coupling analysis.

    Returns:
        Matrix over all heads in reading order, 1 on the diagonal, NaN for heads whose values all lie
        within the resolution.

    Raises:
        ValueError: if there are fewer than 10 prompts or fewer than two heads vary, or the method is unknown; or if the
            graphical lasso converges for none of `PENALTIES`.
    """
    if values.ndim != 3 or len(values) < 10:
        raise ValueError(f"values: expected at least 10 prompts, shape (prompt, layer, head), got shape {values.shape}")
    if method not in ESTIMATORS:
        raise ValueError(f"method: expected one of {', '.join(ESTIMATORS)}, got {method!r}")
    flat = values.reshape(len(values), -1)
    varies = np.ptp(flat, axis=0) > per_head(resolution, values.shape[1:]).ravel()
    if varies.sum() < 2:
        raise ValueError(f"values: expected at least 2 heads that vary, got {varies.sum()}")
    precision = ESTIMATORS[method](StandardScaler().fit_transform(flat[:, varies]))
    scale = np.sqrt(np.diag(precision))
    partial = -precision / np.outer(scale, scale)
    np.fill_diagonal(partial, 1.0)
    full = np.full((flat.shape[1],) * 2, np.nan)
    full[np.ix_(varies, varies)] = partial
    return full


def _sparse_precision(values: Float[np.ndarray, "prompt head"]) -> Float[np.ndarray, "head head"]:
    """Graphical lasso with the one of `PENALTIES` under which held-out prompts are likeliest (5 folds).

    `sklearn.covariance.GraphicalLassoCV` is no use where prompts are as few as heads: it starts each penalty from the
    solution for a larger one, which makes its solver diverge, and takes the last penalty before that for the best one.
    """
    scores = [_held_out_likelihood(values, penalty) for penalty in PENALTIES]
    if max(scores) == -np.inf:
        raise ValueError("values: the graphical lasso does not converge on them; try method='ledoit-wolf'")
    return _penalised_precision(values, PENALTIES[np.argmax(scores)])


def _held_out_likelihood(values: Float[np.ndarray, "prompt head"], penalty: float) -> float:
    """Mean log likelihood of the prompts of a fold under the fit to the others; -inf if a fit does not converge."""
    scores = []
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            for fit, rest in KFold(5).split(values):
                scatter = empirical_covariance(values[rest] - values[fit].mean(0), assume_centered=True)
                scores.append(log_likelihood(scatter, _penalised_precision(values[fit], penalty)))
        except (FloatingPointError, ConvergenceWarning):
            return -np.inf
    return float(np.mean(scores))


def _penalised_precision(values: Float[np.ndarray, "prompt head"], penalty: float) -> Float[np.ndarray, "head head"]:
    """argmax of log det P - tr(S P) - penalty sum |P_ij|, the diagonal included (Friedman, Hastie & Tibshirani 2008).

    scikit-learn leaves the diagonal free; adding the penalty to the diagonal of S is the same as penalising it, and S is
    then never singular. Its inner solver must be the finer one (``enet_tol``), or the outer one never ends.
    """
    covariance = empirical_covariance(values) + penalty * np.eye(values.shape[1])
    _, precision = graphical_lasso(covariance, penalty, tol=1e-3, enet_tol=1e-6, max_iter=1000)
    return np.asarray(precision)


ESTIMATORS: dict[Method, Callable[[np.ndarray], np.ndarray]] = {
    "graphical lasso": _sparse_precision,
    "ledoit-wolf": lambda values: LedoitWolf().fit(values).precision_,
}


def edge_table(matrices: dict[str, Float[np.ndarray, "head head"]], n_layers: int, n_heads: int) -> pd.DataFrame:
    """Every pair of heads of different layers, the earlier first, with |entry| of each matrix (0 where it is NaN).

    Returns:
        The columns of `pair_index`, then one a matrix.
    """
    heads = head_index(n_layers, n_heads).to_numpy()
    i, j = np.triu_indices(len(heads), k=1)
    apart = heads[i, 0] < heads[j, 0]
    i, j = i[apart], j[apart]
    return pair_index(heads[i], heads[j]).assign(
        **{name: np.abs(np.nan_to_num(matrix[i, j])) for name, matrix in matrices.items()}
    )


def rank_edges(table: pd.DataFrame, methods: Sequence[str], *, n_resamples: int = 400) -> pd.DataFrame:
    """How each column of an `edge_table` ranks the edges that its column ``causal`` marks.

    Beside the methods stands "early layers first", which looks at no prompt. ``within`` compares edges between the same
    two layers only; its p (2,000 label permutations) treats edges as independent, which flatters it.

    Returns:
        One row a method: average precision with its interval (low, high) and base rate, AUROC, within, within p.
    """
    scores = {name: table[name] for name in methods} | {"early layers first": -(table.layer_1 + table.layer_2)}
    causal = table.causal.to_numpy(dtype=bool)
    block = table.layer_1 * (1 + table.layer_2.max()) + table.layer_2
    rows = {}
    for name, column in scores.items():
        score = column.to_numpy(dtype=float)
        ap = average_precision_interval(score, causal, n_resamples=n_resamples)
        within = within_layer_auroc(score, causal, block, n_permutations=2000)
        rows[name] = (*ap, causal.mean(), auroc(score, causal), *within)
    columns = ["average precision", "low", "high", "base rate", "AUROC", "within", "within p"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def average_precision_interval(
    score: np.ndarray,
    truth: np.ndarray,
    *,
    level: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
    resolution: float = RESOLUTION,
) -> tuple[float, float, float]:
    """Average precision of a ranking, with a percentile bootstrap interval over the ranked items.

    Average precision is the mean, over true items, of the precision at their rank; for a random order it is the base
    rate, ``truth.mean()``. Scores made of rounding (`flatten`) tie.

    Returns:
        (average precision, low, high).

    Raises:
        ValueError: if lengths differ, or nothing or everything is true.
    """
    score, truth = flatten(score, resolution), np.asarray(truth, dtype=bool)
    if score.shape != truth.shape or truth.all() or not truth.any():
        raise ValueError(
            f"truth: expected one value a score, some true and some not, got {truth.sum()} true of {truth.size}"
            f" for {score.size} scores"
        )
    rng, order = np.random.default_rng(seed), np.argsort(-score, kind="stable")
    last = np.flatnonzero(np.diff(score[order], append=-np.inf))  # of those that tie
    values: list[float] = []
    while len(values) < n_resamples:
        some = rng.integers(0, len(truth), len(truth))
        if truth[some].any():
            counts = np.bincount(some, minlength=len(truth))[order]
            values.append(_average_precision(counts, truth[order], last))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(average_precision_score(truth, score)), float(low), float(high)


def _average_precision(counts: np.ndarray, truth: np.ndarray, last: np.ndarray) -> float:
    """Of items in order of their score, each so many times: sum of precision times the gain in recall, tie after tie.

    The number is that of scikit-learn's `average_precision_score` for the items written out, which takes many times as long.
    """
    true, above = (np.cumsum(each)[last] for each in (counts * truth, counts))
    gain = np.diff(true, prepend=0)
    return float((gain * true / np.maximum(above, 1)).sum() / true[-1])

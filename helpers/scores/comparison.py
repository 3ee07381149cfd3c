"""Every statistic under one protocol: which of them finds the heads that matter, and what does it cost?

`gather` runs a model on minimal pairs once; each of `SCORES` turns that evidence into one number a head; `compare`
ranks the heads by each. A new statistic is one more entry of `SCORES` (or of `helpers.diagnostics.shapes.SHAPES`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score

from helpers.heads import head_index, model_shape
from helpers.reference.circuits import Circuit
from helpers.scores.catalogue import SCORES, Score, scan_positions
from helpers.scores.evidence import Evidence, HeadScore, gather
from helpers.statistics.ranking import rank_each

__all__ = [
    "SCORES", "Evidence", "HeadScore", "Score", "compare", "evaluate", "gather", "rank_scores", "scan_positions", "score_heads",
]  # fmt: skip


def compare(
    evidence: Evidence,
    circuit: Circuit,
    scores: Mapping[str, Score] | None = None,
    *,
    n_permutations: int = 20_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Rank the heads by every score: one row each, in the order of ``scores``; none is dropped.

    `rank_scores` of `score_heads`; the table is described there.
    """
    chosen = SCORES if scores is None else scores
    return rank_scores(*score_heads(evidence, chosen), circuit, chosen, n_permutations=n_permutations, seed=seed)


def score_heads(evidence: Evidence, scores: Mapping[str, Score] | None = None) -> tuple[pd.DataFrame, dict[str, str]]:
    """Every score of every head.

    Returns:
        (values, reasons): one row a head (layer, head, and a column a score, NaN where it is not defined); and for each score that
        the model or the prompts do not allow at all, why, in one sentence.
    """
    values, reasons = head_index(*evidence.shape), {}
    for name, score in (SCORES if scores is None else scores).items():
        value, reason = evaluate(score, evidence)
        values[name] = value.ravel()
        if reason:
            reasons[name] = reason
    return values, reasons


def rank_scores(
    values: pd.DataFrame,
    reasons: Mapping[str, str],
    circuit: Circuit,
    scores: Mapping[str, Score] | None = None,
    *,
    n_permutations: int = 20_000,
    seed: int = 0,
) -> pd.DataFrame:
    """How each score ranks the heads of a circuit above the others.

    A head for which a score is not defined ranks like 0. A score that the model or the prompts do not allow at all is
    NaN in every column that it would have filled, and ``reason`` says why in one sentence.

    Args:
        values, reasons: what `score_heads` returns.
        circuit: the heads that matter.
        scores: the scores to rank by, columns of ``values``.

    Returns:
        Columns auroc, low, high (95 % bootstrap interval over heads), within (within-layer AUROC), within_p,
        average_precision (base rate: the share of heads in the circuit, in ``attrs["base_rate"]``), passes, needs, unit,
        reason (empty where all is well).

    Raises:
        ValueError: if the circuit belongs to a model of another shape.
    """
    inside = circuit.mask(*model_shape(values))[values.layer, values["head"]]
    chosen = SCORES if scores is None else scores
    allowed = values[[name for name in chosen if not reasons.get(name)]]
    ranks, rows = _numbers(allowed, inside, values.layer, n_permutations, seed), {}
    for name, score in chosen.items():
        about = {"passes": score.cost(inside.size), "needs": score.needs, "unit": score.unit}
        rows[name] = ranks.get(name, dict.fromkeys(_RANKS, np.nan)) | about | {"reason": reasons.get(name, "")}
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.attrs["base_rate"] = float(inside.mean())
    return table


def evaluate(score: Score, evidence: Evidence) -> tuple[HeadScore, str]:
    """A score's value a head, and why it has none (NaN throughout), in one sentence; "" where it has."""
    nothing = np.full(evidence.shape, np.nan)
    try:
        value = np.asarray(score.of(evidence), dtype=float)
    except ValueError as error:
        return nothing, str(error)
    if value.shape != evidence.shape:
        return nothing, f"score: expected one number a head, shape {evidence.shape}, got shape {value.shape}"
    if not np.isfinite(value).any():
        return nothing, "score: expected a number for at least one head, got none"
    return value, ""


_RANKS = ("auroc", "low", "high", "within", "within_p", "average_precision")


def _numbers(
    values: pd.DataFrame, inside: np.ndarray, layer: Any, n_permutations: int, seed: int
) -> dict[str, dict[str, float]]:
    """`_RANKS` of each column."""
    flat = {str(name): np.nan_to_num(column.to_numpy()) for name, column in values.items()}
    rankings = rank_each(list(flat.values()), inside, layer, n_permutations=n_permutations, seed=seed)
    rows = {}
    for (name, value), r in zip(flat.items(), rankings, strict=True):
        precision = float(average_precision_score(inside, value))
        numbers = (r.auroc, r.low, r.high, r.within_auroc, r.within_p, precision)
        rows[name] = dict(zip(_RANKS, numbers, strict=True))
    return rows

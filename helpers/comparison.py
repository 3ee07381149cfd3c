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

from helpers.reference.circuits import Circuit
from helpers.scores.catalogue import SCORES, Score, scan_positions
from helpers.scores.evidence import Evidence, HeadScore, gather
from helpers.statistics.ranking import rank_heads
from helpers.statistics.shifts import head_index

__all__ = ["SCORES", "Evidence", "HeadScore", "Score", "compare", "gather", "scan_positions"]


def compare(
    evidence: Evidence,
    circuit: Circuit,
    scores: Mapping[str, Score] | None = None,
    *,
    n_permutations: int = 20_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Rank the heads by every score: one row each, in the order of ``scores``; none is dropped.

    A head for which a score is not defined ranks like 0. A score that the model or the prompts do not allow at all is
    NaN in every column that it would have filled, and ``reason`` says why in one sentence.

    Returns:
        Columns auroc, low, high (95 % bootstrap interval over heads), within (within-layer AUROC), within_p,
        average_precision (base rate: the share of heads in the circuit, in ``attrs["base_rate"]``), passes, needs, unit,
        reason (empty where all is well).

    Raises:
        ValueError: if the circuit belongs to a model of another shape.
    """
    if (circuit.n_layers, circuit.n_heads) != evidence.shape:
        raise ValueError(
            f"circuit: expected heads of a model of shape {evidence.shape} (layers, heads), got {circuit.name!r}"
        )
    heads = head_index(*evidence.shape)
    inside = np.array([head in set(circuit.heads) for head in zip(heads.layer, heads["head"], strict=True)])
    rows = {}
    for name, score in (SCORES if scores is None else scores).items():
        value, reason = evaluate(score, evidence)
        ranked = _row(value, inside, heads.layer, n_permutations, seed) if not reason else dict.fromkeys(_RANKS, np.nan)
        rows[name] = ranked | {
            "passes": score.cost(inside.size),
            "needs": score.needs,
            "unit": score.unit,
            "reason": reason,
        }
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


def _row(value: HeadScore, inside: np.ndarray, layer: Any, n_permutations: int, seed: int) -> dict[str, float]:
    flat = np.nan_to_num(value).ravel()
    r = rank_heads(flat, inside, layer, n_permutations=n_permutations, seed=seed)
    numbers = (r.auroc, r.low, r.high, r.within_auroc, r.within_p, float(average_precision_score(inside, flat)))
    return dict(zip(_RANKS, numbers, strict=True))

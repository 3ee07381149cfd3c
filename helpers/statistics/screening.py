"""Screen, then patch: how many causal heads are found for how many forward passes."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from helpers.diagnostics.resolution import RESOLUTION, flatten


def screen(
    score: ArrayLike, causal: ArrayLike, *, screening: float, per_head: float = 2.0, resolution: float = RESOLUTION
) -> pd.DataFrame:
    """Patch heads in the order of a score, best first, and count the causal ones that are found.

        passes(k) = screening + k per_head,     recall(k) = #{causal among the first k} / #{causal}

    Heads with equal scores (or that are made of rounding: `flatten`) are in random order: recall is the expectation over it (a constant score = random order,
    the straight line).

    Args:
        score: one number a head; larger is patched earlier.
        causal: True for heads that patching finds causal.
        screening: passes that the score costs, per pair of prompts, before any head is patched.
        per_head: passes to patch one head, per pair of prompts (2: one in each direction).
        resolution: what rounding can do to a score, in its own unit.

    Returns:
        One row for k = 0 … heads: patched, passes, recall.

    Raises:
        ValueError: if lengths differ, a score is not finite, or no head is causal.
    """
    score, causal = np.asarray(score, dtype=float), np.asarray(causal, dtype=bool)
    if score.shape != causal.shape or score.ndim != 1 or not causal.any():
        raise ValueError(
            f"causal: expected one value a head, at least one of them true, got {int(causal.sum())} true of "
            f"{causal.size} for {score.size} scores"
        )
    if not np.isfinite(score).all():
        raise ValueError(f"score: expected finite values, got {np.count_nonzero(~np.isfinite(score))} others")
    score = flatten(score, resolution)
    order = np.argsort(-score, kind="stable")
    tied = pd.Series(causal[order].astype(float)).groupby(score[order], sort=False).transform("mean")
    found = np.concatenate([[0.0], np.cumsum(tied)])
    patched = np.arange(len(found))
    return pd.DataFrame({"patched": patched, "passes": screening + per_head * patched, "recall": found / causal.sum()})


def passes_to_recall(curve: pd.DataFrame, recall: float) -> float:
    """Forward passes (per pair) until the curve of `screen` reaches a recall, e.g. 0.8.

    Raises:
        ValueError: if recall is outside [0, 1].
    """
    if not 0 <= recall <= 1:
        raise ValueError(f"recall: expected a share in [0, 1], got {recall}")
    return float(curve.passes[curve.recall >= recall - 1e-12].iloc[0])


def expected_passes(
    score: ArrayLike,
    causal: ArrayLike,
    recall: float,
    *,
    screening: float,
    per_head: float = 2.0,
    resolution: float = RESOLUTION,
) -> float:
    """Forward passes (per pair) until a share of the causal heads is found, heads of equal score in random order.

        passes = screening + per_head (a + i (b + 1) / (m + 1))

    The head that completes the share is the i-th of m causal ones among b heads of equal score, with a heads above them: the
    mean over random orders of those b. Without ties it is `passes_to_recall` of `screen`.

    >>> expected_passes([0, 0, 0], [True, False, False], 1, screening=2)
    6.0

    Raises:
        ValueError: as `screen` and `passes_to_recall`.
    """
    curve = screen(score, causal, screening=screening, per_head=per_head, resolution=resolution)
    passes_to_recall(curve, recall)
    score, causal = flatten(np.asarray(score, dtype=float), resolution), np.asarray(causal, dtype=bool)
    wanted = int(np.ceil(recall * causal.sum() - 1e-12))
    if not wanted:
        return float(screening)
    at = np.sort(score[causal])[::-1][wanted - 1]
    above, tied = score > at, score == at
    place = above.sum() + (wanted - causal[above].sum()) * (tied.sum() + 1) / (causal[tied].sum() + 1)
    return float(screening + per_head * place)

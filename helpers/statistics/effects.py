"""Effects of patching as shares of the clean-corrupt gap, and the rule by which a head counts as causal."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy import stats

from helpers.diagnostics.resolution import RESOLUTION

#: A head is causal if it moves the readout by more than this share of the clean-corrupt gap, either way.
THRESHOLD = 0.05
#: Other shares for which results are shown beside it, to see how far they depend on it.
OTHER_THRESHOLDS = (0.02, 0.10)
DIRECTIONS = ("denoising", "noising")


def is_causal(effects: pd.DataFrame, threshold: float = THRESHOLD) -> Bool[np.ndarray, " head"]:
    """|effect| > threshold in either direction, with a 95 % interval that excludes 0 in that direction.

    Args:
        effects: one row a head: denoising, noising, each with ``_low`` and ``_high``; NaN (not patched) is not causal.
    """
    found = np.zeros(len(effects), dtype=bool)
    for way in DIRECTIONS:
        excludes_0 = (effects[f"{way}_low"] > 0) | (effects[f"{way}_high"] < 0)
        found |= ((effects[way].abs() > threshold) & excludes_0).to_numpy()
    return found


def shares_of_gap(
    moved: Float[np.ndarray, "row pair"], gap: Float[np.ndarray, " pair"], *, level: float, n_resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """mean(moved) / mean(gap) of each row, with percentile bootstrap bounds over pairs resampled together.

    Returns:
        effect, low and high, each ``(row,)``.

    Raises:
        ValueError: if the mean gap is 0 but for rounding (`RESOLUTION`), so that there is nothing to be a share of.
    """
    if abs(gap.mean()) <= RESOLUTION:
        what = "expected clean and corrupt runs of different mean logit difference"
        raise ValueError(f"run: {what}, got a mean gap of {gap.mean():.2g}")
    if not len(moved):
        return np.zeros(0), np.zeros(0), np.zeros(0)
    interval = stats.bootstrap(
        (moved, np.broadcast_to(gap, moved.shape)),
        lambda m, g, axis: m.mean(axis) / g.mean(axis),
        axis=-1,
        paired=True,
        vectorized=True,
        confidence_level=level,
        n_resamples=n_resamples,
        batch=int(np.clip(10**7 // moved.size, 1, 100)),  # memory only: resamples are drawn one after the other
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return moved.mean(-1) / gap.mean(), interval.low, interval.high

"""How far each head moves between two prompt sets, and how sure of it we may be."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

#: One diagnostic of one side, shape (prompt, layer, head). Both sides have the same heads, each its own number of
#: prompts (jaxtyping does not compare a size whose name begins with an underscore).
PerPrompt = Float[np.ndarray, "_prompt layer head"]


def head_index(n_layers: int, n_heads: int) -> pd.DataFrame:
    """One row a head: columns ``layer`` and ``head``, in reading order."""
    layer, head = np.divmod(np.arange(n_layers * n_heads), n_heads)
    return pd.DataFrame({"layer": layer, "head": head})


def head_shifts(
    active: PerPrompt, control: PerPrompt, *, level: float = 0.95, n_resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Mean shift of each head, active - control, with a bootstrap interval over prompts.

    The two sets are resampled independently (they are unpaired); percentile intervals (`scipy.stats.bootstrap`).

    Args:
        active, control: one diagnostic, arrays of shape ``(prompt, layer, head)``; any number of prompts each.
        level: confidence level of the interval.

    Returns:
        One row a head: layer, head, active, control (means), shift, low, high — in the diagnostic's own unit.

    Raises:
        ValueError: if the arrays describe different heads, or a side has fewer than two prompts.
    """
    check_sides(active, control)
    sides = tuple(side.reshape(len(side), -1) for side in (active, control))
    interval = stats.bootstrap(
        sides,
        lambda a, b, axis: a.mean(axis) - b.mean(axis),
        axis=0,
        vectorized=True,
        confidence_level=level,
        n_resamples=n_resamples,
        batch=200,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    mean_active, mean_control = (side.mean(0) for side in sides)
    return head_index(*active.shape[1:]).assign(
        active=mean_active,
        control=mean_control,
        shift=mean_active - mean_control,
        low=interval.low,
        high=interval.high,
    )


def head_tests(active: PerPrompt, control: PerPrompt) -> pd.DataFrame:
    """Does this head move at all? A two-sided Mann-Whitney test a head over prompts, and its false-discovery rate.

    Returns:
        One row a head: layer, head, p, q (Benjamini-Hochberg adjusted p over all heads).

    Raises:
        ValueError: as `head_shifts`.
    """
    check_sides(active, control)
    sides = (side.reshape(len(side), -1) for side in (active, control))
    p = stats.mannwhitneyu(*sides, alternative="two-sided", axis=0, method="asymptotic").pvalue
    p = np.where(np.isnan(p), 1.0, p)  # every prompt alike on both sides: nothing moved
    return head_index(*active.shape[1:]).assign(p=p, q=stats.false_discovery_control(p))


def smallest_p(n_active: int, n_control: int) -> float:
    """The p that `head_tests` gives where every active prompt lies above every control prompt (and no two are equal)."""
    sides = range(n_control, n_control + n_active), range(n_control)
    return float(stats.mannwhitneyu(*sides, alternative="two-sided", method="asymptotic").pvalue)


def check_sides(active: PerPrompt, control: PerPrompt) -> None:
    """Refuse two sides that can't be compared head by head."""
    for name, side in (("active", active), ("control", control)):
        if side.ndim != 3 or len(side) < 2:
            raise ValueError(
                f"{name}: expected at least 2 prompts, shape (prompt, layer, head), got shape {side.shape}"
            )
        if not np.isfinite(side).all():
            raise ValueError(f"{name}: expected finite values, got {np.count_nonzero(~np.isfinite(side))} others")
    if active.shape[1:] != control.shape[1:]:
        raise ValueError(f"control: expected the heads of active, {active.shape[1:]}, got {control.shape[1:]}")

"""How far each head moves between two prompt sets, and how sure of it we may be."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from helpers.diagnostics.resolution import RESOLUTION, settle, tie, widen
from helpers.heads import head_index

#: One diagnostic of one side, shape (prompt, layer, head). Both sides have the same heads, each its own number of
#: prompts (jaxtyping does not compare a size whose name begins with an underscore).
PerPrompt = Float[np.ndarray, "_prompt layer head"]
#: What rounding can do to a diagnostic: one number, or one a head.
Resolution = float | Float[np.ndarray, "layer head"]


def head_shifts(
    active: PerPrompt,
    control: PerPrompt,
    *,
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
    resolution: Resolution = RESOLUTION,
) -> pd.DataFrame:
    """Mean shift of each head, active - control, with a bootstrap interval over prompts.

    The two sets are resampled independently (they are unpaired); percentile intervals (`scipy.stats.bootstrap`), none
    narrower than shift -+ resolution, so that rounding alone leaves 0 inside.

    Args:
        active, control: one diagnostic, arrays of shape ``(prompt, layer, head)``; any number of prompts each.
        level: confidence level of the interval.
        resolution: what rounding can do to a value (`helpers.diagnostics.resolution`), one number or one a head.

    Returns:
        One row a head: layer, head, active, control (means), shift, low, high — in the diagnostic's own unit. A shift of
        at most the resolution is 0.

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
    smallest = per_head(resolution, active.shape[1:]).ravel()
    shift = settle(mean_active - mean_control, smallest)
    low, high = widen(shift, interval.low, interval.high, smallest)
    return head_index(*active.shape[1:]).assign(
        active=mean_active,
        control=mean_control,
        shift=shift,
        low=low,
        high=high,
    )


def head_tests(active: PerPrompt, control: PerPrompt, *, resolution: Resolution = RESOLUTION) -> pd.DataFrame:
    """Does this head move at all? A two-sided Mann-Whitney test a head over prompts, and its false-discovery rate.

    Rounding must not carry the test. A head whose mean shift is at most the resolution has p = 1; and where p more than
    doubles once values that differ by rounding are tied (`tie`; say, half of the prompts share their text on both sides),
    it is the p of the tied values. Otherwise p is Mann-Whitney's own, to the last digit.

    Args:
        resolution: what rounding can do to a value (`helpers.diagnostics.resolution`), one number or one a head.

    Returns:
        One row a head: layer, head, p, q (Benjamini-Hochberg adjusted p over all heads).

    Raises:
        ValueError: as `head_shifts`.
    """
    check_sides(active, control)
    smallest = per_head(resolution, active.shape[1:]).ravel()
    values = np.concatenate([side.reshape(len(side), -1) for side in (active, control)])
    p, tied_p = (_mann_whitney(some, len(active)) for some in (values, tie(values, smallest)))
    still = np.abs(active.mean(0) - control.mean(0)).ravel() <= smallest
    p = np.where(still, 1.0, np.where(tied_p > 2 * p, tied_p, p))
    return head_index(*active.shape[1:]).assign(p=p, q=stats.false_discovery_control(p))


def _mann_whitney(values: Float[np.ndarray, "prompt head"], n_active: int) -> Float[np.ndarray, " head"]:
    """Two-sided p of the first ``n_active`` values against the others, column by column."""
    sides = values[:n_active], values[n_active:]
    p = stats.mannwhitneyu(*sides, alternative="two-sided", axis=0, method="asymptotic").pvalue
    return np.where(np.isnan(p), 1.0, p)  # NaN: all values alike


def smallest_p(n_active: int, n_control: int) -> float:
    """The p that `head_tests` gives where every active prompt lies above every control prompt (and no two are equal)."""
    sides = range(n_control, n_control + n_active), range(n_control)
    return float(stats.mannwhitneyu(*sides, alternative="two-sided", method="asymptotic").pvalue)


def per_head(resolution: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """A resolution for every head (and position, if the shape has them).

    Raises:
        ValueError: if it is neither one number nor of that shape, or negative.
    """
    given = np.asarray(resolution, dtype=float)
    if given.shape not in ((), tuple(shape)) or not (given >= 0).all():
        raise ValueError(
            f"resolution: expected a number >= 0, or an array of shape {tuple(shape)}, got "
            f"{given.item() if given.ndim == 0 else f'shape {given.shape}, smallest {given.min()}'}"
        )
    return np.broadcast_to(given, shape)


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

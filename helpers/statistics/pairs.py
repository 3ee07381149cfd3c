"""Minimal pairs: what a head does to one prompt and to its twin, tested by flipping signs."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cache, partial
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from helpers.diagnostics.resolution import RESOLUTION, settle, widen
from helpers.heads import head_index
from helpers.statistics.shifts import Resolution, check_sides, per_head


def paired_tests(
    active: Float[np.ndarray, "pair layer head"],
    control: Float[np.ndarray, "pair layer head"],
    *,
    n_flips: int = 10_000,
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
    resolution: Resolution = RESOLUTION,
) -> pd.DataFrame:
    """Does a head move within pairs? A sign-flip test a head, with its false-discovery rate.

    Under the null hypothesis the two members of a pair are exchangeable, so each difference d_k is as likely as
    -d_k; a d_k of at most the resolution is 0. p = (1 + #{flips with |mean d| >= observed}) / (1 + flips), two-sided; the same flips for all heads.

    Args:
        active, control: one diagnostic, arrays of shape ``(pair, layer, head)``, pair k of both sides together.
        resolution: what rounding can do to a value (`helpers.diagnostics.resolution`), one number or one a head.

    Returns:
        One row a head: layer, head, shift (mean of active - control), low, high (percentile bootstrap over pairs, at
        least shift -+ resolution), p, q (Benjamini-Hochberg over heads).

    Raises:
        ValueError: as `helpers.statistics.shifts.head_shifts`, and if the sides have different numbers of prompts.
    """
    check_sides(active, control)
    smallest = per_head(resolution, active.shape[1:])
    d = differences(active, control, resolution=smallest).reshape(len(active), -1)
    interval = stats.bootstrap(
        (d,), np.mean, axis=0, vectorized=True, confidence_level=level, n_resamples=n_resamples, batch=200,
        method="percentile", rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    observed, null = d.mean(0), _flips(len(d), n_flips, seed) @ d / len(d)
    p = permutation_p(np.abs(observed), np.abs(null))
    low, high = widen(observed, interval.low, interval.high, smallest.ravel())
    table = head_index(*active.shape[1:]).assign(shift=observed, low=low, high=high)
    return table.assign(p=p, q=stats.false_discovery_control(p))


def position_scan(
    active: Float[np.ndarray, "pair layer head position"],
    control: Float[np.ndarray, "pair layer head position"],
    positions: Sequence[str],
    *,
    by: Literal["t", "shift"] = "t",
    n_flips: int = 10_000,
    seed: int = 0,
    resolution: float | Float[np.ndarray, "layer head position"] = RESOLUTION,
) -> pd.DataFrame:
    """Where does a head move most, and is that more than looking at many positions finds by chance?

    At each position t = sum(d) / sqrt(sum(d^2)), which does not depend on the scale of the diagnostic there (a d of at
    most the resolution is 0); a head's statistic is the largest |t| over positions, or with ``by="shift"`` the largest |mean d|. Flipping the sign of a whole
    pair (all heads and positions together) gives its null distribution, so p is corrected for the number of positions and
    for their correlation.

    Returns:
        One row a head: layer, head, position (of the statistic), shift (mean difference there), t, p, q (over heads).

    Raises:
        ValueError: if shapes do not match, a value is not finite, or ``by`` is neither.
    """
    if by not in ("t", "shift"):
        raise ValueError(f"by: expected 't' or 'shift', got {by!r}")
    if active.shape[-1] != len(positions):
        raise ValueError(f"positions: expected a name for each of {active.shape[-1]} positions, got {len(positions)}")
    shape = active.shape
    d = differences(active, control, resolution=per_head(resolution, shape[1:])).reshape(len(active), -1, shape[-1])
    size = np.sqrt((d**2).sum(0))
    t = d.sum(0) / np.where(size > 0, size, np.inf)
    scale = np.where(size > 0, size, np.inf) if by == "t" else np.full(size.shape, len(d))
    observed = np.abs(d.sum(0) / scale)
    flips = _flips(len(d), n_flips, seed)
    null = np.stack([np.abs(flips @ d[:, h] / scale[h]).max(-1) for h in range(d.shape[1])], axis=1)
    p = permutation_p(observed.max(-1), null)
    best = observed.argmax(-1)
    every = np.arange(len(best))
    return head_index(*shape[1:3]).assign(
        position=[positions[b] for b in best],
        shift=d.mean(0)[every, best],
        t=t[every, best],
        p=p,
        q=stats.false_discovery_control(p),
    )


def row_scan(
    active: Float[np.ndarray, "pair layer head position key"],
    control: Float[np.ndarray, "pair layer head position key"],
    positions: Sequence[str],
    *,
    groups: Sequence[Hashable] | None = None,
    n_flips: int = 10_000,
    seed: int = 0,
    resolution: float = RESOLUTION,
) -> pd.DataFrame:
    """Where does a head's row change most, and does it change in one direction more than by chance?

    The mean distance of matched rows, TV_k = sum_i |d_ki| / 2 with d = active - control, has no null of its own: it is
    never negative, swapping the sides of a pair leaves it as it is, and rows matched with another pair's control differ
    by that pair's words too, so that true matches look *close*. What can be tested is whether the weight moves to and
    from the same keys in pair after pair. The statistic is the total variation between the *mean* rows,

        directed = max over positions of  sum over groups g of  n_g / n * sum_i |mean of d_ki over pairs k of g| / 2

    which is at most the largest mean distance. If the sides of a pair are exchangeable, flipping the sign of whole pairs
    (all heads, positions and keys together) gives its null distribution, corrected for the positions looked at.

    Args:
        active, control: rows over the same keys, pair k of both sides together.
        positions: a name for each position.
        groups: a label a pair; keys mean the same within a group (say, ABBA and BABA apart). Default: one group.
        resolution: what rounding can do to a weight; a d_ki of at most that is 0 (`helpers.diagnostics.resolution`).

    Returns:
        One row a head: layer, head, position and distance (where the mean distance is largest, and that), directed, p, q
        (Benjamini-Hochberg over heads).

    Raises:
        ValueError: if shapes do not match, or a value is not finite.
    """
    if active.ndim != 5 or active.shape[3] != len(positions):
        raise ValueError(
            f"active: expected shape (pair, layer, head, {len(positions)} positions, key), got {active.shape}"
        )
    n, heads, places = len(active), active.shape[1] * active.shape[2], active.shape[3]
    if groups is not None and len(groups) != n:
        raise ValueError(f"groups: expected a label for each of {n} pairs, got {len(groups)}")
    labels = [0] * n if groups is None else groups
    label = np.array([list(dict.fromkeys(labels)).index(g) for g in labels])
    flips = np.vstack([np.ones(n), _flips(n, n_flips, seed)])
    distance, directed, p = np.zeros((heads, places)), np.zeros(heads), np.zeros(heads)
    sides = [side.reshape(n, heads, -1) for side in (active, control)]
    for head in range(heads):
        d = differences(*(side[:, head] for side in sides), resolution=resolution)
        distance[head] = np.abs(d).reshape(n, places, -1).sum(-1).mean(0) / 2
        moved = sum(np.abs(flips[:, label == g] @ d[label == g]) for g in range(label.max() + 1)) / (2 * n)
        largest = moved.reshape(len(flips), places, -1).sum(-1).max(-1)
        directed[head], p[head] = largest[0], permutation_p(largest[0], largest[1:])
    best = distance.argmax(-1)
    return head_index(*active.shape[1:3]).assign(
        position=[positions[b] for b in best],
        distance=distance.max(-1),
        directed=directed,
        p=p,
        q=stats.false_discovery_control(p),
    )


def power_curve(
    active: Float[np.ndarray, "pair layer head"],
    control: Float[np.ndarray, "pair layer head"],
    sizes: Sequence[int],
    *,
    draws: int = 200,
    alpha: float = 0.05,
    seed: int = 0,
    resolution: Resolution = RESOLUTION,
) -> pd.DataFrame:
    """How many heads are found to move with n prompts a side, in pairs and in two unpaired sets.

    From a pool of minimal pairs, ``draws`` times: n pairs, tested by a paired t-test; and n active prompts with n
    controls of *other* pairs, tested by Welch's t-test; a head is found if q < ``alpha`` (Benjamini-Hochberg). The same
    with sides swapped at random (pairs) or both sets from the controls (unpaired) shows false alarms. A mean shift within
    the resolution of 0 is never found.

    Returns:
        One row a size and design: n, design (``"pairs"``, ``"two sets"``), found and its 10 % and 90 % quantiles over
        draws (low, high), false_alarm (share of null draws in which any head is found).

    Raises:
        ValueError: if twice the largest size is more than the pool, or a size is below 3.
    """
    check_sides(active, control)
    smallest = per_head(resolution, active.shape[1:])
    d = differences(active, control, resolution=smallest).reshape(len(active), -1)
    if min(sizes) < 3 or 2 * max(sizes) > len(d):
        raise ValueError(f"sizes: expected 3 to {len(d) // 2} (half of the pool of {len(d)} pairs), got {list(sizes)}")
    a, c = (side.reshape(len(side), -1) for side in (active, control))
    found = partial(_found, alpha, resolution=smallest.ravel())
    rng = np.random.default_rng(seed)
    rows = []
    for n in sizes:
        counts: dict[str, list[tuple[int, int]]] = {"pairs": [], "two sets": []}
        for _ in range(draws):
            one, two = np.split(rng.permutation(len(d))[: 2 * n], 2)
            signs = rng.choice([-1, 1], (n, 1))
            counts["pairs"].append((found(d[one]), found(signs * d[one])))
            counts["two sets"].append((found(a[one], c[two]), found(c[one], c[two])))
        for design, pairs in counts.items():
            heads, null = np.array(pairs).T
            low, high = np.quantile(heads, [0.1, 0.9])
            rows.append((n, design, heads.mean(), low, high, (null > 0).mean()))
    return pd.DataFrame(rows, columns=["n", "design", "found", "low", "high", "false_alarm"])


def differences(
    active: Float[np.ndarray, " pair *rest"],
    control: Float[np.ndarray, " pair *rest"],
    *,
    resolution: float | np.ndarray = RESOLUTION,
) -> Float[np.ndarray, " pair *rest"]:
    """active - control pair by pair; what is within the resolution of 0 is 0.

    Raises:
        ValueError: if the sides are not pairs of finite values.
    """
    if active.shape != control.shape or len(active) < 2:
        raise ValueError(f"active, control: expected at least 2 pairs, got shapes {active.shape} and {control.shape}")
    d = active - control
    if not np.isfinite(d).all():
        raise ValueError(f"active, control: expected finite values, got {np.count_nonzero(~np.isfinite(d))} others")
    return settle(d, resolution)


def _flips(n: int, n_flips: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).choice([-1.0, 1.0], (n_flips, n))


def permutation_p(observed: np.ndarray | float, null: np.ndarray) -> np.ndarray:
    """(1 + #{null >= observed}) / (1 + draws), over the first axis of ``null``; the observed value counts as a draw."""
    return np.asarray((1 + (null >= observed - 1e-12).sum(0)) / (1 + len(null)))


@cache
def smallest_paired_p(n_pairs: int, *, n_flips: int = 10_000, seed: int = 0) -> float:
    """The p that `paired_tests` gives a head that moves alike in every pair; about 2^(1 - pairs), at least 1 / (1 + flips)."""
    return float(permutation_p(1.0, np.abs(_flips(n_pairs, n_flips, seed).mean(1))))


def _found(alpha: float, *sides: np.ndarray, resolution: float | np.ndarray = RESOLUTION) -> int:
    """How many columns a t-test finds at a false-discovery rate, paired (one array) or Welch's (two).

    A mean (or difference of means) within the resolution of 0 has p = 1. Found are the k smallest p, for the largest k with
    p_(k) m / k < alpha, which is Benjamini and Hochberg's q < alpha (`scipy.stats.false_discovery_control`, called once a
    draw, takes longer than the tests).
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        if len(sides) == 1:
            shift, sd, n = sides[0].mean(0), sides[0].std(0, ddof=1), len(sides[0])
            p = 2 * stats.t.sf(np.abs(shift) / (sd / np.sqrt(n)), n - 1)
        else:
            a, c = ((side.mean(0), side.std(0, ddof=1), len(side)) for side in sides)
            shift, p = a[0] - c[0], stats.ttest_ind_from_stats(*a, *c, equal_var=False).pvalue
    p = np.where(np.isnan(p) | (np.abs(shift) <= resolution), 1.0, p)
    below = np.flatnonzero(np.sort(p) * (p.size / np.arange(1, p.size + 1)) < alpha)
    return int(below[-1]) + 1 if below.size else 0

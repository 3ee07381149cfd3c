"""What the largest |C_diff| is worth: a permutation null, and the bootstrap of prompts."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from tqdm.auto import tqdm

from helpers.diagnostics.resolution import RESOLUTION
from helpers.statistics.coupling import couple_heads, strongest_pairs
from helpers.statistics.pairs import permutation_p
from helpers.statistics.shifts import PerPrompt, Resolution, check_sides, per_head

BATCH = 200


@dataclass(frozen=True)
class CouplingNull:
    """The largest |C_diff|, observed and with labels shuffled; see `coupling_null`.

    Attributes:
        observed: the largest |C_diff| of the data.
        largest: the largest |C_diff| of each permutation, shape ``(permutation,)``.
        sd: sd of the off-diagonal C_diff of the data, and ``null_sd``: of each permutation.
        n_heads: heads that vary in both sets; only these are compared.
    """

    observed: float
    largest: Float[np.ndarray, " permutation"]
    sd: float
    null_sd: Float[np.ndarray, " permutation"]
    n_heads: int

    @property
    def p(self) -> float:
        """(1 + #{permuted >= observed}) / (1 + permutations)."""
        return float(permutation_p(self.observed, self.largest))

    @property
    def p_sd(self) -> float:
        """The same for the sd of all entries: has coupling changed as a whole?"""
        return float(permutation_p(self.sd, self.null_sd))

    @property
    def sigmas(self) -> float:
        """The observed value in sds of C_diff: what "5 sigma" means in post 2."""
        return self.observed / self.sd

    @property
    def chance_sigmas(self) -> float:
        """The 95 % point of the same number when labels are shuffled."""
        return float(np.quantile(self.largest / self.null_sd, 0.95))

    def summary(self) -> dict[str, float]:
        """The largest entry and the spread with their p, and the largest in sds beside what shuffles give."""
        median = float(np.median(self.largest / self.null_sd))
        spread = {"largest": self.observed, "p": self.p, "sd": self.sd, "p of sd": self.p_sd}
        return spread | {"sigmas": self.sigmas, "median of shuffles": median, "95 %": self.chance_sigmas}


def coupling_null(
    active: PerPrompt,
    control: PerPrompt,
    *,
    groups: tuple[Sequence[Hashable], Sequence[Hashable]] | None = None,
    n_permutations: int = 10_000,
    seed: int = 0,
    progress: bool = False,
    resolution: Resolution = RESOLUTION,
) -> CouplingNull:
    """Shuffle the labels active / control of prompts, recompute C_active - C_control, and keep its largest entry.

    Each head is centred and scaled within each set first, so that a shift of its mean or spread is not taken for a
    change of coupling. Prompts of one sentence frame resemble each other; with ``groups`` (the frame of each prompt,
    for both sets) labels are shuffled within frames only.

    Args:
        active, control: one diagnostic, arrays of shape ``(prompt, layer, head)``.
        resolution: what rounding can do to a value; a head whose values on either set lie within it is left out.

    Raises:
        ValueError: as `head_shifts`; if fewer than two heads vary; or if groups and prompts do not match.
    """
    sides, n_heads = _standardised(active, control, resolution)
    everything = np.concatenate(sides)
    strata = _strata(groups, *map(len, sides))
    n_active = len(sides[0])
    observed = _largest_and_sd(everything[None], n_active)
    rng, found = np.random.default_rng(seed), []
    for start in tqdm(range(0, n_permutations, BATCH), desc="permutations", disable=not progress, leave=False):
        orders = _orders(strata, min(BATCH, n_permutations - start), rng)
        found.append(_largest_and_sd(everything[orders], n_active))
    largest, sd = (np.concatenate(part) for part in zip(*found, strict=True))
    return CouplingNull(float(observed[0][0]), largest, float(observed[1][0]), sd, n_heads)


def coupling_intervals(
    active: PerPrompt,
    control: PerPrompt,
    *,
    top: int = 10,
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    resolution: Resolution = RESOLUTION,
) -> pd.DataFrame:
    """How stable the strongest pairs are when prompts are resampled (each set by itself).

    Returns:
        `strongest_pairs` of the data with, for each pair, the bootstrap interval of C_diff (low, high) and stays: the share of
        resamples in which the pair is again among the ``top`` strongest.

    Raises:
        ValueError: as `coupling_null`.
    """
    _standardised(active, control, resolution)
    n_heads, rng = active.shape[-1], np.random.default_rng(seed)
    pairs = strongest_pairs(couple_heads(active, control, resolution=resolution), n_heads, top=top)
    i, j = (pairs[f"layer_{end}"].to_numpy() * n_heads + pairs[f"head_{end}"].to_numpy() for end in (1, 2))
    values, stays = np.zeros((n_resamples, len(pairs))), np.zeros(len(pairs))
    for resample in range(n_resamples):
        sample = (side[rng.integers(0, len(side), len(side))] for side in (active, control))
        some = couple_heads(*sample, resolution=resolution)
        difference = np.triu(np.nan_to_num(some.difference), k=1)
        values[resample] = difference[i, j]
        stays += np.abs(values[resample]) >= np.partition(np.abs(difference).ravel(), -len(pairs))[-len(pairs)]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return pairs.assign(low=low, high=high, stays=stays / n_resamples)


def _standardised(active: PerPrompt, control: PerPrompt, resolution: Resolution) -> tuple[list[np.ndarray], int]:
    check_sides(active, control)
    flat = [side.reshape(len(side), -1) for side in (active, control)]
    smallest = per_head(resolution, active.shape[1:]).ravel()
    varies = np.all([np.ptp(side, axis=0) > smallest for side in flat], axis=0)
    if varies.sum() < 2:
        raise ValueError(f"active, control: expected at least 2 heads that vary in both sets, got {varies.sum()}")
    return [(s - s.mean(0)) / s.std(0) for s in (side[:, varies] for side in flat)], int(varies.sum())


def _largest_and_sd(
    values: Float[np.ndarray, "permutation prompt head"], n_active: int
) -> tuple[np.ndarray, np.ndarray]:
    """Largest |C_diff| and sd of C_diff, for many orders of the prompts at once; the first ``n_active`` are active."""
    matrices = []
    for side in (values[:, :n_active], values[:, n_active:]):
        centred = side - side.mean(1, keepdims=True)
        unit = centred / np.maximum(np.sqrt((centred**2).sum(1, keepdims=True)), 1e-12)
        matrices.append(unit.transpose(0, 2, 1) @ unit)
    upper = np.triu_indices(values.shape[-1], k=1)
    difference = (matrices[0] - matrices[1])[:, *upper]
    return np.abs(difference).max(-1), difference.std(-1)


def _strata(groups: tuple[Sequence[Hashable], Sequence[Hashable]] | None, *sizes: int) -> list[np.ndarray]:
    """Indices (into active followed by control) of the prompts that may change places."""
    if groups is None:
        return [np.arange(sum(sizes))]
    if tuple(map(len, groups)) != sizes:
        raise ValueError(
            f"groups: expected one a prompt, {sizes[0]} and {sizes[1]}, got {len(groups[0])} and {len(groups[1])}"
        )
    codes, _ = pd.factorize(pd.Series([*groups[0], *groups[1]], dtype=object))
    return [np.flatnonzero(codes == code) for code in np.unique(codes)]


def _orders(strata: list[np.ndarray], count: int, rng: np.random.Generator) -> np.ndarray:
    """``count`` permutations of the prompts, each within its stratum, shape ``(permutation, prompt)``."""
    orders = np.empty((count, sum(map(len, strata))), dtype=int)
    for stratum in strata:
        orders[:, stratum] = rng.permuted(np.tile(stratum, (count, 1)), axis=1)
    return orders

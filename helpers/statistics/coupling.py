"""Correlations: between the two diagnostics over heads, with depth, and between heads over prompts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from helpers.diagnostics.resolution import RESOLUTION
from helpers.heads import head_index, pair_index
from helpers.statistics.shifts import PerPrompt, Resolution, check_sides, per_head


@dataclass(frozen=True)
class Coupling:
    """Pearson correlations of one diagnostic between heads, over the prompts of each set.

    Matrices of shape ``(head, head)`` over all heads in reading order (layer by layer). A head that is constant over a
    set has NaN there. ``difference`` = active - control (C_diff of the post).
    """

    active: Float[np.ndarray, "head head"]
    control: Float[np.ndarray, "head head"]

    @property
    def difference(self) -> Float[np.ndarray, "head head"]:
        return np.asarray(self.active - self.control)


def couple_heads(active: PerPrompt, control: PerPrompt, *, resolution: Resolution = RESOLUTION) -> Coupling:
    """C_active and C_control: which heads rise and fall together from prompt to prompt.

    A head whose values on a set all lie within the resolution (one number, or one a head) is constant there: rounding
    rises and falls with nothing.

    Source: Fields 2026, post 2 (144 x 144 correlations of per-prompt KL).

    Raises:
        ValueError: as `helpers.statistics.shifts.head_shifts`.
    """
    check_sides(active, control)
    flat = (side.reshape(len(side), -1) for side in (active, control))
    smallest = per_head(resolution, active.shape[1:]).ravel()
    return Coupling(*(correlation_matrix(side, resolution=smallest) for side in flat))


def correlation_matrix(
    values: Float[np.ndarray, "prompt head"], *, resolution: float | np.ndarray = 0.0
) -> Float[np.ndarray, "head head"]:
    """Pearson correlations between columns; NaN for a column that does not vary beyond rounding.

    A column is constant if no two of its values differ by more than the resolution, or if its sd is at most 1e-12 of its
    largest value (rounding of the mean).
    """
    centred = values - values.mean(0)
    norm = np.sqrt((centred**2).sum(0))
    norm[norm <= 1e-12 * np.sqrt(len(values)) * np.maximum(np.abs(values).max(0), 1e-300)] = np.nan
    norm[np.ptp(values, axis=0) <= resolution] = np.nan
    unit = centred / norm
    return np.asarray(np.clip(unit.T @ unit, -1, 1))


def cross_correlation(
    first: Float[np.ndarray, "prompt layer head"],
    second: Float[np.ndarray, "prompt layer head"],
    *,
    resolution: Resolution = RESOLUTION,
) -> Float[np.ndarray, "layer*head layer*head"]:
    """Correlation over prompts of every head's value on one side with every head's on the other.

    E.g. KL of senders at S2 (rows of the matrix) with KL of receivers at END (columns).

    Raises:
        ValueError: as `couple_heads`, and if the sides are not the same prompts.
    """
    check_sides(first, second)
    if len(first) != len(second):
        raise ValueError(f"second: expected the {len(first)} prompts of first, got {len(second)}")
    flat = [side.reshape(len(side), -1) for side in (first, second)]
    n = flat[0].shape[1]
    smallest = np.tile(per_head(resolution, first.shape[1:]).ravel(), 2)
    return correlation_matrix(np.hstack(flat), resolution=smallest)[:n, n:]


def upper_triangle(matrix: Float[np.ndarray, "head head"]) -> Float[np.ndarray, " pair"]:
    """The entries above the diagonal that are numbers."""
    values = matrix[np.triu_indices_from(matrix, k=1)]
    return np.asarray(values[~np.isnan(values)])


def strongest_pairs(coupling: Coupling, n_heads: int, *, top: int = 10) -> pd.DataFrame:
    """The pairs of heads whose correlation changes most, by |C_diff|, with its size in sds of all off-diagonal C_diff.

    Returns:
        One row a pair: the columns of `pair_index`, c_active, c_control, c_diff, sds.
    """
    i, j = np.triu_indices_from(coupling.difference, k=1)
    heads = head_index(len(coupling.active) // n_heads, n_heads).to_numpy()
    pairs = pair_index(heads[i], heads[j]).assign(
        c_active=coupling.active[i, j], c_control=coupling.control[i, j], c_diff=coupling.difference[i, j]
    )
    pairs = pairs.dropna().assign(sds=lambda varying: varying.c_diff / varying.c_diff.std())
    return pairs.sort_values("c_diff", key=np.abs, ascending=False, kind="stable").head(top).reset_index(drop=True)


def correlations(table: pd.DataFrame) -> pd.Series:
    """Pearson correlations over heads, from the experiment's table; circuit columns are NaN where no head is labelled.

    Source: Fields 2026, post 2: corr(KL, chi) on the active means; corr(dKL, dchi) over all heads, circuit heads and
    the others; corr(|dKL|, |dchi|); depth: corr(layer, KL) and corr(layer, chi) of the other heads, active prompts.
    """
    circuit, other = table[table.in_circuit], table[~table.in_circuit]
    return pd.Series(
        {
            "KL, chi (active means)": table.kl_active.corr(table.chi_active),
            "dKL, dchi (all heads)": table.d_kl.corr(table.d_chi),
            "dKL, dchi (circuit)": circuit.d_kl.corr(circuit.d_chi),
            "dKL, dchi (others)": other.d_kl.corr(other.d_chi),
            "|dKL|, |dchi|": table.d_kl.abs().corr(table.d_chi.abs()),
            "layer, KL (others, active)": other.layer.corr(other.kl_active),
            "layer, chi (others, active)": other.layer.corr(other.chi_active),
        }
    )

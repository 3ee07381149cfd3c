"""KL and chi of every head in an attention record, and their parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from helpers.attention.record import AttentionRecord
from helpers.diagnostics.plane import split_sink
from helpers.diagnostics.resolution import RESOLUTION, chi_resolution, kl_resolution, rounding
from helpers.diagnostics.rows import kl_selectivity, susceptibility


@dataclass(frozen=True)
class HeadDiagnostics:
    """Normalised KL and chi, arrays of shape ``(prompt, layer, head)``, or ``(prompt, layer, head, query)``.

    NaN where a row has one visible key (log n = 0), and at queries that a shorter prompt does not have.

    Attributes:
        rounding: the share by which rounding can move a weight, by the dtype of rows and model (`row_rounding`).
    """

    kl: Float[np.ndarray, "prompt layer head *query"]
    chi: Float[np.ndarray, "prompt layer head *query"]
    rounding: float = RESOLUTION

    @property
    def kl_resolution(self) -> Float[np.ndarray, "prompt layer head *query"]:
        """What rounding can do to each KL."""
        return kl_resolution(self.chi, self.rounding)

    @property
    def chi_resolution(self) -> Float[np.ndarray, "prompt layer head *query"]:
        """What rounding can do to each chi."""
        return chi_resolution(self.chi, self.rounding)


def diagnose(record: AttentionRecord) -> HeadDiagnostics:
    """KL and chi of every row of a record, each normalised by the n of its own row."""
    visible = record.visible().expand(record.rows.shape)
    usable = visible.sum(-1) > 1
    rows, mask = record.rows[usable], visible[usable]
    kl, chi = (np.full(tuple(usable.shape), np.nan) for _ in range(2))
    kl[usable.numpy()] = kl_selectivity(rows, mask=mask).numpy()
    chi[usable.numpy()] = susceptibility(rows, mask=mask).numpy()
    return HeadDiagnostics(kl, chi, row_rounding(record))


def head_resolution(name: str, *sides: HeadDiagnostics) -> Float[np.ndarray, "layer head *query"]:
    """What rounding can do to ``"kl"`` or ``"chi"`` of each head: the largest of all its rows."""
    return np.asarray(np.concatenate([getattr(side, f"{name}_resolution") for side in sides]).max(0))


def row_rounding(record: AttentionRecord) -> float:
    """The share by which rounding can move a weight of a record: by the dtype of its rows, or the model's, if coarser."""
    return rounding(record.rows.dtype, record.settings.get("dtype"))


@dataclass(frozen=True)
class SinkDiagnostics:
    """KL and chi of every row, split into "how much goes to the sink" and "how the rest is spread".

    Arrays of shape ``(prompt, layer, head)`` in the units of `HeadDiagnostics`: ``kl_sink + kl_rest`` = KL,
    ``chi_between + chi_within`` = chi; ``weight`` is what the sink gets. NaN where the sink is not visible.
    """

    weight: Float[np.ndarray, "prompt layer head"]
    kl_sink: Float[np.ndarray, "prompt layer head"]
    kl_rest: Float[np.ndarray, "prompt layer head"]
    chi_between: Float[np.ndarray, "prompt layer head"]
    chi_within: Float[np.ndarray, "prompt layer head"]


def diagnose_sink(record: AttentionRecord) -> SinkDiagnostics:
    """Split KL and chi of every row of one query position at key 0, the BOS sink (`split_sink`).

    Raises:
        ValueError: if the record holds all query positions.
    """
    if record.query == "all":
        raise ValueError("record: expected the rows of one query position; choose one with record.at(position)")
    visible = record.visible().expand(record.rows.shape)
    n = visible.sum(-1)
    parts = np.full((5, *n.shape), np.nan)
    for size in n.unique().tolist():
        here = (n == size) & visible[..., 0]
        if size > 1 and here.any():
            split = split_sink(record.rows[here][..., :size])
            scale = np.log(size) ** np.array([0, 1, 1, 2, 2])
            parts[:, here.numpy()] = np.stack([part.numpy() for part in split]) / scale[:, None]
    return SinkDiagnostics(*parts)

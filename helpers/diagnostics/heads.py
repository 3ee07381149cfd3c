"""KL and chi of every head in an attention record."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from helpers.attention.record import AttentionRecord
from helpers.diagnostics.rows import kl_selectivity, susceptibility


@dataclass(frozen=True)
class HeadDiagnostics:
    """Normalised KL and chi, arrays of shape ``(prompt, layer, head)``, or ``(prompt, layer, head, query)``.

    NaN where a row has one visible key (log n = 0), and at queries that a shorter prompt does not have.
    """

    kl: Float[np.ndarray, "prompt layer head *query"]
    chi: Float[np.ndarray, "prompt layer head *query"]


def diagnose(record: AttentionRecord) -> HeadDiagnostics:
    """KL and chi of every row of a record, each normalised by the n of its own row."""
    visible = record.visible().expand(record.rows.shape)
    usable = visible.sum(-1) > 1
    rows, mask = record.rows[usable], visible[usable]
    kl, chi = (np.full(tuple(usable.shape), np.nan) for _ in range(2))
    kl[usable.numpy()] = kl_selectivity(rows, mask=mask).numpy()
    chi[usable.numpy()] = susceptibility(rows, mask=mask).numpy()
    return HeadDiagnostics(kl, chi)

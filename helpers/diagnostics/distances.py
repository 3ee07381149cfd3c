"""Distances between two attention rows over the same keys: they see content, which KL and chi of one row can't.

A distance of at most the rounding e of the rows' dtype is 0: weights that are off by the share e are at a total variation
of at most e / 2, and at a Jensen-Shannon distance of at most e / sqrt(8 log 2), from where they should be.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy.special import kl_div
from torch import Tensor

from helpers.diagnostics.resolution import rounding, settle
from helpers.diagnostics.rows import check_rows

_Rows = Float[Tensor, "*batch key"]


def total_variation(p: _Rows, q: _Rows) -> Float[np.ndarray, "*batch"]:
    """Share of attention that moves from one key to another: TV(p, q) = sum_i |p_i - q_i| / 2, in [0, 1].

    Args:
        p, q: rows over the same keys, shape ``(*batch, key)``.

    >>> import torch
    >>> float(total_variation(torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.0, 0.5, 0.5])))
    0.5

    Raises:
        ValueError: if the shapes differ or a row is no distribution.
    """
    left, right = _matched(p, q)
    return settle(np.abs(left - right).sum(-1) / 2, rounding(p.dtype, q.dtype))


def jensen_shannon(p: _Rows, q: _Rows) -> Float[np.ndarray, "*batch"]:
    """Jensen-Shannon distance: the root of the mean KL of p and q to their average, in units of log 2; in [0, 1].

        JS(p, q)^2 = (KL(p || m) + KL(q || m)) / (2 log 2),   m = (p + q) / 2

    A metric (Endres & Schindelin 2003). Args and errors as `total_variation`.
    """
    left, right = _matched(p, q)
    middle = (left + right) / 2
    divergence = (kl_div(left, middle) + kl_div(right, middle)).sum(-1) / (2 * np.log(2))
    # rounding can make it -1e-17 (where scipy's jensenshannon gives NaN)
    return settle(np.sqrt(divergence.clip(0, 1)), rounding(p.dtype, q.dtype))


def _matched(p: _Rows, q: _Rows) -> tuple[np.ndarray, np.ndarray]:
    if p.shape != q.shape:
        raise ValueError(f"q: expected the shape of p, {tuple(p.shape)}, got {tuple(q.shape)}")
    return check_rows(p)[0].numpy(), check_rows(q)[0].numpy()


#: name -> distance of matched rows, as `SHAPES` of one row.
DISTANCES: dict[str, Callable[[_Rows, _Rows], np.ndarray]] = {
    "total variation": total_variation,
    "Jensen-Shannon": jensen_shannon,
}

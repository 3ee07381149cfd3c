"""Is the knob a direction like any other? The slope of the loss along it against slopes along random ones of the same size.

    R = |trace(C)| d_head^½ / |C|,    null: |trace(M C)| d_head^½ / |C|,  M orthogonal, drawn from the Haar measure

C is what `loss_slopes` finds: moving queries by M changes the loss by trace(M C). The root mean square of the null is 1.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float

#: Random matrices at a time.
_BATCH = 1000


def knob_ratio(turn: Float[np.ndarray, "*head d_head d_head"]) -> Float[np.ndarray, "*head"]:
    """R of each head: how many random directions of the same size the knob is worth.

    >>> float(knob_ratio(np.eye(4)))
    4.0
    """
    return np.asarray(np.abs(np.trace(turn, axis1=-2, axis2=-1)) * np.sqrt(turn.shape[-1]) / _size(turn))


def random_ratios(
    turn: Float[np.ndarray, "*head d_head d_head"], *, n_draws: int = 1000, seed: int = 0
) -> Float[np.ndarray, "draw ..."]:
    """The null of `knob_ratio`: every head's own random orthogonal matrices.

    With C = U S V^T, trace(M C) = trace(V^T M U S), and V^T M U is as random as M: only singular values matter.

    Source: Mezzadri 2007 (arXiv:math-ph/0609050), for orthogonal matrices from a QR decomposition.
    """
    generator = torch.Generator().manual_seed(seed)
    singular = np.linalg.svd(turn, compute_uv=False)
    shape, d = turn.shape[:-2], turn.shape[-1]
    found = np.empty((n_draws, *shape))
    for head in np.ndindex(*shape):
        drawn = torch.cat([_haar_diagonals(k, d, generator) for k in _sizes(n_draws)]).numpy()
        found[(slice(None), *head)] = np.abs(drawn @ singular[head])
    return np.asarray(found * np.sqrt(d) / _size(turn))


def _haar_diagonals(n: int, d: int, generator: torch.Generator) -> torch.Tensor:
    """Diagonals of n random orthogonal matrices, ``(n, d)``; the signs of R's diagonal make Q uniform."""
    q, r = torch.linalg.qr(torch.randn(n, d, d, generator=generator, dtype=torch.float64))
    found: torch.Tensor = q.diagonal(dim1=-2, dim2=-1) * r.diagonal(dim1=-2, dim2=-1).sign()
    return found


def _sizes(n: int) -> list[int]:
    return [min(_BATCH, n - start) for start in range(0, n, _BATCH)]


def _size(turn: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt(np.square(turn).sum((-2, -1))))

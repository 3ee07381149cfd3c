"""Softmax as the answer to a budget problem: temperature, budget, and the way from one to the other.

    maximise sum_i pi_i z_i  subject to  KL(pi || m) <= rho     has the solution  pi_i proportional to m_i exp(beta z_i)

with null distribution m (uniform unless given). Source: Fields 2026, post 1.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import rel_entr, softmax
from torch import Tensor


def tempered(z: ArrayLike, beta: float, *, null: ArrayLike | None = None) -> NDArray[np.float64]:
    """pi_beta proportional to m exp(beta z): softmax at inverse temperature beta against the null m.

    Args:
        z: scores, shape ``(n,)``.
        beta: inverse temperature, >= 0.
        null: the null distribution m, shape ``(n,)``; zeros forbid a key. Default: uniform.

    >>> tempered([0.0, 0.0, math.log(2)], 1.0).tolist()
    [0.25, 0.25, 0.5]

    Raises:
        ValueError: if z is not finite, beta is negative or infinite, or the null is no distribution of z's length.
    """
    scores, m = _problem(z, null)
    if not 0 <= beta < math.inf:
        raise ValueError(f"beta: expected an inverse temperature, finite and >= 0, got {beta}")
    with np.errstate(divide="ignore"):
        return np.asarray(softmax(beta * scores + np.log(m)))


def temper_rows(
    pi: Float[Tensor, "*batch key"], beta: Float[Tensor, "*batch"], visible: Bool[Tensor, "*batch key"]
) -> Float[Tensor, "*batch key"]:
    """pi^beta / sum pi^beta over the visible keys: the rows that scores multiplied by beta would give.

    log pi is the scores but for a constant of each row, so that the scores themselves are not needed; the gradient with
    respect to beta is pi (log pi - mean of log pi).

    Args:
        pi: attention rows, any float type; a weight that has underflowed to 0 is taken as the smallest that there is.
        beta: inverse temperature of each row, >= 0. 0: uniform over visible keys. 1: the row as it is. Infinity: all
            weight on the largest, shared where several are.
        visible: True where the row's query sees the key.

    >>> temper_rows(torch.tensor([0.2, 0.8, 0.0]), torch.tensor(2.0), torch.tensor([True, True, False])).tolist()
    [0.05882352963089943, 0.9411764740943909, 0.0]

    Source: Fields 2026, post 1, where beta is absorbed into the query.
    """
    power, log_pi = beta.unsqueeze(-1), pi.clamp_min(torch.finfo(pi.dtype).tiny).log()
    finite = torch.where(power.isinf(), 1.0, power)
    rows = (finite * log_pi).masked_fill(~visible, -torch.inf).softmax(-1)
    best = visible & (pi == pi.amax(-1, keepdim=True))
    return torch.where(power.isinf(), best / best.sum(-1, keepdim=True), rows)


def budget(z: ArrayLike, beta: float, *, null: ArrayLike | None = None) -> float:
    """rho(beta) = KL(pi_beta || m) in nats: the budget that inverse temperature beta spends.

    d rho / d beta = beta Var_{pi_beta}(z), so rho grows strictly from 0 unless z is constant where m > 0.
    """
    _, m = _problem(z, null)
    return float(max(rel_entr(tempered(z, beta, null=m), m).sum(), 0.0))


def budget_ceiling(z: ArrayLike, *, null: ArrayLike | None = None) -> float:
    """The budget above which more buys nothing: -log m(argmax z), in nats; log(n / ties) for the uniform null."""
    scores, m = _problem(z, null)
    best = scores == scores[m > 0].max()
    if best[m > 0].all():
        return 0.0
    return float(-np.log(m[best & (m > 0)].sum()))


def beta_for_budget(z: ArrayLike, rho: float, *, null: ArrayLike | None = None) -> float:
    """The beta with rho(beta) = rho.

    Raises:
        ValueError: if rho is negative or not below `budget_ceiling`, or if z is constant (every beta spends 0).
    """
    ceiling = budget_ceiling(z, null=null)
    if not 0 <= rho < ceiling:
        raise ValueError(f"rho: expected a budget in [0, {ceiling:.4g}) nats for these scores, got {rho}")
    if budget(z, 0.0, null=null) >= rho:
        return 0.0
    high = 1.0
    while budget(z, high, null=null) < rho:
        high *= 2
    return float(brentq(lambda beta: budget(z, beta, null=null) - rho, 0.0, high, xtol=1e-14))


def _problem(z: ArrayLike, null: ArrayLike | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores and null distribution, checked."""
    scores = np.asarray(z, dtype=float)
    if scores.ndim != 1 or scores.size == 0:
        raise ValueError(f"z: expected scores of shape (n,), got shape {scores.shape}")
    if not np.isfinite(scores).all():
        raise ValueError(f"z: expected finite scores, got {scores[~np.isfinite(scores)][0]}")
    return scores, _null(null, scores.shape)


def _null(null: ArrayLike | None, shape: tuple[int, ...]) -> NDArray[np.float64]:
    m = np.full(shape, 1 / math.prod(shape)) if null is None else np.asarray(null, dtype=float)
    if m.shape != tuple(shape) or (m < 0).any() or not math.isclose(m.sum(), 1, abs_tol=1e-9):
        raise ValueError(f"null: expected a distribution over {math.prod(shape)} keys, got {m}")
    return m

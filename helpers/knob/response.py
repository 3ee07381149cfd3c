"""What rows say about the knob without turning it: KL at any beta, the first-order prediction, and how far it carries.

    d KL(beta) / d beta = beta Var_beta(log pi),   at beta = 1: chi

`rows` and `visible` are attention rows and which keys their queries see, as in an attention record.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from helpers.diagnostics.rows import kl_selectivity, susceptibility
from helpers.diagnostics.tempering import temper_rows
from helpers.heads import head_index

#: The largest error at which the first-order prediction counts as good.
GOOD = 0.10
#: Where `reach` looks: outward from beta = 1, to 0 and to 8.
BELOW, ABOVE = np.linspace(0.99, 0, 100), np.geomspace(1.01, 8, 200)

PerHead = Float[np.ndarray, "prompt layer head"]


def tempered_kl(
    rows: Float[Tensor, "*batch key"], visible: Bool[Tensor, "*batch key"], beta: float
) -> Float[np.ndarray, "*batch"]:
    """KL of rows from uniform, in nats, once their scores are multiplied by beta (`temper_rows`).

    A head's own scores don't depend on what it puts out, so that turned alone, at one token or at all, it has these rows in
    the running model too.
    """
    betas = torch.full(rows.shape[:-1], float(beta), dtype=torch.float64)
    turned = temper_rows(rows.double(), betas, visible)
    return np.asarray(kl_selectivity(turned, mask=visible, normalized=False).numpy())


def linear_response(
    rows: Float[Tensor, "prompt layer head key"],
    visible: Bool[Tensor, "prompt layer head key"],
    betas: Sequence[float],
) -> pd.DataFrame:
    """KL(beta) of every head against the first-order prediction KL(1) + (beta - 1) chi.

        error = mean over prompts of |prediction - KL(beta)|  /  mean over prompts of |KL(beta) - KL(1)|

    Returns:
        One row a head and beta: layer, head, beta, kl and predicted (means over prompts, nats), moved (the denominator), error
        (NaN where nothing moves).

    Source: Fields 2026, post 1 (susceptibility).
    """
    plain, chi = _at_one(rows, visible)
    tables = []
    for beta in betas:
        kl, predicted = tempered_kl(rows, visible, beta), plain + (beta - 1) * chi
        columns = {"beta": float(beta), "kl": kl.mean(0).ravel(), "predicted": predicted.mean(0).ravel()}
        moved = np.abs(kl - plain).mean(0).ravel()
        tables.append(head_index(*kl.shape[1:]).assign(**columns, moved=moved, error=_error(kl, predicted, plain)))
    return pd.concat(tables).sort_values(["layer", "head", "beta"], ignore_index=True)


def reach(
    rows: Float[Tensor, "prompt layer head key"],
    visible: Bool[Tensor, "prompt layer head key"],
    *,
    good: float = GOOD,
) -> pd.DataFrame:
    """How far each head can be turned, either way, while the error of `linear_response` stays at most ``good``.

    Returns:
        One row a head: layer, head, kl (nats) and chi (nats^2) at beta = 1, means over prompts; reach_low and reach_high, the
        furthest of the betas `BELOW` and `ABOVE` 1 with no larger error on the way (1 if there is none).
    """
    plain, chi = _at_one(rows, visible)
    ends = {}
    for name, grid in (("reach_low", BELOW), ("reach_high", ABOVE)):
        end, going = np.ones(plain[0].size), np.ones(plain[0].size, dtype=bool)
        for beta in grid:
            kl = tempered_kl(rows, visible, beta)
            going &= _error(kl, plain + (beta - 1) * chi, plain) <= good
            end[going] = beta
            if not going.any():
                break
        ends[name] = end
    return head_index(*plain.shape[1:]).assign(kl=plain.mean(0).ravel(), chi=chi.mean(0).ravel(), **ends)


def output_response(
    pi: Float[Tensor, "*batch key"], v: Float[Tensor, "*batch key d_head"]
) -> Float[Tensor, "*batch d_head"]:
    """dz / d beta at beta = 1, how fast a head's output changes with its knob: the covariance of log weights and values.

        dz / d beta = sum_i pi_i (log pi_i - mean of log pi) v_i = Cov_pi(log pi, v),   |dz / d beta|^2 <= chi d_head Var_v

    Args:
        pi: attention rows.
        v: the values of their keys.

    >>> output_response(torch.tensor([0.5, 0.5]), torch.tensor([[1.0], [0.0]])).tolist()
    [0.0]
    """
    mean = torch.special.xlogy(pi, pi).sum(-1, keepdim=True)
    weight = torch.special.xlogy(pi, pi) - pi * mean
    found: Tensor = (weight[..., None] * v).sum(-2)
    return found


def _at_one(rows: Tensor, visible: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """KL and chi at beta = 1 in nats and nats squared."""
    found = (f(rows, mask=visible, normalized=False).numpy() for f in (kl_selectivity, susceptibility))
    plain, chi = found
    return plain, chi


def _error(kl: PerHead, predicted: PerHead, plain: PerHead) -> NDArray[np.float64]:
    """The error of each head, in reading order; NaN where nothing moves."""
    wrong, moved = (np.abs(x).mean(0).ravel() for x in (predicted - kl, kl - plain))
    return np.asarray(np.divide(wrong, moved, out=np.full_like(moved, np.nan), where=moved > 0))

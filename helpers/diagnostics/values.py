"""The value side of a row: how far apart the values are that attention mixes."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def value_variance(pi: Float[Tensor, "*batch key"], v: Float[Tensor, "*batch key d_head"]) -> Float[Tensor, "*batch"]:
    """Spread of the values under an attention row, a mean square per dimension:

        Var_v = (sum_i pi_i |v_i|^2 - |sum_i pi_i v_i|^2) / d_head

    0 where the row is one-hot or all values it weighs are alike. In the units of the values, squared. It is the trace of
    the values' covariance over d_head; where a row's sum is below 1 (a sink outside the row) the rest counts as a value 0.

    >>> import torch
    >>> float(value_variance(torch.tensor([0.5, 0.5]), torch.tensor([[3.0, 1.0], [1.0, 1.0]])))
    0.5

    Args:
        pi: attention rows.
        v: the values of their keys, of the row's own key/value head.

    Source: Fields 2026, public working notes on the value side.
    """
    second = (pi * v.square().sum(-1)).sum(-1)
    mean = (pi[..., None] * v).sum(-2)
    return ((second - mean.square().sum(-1)) / v.shape[-1]).clamp_min(0)  # rounding can make it -1e-17

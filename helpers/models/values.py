"""The values that a layer's heads weigh, and the check that rows times values are what the heads put out."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from helpers.models.model import LanguageModel


def tolerance(model: LanguageModel) -> float:
    """Rounding of a sum of as many parts as a model's residual stream has, in its dtype, relative to their size."""
    return max(float(4 * torch.finfo(model.dtype).eps * (2 * model.n_layers) ** 0.5), 1e-4)


def sink_weight(rows: Float[Tensor, "*batch key"]) -> Float[Tensor, "*batch 1"]:
    """What rows leave for a learned sink, which is no token: 1 minus their sum."""
    return (1 - rows.sum(-1, keepdim=True)).clamp_min(0)


def head_values(
    model: LanguageModel,
    layer: int,
    pi: Float[Tensor, "prompt head query key"],
    v: Float[Tensor, "prompt key group d_head"],
    z: Float[Tensor, "prompt query head d_head"],
) -> Float[Tensor, "prompt head key d_head"]:
    """The value of every head at every key; heads of a group share theirs.

    Args:
        layer: the layer's number, for the message.
        pi, v, z: what TransformerLens's ``hook_pattern``, ``hook_v`` and ``hook_z`` give.

    Raises:
        ValueError: if pi v is not z: of such a model nothing is known about what heads weigh.
    """
    try:
        values = v.repeat_interleave(pi.shape[1] // v.shape[2], 2).transpose(1, 2)
        wrong = (pi @ values - z.transpose(1, 2)).norm(dim=-1)
        size = pi @ values.norm(dim=-1, keepdim=True)
    except (RuntimeError, IndexError, ZeroDivisionError):  # another order of axes
        raise no_values(model, layer) from None
    if not (wrong <= tolerance(model) * size[..., 0]).all():
        raise no_values(model, layer)
    return values


def no_values(model: LanguageModel, layer: int) -> ValueError:
    """What is said of a model whose heads put out something else than rows times values."""
    return ValueError(
        f"model: expected head outputs that are attention rows times values, got {model.name!r}, where those "
        f"of layer {layer} are not"
    )

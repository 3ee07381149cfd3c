"""Attention rows from one forward pass of a Hugging Face model on fused attention, with no (T, T) matrix anywhere.

The model must be as transformers made it; whatever wraps its attention (TransformerLens does) is refused.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from helpers.models.interface import Collector, LastRowsTaken, Queries, attentions, collecting

#: Kinds of model whose attention goes through the registry, but whose eager weights are not what the heads use.
OTHERWISE = {
    "diffllama": "a head's pattern is the difference of two softmaxes",
    "granite_swa": "the eager attention weights leave the sink out",
    "granitemoe_swa": "the eager attention weights leave the sink out",
}


@dataclass(frozen=True)
class Rows:
    """Attention rows of one batch, on the CPU.

    Attributes:
        rows: ``(prompt, layer, head, key)``, or ``(prompt, layer, head, query, key)`` for several queries or all, in
            the model's dtype.
        visible: which keys each query can see in each layer, by the mask that was used: ``(prompt, layer, key)``,
            or ``(prompt, layer, query, key)``.
        layers: the number of each layer in ``rows``; a hybrid model has layers without attention.
        logits: logits at END, ``(prompt, token of the vocabulary)``, if they were asked for.
    """

    rows: Tensor
    visible: Tensor
    layers: tuple[int, ...]
    logits: Tensor | None = None


def supports_fused(hf_model: Any) -> str:
    """Why `rows_of` refuses a model, in one clause, or the empty string if it does not."""
    kind = getattr(getattr(hf_model, "config", None), "model_type", None)
    if kind is None or not hasattr(hf_model, "set_attn_implementation"):
        return f"expected a causal language model of transformers, got {type(hf_model).__name__}"
    if hf_model.config.is_encoder_decoder or not hf_model.can_generate():
        return f"expected a causal (decoder-only) language model with its head, got {type(hf_model).__name__}"
    if any(type(module).__module__.startswith("transformer_lens") for module in hf_model.modules()):
        return "expected a model as transformers made it, got one that TransformerLens has wrapped"
    if kind in OTHERWISE:
        return f"in a {kind!r} model {OTHERWISE[kind]}"
    numbers = [module.layer_idx for module in attentions(hf_model)]
    if not numbers:
        return f"no attention of a {kind!r} model goes through transformers' AttentionInterface"
    if None in numbers or len(numbers) != len(set(numbers)):
        return f"in a {kind!r} model attention is not one module a layer"
    return ""


def rows_of(
    hf_model: Any, ids: Tensor, at: Queries | None, *, logits: bool = False, sink_is_a_key: bool = True
) -> Rows:
    """Attention rows of the query positions asked for, of every layer and head, from one forward pass.

    row(key) = softmax over the visible keys of (q_t · k) · scaling, as the model's own eager attention computes it.
    The pass stops at the last rows unless logits are wanted. With a few queries a prompt memory grows with T, not T².

    Args:
        hf_model: a causal language model of transformers, in evaluation mode, not wrapped.
        ids: token ids ``(prompt, token)``; prompts of one length, without padding.
        at: the query position of each prompt, or as many positions for each, or None for all positions of all (which
            keeps (T, T) weights, and is eager attention).
        logits: also return the logits at END, the last position.
        sink_is_a_key: what to do with the weight that goes to an attention sink, which is no token. True: leave the
            weights on the tokens as they are, so that a row sums to 1 minus the sink's weight. False: divide by that
            sum, so that the row is the distribution over tokens alone.

    Raises:
        ValueError: if the model is not supported (see `supports_fused`) or ids or positions do not fit.

    Source:
        transformers' AttentionInterface and AttentionMaskInterface.
    """
    reason = supports_fused(hf_model)
    if reason:
        raise ValueError(f"hf_model: {reason}")
    if hf_model.training:
        raise ValueError("hf_model: expected a model in evaluation mode (model.eval()), got one in training mode")
    _check(ids, at)
    numbers = sorted(module.layer_idx for module in attentions(hf_model))
    fused = hf_model.get_correct_attn_implementation(None) == "sdpa"  # what transformers would choose
    collector = Collector(numbers, at, fused=fused, stop=not logits, sink_is_a_key=sink_is_a_key)
    said = _forward(hf_model, ids.to(hf_model.device), collector)
    if collector.left:
        raise ValueError(f"hf_model: expected attention in layers {numbers}, got none in {sorted(collector.left)}")
    return Rows(collector.rows, collector.visible, tuple(numbers), said)


def _check(ids: Tensor, at: Queries | None) -> None:
    if ids.ndim != 2 or not ids.numel() or ids.is_floating_point():
        raise ValueError(f"ids: expected token ids of shape (prompt, token), got {ids.dtype} {tuple(ids.shape)}")
    if at is not None and len(at) != len(ids):
        raise ValueError(f"at: expected one query position for each of {len(ids)} prompts, got {len(at)}")
    several = [[*t] if isinstance(t, Sequence) else [t] for t in at or ()]
    if len({*map(len, several)}) > 1 or [] in several:
        raise ValueError(f"at: expected as many query positions for every prompt, got {[*map(len, several)]}")
    wrong = [t for some in several for t in some if not 0 <= t < ids.shape[1]]
    if wrong:
        raise ValueError(f"at: expected positions from 0 to {ids.shape[1] - 1}, got {wrong[0]}")


def _forward(hf_model: Any, ids: Tensor, collector: Collector) -> Tensor | None:
    """One forward pass with the collector in place; logits at END, unless it stopped before."""
    options: dict[str, Any] = {"use_cache": False}
    if "logits_to_keep" in inspect.signature(hf_model.forward).parameters:
        options["logits_to_keep"] = 1
    with torch.no_grad(), collecting(hf_model, collector):
        try:
            said: Tensor = hf_model(ids, **options).logits[:, -1].cpu()
        except LastRowsTaken:
            return None
    return said

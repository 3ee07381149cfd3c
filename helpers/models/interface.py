"""Our function in transformers' registry: it makes a layer's output by fused attention and keeps chosen rows beside it.

Weights come from the model's own eager function, called with the wanted queries alone: scaling, soft-capping, sinks and
grouped queries are therefore the model's. Masks are kept as the rule by which transformers would fill them, so that the
rows that are needed are all that is ever filled.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

#: Our name in transformers' registries of attention and mask functions.
IMPLEMENTATION = "attention_head_diagnostics"

#: Queries at a time where fused attention can't take all at once: windows, soft-capping, sinks.
BLOCK = 128

#: The query position of each prompt, or several of each, as many for all.
Queries = Sequence[int] | Sequence[Sequence[int]]

#: A mask's rule: from indices of prompts, heads, queries and keys, which broadcast, to "the query sees the key".
Rule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class LastRowsTaken(Exception):
    """Nothing more of the forward pass is needed."""


def attentions(hf_model: Any) -> list[Any]:
    """The modules of a model that look their attention function up by name, in its order."""
    numbered = [module for module in hf_model.modules() if hasattr(module, "layer_idx")]
    return [module for module in numbered if "get_interface" in _forward_of(module).__code__.co_names]


def _forward_of(module: Any) -> Any:
    return inspect.unwrap(type(module).forward)


@contextmanager
def collecting(hf_model: Any, collector: Collector) -> Iterator[None]:
    """Our attention function instead of the model's, which is put back whatever happens."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(IMPLEMENTATION, _attention)
    AttentionMaskInterface.register(IMPLEMENTATION, _mask)
    configs = list({id(m.config): m.config for m in hf_model.modules() if hasattr(m, "config")}.values())
    before = [config._attn_implementation for config in configs]
    token = _collector.set(collector)
    try:
        hf_model.set_attn_implementation(IMPLEMENTATION)
        yield
    finally:
        _collector.reset(token)
        for config, was in zip(configs, before, strict=True):
            config._attn_implementation = was


_collector: ContextVar[Collector] = ContextVar("collector")


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | Rule | None, **options: Any
) -> tuple[Tensor, None]:
    """What transformers calls in each layer, with the mask that `_mask` made."""
    return _collector.get()(Layer(module, query, key, value, mask, options)), None


def _mask(**about: Any) -> Tensor | Rule | None:
    """What transformers calls for a mask: None if it is causal, else its rule, or the mask itself if it has no rule."""
    from transformers.masking_utils import causal_mask_function, sdpa_mask

    if about.get("use_vmap") or about.get("attention_mask") is not None:
        whole: Tensor = sdpa_mask(**about)
        return whole
    rule: Rule = about["mask_function"]
    window = about.get("local_size")
    causal = rule is causal_mask_function or (window is not None and about["kv_length"] < window)
    return None if causal and about.get("allow_is_causal_skip", True) else rule


@dataclass(frozen=True)
class Layer:
    """One call of the attention function: query (prompt, head, query, d), key and value (prompt, key/value head, key, d)."""

    module: Any
    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | Rule | None
    options: dict[str, Any]

    @property
    def number(self) -> int:
        return int(self.module.layer_idx)

    def mask_at(self, positions: Tensor) -> Tensor:
        """The mask of some queries ``(prompt, query)``: (prompt, 1 or head, query, key), boolean or added to scores."""
        n, n_keys = len(positions), self.key.shape[2]
        if isinstance(self.mask, Tensor):
            return _pick(self.mask.expand(n, -1, -1, -1), positions)
        prompts, keys = (torch.arange(size, device=positions.device) for size in (n, n_keys))
        queries = positions[:, None, :, None]
        if self.mask is not None:
            seen = self.mask(prompts[:, None, None, None], prompts[:1], queries, keys)
        else:
            seen = (keys <= queries) | (not self.causal())
        return seen.expand(n, 1, positions.shape[1], n_keys)

    def causal(self) -> bool:
        """Whether no mask means a causal one, by transformers' rule for fused attention."""
        said = self.options.get("is_causal")
        return getattr(self.module, "is_causal", True) if said is None else said

    def visible(self, positions: Tensor) -> Tensor:
        """Which keys some queries see, (prompt, query, key)."""
        mask = self.mask_at(positions)
        return (mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min).any(1)

    def eager(self, positions: Tensor, keys: slice, value: Tensor) -> tuple[Tensor, Tensor]:
        """Output and weights of some queries by the function that the module would call in eager mode."""
        function = _forward_of(self.module).__globals__["eager_attention_forward"]
        mask = self.mask_at(positions)[..., keys]
        if mask.dtype == torch.bool:
            lowest = torch.finfo(self.query.dtype).min
            mask = torch.zeros(mask.shape, dtype=self.query.dtype, device=mask.device).masked_fill(~mask, lowest)
        query, key = _pick(self.query, positions), self.key[:, :, keys]
        output, weights = function(self.module, query, key, value[:, :, keys], mask, **self.options)
        return output, weights

    def fused(self) -> Tensor:
        """The output by fused attention, all queries at once: for a causal mask, or one that is a tensor anyway."""
        return self._sdpa(self.query, self.key, self.value, self.mask)

    def in_blocks(self, *, fused: bool) -> Tensor:
        """The output, `BLOCK` queries at a time from the keys that any of them sees, fused or eager."""
        n, length = self.query.shape[0], self.query.shape[2]
        blocks = torch.arange(length, device=self.query.device).expand(n, length).split(BLOCK, dim=1)
        return torch.cat([self._block(positions, fused=fused) for positions in blocks], dim=1)

    def _block(self, positions: Tensor, *, fused: bool) -> Tensor:
        seen = self.visible(positions).flatten(0, 1).any(0).nonzero()
        keys = slice(int(seen[0]), int(seen[-1]) + 1)
        if not fused:
            return self.eager(positions, keys, self.value)[0]
        mask = self.mask_at(positions)[..., keys]
        return self._sdpa(_pick(self.query, positions), self.key[:, :, keys], self.value[:, :, keys], mask)

    def _sdpa(self, query: Tensor, key: Tensor, value: Tensor, mask: Any) -> Tensor:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        output: Tensor = sdpa_attention_forward(self.module, query, key, value, mask, **self.options)[0]
        return output


def _pick(tensor: Tensor, positions: Tensor) -> Tensor:
    """Of a tensor (prompt, head, query, …) the queries at positions (prompt, query)."""
    prompts = torch.arange(len(positions), device=positions.device)[:, None]
    return tensor[prompts, :, positions].transpose(1, 2)


class Collector:
    """Keeps the rows and visible keys of each layer as its attention is computed, and makes the layer's output.

    Args:
        layers: numbers of the layers with attention, in order.
        at: query position of each prompt, or several of each, or None for all.
        fused: the model's output may be made by fused attention.
        stop: raise `LastRowsTaken` after the last layer's rows.
        sink_is_a_key: see `helpers.models.fused.rows_of`.
    """

    rows: Tensor
    visible: Tensor

    def __init__(
        self, layers: Sequence[int], at: Queries | None, *, fused: bool, stop: bool, sink_is_a_key: bool
    ) -> None:
        self.layers, self.left, self.at = list(layers), set(layers), at
        self.can_fuse, self.stop, self.sink_is_a_key = fused, stop, sink_is_a_key

    def __call__(self, layer: Layer) -> Tensor:
        self._check(layer)
        n, length = layer.query.shape[0], layer.query.shape[2]
        everything = slice(None)
        if self.at is None:
            positions = torch.arange(length, device=layer.query.device).expand(n, length)
            output, weights = layer.eager(positions, everything, layer.value)
            self._keep(layer, weights, layer.visible(positions))
            return output
        at = torch.tensor(self.at, device=layer.query.device)
        positions = at.reshape(n, -1)
        _, weights = layer.eager(positions, everything, layer.value[..., :1])  # its output is not used
        visible = layer.visible(positions)
        if at.ndim == 1:
            weights, visible = weights[:, :, 0], visible[:, 0]
        self._keep(layer, weights, visible)
        fused = self.can_fuse and layer.options.get("softcap") is None
        return layer.fused() if fused and not callable(layer.mask) else layer.in_blocks(fused=fused)

    def _check(self, layer: Layer) -> None:
        """Refuse what would give rows of something else than a token's query and tokens' keys."""
        if layer.number not in self.left:
            raise ValueError(f"hf_model: expected one attention pattern a layer, got another in layer {layer.number}")
        queries, keys = layer.query.shape[2], layer.key.shape[2]
        if queries != keys:
            raise ValueError(f"hf_model: expected a key for each of {queries} tokens, got {keys}, layer {layer.number}")
        if layer.options.get("position_bias") is not None:
            raise ValueError(f"hf_model: expected no bias beside the mask, got position_bias in layer {layer.number}")

    def _keep(self, layer: Layer, weights: Tensor, visible: Tensor) -> None:
        """Write one layer's rows and visible keys; stop if they were the last that are wanted."""
        if not self.sink_is_a_key and getattr(layer.module, "sinks", None) is not None:
            weights = weights / weights.sum(-1, keepdim=True)
        if not hasattr(self, "rows"):
            self.rows, self.visible = (self._room(one) for one in (weights, visible))
        got, expected = weights.shape[1], self.rows.shape[2]
        if got != expected:
            raise ValueError(f"hf_model: expected {expected} heads a layer, got {got} in layer {layer.number}")
        index = self.layers.index(layer.number)
        self.rows[:, index], self.visible[:, index] = weights, visible
        self.left.remove(layer.number)
        if self.stop and not self.left:
            raise LastRowsTaken

    def _room(self, one: Tensor) -> Tensor:
        """Zeros on the CPU for what is like ``one`` in each layer."""
        return torch.zeros(len(one), len(self.layers), *one.shape[1:], dtype=one.dtype)

"""Whether the views of a model agree: a short prompt of random tokens, longer than any window of a small model, run in each.

What is compared: the rows that recording takes, transformers' own eager attentions, and in TransformerLens's wrapper the
pattern and z of every layer, the logits, and the logits with one head's z taken out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from helpers.models.fused import rows_of

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


class Described(Protocol):
    """What a `LanguageModel` is to this module."""

    hf: Any

    @property
    def config(self) -> Any: ...
    @property
    def n_layers(self) -> int: ...
    @property
    def n_heads(self) -> int: ...
    @property
    def n_ctx(self) -> int | None: ...
    @property
    def n_tokens(self) -> int: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def is_spread(self) -> bool: ...


#: Tokens of the prompt: at least, and at most if a window is to be passed.
SHORT, LONG = 12, 96


@dataclass(frozen=True)
class Reference:
    """What transformers' eager attention makes of the prompt.

    Attributes:
        ids: token ids, ``(1, token)``.
        attentions: of each layer, ``(head, query, key)``.
        logits: at END, ``(vocabulary,)``.
    """

    ids: Tensor
    attentions: list[Tensor]
    logits: Tensor


def reference_pass(model: Described) -> Reference:
    """The eager pass.

    Raises:
        ValueError: one clause, if there are not as many layers and heads with attention as the configuration says.
    """
    ids = _prompt(model)
    with torch.no_grad():
        said = model.hf(ids, output_attentions=True, output_hidden_states=True, use_cache=False)
    found = [a for a in getattr(said, "attentions", None) or () if isinstance(a, Tensor)]
    if len(found) != model.n_layers:
        raise ValueError(
            f"expected attention in each of {model.n_layers} layers, got it in {len(found)} (a {model.hf.config.model_type!r} "
            "model has layers of another kind)"
        )
    expected = (1, model.n_heads, ids.shape[1], ids.shape[1])
    if wrong := [tuple(a.shape) for a in found if a.shape != expected]:
        raise ValueError(
            f"expected attention of shape {expected} in every layer (prompt, head, query, key), got {wrong[0]}"
        )
    later = torch.ones(expected[2:], dtype=torch.bool, device=ids.device).triu(1)
    if any(a[..., later].any() for a in found):
        raise ValueError("expected causal attention, got weight on keys after the query")
    if not torch.isfinite(said.logits).all():
        raise ValueError(not_finite(model, first_not_finite(said.hidden_states)))
    return Reference(ids, [a[0] for a in found], said.logits[0, -1])


def compare_rows(model: Described, rows: Callable[..., Any] = rows_of) -> None:
    """Refuse a model whose rows, as recording takes them, are not its eager attentions.

    Raises:
        ValueError: one clause.
    """
    expected = reference_pass(model)
    n = expected.ids.shape[1]
    at = [n - 1, n // 2]
    got = rows(model.hf, expected.ids.expand(2, -1), at, logits=True)
    for layer, pattern in enumerate(expected.attentions):
        _compare(f"attention of layer {layer}", got.rows[:, layer], pattern[:, at].transpose(0, 1), pattern.abs().max())
        hidden = ~got.visible[:, layer, None, :].expand_as(got.rows[:, layer])
        if got.rows[:, layer][hidden].any():
            raise ValueError(f"expected no weight on keys that the mask of layer {layer} hides, got some")
    _compare("the logits", got.logits[0], expected.logits, _size(expected.logits))


def compare_views(model: Described, lens: TransformerBridge, expected: Reference) -> None:
    """Refuse a wrapper whose pattern, z or logits are not the model's.

    Raises:
        ValueError: one clause.
    """
    pattern, z = ([f"blocks.{i}.attn.{name}" for i in range(model.n_layers)] for name in ("hook_pattern", "hook_z"))
    seen: dict[str, Tensor] = {}
    logits = _run(lens, expected.ids, [(name, partial(_keep, seen, name)) for name in (*pattern, *z)])
    for layer, (name, attention) in enumerate(zip(pattern, expected.attentions, strict=True)):
        for hook in (name, z[layer]):
            if hook not in seen:
                raise ValueError(f"expected a hook at {hook}, got none")
        _compare(f"attention of layer {layer}", seen[name][0], attention, attention.abs().max())
    _compare("the logits", logits, expected.logits, _size(expected.logits))
    if not model.is_spread:
        _compare_outputs(model, lens, expected.ids, [seen[name] for name in z])


def _compare_outputs(model: Described, lens: TransformerBridge, ids: Tensor, z: list[Tensor]) -> None:
    """z is what the model's own output projections are given, and taking a head out there is what it is in the wrapper."""
    projections = [_twin(model, lens, layer) for layer in range(model.n_layers)]
    given: list[Tensor] = []
    middle, head = model.n_layers // 2, model.n_heads - 1

    def look(module: Any, args: tuple[Tensor, ...]) -> None:
        given.append(args[0])

    def without(module: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = args[0].clone()
        x.view(*x.shape[:2], model.n_heads, -1)[:, :, head] = 0
        return (x, *args[1:])

    def without_z(x: Tensor, hook: Any) -> Tensor:
        x = x.clone()
        x[:, :, head] = 0
        return x

    _own(model, ids, [(projection, look) for projection in projections])
    for layer, (inside, outside) in enumerate(zip(z, given, strict=True)):
        if inside.shape[2] != model.n_heads:
            raise ValueError(
                f"expected outputs z of {model.n_heads} heads in layer {layer}, got shape {tuple(inside.shape)}"
            )
        _compare(f"z of layer {layer}", inside.flatten(2), outside.reshape(inside.flatten(2).shape), _size(outside))
    logits = _own(model, ids, [(projections[middle], without)])
    patched = _run(lens, ids, [(f"blocks.{middle}.attn.hook_z", without_z)])
    _compare(f"the logits without head {middle}.{head}", patched, logits, _size(logits))


def _twin(model: Described, lens: TransformerBridge, layer: int) -> Any:
    """The model's own output projection of a layer: the module that has the same weights as the wrapper's."""
    try:
        weight = lens.blocks[layer].attn.o.original_component.weight
        return next(m for m in model.hf.modules() if getattr(m, "weight", None) is weight)
    except (AttributeError, StopIteration):
        raise ValueError(f"expected an output projection of the heads in layer {layer}, got none") from None


def _keep(seen: dict[str, Tensor], name: str, x: Tensor, hook: Any) -> None:
    seen[name] = x.detach().clone()


def _run(lens: TransformerBridge, ids: Tensor, hooks: list[Any]) -> Tensor:
    with torch.no_grad():
        logits: Tensor = lens.run_with_hooks(ids, fwd_hooks=hooks, output_attentions=False)
    return logits[0, -1]


def _own(model: Described, ids: Tensor, hooks: list[Any]) -> Tensor:
    handles = [module.register_forward_pre_hook(hook) for module, hook in hooks]
    try:
        with torch.no_grad():
            logits: Tensor = model.hf(ids, use_cache=False).logits
    finally:
        for handle in handles:
            handle.remove()
    return logits[0, -1]


def _prompt(model: Described) -> Tensor:
    """Random tokens, more of them than the widest window or chunk that is not too wide for this."""
    names = ("sliding_window", "window_size", "attention_chunk_size")
    widths = [w for name in names if isinstance(w := getattr(model.config, name, None), int) and 2 * w < LONG]
    length = min(max([SHORT, *(2 * w + 2 for w in widths)]), model.n_ctx or LONG)
    generator = torch.Generator().manual_seed(0)
    return torch.randint(model.n_tokens, (1, length), generator=generator).to(model.device)


def _size(x: Tensor) -> Tensor:
    return x.float().abs().max()


def first_not_finite(states: Sequence[Tensor]) -> int | None:
    """The first layer that puts out NaN or infinity, from transformers' hidden states (those of the embedding come first)."""
    return next((i for i, x in enumerate(states[1:]) if not torch.isfinite(x).all()), None)


def not_finite(model: Described, layer: int | None) -> str:
    """What to say of numbers out of range."""
    where = "" if layer is None else f", first in layer {layer}"
    return f"expected finite numbers, got NaN or infinity in {str(model.dtype).removeprefix('torch.')}{where}; load it in a wider dtype"


def _compare(what: str, got: Tensor, expected: Tensor, size: Tensor) -> None:
    """Equal but for rounding: in float32 everywhere, in less precision on the average."""
    if got.shape != expected.shape:
        raise ValueError(f"expected {what} of shape {tuple(expected.shape)}, got {tuple(got.shape)}")
    difference = (got.float().cpu() - expected.float().cpu()).abs() / size.float().cpu().clamp_min(1e-30)
    exact = expected.dtype in (torch.float32, torch.float64)
    wrong, allowed = (difference.max(), 1e-3) if exact else (difference.mean(), 3e-2)
    if not wrong <= allowed:
        raise ValueError(f"{what} is off by {wrong:.2g} of the largest value")

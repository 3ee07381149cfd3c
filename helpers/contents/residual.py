"""The residual stream as a sum: what each head writes to it, and how a write reaches the logits; norms' scales are held.

A head's write is z W_O, z = sum_i pi_i v_i. Where a norm stands between attention and the stream (Gemma 2, OLMo 2),
its contribution is what that norm makes of the write with its scale held at the value of this pass; where a model
multiplies what attention writes (Granite), the contribution is multiplied too. Output biases belong to no head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from helpers.models.forward import Hook, Ids, forward, hook_z
from helpers.models.model import LanguageModel
from helpers.models.values import tolerance

#: Ids of the answers and of the foils of a prompt.
Words = tuple[Sequence[int], Sequence[int]]

#: What a block starts from, what attention and MLP add (after norms and multipliers), and what it ends with.
PARTS = ("hook_resid_pre", "hook_attn_out", "hook_mlp_out", "hook_out")
_LAST = ("ln_final.hook_in", "ln_final.hook_scale", "unembed.hook_out")


def _hook_scale(layer: int) -> str:
    return f"blocks.{layer}.ln1_post.hook_scale"


@dataclass(frozen=True)
class Trace:
    """One forward pass of prompts of one length, kept on the CPU.

    Attributes:
        z: outputs of the heads of each layer, ``(prompt, token, head, d_head)``, float64; token: all, or the position.
        scale: what the norm after attention divides by, ``(prompt, token, 1)``; None in layers without one.
        seen: other activations at the position (values: at all tokens), by the names of their hooks.
        logits: at END, ``(prompt, vocabulary)``, float64.
    """

    z: list[Tensor]
    scale: list[Tensor | None]
    seen: dict[str, Tensor]
    logits: Tensor

    def effective(self, layer: int) -> Float[Tensor, "prompt token head d_head"]:
        """z over the scale of the norm after attention: what `Writer.matrix` turns into contributions."""
        scale = self.scale[layer]
        return self.z[layer] if scale is None else self.z[layer] / scale[..., None]


def trace(model: LanguageModel, ids: Ids, at: Sequence[int], *, everywhere: bool = False) -> Trace:
    """Run prompts once; keep the parts of the stream at one position of each prompt, and z there or everywhere."""
    seen: dict[str, Tensor] = {}
    rows, layers = torch.arange(len(at)), range(model.n_layers)

    def keep(x: Tensor, hook: Any, name: str) -> None:
        if name in _LAST:
            x = x[:, -1]
        elif name.endswith("hook_pattern"):
            x = x[rows, :, at]
        elif not name.endswith("hook_v") and not (everywhere and name in whole):
            x = x[rows, at]
        seen[name] = x.detach().to("cpu", copy=True)

    whole = [name(layer) for name in (hook_z, _hook_scale) for layer in layers]
    parts = [f"blocks.{layer}.{part}" for layer in layers for part in (*PARTS, "attn.hook_v", "attn.hook_pattern")]
    names = [name for name in (*whole, *parts, *_LAST) if name in model.lens.hook_dict]
    hooks: list[Hook] = [(name, partial(keep, name=name)) for name in names]
    with torch.no_grad():
        logits = forward(model, ids, hooks).double().cpu()
    z, scale = ([_take(seen, name(layer), everywhere) for layer in layers] for name in (hook_z, _hook_scale))
    return Trace([x for x in z if x is not None], scale, seen, logits)


def _take(seen: dict[str, Tensor], name: str, everywhere: bool) -> Tensor | None:
    x = seen.pop(name, None)
    return x if x is None else (x if everywhere else x[:, None]).double()


class Writer:
    """How the heads of one layer write to the residual stream, if the scale of a norm on the way is held.

    Attributes:
        matrix: contribution = effective z @ matrix (see `Trace.effective`), ``(head, d_head, d_model)``.
        bias, constant: what no head writes: bias over the norm's scale, and a constant; ``(d_model,)``.
    """

    def __init__(self, model: LanguageModel, layer: int) -> None:
        block = model.lens.blocks[layer]
        self.matrix, self.bias = double(block.attn.W_O), double(block.attn.b_O)
        self.constant = double(None)
        if _hook_scale(layer) in model.lens.hook_dict:
            self.matrix, self.bias = through(block.ln1_post, self.matrix), through(block.ln1_post, self.bias)
            self.constant = norm_bias(block.ln1_post)
        times = getattr(block, "residual_contribution_scale", 1.0)
        self.matrix, self.bias, self.constant = times * self.matrix, times * self.bias, times * self.constant

    def adds_up(self, run: Trace, layer: int, tolerance: float) -> bool:
        """Whether the heads' contributions at the position are what attention adds to the stream, biases apart."""
        z = run.effective(layer)[:, -1]
        if z.shape[1:] != self.matrix.shape[:2]:
            return False
        writes, scale = torch.einsum("phd,hdm->phm", z, self.matrix), run.scale[layer]
        total = writes.sum(1) + self.constant + (self.bias if scale is None else self.bias / scale[:, -1])
        found = run.seen[f"blocks.{layer}.hook_attn_out"].double()
        size = writes.norm(dim=-1).sum(1) + found.norm(dim=-1)
        return bool(((total - found).norm(dim=-1) <= tolerance * size).all())


def writers(model: LanguageModel, run: Trace) -> Iterator[Writer]:
    """The `Writer` of each layer in turn, tried out on a run.

    Raises:
        ValueError: one sentence, if a layer adds something else to the residual stream than what heads and MLP write.
    """
    name = model.name
    for layer in range(model.n_layers):
        try:
            before, attention, mlp, after = (run.seen[f"blocks.{layer}.{part}"].double() for part in PARTS)
            wrong = (before + attention + mlp - after).norm(dim=-1)
            fine = bool((wrong <= tolerance(model) * (before.norm(dim=-1) + after.norm(dim=-1))).all())
        except KeyError:
            fine = False
        if not fine:
            raise ValueError(
                "model: expected blocks that add what attention and MLP write to the residual stream, "
                f"got {name!r}, where layer {layer} does not"
            )
        try:
            writer = Writer(model, layer)
            fine = writer.adds_up(run, layer, tolerance(model))
        except (AttributeError, IndexError, RuntimeError):  # no W_O, or one of another kind
            fine = False
        if not fine:
            raise ValueError(
                "model: expected attention that adds up what its heads write (z W_O), "
                f"got {name!r}, where layer {layer} does not"
            )
        yield writer


def attribute(
    model: LanguageModel, run: Trace, rows: Sequence[int], words: Sequence[Words]
) -> Float[Tensor, "prompt layer head"]:
    """What each head's contribution at END adds to logit(answer) - logit(foil), before a soft cap if there is one.

    Args:
        run: a run whose position is END.
        rows: indices of the prompts, and ``words``: ids of the answers and of the foils of each; of several the mean
            logit is meant.

    Raises:
        ValueError: one sentence, as `writers`, or if logits are not one norm and one linear map of the stream.
    """
    readers = answer_readers(model, run, rows, words)
    return (torch.stack([run.effective(layer)[rows, -1] for layer in range(model.n_layers)], 1) * readers).sum(-1)


def answer_readers(
    model: LanguageModel, run: Trace, rows: Sequence[int], words: Sequence[Words]
) -> Float[Tensor, "prompt layer head d_head"]:
    """What a unit of each head's effective output (`Trace.effective`) at END adds to logit(answer) - logit(foil): W_O d.

    Args, Raises: as `attribute`.
    """
    found = []
    direction: Tensor | None = None
    for writer in writers(model, run):
        direction = _direction(model, run, rows, words) if direction is None else direction
        found.append(torch.einsum("hdm,pm->phd", writer.matrix, direction))
    return torch.stack(found, 1)


def _direction(model: LanguageModel, run: Trace, rows: Sequence[int], words: Sequence[Words]) -> Tensor:
    """What a unit written to the residual stream at END adds to the logit difference, ``(prompt, d_model)``."""
    if not all(name in run.seen for name in _LAST):
        raise _not_linear(model)
    stream, scale, raw = (run.seen[name][rows].double() for name in _LAST)
    after = run.seen[f"blocks.{model.n_layers - 1}.{PARTS[-1]}"][rows].double()
    weights, biases = model.lens.unembed.W_U.T, double(model.lens.unembed.b_U)
    u = torch.stack([torch.stack([double(weights[list(side)]).mean(0) for side in sides]) for sides in words])
    said, bias = (
        torch.tensor([[float(x[list(side)].mean()) for side in sides] for x, sides in zip(some, words, strict=True)])
        for some in (raw, biases.expand(raw.shape))
    )
    direction = back(model.lens.ln_final, u) / scale[:, None]
    constant = (u * norm_bias(model.lens.ln_final)).sum(-1) + bias
    size = stream.norm(dim=-1, keepdim=True) * direction.norm(dim=-1) + said.abs()
    wrong = ((stream[:, None] * direction).sum(-1) + constant - said).abs() > tolerance(model) * size
    if wrong.any() or ((after - stream).norm(dim=-1) > tolerance(model) * stream.norm(dim=-1)).any():
        raise _not_linear(model)
    return (direction[:, 0] - direction[:, 1]) * _factor(model, raw, run.logits[rows])


def _factor(model: LanguageModel, raw: Tensor, logits: Tensor) -> float:
    """What the unembedding's output is multiplied by to give logits; with a soft cap, logits before it are meant."""
    cap = getattr(model.config, "final_logit_softcapping", None)
    factor = 1.0 if cap else float((raw * logits).sum() / raw.square().sum())
    said = cap * torch.tanh(raw / cap) if cap else factor * raw
    if not (said - logits).abs().max() <= tolerance(model) * logits.abs().max():
        raise _not_linear(model)
    return factor


# ---- norms with their scale held


def through(norm: Any, x: Float[Tensor, "*batch #d_model"]) -> Float[Tensor, "*batch d_model"]:
    """What a norm makes of x but for its scale and bias: (x - mean) * gain; RMSNorm leaves the mean where it is.

    A bias that is not there (`double`) is one zero: ``#`` lets that size be 1.
    """
    return _centred(norm, x) * _gain(norm)


def back(norm: Any, u: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
    """The transpose: back(u) . x = u . through(x)."""
    return _centred(norm, u * _gain(norm))


def _centred(norm: Any, x: Tensor) -> Tensor:
    return x if norm.uses_rms_norm else x - x.mean(-1, keepdim=True)


def _gain(norm: Any) -> Tensor:
    """Weights, 1 + weights (Gemma), or 1 in a norm without any (OLMo 1)."""
    weight = getattr(norm, "weight", None)
    return double(None) + 1 if weight is None else double(weight) + int(norm.uses_weight_offset)


def norm_bias(norm: Any) -> Float[Tensor, " #d_model"]:
    """The bias of a norm; zero where it has none."""
    return double(None if norm.uses_rms_norm else getattr(norm.original_component, "bias", None))


def double(parameter: Tensor | None) -> Tensor:
    """A parameter in float64 on the CPU; one zero where there is no parameter."""
    return torch.zeros(1, dtype=torch.float64) if parameter is None else parameter.detach().double().cpu()


# ---- rounding, and refusals


def _not_linear(model: LanguageModel) -> ValueError:
    return ValueError(
        "model: expected logits that are one norm and one linear map of the residual stream (scaled or soft-capped or "
        f"not), got {model.name!r}, where they are not"
    )

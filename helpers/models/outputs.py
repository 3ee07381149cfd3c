"""What every head puts out at one position, and how much of it goes straight to the answer; forward passes only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from helpers.attention.capture import tokenize_for
from helpers.models.forward import hook_z
from helpers.prompts.prompt import Prompt
from helpers.prompts.tokens import TokenizedPrompt, by_length, first_token

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


@dataclass(frozen=True)
class HeadOutputs:
    """Outputs of every head at one position of each prompt, in float32.

    Attributes:
        prompts: the tokenised prompts.
        position: the name of the position, e.g. ``"END"``.
        z: sum_i pi_i v_i, the values weighed by the attention row, ``(prompt, layer, head, d_head)``.
        attribution: direct logit attribution, ``(prompt, layer, head)``: what the head's write z W_O alone adds to
            logit(answer) - logit(foil), the final norm's scale held at its value in this pass. NaN where a prompt
            names no answer or no foil, and at positions other than END.
    """

    prompts: Sequence[TokenizedPrompt]
    position: str
    z: Float[np.ndarray, "prompt layer head d_head"]
    attribution: Float[np.ndarray, "prompt layer head"]

    @property
    def magnitude(self) -> Float[np.ndarray, "prompt layer head"]:
        """||z||^2 / d_head, the mean square of a head's output (Fields 2026: out_mag)."""
        return (self.z**2).mean(-1)


def record_outputs(
    model: TransformerBridge,
    prompts: Iterable[Prompt | str],
    *,
    position: str = "END",
    prepend_bos: bool = True,
    batch_size: int = 32,
    progress: bool = True,
) -> HeadOutputs:
    """Run the model once over the prompts and keep each head's output at one position.

        attribution = z W_O . d,   d = P (gamma * (u_answer - u_foil)) / scale

    u are columns of the unembedding, gamma is the final norm's weight and scale what it divides by at END; P subtracts
    the mean (LayerNorm) or does nothing (RMSNorm). A value bias is part of v_i; the output bias is no head's. Embeddings,
    MLPs and biases projected likewise make up the rest of the logit difference, which is checked for every prompt.

    Args:
        model: what `load_model` returns.
        prompts: `Prompt` objects, or bare texts (which have no answer and no named position but END).
        position: any position that every prompt names.
        prepend_bos: put one BOS token in front of each prompt.
        batch_size: prompts a forward pass.

    Raises:
        ValueError: if a prompt is unusable (see `tokenize`) or lacks the position; if attributions do not add up, as in
            models that norm or scale what heads write, or cap or scale logits (there, prompts without an answer give z).

    Source: Elhage et al. 2021 (direct paths); Wang et al. 2022 for the logit difference.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1 prompt a forward pass, got {batch_size}")
    tokenized = tokenize_for(model, prompts, prepend_bos=prepend_bos)
    for number, prompt in enumerate(tokenized, 1):
        if position not in prompt.positions:
            raise ValueError(f"position: prompt {number} has {', '.join(prompt.positions)}, got {position!r}")
    asked = [_answer_and_foil(model, p.prompt) if position == "END" else None for p in tokenized]
    z = torch.zeros(len(tokenized), model.cfg.n_layers, model.cfg.n_heads, model.cfg.d_head)
    attribution = torch.full(z.shape[:3], torch.nan)
    bar = tqdm(total=len(tokenized), desc="forward passes", unit="prompt", disable=not progress, leave=False)
    for batch in by_length(tokenized, batch_size):
        ids = torch.tensor([tokenized[i].ids for i in batch], device=model.cfg.device)
        seen, logits = _forward(model, ids, [tokenized[i].position(position) for i in batch])
        z[batch] = torch.stack([seen[hook_z(layer)] for layer in range(model.cfg.n_layers)], 1).float()
        rows = [k for k, i in enumerate(batch) if asked[i]]
        if rows:
            words = torch.tensor([asked[batch[k]] for k in rows])
            seen = {name: kept[rows] for name, kept in seen.items()}
            attribution[[batch[k] for k in rows]] = _attribute(model, seen, logits[rows], words).float()
        bar.update(len(batch))
    bar.close()
    return HeadOutputs(tokenized, position, z.numpy(), attribution.numpy())


def output_change(active: HeadOutputs, control: HeadOutputs) -> Float[np.ndarray, "prompt layer head"]:
    """||z_active - z_control|| of matched prompts, e.g. of `minimal_pairs`.

    Raises:
        ValueError: if the two do not hold as many prompts, or are not of the same heads.
    """
    if active.z.shape != control.z.shape:
        raise ValueError(f"control: expected outputs of shape {active.z.shape} as in active, got {control.z.shape}")
    return np.linalg.norm(active.z - control.z, axis=-1)


def _answer_and_foil(model: TransformerBridge, prompt: Prompt) -> tuple[int, int] | None:
    if prompt.answer is None or prompt.foil is None:
        return None
    answer, foil = (first_token(model.tokenizer, word, prompt.glue) for word in (prompt.answer, prompt.foil))
    return answer, foil


def _forward(model: TransformerBridge, ids: Tensor, at: list[int]) -> tuple[dict[str, Tensor], Tensor]:
    """Activations of each prompt at its position by the names of their hooks, and logits at END, in float64."""
    seen: dict[str, Tensor] = {}

    def keep(x: Tensor, hook: Any, name: str) -> None:
        seen[name] = x[torch.arange(len(at)), at].double().cpu()

    layers = range(model.cfg.n_layers)
    names = ["blocks.0.hook_resid_pre", "ln_final.hook_in", "ln_final.hook_scale"]
    names += [name for layer in layers for name in (hook_z(layer), f"blocks.{layer}.hook_mlp_out")]
    hooks: list[Any] = [(name, partial(keep, name=name)) for name in names if name in model.hook_dict]
    options: dict[str, Any] = {"output_attentions": False, "logits_to_keep": 1}
    with torch.no_grad():
        logits = model.run_with_hooks(ids, fwd_hooks=hooks, **options)
    return seen, logits[:, -1].double().cpu()


def _attribute(
    model: TransformerBridge, seen: dict[str, Tensor], logits: Tensor, words: Tensor
) -> Float[Tensor, "prompt layer head"]:
    """Direct logit attribution of every head, after checks that with everything else it is the logit difference."""
    try:
        stream = seen["ln_final.hook_in"]
        direction, constant = _direction(model, seen["ln_final.hook_scale"], words)
        written = seen["blocks.0.hook_resid_pre"]
        found = []
        for layer, block in enumerate(model.blocks):
            writes = torch.einsum("phd,hdm->phm", seen[hook_z(layer)], _double(block.attn.W_O))
            found.append((writes * direction[:, None]).sum(-1))
            written = written + writes.sum(1) + _double(block.attn.b_O) + seen[f"blocks.{layer}.hook_mlp_out"]
    except (KeyError, AttributeError):  # no final norm, or no such part in a block
        raise _does_not_add_up(model) from None
    said = logits.gather(1, words)
    error = (stream * direction).sum(-1) + constant - (said[:, 0] - said[:, 1])
    eps, depth = torch.finfo(model.cfg.dtype).eps, len(found)
    size = stream.square().mean(-1).sqrt() * direction.norm(dim=-1) + said.abs().sum(-1)
    linear = error.abs() <= max(4 * eps, 1e-4) * size
    whole = (written - stream).norm(dim=-1) <= max(4 * eps * (2 * depth) ** 0.5, 1e-4) * stream.norm(dim=-1)
    if not (linear & whole).all():
        raise _does_not_add_up(model)
    return torch.stack(found, 1)


def _direction(model: TransformerBridge, scale: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
    """What a unit written to the residual stream at END adds to the logit difference, and what biases add to it."""
    norm = model.ln_final
    u = _double(model.unembed.W_U.T[words.to(model.unembed.W_U.device)])
    u = u[:, 0] - u[:, 1]
    constant = _double(model.unembed.b_U)[words]
    constant = constant[:, 0] - constant[:, 1]
    direction = u * (_double(norm.weight) + (1 if norm.uses_weight_offset else 0))
    if not norm.uses_rms_norm:
        direction = direction - direction.mean(-1, keepdim=True)
        constant = constant + (u * _double(getattr(norm.original_component, "bias", None))).sum(-1)
    return direction / scale, constant


def _double(parameter: Tensor | None) -> Tensor:
    return torch.zeros(1, dtype=torch.float64) if parameter is None else parameter.detach().double().cpu()


def _does_not_add_up(model: TransformerBridge) -> ValueError:
    return ValueError(
        "model: expected logits that are one norm and one linear map of the sum of what heads and MLPs write, got "
        f"{model.cfg.model_name!r}, where they are not; prompts without an answer give z without attribution"
    )

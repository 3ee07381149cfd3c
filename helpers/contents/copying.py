"""Whether a head writes the names that it reads: its OV circuit, on names as they stand in a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from helpers.contents.behaviour import Behaviour
from helpers.models.forward import Hook, Ids, forward
from helpers.models.model import LanguageModel

#: A name is copied if its token is among so many most likely ones (Wang et al. 2022, section 3.1).
TOP = 5


def copying(model: LanguageModel, ids: Ids, at: Tensor, *, progress: bool = True) -> dict[str, Behaviour]:
    """Whether a head writes the name that it reads: copying and negative copying score of every head.

        x = residual stream at the name's token after the first block
        y = W_U norm(+- v(x) W_O),    v(x) = the head's value of x as it reads it, its layer's norm and bias included

    A prompt counts 1 if the name's own token is among the `TOP` highest entries of y, without ties; + gives copying, -
    negative copying. The name stands where the prompt has it, so that x is what the first block makes of it there. norm
    is the final norm; a norm behind the attention layer (Gemma 2 and 3, OLMo 2) is applied to the head's write before
    it. Heads of the first block read what they read anyway, the embedding. The layer's output bias is no head's. Null:
    the same y, and the other prompts' names.

    Args:
        model: what `load_model` returns.
        ids: prompts of one length, ``(prompt, token)``.
        at: index of the name in each prompt, ``(prompt,)``.

    Returns:
        ``copying`` and ``negative_copying`` -> `Behaviour`, a sample a prompt.

    Raises:
        ValueError: if the prompts have one name alone, so that there is no null.

    Source: Wang et al. 2022 (arXiv:2211.00593), section 3.1, copy score and negative copy score.
    """
    rows = torch.arange(len(ids), device=ids.device)
    names, own = ids[rows, at].unique(return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"pairs: expected at least 2 different names at IO, got {len(names)}")
    found = np.zeros((2, len(ids), model.n_layers, model.n_heads, len(names)))
    bar = tqdm(values_of(model, ids, at), desc="copying", unit="layer", disable=not progress, leave=False)
    with torch.no_grad():
        for layer, v in enumerate(bar):
            write = _written(model, layer, v)
            found[:, :, layer] = [_in_top(_logits(model, y), names).cpu().numpy() for y in (write, -write)]
    is_own = np.arange(len(names)) == own.cpu().numpy()[:, None]
    sides = np.moveaxis(found, -1, 2)
    return {
        name: Behaviour(side[is_own], side[~is_own])
        for name, side in zip(("copying", "negative_copying"), sides, strict=True)
    }


def values_of(model: LanguageModel, ids: Ids, at: Tensor) -> Sequence[Float[Tensor, "prompt head d_head"]]:
    """What each layer's heads have as value of the stream after the first block, at one token of each prompt."""
    stream: list[Tensor] = []
    seen: dict[int, Tensor] = {}
    n_layers, n_heads = model.n_layers, model.n_heads

    def note(v: Tensor, hook: Any) -> None:
        v = v.unflatten(-1, (-1, model.d_head)) if v.ndim == 3 else v
        v = v[torch.arange(len(at)), at]
        seen[int(hook.name.split(".")[1])] = v.repeat_interleave(n_heads // v.shape[1], 1)  # grouped queries

    hooks: list[Hook] = [("blocks.0.hook_resid_post", lambda x, hook: stream.append(x.clone()))]
    hooks += [(f"blocks.{i}.hook_resid_pre", lambda x, hook: stream[0].to(x.device)) for i in range(1, n_layers)]
    hooks += [(f"blocks.{i}.attn.hook_v", note) for i in range(n_layers)]
    with torch.no_grad():
        forward(model, ids, hooks)
    return [seen[layer] for layer in range(n_layers)]


def _written(
    model: LanguageModel, layer: int, z: Float[Tensor, "prompt head d_head"]
) -> Float[Tensor, "prompt head d_model"]:
    """What a layer's heads, each by itself, add to the residual stream; bias left out."""
    block = model.lens.blocks[layer]
    write = torch.einsum("phd,hdm->phm", z, block.attn.W_O.to(z)).contiguous()  # else unembedded prompt by prompt
    norm = getattr(block, "ln1_post", None)
    return write if norm is None else norm(write)


def _logits(
    model: LanguageModel, write: Float[Tensor, "prompt head d_model"]
) -> Float[Tensor, "prompt head vocabulary"]:
    """What the model would say if this alone were in the residual stream."""
    norm = getattr(model, "ln_final", None)
    logits: Tensor = model.lens.unembed(write if norm is None else norm(write))
    return logits


def _in_top(logits: Float[Tensor, "*batch vocabulary"], names: Int[Tensor, " name"]) -> Bool[Tensor, "*batch name"]:
    """Whether each name is among the `TOP` highest logits; one that shares its place with others is not."""
    sixth = logits.topk(TOP + 1, dim=-1).values[..., -1:]
    return logits[..., names] > sixth

"""Attribution patching: the effect of every head on minimal pairs, to first order, from two passes and one backward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from helpers.models.forward import StoredRun, forward, hook_z
from helpers.models.model import LanguageModel
from helpers.patching.pairs import MinimalPairs
from helpers.prompts.prompt import Prompt


def attribute_heads(
    model: LanguageModel,
    clean: Sequence[Prompt],
    corrupt: Sequence[Prompt],
    *,
    at: Literal["corrupt", "clean"] = "corrupt",
    batch_size: int = 50,
    prepend_bos: bool = True,
    bos: str | int | None = None,
    progress: bool = True,
) -> Float[np.ndarray, "layer head pair"]:
    """Estimate what `patch_heads` measures by denoising, for all heads at once.

        attribution = sum over positions and d_head of (z_clean - z_corrupt) * dLD/dz  at the corrupt run

    z = sum_i pi_i v_i is the head's output and LD = logit(answer) - logit(foil) at END, with answer and foil of the
    clean prompt. It is the derivative of LD as the head's z moves from its corrupt to its clean value, so it equals
    ``denoised - corrupt`` where LD is linear in z. With the slope at the clean run it estimates noising,
    ``clean - noised``. Divided by mean(clean - corrupt) its mean over pairs is in the units of `head_effects`.

    Args:
        model: what `load_model` returns; its parameters get no gradients.
        clean, corrupt: pairs of prompts of equal length (`minimal_pairs`).
        at: the run at which the slope is taken.
        batch_size: pairs a pass; memory grows with it, for the backward pass keeps every activation.
        prepend_bos, bos: as `record_attention`.

    Returns:
        Differences of logits (no unit), shape ``(layer, head, pair)``.

    Raises:
        ValueError: if the sides can't be paired, token by token, or ``at`` is neither.

    Source: Nanda 2023, "Attribution Patching: Activation Patching At Industrial Scale".
    """
    pairs = MinimalPairs(model, clean, corrupt, prepend_bos=prepend_bos, bos=bos)
    if at not in ("corrupt", "clean"):
        raise ValueError(f'at: expected "corrupt" or "clean", got {at!r}')
    here, other, sign = (pairs.corrupt, pairs.clean, 1) if at == "corrupt" else (pairs.clean, pairs.corrupt, -1)
    batches = pairs.batches(batch_size)
    found = np.zeros((model.n_layers, model.n_heads, len(pairs)))
    bar = tqdm(total=len(pairs), desc="attribution", unit="pair", disable=not progress, leave=False)
    for batch in batches:
        other_z = StoredRun(model, other[batch], whole=True).z
        here_z, slope = _run_with_slope(pairs, batch, here)
        for layer, (there, z, grad) in enumerate(zip(other_z, here_z, slope, strict=True)):
            found[layer][:, batch] = sign * ((there - z).double() * grad.double()).sum((1, 3)).T.cpu()
        bar.update(len(batch))
    bar.close()
    return found


def _run_with_slope(pairs: MinimalPairs, batch: np.ndarray, ids: Tensor) -> tuple[list[Tensor], tuple[Tensor, ...]]:
    """z of every layer in the run of ``ids[batch]``, and dLD/dz, through a zero added to each z."""
    kept: list[Tensor] = []
    zeros: list[Tensor] = []

    def add_zero(z: Tensor, hook: Any) -> Tensor:
        kept.append(z.detach().clone())
        zeros.append(torch.zeros_like(z, requires_grad=True))
        return z + zeros[-1]

    hooks = [(hook_z(layer), add_zero) for layer in range(pairs.model.n_layers)]
    with torch.enable_grad():
        total = pairs.read(forward(pairs.model, ids[batch], hooks), batch).sum()
    return kept, torch.autograd.grad(total, zeros)

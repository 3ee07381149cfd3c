"""How much each head writes to the residual stream at every position, and how much of it changes within a pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from helpers.attention.capture import tokenize_for
from helpers.contents.outputs import Collector, HeadOutputs
from helpers.contents.residual import Trace, trace, writers
from helpers.models.forward import batches
from helpers.models.model import LanguageModel
from helpers.prompts.prompt import Prompt
from helpers.prompts.reading import as_prompts
from helpers.prompts.tokens import TokenizedPrompt

Norms = Float[np.ndarray, "pair layer head token"]


@dataclass(frozen=True)
class HeadChanges:
    """Norms of what each head contributes to the residual stream, at every position of pairs of prompts, in float32.

    A contribution is z W_O, or what a norm after attention makes of it with its scale held (`helpers.contents.residual`),
    so all norms are in the units of the residual stream. NaN at tokens that a shorter pair does not have.

    Attributes:
        clean, corrupt: the norm on either side, ``(pair, layer, head, token)``.
        change: the norm of the difference of the two contributions; 0 before the first token in which a pair differs.
        outputs_clean, outputs_corrupt: the heads' outputs at END, from the same two passes; answer and foil of a pair
            are those of its clean prompt on both sides, as in patching.
    """

    clean: Norms
    corrupt: Norms
    change: Norms
    outputs_clean: HeadOutputs
    outputs_corrupt: HeadOutputs

    @property
    def own(self) -> Norms:
        """Mean of the norms of both sides: what a relative change is relative to."""
        return np.asarray((self.clean + self.corrupt) / 2)

    def at_end(self, norms: Norms) -> Float[np.ndarray, "pair layer head"]:
        """One of the arrays at each pair's last token."""
        end = [len(p) - 1 for p in self.outputs_clean.prompts]
        return norms[np.arange(len(end)), :, :, end]


def record_changes(
    model: LanguageModel,
    clean: Sequence[Prompt | str],
    corrupt: Sequence[Prompt | str],
    *,
    prepend_bos: bool = True,
    bos: str | int | None = None,
    batch_size: int = 32,
    progress: bool = True,
) -> HeadChanges:
    """Run both sides of pairs once and compare what each head writes, token by token.

        change = || N_clean(z_clean W_O) - N_corrupt(z_corrupt W_O) ||

    N is the norm after attention, where there is one, with its scale held at the value of its side and token, times what
    the model multiplies writes by; else N(x) = x. That the heads' contributions add up to what attention adds to the
    stream is checked at END of every prompt.

    Args:
        model: what `load_model` returns.
        clean, corrupt: pairs of prompts of equal length (`minimal_pairs`); pairs may differ in length.
        prepend_bos, bos: as `record_attention`.
        batch_size: pairs a forward pass.

    Raises:
        ValueError: if a prompt is unusable, the sides are no pairs of equal length, or contributions do not add up.
    """
    given = as_prompts(clean, "clean"), as_prompts(corrupt, "corrupt")
    sides = [tokenize_for(model, side, prepend_bos=prepend_bos, bos=bos) for side in given]
    _check_pairs(*sides)
    shape = len(sides[0]), model.n_layers, model.n_heads, max(map(len, sides[0]))
    found = np.full((3, *shape), np.nan, dtype=np.float32)
    outputs = [Collector(model, side, asked=sides[0]) for side in sides]
    for batch, clean_ids in batches(model, sides[0], batch_size, unit="pair", progress=progress):
        length = clean_ids.shape[1]
        ids = [clean_ids, torch.tensor([sides[1][i].ids for i in batch], device=model.device)]
        runs = [trace(model, some, [length - 1] * len(batch), everywhere=True) for some in ids]
        for collected, run in zip(outputs, runs, strict=True):
            collected.add(batch, run)
        same = (ids[0] == ids[1]).cumprod(1).bool().cpu().numpy()
        found[:, batch, :, :, :length] = _norms(model, runs, same)
    return HeadChanges(*found, *(collected.outputs() for collected in outputs))


def _check_pairs(clean: Sequence[TokenizedPrompt], corrupt: Sequence[TokenizedPrompt]) -> None:
    if len(clean) != len(corrupt):
        raise ValueError(f"corrupt: expected one prompt for each of {len(clean)} clean ones, got {len(corrupt)}")
    for number, (one, other) in enumerate(zip(clean, corrupt, strict=True), 1):
        if len(one) != len(other):
            raise ValueError(f"corrupt: expected {len(one)} tokens in prompt {number} as in its twin, got {len(other)}")


def _norms(
    model: LanguageModel, runs: Sequence[Trace], same: np.ndarray
) -> Float[np.ndarray, "3 pair layer head token"]:
    """Norms of both sides and of their difference, ``(3, pair, layer, head, token)``; no difference where tokens are the same."""
    found = []
    for layer, (writer, _) in enumerate(zip(*(writers(model, run) for run in runs), strict=True)):
        one, other = (run.effective(layer) for run in runs)
        gram = writer.matrix @ writer.matrix.mT
        found.append(torch.stack([_length(z, gram) for z in (one, other, one - other)]))
    norms = torch.stack(found, 2).permute(0, 1, 2, 4, 3).numpy()
    norms[2] *= ~same[:, None, None]
    return norms


def _length(z: Float[Tensor, "pair token head d_head"], gram: Float[Tensor, "head d_head d_head"]) -> Tensor:
    """||z W|| of every head, from gram = W W^T."""
    return (torch.einsum("pthd,hde->pthe", z, gram) * z).sum(-1).clamp_min(0).sqrt()

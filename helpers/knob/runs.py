"""Turning the knob: a model run with the scores of chosen heads multiplied by beta."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from helpers.attention.capture import tokenize_for
from helpers.heads import Head, HeadLike, check_heads
from helpers.knob.hooks import TemperedLayer, Visible, keys_seen, weights_come_late, weights_of
from helpers.models.forward import Hook, StoredRun, batches
from helpers.models.model import LanguageModel
from helpers.prompts.answers import with_answers
from helpers.prompts.prompt import Prompt
from helpers.prompts.tokens import TokenizedPrompt


@dataclass(frozen=True)
class TemperedRun:
    """What a model says at END with some heads tempered, for every setting of the knob.

    Attributes:
        prompts: the tokenised prompts, with the ids of their answers and foils.
        heads: the heads that were tempered.
        betas: the beta of each, ``(setting, head)``.
        position: where they were tempered; None: at every token.
        plain: logits at END of the plain run, ``(prompt, vocabulary)``.
        logits: logits at END, ``(setting, prompt, vocabulary)``.
        rows: the rows that the heads used at ``position`` (at END, if that is None), ``(setting, prompt, head, key)``.
        visible: which keys that query sees, ``(prompt, head, key)``.
    """

    prompts: Sequence[TokenizedPrompt]
    heads: tuple[Head, ...]
    betas: Float[np.ndarray, "setting head"]
    position: str | None
    plain: Float[Tensor, "prompt vocabulary"]
    logits: Float[Tensor, "setting prompt vocabulary"]
    rows: Float[Tensor, "setting prompt head key"]
    visible: Bool[Tensor, "prompt head key"]

    @property
    def logit_difference(self) -> Float[np.ndarray, "setting prompt"]:
        """logit(answer) - logit(foil) at END; NaN where a prompt has not one of each."""
        return logit_differences(self.logits, self.prompts)

    def top(self, k: int = 5) -> tuple[Float[Tensor, "setting prompt k"], Int[Tensor, "setting prompt k"]]:
        """Probabilities and ids of the most likely next tokens."""
        found = self.logits.double().softmax(-1).topk(k)
        return found.values, found.indices


def run_tempered(
    model: LanguageModel,
    prompts: Iterable[Prompt | str],
    betas: Mapping[HeadLike, float | Sequence[float]],
    *,
    position: str | None = None,
    batch_size: int = 100,
    prepend_bos: bool = True,
    bos: str | int | None = None,
    progress: bool = True,
) -> TemperedRun:
    """Run a model with the pre-softmax scores of chosen heads multiplied by beta.

        pi_i = exp(beta z_i) / sum_j exp(beta z_j)      over the visible keys j

    beta = 1 is the plain run; beta = 0 attends uniformly to all visible keys; infinity to the one with the largest score.
    Scores are what the model's softmax gets: after scaling, caps and biases; a learned sink is one more key.

    Args:
        model: what `load_model` returns.
        prompts: `Prompt` objects, or bare texts.
        betas: beta, >= 0, of each ``(layer, head)``; with several, that many settings are run (one beta goes with them all).
        position: temper at this named position alone; default: at every token.
        batch_size: prompts, times settings, a forward pass.
        prepend_bos, bos: as `record_attention`.
        progress: show a progress bar.

    Raises:
        ValueError: if a prompt is unusable or lacks the position, if there is no such head, if a beta is negative or not a
            number, or if heads have different numbers of settings; if head outputs aren't rows times values.
        ModelUnavailable: if TransformerLens can't wrap the model.

    Source: Fields 2026, post 1 (beta); on a uniform row, Hassid et al. 2022 (arXiv:2211.03495) for replacing attention.
    """
    tokenized = with_answers(tokenize_for(model, prompts, prepend_bos=prepend_bos, bos=bos), model.tokenizer)
    heads = check_heads("betas", betas, model.n_layers, model.n_heads)
    settings = _settings(betas, heads)
    where = [p.position(position or "END") for p in tokenized]
    longest = max(map(len, tokenized))
    plain = torch.zeros(len(tokenized), model.n_tokens)
    logits = torch.zeros(len(settings), *plain.shape)
    rows = torch.zeros(len(settings), len(tokenized), len(heads), longest)
    seen = torch.zeros(rows.shape[1:], dtype=torch.bool)
    late = weights_come_late(model)
    size = max(batch_size // len(settings), min(batch_size, 1))
    for batch, ids in batches(model, tokenized, size, progress=progress):
        at = [where[i] for i in batch]
        visible, n = keys_seen(model, ids), ids.shape[1]
        found = _run(model, ids, heads, settings, visible, at, everywhere=position is None, late=late)
        plain[batch], logits[:, batch], rows[:, batch, :, :n] = found
        seen[batch, :, :n] = visible[[head.layer for head in heads]][:, at].transpose(0, 1).cpu()
    return TemperedRun(tokenized, tuple(heads), settings.numpy(), position, plain, logits, rows, seen)


def logit_differences(logits: Tensor, prompts: Sequence[TokenizedPrompt]) -> Float[np.ndarray, "*batch prompt"]:
    """logit(answer) - logit(foil) from logits ``(*batch, prompt, vocabulary)``; NaN where a prompt has not one of each."""
    found = np.full(logits.shape[:-1], np.nan)
    for i, prompt in enumerate(prompts):
        if len(prompt.right) == len(prompt.wrong) == 1:
            right, wrong = (logits[..., i, word].double() for word in (prompt.right[0], prompt.wrong[0]))
            found[..., i] = right - wrong
    return found


def _settings(betas: Mapping[HeadLike, float | Sequence[float]], heads: Sequence[Head]) -> Tensor:
    """Betas as ``(setting, head)``."""
    if not heads:
        raise ValueError("betas: expected the beta of at least one head, got none")
    given = [torch.as_tensor(betas[head], dtype=torch.float64).flatten() for head in heads]
    several = {len(beta) for beta in given} - {1}
    if len(several) > 1 or 0 in several:
        raise ValueError(f"betas: expected one beta a head or as many for each, got {sorted(several)} of them")
    n = max(several, default=1)
    table = torch.stack([beta.expand(n) for beta in given], 1)
    wrong = table[~(table >= 0)]
    if len(wrong):
        raise ValueError(f"betas: expected inverse temperatures >= 0, got {wrong[0].item():g}")
    return table


def _run(
    model: LanguageModel,
    ids: Tensor,
    heads: Sequence[Head],
    settings: Tensor,
    visible: Visible,
    at: Sequence[int],
    *,
    everywhere: bool,
    late: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of the plain run, and of every setting; rows of the heads at ``at``."""
    n, k, plain = len(ids), len(settings), StoredRun(model, ids)
    queries = [t for t in at for _ in range(k)]  # every prompt stands k times in a row
    done: dict[int, TemperedLayer] = {}
    hooks: list[Hook] = []

    def resume(more: list[Hook]) -> Tensor:
        return plain.resume(min(h.layer for h in heads), [*hooks, *more], copies=k)

    for layer, columns in _by_layer(heads).items():
        betas = torch.ones(n, k, model.n_heads, dtype=plain.z[layer].dtype, device=ids.device)
        betas[:, :, [heads[c].head for c in columns]] = settings[:, columns].to(betas)
        pi = weights_of(resume, [layer])[layer] if late else None
        done[layer] = TemperedLayer(model, layer, betas.flatten(0, 1), visible, None if everywhere else queries, pi)
        hooks += done[layer].hooks
    logits = resume([])
    used = torch.stack([done[head.layer].rows[range(n * k), head.head, queries] for head in heads], 1)
    return plain.logits.cpu(), *(x.unflatten(0, (n, k)).transpose(0, 1).float().cpu() for x in (logits, used))


def _by_layer(heads: Sequence[Head]) -> dict[int, list[int]]:
    """Indices of the heads of each layer."""
    found: dict[int, list[int]] = defaultdict(list)
    for i, head in enumerate(heads):
        found[head.layer].append(i)
    return dict(found)

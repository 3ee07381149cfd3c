"""How fast a model's answer, or its loss, changes as the knob of each head is turned: derivatives at beta = 1."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from helpers.attention.capture import tokenize_for
from helpers.knob.hooks import TemperedLayer, keys_seen, weights_come_late, weights_of
from helpers.models.forward import Hook, Ids, batches, forward, token_losses
from helpers.models.model import LanguageModel
from helpers.prompts.answers import with_answers
from helpers.prompts.prompt import Prompt

PerHead = Float[np.ndarray, "prompt layer head"]
#: From hooks to the number of each row of a batch that is differentiated.
Readout = Callable[[list[Hook]], Float[Tensor, " prompt"]]


def answer_slopes(
    model: LanguageModel,
    prompts: Iterable[Prompt | str],
    *,
    position: str | None = None,
    batch_size: int = 25,
    prepend_bos: bool = True,
    bos: str | int | None = None,
    progress: bool = True,
) -> PerHead:
    """d LD / d beta of every head at beta = 1, for each prompt: from one backward pass a batch.

    LD = logit(answer) - logit(foil) at END. A head's scores are multiplied by beta as in `run_tempered`, so this is
    the slope of that function's logit difference where the knob stands in a plain run.

    Args:
        model: what `load_model` returns; its parameters get no gradients.
        prompts: `Prompt` objects with one answer and one foil each.
        position: temper at this named position alone; default: at every token.
        batch_size: prompts a pass; memory grows with it.
        prepend_bos, bos: as `record_attention`.

    Returns:
        Logits per unit of beta, ``(prompt, layer, head)``.

    Raises:
        ValueError: as `run_tempered`; if a prompt has not one answer and one foil.
    """
    tokenized = with_answers(tokenize_for(model, prompts, prepend_bos=prepend_bos, bos=bos), model.tokenizer)
    for number, prompt in enumerate(tokenized, 1):
        if not len(prompt.right) == len(prompt.wrong) == 1:
            raise ValueError(f"prompts: expected one answer and one foil, got none or several in prompt {number}")
    words = torch.tensor([(p.right[0], p.wrong[0]) for p in tokenized], device=model.device)
    where = [p.position(position) for p in tokenized] if position else None
    found = np.zeros((len(tokenized), model.n_layers, model.n_heads))
    late = weights_come_late(model)
    for batch, ids in batches(model, tokenized, batch_size, progress=progress):
        here, asked = None if where is None else [where[i] for i in batch], words[batch]

        def said(hooks: list[Hook], ids: Ids = ids, asked: Tensor = asked) -> Tensor:
            return -forward(model, ids, hooks).gather(1, asked).diff(dim=1)[:, 0]

        found[batch] = _slopes(model, ids, said, here, late=late)[1]
    return found


@dataclass(frozen=True)
class LossSlopes:
    """The language-modelling loss of stretches of text, and its derivative by the beta of every head at beta = 1.

    Attributes:
        loss: mean over the tokens of each stretch of -log p(token | tokens before), in nats, ``(stretch,)``.
        slope: d loss / d beta, ``(stretch, layer, head)``, in nats per unit of beta.
        turn: by how much the loss changes, to first order, as queries move by a linear map M of their own size:
            d loss = trace(M C), ``(layer, head, d_head, d_head)``, C the mean over stretches. M = 1 is the knob
            itself where scores are linear in the queries, so that trace(C) is the mean slope.
    """

    loss: Float[np.ndarray, " stretch"]
    slope: Float[np.ndarray, "stretch layer head"]
    turn: Float[np.ndarray, "layer head d_head d_head"]


def loss_slopes(model: LanguageModel, ids: Ids, *, batch_size: int = 2) -> LossSlopes:
    """d loss / d beta of every head at beta = 1 on stretches of text: one backward pass a batch.

    A trained model is at a minimum of its training loss, if training has converged, along every direction of its weights.
    Multiplying a head's query weights by beta is one of them, so there the slope vanishes but for weight decay. With
    C = sum over tokens of q (d loss / d q)^T, q the head's queries, the slope along any other direction M that leaves
    their length as it is can be had from the same pass.

    Args:
        model: what `load_model` returns; its parameters get no gradients.
        ids: token ids ``(stretch, token)``; the loss is read from the second token on.
        batch_size: stretches a pass; memory grows with it.

    Raises:
        ValueError: if ids are no stretches of at least two tokens; if head outputs aren't rows times values.
    """
    if ids.ndim != 2 or ids.shape[1] < 2:
        raise ValueError(f"ids: expected stretches of at least two tokens, (stretch, token), got {tuple(ids.shape)}")
    losses, slopes, turns = [], [], []
    late = weights_come_late(model)
    for some in ids.to(model.device).split(batch_size):
        kept: list[tuple[Tensor, Tensor]] = []
        names = [f"blocks.{layer}.attn.hook_q" for layer in range(model.n_layers)]
        nudges: list[Hook] = [(name, partial(_add_zero, kept)) for name in names]

        def said(hooks: list[Hook], some: Ids = some, nudges: list[Hook] = nudges) -> Tensor:
            return token_losses(model, some, [*nudges, *hooks]).mean(-1)

        loss, slope = _slopes(model, some, said, None, late=late, also=kept)
        losses.append(loss)
        slopes.append(slope)
        turns.append(np.stack([torch.einsum("pthd,pthe->hde", q, zero.grad).double().cpu() for q, zero in kept]))
    loss, slope = np.concatenate(losses), np.concatenate(slopes)
    return LossSlopes(loss, slope, np.sum(turns, axis=0) / len(loss))


def _add_zero(kept: list[tuple[Tensor, Tensor]], q: Tensor, hook: Any) -> Tensor:
    """q, through a zero whose gradient is d loss / d q."""
    kept.append((q.detach(), torch.zeros_like(q, requires_grad=True)))
    return q + kept[-1][1]


def _slopes(
    model: LanguageModel, ids: Ids, said: Readout, at: Sequence[int] | None, *, late: bool, also: Sequence[Any] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """What is read of each row of a batch, and its derivative by the beta of every head."""
    visible, pi = keys_seen(model, ids), {}
    if late:
        pi = weights_of(partial(forward, model, ids), range(model.n_layers))
    with torch.enable_grad():
        betas = torch.ones(len(ids), model.n_layers, model.n_heads, device=ids.device, requires_grad=True)
        layers = [TemperedLayer(model, i, betas[:, i], visible, at, pi.get(i)) for i in range(model.n_layers)]
        values = said([hook for layer in layers for hook in layer.hooks])
        inputs = [betas, *(zero for _, zero in also)]
        found = torch.autograd.grad(values.sum(), inputs)
    for (_, zero), grad in zip(also, found[1:], strict=True):
        zero.grad = grad
    return values.detach().double().cpu().numpy(), found[0].double().cpu().numpy()

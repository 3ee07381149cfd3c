"""What every head puts out at one position, and how much of it goes straight to the answer; forward passes only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from helpers.attention.capture import tokenize_for
from helpers.contents.residual import Trace, Words, attribute, trace
from helpers.diagnostics.values import value_variance
from helpers.models.forward import batches
from helpers.models.model import LanguageModel
from helpers.models.values import head_values, no_values
from helpers.prompts.answers import with_answers
from helpers.prompts.prompt import Prompt
from helpers.prompts.tokens import TokenizedPrompt

PerHead = Float[np.ndarray, "prompt layer head"]


@dataclass(frozen=True)
class HeadOutputs:
    """Outputs of every head at one position of each prompt, in float32.

    Attributes:
        prompts: the tokenised prompts.
        position: the name of the position, e.g. ``"END"``.
        z: sum_i pi_i v_i, the values weighed by the attention row, ``(prompt, layer, head, d_head)``.
        attribution: direct logit attribution, ``(prompt, layer, head)``: what the head's write z W_O alone adds to
            logit(answer) - logit(foil), norms' scales held at their values in this pass; where a prompt has sets of
            them, to the difference of the sets' mean logits. NaN where it has neither, and at positions other than END.
        value_variance: Var_v of the row at the position (`helpers.diagnostics.values`), ``(prompt, layer, head)``.
        reasons: why ``attribution`` or ``value_variance`` is NaN for all prompts, by name.
    """

    prompts: Sequence[TokenizedPrompt]
    position: str
    z: Float[np.ndarray, "prompt layer head d_head"]
    attribution: PerHead
    value_variance: PerHead | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def magnitude(self) -> PerHead:
        """||z||^2 / d_head, the mean square of a head's output (Fields 2026: out_mag)."""
        return np.asarray((self.z**2).mean(-1))


def record_outputs(
    model: LanguageModel,
    prompts: Iterable[Prompt | str],
    *,
    position: str = "END",
    prepend_bos: bool = True,
    bos: str | int | None = None,
    batch_size: int = 32,
    lenient: bool = False,
    progress: bool = True,
) -> HeadOutputs:
    """Run the model once over the prompts and keep each head's output at one position.

        attribution = write . d,   write = N(z W_O),   d = P (gamma * (u_answer - u_foil)) * f / scale

    N is the norm after attention, where there is one, with its scale held, times what the model multiplies writes by
    (else N(x) = x). u are columns of the unembedding, gamma is the final norm's weight and scale what it divides by at
    END; P subtracts the mean (LayerNorm) or does nothing (RMSNorm); f is what the model multiplies logits by. Where logits
    are soft-capped, those before the cap are meant. A value bias is part of v_i; the output bias is no head's. That
    embeddings, heads, MLPs and biases add up to the stream and to the logit difference is checked for every prompt.

    Args:
        model: what `load_model` returns.
        prompts: `Prompt` objects, or bare texts (which have no answer and no named position but END).
        position: any position that every prompt names.
        prepend_bos, bos: as `record_attention`.
        batch_size: prompts a forward pass.
        lenient: where attributions are not defined, give NaN with the reason in ``reasons`` instead of an error.

    Raises:
        ValueError: if a prompt is unusable (see `tokenize`) or lacks the position; if the model's heads put out arrays of
            another shape; if attributions do not add up (prompts without an answer give z alone).

    Source: Elhage et al. 2021 (direct paths); Wang et al. 2022 for the logit difference.
    """
    tokenized = tokenize_for(model, prompts, prepend_bos=prepend_bos, bos=bos)
    for number, prompt in enumerate(tokenized, 1):
        if position not in prompt.positions:
            raise ValueError(f"position: prompt {number} has {', '.join(prompt.positions)}, got {position!r}")
    collected = Collector(model, tokenized, position)
    for batch, ids in batches(model, tokenized, batch_size, progress=progress):
        collected.add(batch, trace(model, ids, [tokenized[i].position(position) for i in batch]))
    if "attribution" in collected.reasons and not lenient:
        raise ValueError(collected.reasons["attribution"])
    return collected.outputs()


class Collector:
    """Head outputs of prompts, batch by batch; answers and foils are those of the prompts, or of ``asked``."""

    def __init__(
        self,
        model: LanguageModel,
        prompts: Sequence[TokenizedPrompt],
        position: str = "END",
        *,
        asked: Sequence[TokenizedPrompt] | None = None,
    ) -> None:
        self.model, self.prompts, self.position = model, prompts, position
        self.reasons: dict[str, str] = {}
        self._asked = self._answers(asked or prompts) if position == "END" else [None] * len(prompts)
        self._z = torch.zeros(len(prompts), model.n_layers, model.n_heads, model.d_head)
        self._attribution, self._variance = (torch.full(self._z.shape[:3], torch.nan) for _ in range(2))

    def _answers(self, prompts: Sequence[TokenizedPrompt]) -> list[Words | None]:
        try:
            answered = with_answers(prompts, self.model.tokenizer)
            return [(p.right, p.wrong) if p.right and p.wrong else None for p in answered]
        except ValueError as error:
            self.reasons["attribution"] = str(error)
            return [None] * len(prompts)

    def add(self, batch: Sequence[int], run: Trace) -> None:
        """Take a batch from a run whose last token is the position (`trace`)."""
        z = torch.stack([z[:, -1] for z in run.z], 1)
        if z.shape[1:] != self._z.shape[1:]:
            raise ValueError(
                f"model: expected outputs of {tuple(self._z.shape[1:])} (layers, heads, d_head), "
                f"got {tuple(z.shape[1:])} from {self.model.name!r}"
            )
        self._z[batch] = z.float()
        self._try("value_variance", self._variance, batch, lambda: _variances(self.model, run))
        rows = [k for k, i in enumerate(batch) if self._asked[i]]
        if rows:
            where = [batch[k] for k in rows]
            words = [words for i in where if (words := self._asked[i])]
            self._try("attribution", self._attribution, where, lambda: attribute(self.model, run, rows, words))

    def _try(self, name: str, found: Tensor, where: Sequence[int], make: Callable[[], Tensor]) -> None:
        if name not in self.reasons:
            try:
                found[where] = make().float()
            except ValueError as error:
                self.reasons[name] = str(error)

    def outputs(self) -> HeadOutputs:
        """What was collected."""
        for name, found in (("attribution", self._attribution), ("value_variance", self._variance)):
            if name in self.reasons:
                found[:] = torch.nan
        z, attribution, variance = (x.numpy() for x in (self._z, self._attribution, self._variance))
        return HeadOutputs(self.prompts, self.position, z, attribution, variance, self.reasons)


def output_change(active: HeadOutputs, control: HeadOutputs) -> PerHead:
    """||z_active - z_control|| of matched prompts, e.g. of `minimal_pairs`.

    Raises:
        ValueError: if the two do not hold as many prompts, or are not of the same heads.
    """
    if active.z.shape != control.z.shape:
        raise ValueError(f"control: expected outputs of shape {active.z.shape} as in active, got {control.z.shape}")
    return np.asarray(np.linalg.norm(active.z - control.z, axis=-1))


def _variances(model: LanguageModel, run: Trace) -> Float[Tensor, "prompt layer head"]:
    """Var_v of every head at the position of each prompt, after a check that its rows and values make z."""
    found = []
    for layer, z in enumerate(run.z):
        try:
            v, pi = (run.seen[f"blocks.{layer}.attn.{name}"].double() for name in ("hook_v", "hook_pattern"))
        except KeyError:
            raise no_values(model, layer) from None
        found.append(value_variance(pi, head_values(model, layer, pi[:, :, None], v, z[:, -1:])))
    return torch.stack(found, 1)

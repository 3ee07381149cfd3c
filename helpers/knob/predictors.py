"""What one forward pass without a gradient says about how the answer will respond to each head's knob."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from helpers.attention.capture import tokenize_for
from helpers.contents.residual import Trace, answer_readers, trace, writers
from helpers.diagnostics.rows import susceptibility
from helpers.diagnostics.values import value_variance
from helpers.heads import head_index
from helpers.knob.response import output_response
from helpers.models.forward import batches
from helpers.models.model import LanguageModel
from helpers.models.values import head_values, sink_weight
from helpers.prompts.answers import with_answers
from helpers.prompts.prompt import Prompt

PerHead = Float[np.ndarray, "prompt layer head"]


@dataclass(frozen=True)
class KnobPredictors:
    """What is known of every head at END of each prompt before its knob is turned.

    Attributes:
        chi: Var(log pi) = d KL / d beta, nats squared.
        attribution: direct logit attribution (`helpers.contents.outputs`), signed, logits.
        size: \\|z\\|, the norm of the head's output.
        spread: sum_i pi_i |v_i|^2 - |z|^2, the total variance of the values, d_head Var_v.
        output: \\|Cov(log pi, v) W_O\\|: how fast what the head writes to the residual stream changes.
        direct: Cov(log pi, v · W_O d), signed: the slope of the attribution, norms' scales held; logits.
    """

    chi: PerHead
    attribution: PerHead
    size: PerHead
    spread: PerHead
    output: PerHead
    direct: PerHead

    def table(self) -> pd.DataFrame:
        """One row a head: layer, head, and the predictors of \\|d LD / d beta\\|, each a mean over prompts of what is never negative."""
        found = {
            "chi": self.chi,
            "chi x attribution": self.chi * np.abs(self.attribution),
            "chi x magnitude": self.chi * self.size,
            "chi x value spread": np.sqrt(self.chi * self.spread),
            "output response": self.output,
            "direct response": np.abs(self.direct),
        }
        return head_index(*self.chi.shape[1:]).assign(**{name: x.mean(0).ravel() for name, x in found.items()})


def knob_predictors(
    model: LanguageModel,
    prompts: Iterable[Prompt | str],
    *,
    batch_size: int = 32,
    prepend_bos: bool = True,
    bos: str | int | None = None,
    progress: bool = True,
) -> KnobPredictors:
    """Run the model once over the prompts and read at END what bears on d LD / d beta.

    A learned sink, where heads have one, is a key whose value is 0.

    Args:
        model: what `load_model` returns.
        prompts: `Prompt` objects with an answer and a foil each.
        batch_size: prompts a forward pass.
        prepend_bos, bos: as `record_attention`.

    Raises:
        ValueError: if a prompt is unusable or has no answer or no foil; if the model's outputs don't add up (as `record_outputs`).
    """
    tokenized = with_answers(tokenize_for(model, prompts, prepend_bos=prepend_bos, bos=bos), model.tokenizer)
    for number, prompt in enumerate(tokenized, 1):
        if not (prompt.right and prompt.wrong):
            raise ValueError(f"prompts: expected an answer and a foil each, got none in prompt {number}")
    found = np.zeros((len(fields(KnobPredictors)), len(tokenized), model.n_layers, model.n_heads))
    for batch, ids in batches(model, tokenized, batch_size, progress=progress):
        run = trace(model, ids, [tokenized[i].position("END") for i in batch])
        words = [(tokenized[i].right, tokenized[i].wrong) for i in batch]
        readers = answer_readers(model, run, range(len(batch)), words)
        for layer, writer in enumerate(writers(model, run)):
            found[:, batch, layer] = _layer(model, run, layer, writer.matrix, readers[:, layer])
    return KnobPredictors(*found)


def _layer(
    model: LanguageModel, run: Trace, layer: int, matrix: Tensor, reader: Float[Tensor, "prompt head d_head"]
) -> Float[np.ndarray, "what prompt head"]:
    """The fields of `KnobPredictors` in one layer."""
    pi, v = _rows_and_values(model, run, layer)
    z, change = run.z[layer][:, -1], output_response(pi, v)
    held = run.scale[layer]
    scale = 1.0 if held is None else held[:, -1, :, None].double()
    written = torch.einsum("phd,hdm->phm", change / scale, matrix)
    found = [
        susceptibility(pi, normalized=False),
        (z / scale * reader).sum(-1),
        z.norm(dim=-1),
        value_variance(pi, v) * v.shape[-1],
        written.norm(dim=-1),
        (change / scale * reader).sum(-1),
    ]
    return torch.stack(found).numpy()


def _rows_and_values(model: LanguageModel, run: Trace, layer: int) -> tuple[Tensor, Tensor]:
    """Rows at END and values of their keys in float64; a learned sink is one more key."""
    v, pi = (run.seen[f"blocks.{layer}.attn.{name}"].double() for name in ("hook_v", "hook_pattern"))
    values = head_values(model, layer, pi[:, :, None], v, run.z[layer][:, -1:])
    if not model.has_sinks:
        return pi, values
    return torch.cat([pi, sink_weight(pi)], -1), torch.cat([values, torch.zeros_like(values[..., :1, :])], -2)

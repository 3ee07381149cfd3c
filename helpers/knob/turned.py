"""One head in one prompt at every setting of its knob: its row, its place in the plane, and what the model then says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from helpers.diagnostics.rows import kl_selectivity, susceptibility
from helpers.diagnostics.tempering import temper_rows
from helpers.heads import Head, HeadLike
from helpers.knob.runs import TemperedRun, run_tempered
from helpers.models.model import LanguageModel
from helpers.prompts.prompt import Prompt
from helpers.prompts.tokens import readable

#: Settings of the knob, the trained one among them.
SETTINGS = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 4.0, 8.0)
NextWords = Sequence[tuple[str, float]]


@dataclass(frozen=True)
class TurnedHead:
    """One head of a model in one prompt, for every setting of its knob.

    Attributes:
        head: which one.
        tokens: the prompt's, as readable strings.
        betas: the settings, in growing order; 1 is among them.
        rows: the row at the position (END, where it is turned at every token), ``(setting, key)``.
        visible: which keys that query sees, ``(key,)``.
        logit_difference: logit(answer) - logit(foil) at END, ``(setting,)``; NaN where the prompt has not one of each.
        words: of each setting the most likely next tokens with their probabilities, the likeliest first.
        answer, foil: the two words, or "".
    """

    head: Head
    tokens: Sequence[str]
    betas: list[float]
    rows: Float[np.ndarray, "setting key"]
    visible: Bool[np.ndarray, " key"]
    logit_difference: Float[np.ndarray, " setting"]
    words: Sequence[NextWords]
    answer: str = ""
    foil: str = ""

    @property
    def plain(self) -> int:
        """Number of the setting beta = 1."""
        return self.betas.index(1)

    def places(self, betas: Sequence[float]) -> Float[np.ndarray, "beta 2"]:
        """(KL, chi), normalised, of the row tempered by each beta: what the head gets from its layer does not change."""
        rows = tempered_rows(torch.as_tensor(self.rows[self.plain]), betas, torch.as_tensor(self.visible))
        return np.stack([f(rows, mask=self.visible).numpy() for f in (kl_selectivity, susceptibility)], -1)


def tempered_rows(
    row: Float[Tensor, " key"], betas: Sequence[float], visible: Bool[Tensor, " key"]
) -> Float[np.ndarray, "beta key"]:
    """One row tempered by each of several betas (`temper_rows`), in float64."""
    several = len(betas), len(visible)
    return temper_rows(row.double().expand(several), torch.tensor(betas).double(), visible.expand(several)).numpy()


def turn_head(
    model: LanguageModel,
    prompt: Prompt | str,
    head: HeadLike,
    betas: Sequence[float] = SETTINGS,
    *,
    position: str | None = None,
    k: int = 5,
    prepend_bos: bool = True,
    bos: str | int | None = None,
) -> TurnedHead:
    """Turn the knob of one head in one prompt: all settings in one batch.

    Args:
        model: what `load_model` returns.
        prompt: a `Prompt`, or a bare text (without a logit difference).
        head: ``(layer, head)``.
        betas: the settings; 1 must be among them.
        position: turn it at this named position alone; default: at every token.
        k: how many next tokens.
        prepend_bos, bos: as `record_attention`.

    Raises:
        ValueError: if 1 is not among the betas; as `run_tempered`.
    """
    if 1 not in betas:
        raise ValueError(f"betas: expected 1, the head as it is, among the settings, got {', '.join(map(str, betas))}")
    run = run_tempered(
        model, [prompt], {head: sorted(betas)}, position=position, prepend_bos=prepend_bos, bos=bos, progress=False
    )
    [tokenized] = run.prompts
    return TurnedHead(
        head=run.heads[0],
        tokens=tokenized.tokens,
        betas=sorted(betas),
        rows=run.rows[:, 0, 0].numpy(),
        visible=run.visible[0, 0].numpy(),
        logit_difference=run.logit_difference[:, 0],
        words=_words(run, model, k),
        answer=tokenized.prompt.answer or "",
        foil=tokenized.prompt.foil or "",
    )


def _words(run: TemperedRun, model: LanguageModel, k: int) -> list[NextWords]:
    chances, ids = run.top(k)
    return [
        [(readable(model.tokenizer, int(i)), float(p)) for i, p in zip(*one, strict=True)]
        for one in zip(ids[:, 0], chances[:, 0], strict=True)
    ]

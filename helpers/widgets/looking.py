"""What is computed only when a reader asks for it: every row of one head in one prompt, and the head with its scores turned."""

from __future__ import annotations

from typing import Any

import numpy as np

from helpers.attention.capture import record_attention
from helpers.attention.record import AttentionRecord
from helpers.knob.turned import turn_head
from helpers.prompts.tokens import TokenizedPrompt
from helpers.widgets.inputs import first_token, token_index
from helpers.widgets.state import SIDES, Knob, Pattern, Result, View

#: Settings of the knob: from scores divided by 8 to scores times 8.
BETAS = tuple(round(float(2**power), 3) for power in np.arange(-3, 3.25, 0.25))
#: Longer prompts are not drawn as a matrix, and all rows of all heads take at most so many bytes on the way.
LONGEST, MOST_BYTES = 512, 300e6


class NeedsModel(ValueError):
    """What was asked for can't be had from the saved rows: the model has to be in memory."""


def pattern_of(result: Result, view: View, model: Any) -> Pattern:
    """Every row of the open head in the prompt that is looked at, from the saved rows if they have them, else from a run.

    Raises:
        NeedsModel: if only a run can give them and ``model`` is None.
        ValueError: if the prompt is too long.
    """
    assert view.head is not None
    record, prompt = _looked_at(result, view)
    n = len(prompt)
    bytes_of_all = 4 * record.n_layers * record.n_heads * n**2
    if n > LONGEST or (record.query != "all" and bytes_of_all > MOST_BYTES):
        raise ValueError(
            f"The matrix is drawn for prompts of at most {LONGEST} tokens and 0.3 GB of rows; this one has {n}."
        )
    if record.query == "all":
        rows = record.rows[view.number]
    elif model is None:
        raise NeedsModel(f"Rows of all positions of this prompt need the model {result.asked.model} in memory.")
    else:
        first = first_token(model, result.asked.bos)
        rows = record_attention(model, [prompt.prompt], query="all", progress=False, **first).rows[0]
    weights = rows[view.head.layer, view.head.head, :n, :n].float().numpy()
    return Pattern(result, view.head, view.side, view.number, weights)


def knob_of(result: Result, view: View, model: Any) -> Knob:
    """The open head at every setting of `BETAS`, in the prompt that is looked at.

    Raises:
        NeedsModel: if ``model`` is None.
        ValueError: if the prompt is too long, or as `turn_head`.
    """
    assert view.head is not None
    _, prompt = _looked_at(result, view)
    if model is None:
        raise NeedsModel(f"The knob runs the model again: it needs {result.asked.model} in memory.")
    if len(prompt) > LONGEST:
        raise ValueError(f"The knob turns in prompts of at most {LONGEST} tokens; this one has {len(prompt)}.")
    query = result.experiment.active.query
    position = query if token_index(query) is None else None
    first = first_token(model, result.asked.bos)
    turned = turn_head(model, prompt.prompt, view.head, BETAS, position=position, **first)
    return Knob(result, view.head, view.side, view.number, turned)


def _looked_at(result: Result, view: View) -> tuple[AttentionRecord, TokenizedPrompt]:
    record = result.records[SIDES.index(view.side)]
    return record, record.prompts[view.number]

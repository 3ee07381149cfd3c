"""What is known about every head from one set of minimal pairs: everything that a score may read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from helpers.attention.capture import record_attention
from helpers.attention.record import AttentionRecord
from helpers.contents.changes import HeadChanges, record_changes
from helpers.contents.outputs import HeadOutputs, record_outputs
from helpers.heads import heads_of
from helpers.models.model import LanguageModel
from helpers.patching.attribution import attribute_heads
from helpers.patching.heads import head_effects, patch_heads
from helpers.prompts.prompt import Prompt

HeadScore = Float[np.ndarray, "layer head"]


@dataclass(frozen=True)
class Evidence:
    """What is known about every head from one set of minimal pairs.

    What a model or the prompts do not allow is None, and ``reasons`` says why.

    Attributes:
        active, control: attention records of all query positions; prompt k of both is a pair.
        outputs_active, outputs_control: head outputs at END.
        attribution, patching: estimated and measured effect of each head, ``(layer, head)``; None if not asked for.
        changes: what each head writes to the residual stream at every position, and how much of it differs in a pair.
        reasons: one sentence for each of the above that could not be had, by name.
    """

    active: AttentionRecord
    control: AttentionRecord
    outputs_active: HeadOutputs | None = None
    outputs_control: HeadOutputs | None = None
    attribution: HeadScore | None = None
    patching: HeadScore | None = None
    changes: HeadChanges | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        """Layers, and heads a layer."""
        return self.active.n_layers, self.active.n_heads

    def end(self) -> tuple[AttentionRecord, AttentionRecord]:
        """The END rows of both sides."""
        return self.active.at("END"), self.control.at("END")

    def have(self, name: str) -> Any:
        """One of the optional fields.

        Raises:
            ValueError: with the reason, if it is not there.
        """
        value = getattr(self, name)
        if value is None:
            raise ValueError(self.reasons.get(name, f"evidence: expected {name}, which was not gathered"))
        return value

    def outputs(self) -> tuple[HeadOutputs, HeadOutputs]:
        """Head outputs at END of both sides.

        Raises:
            ValueError: with the reason, if they are not there.
        """
        return self.have("outputs_active"), self.have("outputs_control")

    def pairs(self) -> tuple[AttentionRecord, AttentionRecord]:
        """Both records, if prompts are pairs of one length each.

        Raises:
            ValueError: if the sides differ in number or in the length of a pair.
        """
        left, right = ([len(p) for p in record.prompts] for record in (self.active, self.control))
        if left != right:
            raise ValueError(
                f"active, control: expected pairs of equal length, got {left[:3]} … and {right[:3]} … tokens"
            )
        return self.active, self.control

    def positions(self) -> tuple[AttentionRecord, AttentionRecord]:
        """Both records, if all prompts have one length, so that a position is the same place in each.

        Raises:
            ValueError: if they have not.
        """
        lengths = {len(p) for record in (self.active, self.control) for p in record.prompts}
        if len(lengths) > 1:
            raise ValueError(f"active, control: expected prompts of one length, got lengths {sorted(lengths)}")
        return self.pairs()


def gather(
    model: LanguageModel,
    clean: Sequence[Prompt],
    corrupt: Sequence[Prompt],
    *,
    expensive: bool = True,
    patching: pd.DataFrame | None = None,
    prepend_bos: bool = True,
    bos: str | int | None = None,
) -> Evidence:
    """Run a model on minimal pairs and keep what the scores need; what can't be had is left out, with the reason.

    Args:
        model: what `load_model` returns.
        clean, corrupt: prompt k of both is a pair (see `helpers.prompts.tasks`). With sets that are no pairs, or of
            several lengths, the scores that need pairs or positions have a reason instead of a value.
        expensive: also patch (attribution patching, and activation patching of every head in both directions).
        patching: effects of every head that were measured already (`head_effects`: columns layer, head, denoising,
            noising), taken instead of patching again.
        prepend_bos, bos: as `record_attention`.

    Raises:
        ValueError: if a prompt is unusable (see `tokenize`), or ``patching`` is no table of this model's heads.
    """
    options: dict[str, Any] = {"prepend_bos": prepend_bos, "bos": bos}
    shape = model.n_layers, model.n_heads
    found: dict[str, Any] = {} if patching is None else {"patching": _largest(patching, shape)}
    active, control = (
        record_attention(model, side, query="all", progress=False, **options) for side in (clean, corrupt)
    )
    reasons: dict[str, str] = {}

    def attempt(name: str, make: Callable[..., Any], *sides: Sequence[Prompt]) -> None:
        if name not in found:
            try:
                found[name] = make(model, *sides, progress=False, **options)
            except Exception as error:  # what an architecture lacks shows in many ways; the other scores don't need it
                reasons[name] = _sentence(error)

    attempt("changes", record_changes, clean, corrupt)
    if "changes" in found:
        found |= {"outputs_active": found["changes"].outputs_clean, "outputs_control": found["changes"].outputs_corrupt}
    attempt("outputs_active", partial(record_outputs, lenient=True), clean)
    attempt("outputs_control", partial(record_outputs, lenient=True), corrupt)
    if expensive:
        attempt("attribution", lambda *args, **kwargs: attribute_heads(*args, **kwargs).mean(-1), clean, corrupt)
        attempt(
            "patching",
            lambda *args, **kwargs: _largest(head_effects(patch_heads(*args, **kwargs)), shape),
            clean,
            corrupt,
        )
    return Evidence(active, control, **found, reasons=reasons)


def _sentence(error: Exception) -> str:
    """An error in one line; where it is not one of our own sentences (a library's), with its kind."""
    text = (str(error).strip().splitlines() or [""])[0]
    return (
        text
        if isinstance(error, ValueError) and "expected" in text
        else f"model: {type(error).__name__} in a forward pass: {text}"
    )


def _largest(effects: pd.DataFrame, shape: tuple[int, int]) -> HeadScore:
    """The larger of a head's two effects, as absolute values."""
    columns = ["layer", "head", "denoising", "noising"]
    if not isinstance(effects, pd.DataFrame) or not set(columns) <= set(effects.columns):
        raise ValueError(f"patching: expected a table with columns {', '.join(columns)}, got {_columns(effects)}")
    table = effects.sort_values(["layer", "head"])
    if heads_of(table) != list(np.ndindex(shape)):
        raise ValueError(
            f"patching: expected one row for each head of {shape[0]} layers x {shape[1]}, got {len(table)} rows"
        )
    return np.asarray(table[["denoising", "noising"]].abs().max(axis=1).to_numpy().reshape(shape))


def _columns(effects: Any) -> str:
    return ", ".join(map(str, effects.columns)) if isinstance(effects, pd.DataFrame) else type(effects).__name__

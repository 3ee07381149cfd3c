"""What the playground knows, as one value; `helpers.widgets.transitions` says what can happen to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from helpers.attention.record import AttentionRecord
from helpers.design import Design
from helpers.experiment import Experiment
from helpers.heads import Head, HeadLike
from helpers.knob.turned import TurnedHead
from helpers.prompts.prompt import Prompt
from helpers.widgets.checker import Check
from helpers.widgets.inputs import OWN_BOS, Inputs, prompts_of
from helpers.widgets.known import Known

#: The steps of a run, in order.
STEPS = ("loading", "running", "analysing")
SIDES = ("active", "control")
#: The test that is chosen in the menu: by the rule, or by the reader.
DESIGNS: dict[str, Design | None] = {"pairs if they are": None, "pairs": "pairs", "two sets": "sets"}


@dataclass(frozen=True)
class Draft:
    """What stands in the boxes. ``example``: where the prompts are from; ``test``: a key of `DESIGNS`."""

    model: str
    active: str = ""
    control: str = ""
    example: str = "minimal pairs"
    names: str = "Peter, Anna, Simon, Ruth, Nina, Oscar, Vera"
    frames: str = "While {X} and {Y} waited in the library, {GIVER} read a story to"
    position: str = "END"
    bos: str = OWN_BOS
    test: str = "pairs if they are"

    def inputs(self, known: Mapping[str, Prompt]) -> Inputs:
        """What a run would be asked; a line that equals a known prompt keeps its names."""
        active, control = (prompts_of(text, known) for text in (self.active, self.control))
        return Inputs(active, control, self.position, self.bos, DESIGNS[self.test])

    def asks(self) -> tuple[Any, ...]:
        """What of it makes a difference to a result."""
        prompts = (tuple(p.text for p in prompts_of(text)) for text in (self.active, self.control))
        return (self.model, *prompts, self.position, self.bos, self.test)


@dataclass(frozen=True, eq=False)
class Result:
    """One run, whole: what was asked, and what came out.

    Attributes:
        asked: the draft that was run.
        experiment: its analysis.
        records: its attention rows; of all positions, where they ship.
        known: what is known of the model's heads.
        source: where the rows are from.
    """

    asked: Draft
    experiment: Experiment
    records: tuple[AttentionRecord, AttentionRecord]
    known: Known = field(default_factory=Known)
    source: str = "run here"

    @property
    def counts(self) -> tuple[int, int]:
        """Prompts of both sides."""
        return len(self.records[0].prompts), len(self.records[1].prompts)

    def has(self, head: HeadLike) -> bool:
        return 0 <= head[0] < self.records[0].n_layers and 0 <= head[1] < self.records[0].n_heads


@dataclass(frozen=True, eq=False)
class Pattern:
    """All rows of one head in one prompt of a result: ``weights`` of shape ``(query, key)``."""

    result: Result
    head: Head
    side: str
    number: int
    weights: np.ndarray


@dataclass(frozen=True, eq=False)
class Knob:
    """The open head in one prompt of a result, turned."""

    result: Result
    head: Head
    side: str
    number: int
    turned: TurnedHead


@dataclass(frozen=True)
class View:
    """What is looked at in a result.

    Attributes:
        measure: of the grid. ``head``: that is open. ``compared``: a second head, or None.
        numbers: index of the prompt on either side. ``side``: the side that was looked at last.
        pattern, knob: the whole matrix and the knob, if they are open and were made for this head and prompt.
        query: the chosen row of the matrix. ``beta``: the chosen setting of the knob.
    """

    measure: str = "shift of KL"
    head: Head | None = None
    compared: Head | None = None
    numbers: tuple[int, int] = (0, 0)
    side: str = "active"
    pattern: Pattern | None = None
    query: int | None = None
    knob: Knob | None = None
    beta: float = 1.0

    @property
    def number(self) -> int:
        """Index of the prompt on the side that was looked at last."""
        return self.numbers[SIDES.index(self.side)]


@dataclass(frozen=True)
class State:
    """Everything.

    Attributes:
        draft: what stands in the boxes. ``said``: what the checker says about it.
        known: prompts with names, by their text. ``typed``: the reader's own prompts, which an example has taken the place of.
        result: the last good result, or None. ``view``: what of it is looked at.
        failure: why there is no result of the last run; ``complaint``: why something else was not done. Empty if nothing failed.
        run: number of the run that is going on or was the last one. ``step``: one of `STEPS`, or an empty text.
        done, total: of that step.
        folded: whether the prompts are out of sight. ``needs_model``: whether something was asked for that needs the model.
    """

    draft: Draft
    said: Check = field(default_factory=lambda: Check([], []))
    known: Mapping[str, Prompt] = field(default_factory=dict)
    typed: tuple[str, str] | None = None
    result: Result | None = None
    view: View = View()
    failure: str = ""
    complaint: str = ""
    run: int = 0
    step: str = ""
    done: int = 0
    total: int = 0
    folded: bool = False
    needs_model: bool = False

    @property
    def is_busy(self) -> bool:
        return bool(self.step)

    @property
    def is_stale(self) -> bool:
        """Whether the boxes ask something else than what the result answers."""
        return self.result is not None and self.result.asked.asks() != self.draft.asks()

    def inputs(self) -> Inputs:
        """What a run would be asked now."""
        return self.draft.inputs(self.known)

"""Everything that can happen to the playground, as functions from state to state.

Nothing here draws, loads or runs. A result changes as a whole or not at all, and what is looked at always exists in it.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from helpers.heads import Head, HeadLike
from helpers.widgets.checker import Check, positions
from helpers.widgets.examples import TYPED
from helpers.widgets.inputs import Inputs
from helpers.widgets.playground import MEASURES, strongest
from helpers.widgets.state import SIDES, STEPS, Draft, Knob, Pattern, Result, State, View

# ---- prompts


def edited(state: State, **changes: str) -> State:
    """The reader has changed something in the boxes; prompts that were changed are their own.

    Raises:
        ValueError: if a draft has no such field.
    """
    unknown = set(changes) - {f.name for f in fields(Draft)}
    if unknown:
        raise ValueError(f"changes: expected fields of a draft, got {', '.join(sorted(unknown))}")
    draft = replace(state.draft, **changes)
    state = replace(state, failure="", complaint="")
    if (draft.active, draft.control) == (state.draft.active, state.draft.control):
        return replace(state, draft=draft)
    return replace(state, draft=replace(draft, example=TYPED), typed=(draft.active, draft.control))


def filled(state: State, example: str, inputs: Inputs, position: str = "END") -> State:
    """The prompts of an example stand in the boxes; the reader's own are kept."""
    active, control = ("\n".join(p.text for p in side) for side in (inputs.active, inputs.control))
    named = {p.text: p for p in (*inputs.active, *inputs.control)}
    draft = replace(state.draft, example=example, active=active, control=control, position=position)
    return replace(state, draft=draft, known={**state.known, **named})


def retyped(state: State) -> State:
    """The reader's own prompts are back in the boxes; without any nothing changes."""
    if state.typed is None:
        return state
    active, control = state.typed
    return replace(state, draft=replace(state.draft, example=TYPED, active=active, control=control))


def checked(state: State, draft: Draft, said: Check) -> State:
    """The checker has read a draft; a position that its prompts don't have gives way to END. Of another draft nothing is taken."""
    if draft != state.draft:
        return state
    if said.tokens and draft.position not in [value for _, value in positions(said.tokens)]:
        draft = replace(draft, position="END")
    return replace(state, said=said, draft=draft)


# ---- a run


def started(state: State) -> State:
    """A run begins. Refused while another goes on: nothing changes then."""
    if state.is_busy:
        return state
    return replace(
        state, run=state.run + 1, step=STEPS[0], done=0, total=0, failure="", complaint="", needs_model=False
    )


def stepped(state: State, run: int, step: str, done: int = 0, total: int = 0) -> State:
    """A run has come so far; one that was stopped has nothing to say any more."""
    return replace(state, step=step, done=done, total=total) if _is_on(state, run) else state


def finished(state: State, run: int, result: Result) -> State:
    """A run has a result, which takes the place of the last one as a whole."""
    if not _is_on(state, run):
        return state
    return shown(replace(state, step="", failure="", folded=True), result)


def failed(state: State, run: int, sentence: str) -> State:
    """A run has none: the last result stays."""
    return replace(state, step="", failure=sentence) if _is_on(state, run) else state


def stopped(state: State) -> State:
    """The reader has stopped the run: whatever it still brings is not heard."""
    if not state.is_busy:
        return state
    how_far = f" after {state.done} of {state.total} prompts" if state.step == "running" and state.total else ""
    return replace(state, step="", failure=f"Stopped while {state.step}{how_far}.")


def loaded(state: State, run: int) -> State:
    """The model is in memory, and that was all that was wanted."""
    return replace(state, step="", failure="", needs_model=False) if _is_on(state, run) else state


def complained(state: State, sentence: str, *, needs_model: bool = False) -> State:
    """Something else than a run has failed: what is shown stays."""
    return replace(state, complaint=sentence, needs_model=needs_model)


def folded(state: State, on: bool) -> State:
    """The prompts are out of sight, or in sight."""
    return replace(state, folded=on)


def _is_on(state: State, run: int) -> bool:
    return state.is_busy and state.run == run


# ---- what is looked at


def shown(state: State, result: Result) -> State:
    """A result is on the screen: heads that it has and prompts that it has stay chosen, of others the first is."""
    old, same = state.view, state.result is None or state.result.asked.model == result.asked.model
    kept = [head if head and same and result.has(head) else None for head in (old.head, old.compared)]
    head = kept[0] or strongest(result.experiment, old.measure)
    compared = kept[1] if kept[1] != head else None
    numbers = tuple(min(n, count - 1) for n, count in zip(old.numbers, result.counts, strict=True))
    view = View(old.measure, head, compared, _together(result, numbers, old.side), old.side)
    return replace(state, result=result, view=view)


def picked(state: State, head: HeadLike) -> State:
    """A head is opened."""
    if state.result is None or not state.result.has(head):
        return state
    compared = None if state.view.compared == head else state.view.compared
    return _looking(state, head=Head(*head), compared=compared)


def compared(state: State, head: HeadLike | None) -> State:
    """A second head stands beside the open one, or none."""
    if state.result is None or (head is not None and not state.result.has(head)):
        return state
    other = None if head is None or head == state.view.head else Head(*head)
    return replace(state, view=replace(state.view, compared=other))


def turned(state: State, side: str, number: int) -> State:
    """Another prompt is looked at; of pairs both sides turn. Numbers beyond the last mean the last."""
    if state.result is None:
        return state
    at = SIDES.index(side)
    numbers = list(state.view.numbers)
    numbers[at] = max(0, min(number, state.result.counts[at] - 1))
    return _looking(state, numbers=_together(state.result, (numbers[0], numbers[1]), side), side=side)


def coloured(state: State, measure: str) -> State:
    """The grid shows another measure; an unknown one is not taken."""
    return replace(state, view=replace(state.view, measure=measure)) if measure in MEASURES else state


def unfolded(state: State, pattern: Pattern | None) -> State:
    """The whole matrix is open, or closed; one of another result, head or prompt is not."""
    kept = pattern if pattern is not None and _fits(state, pattern) else None
    query = len(kept.weights) - 1 if kept else None
    return replace(state, view=replace(state.view, pattern=kept, query=query))


def queried(state: State, query: int | None) -> State:
    """A row of the matrix is chosen."""
    pattern = state.view.pattern
    if pattern is None or query is None or not 0 <= query < len(pattern.weights):
        return state
    return replace(state, view=replace(state.view, query=query))


def tuned(state: State, knob: Knob | None) -> State:
    """The knob is in the reader's hand, or put away; one of another result, head or prompt is not taken."""
    kept = knob if knob is not None and _fits(state, knob) else None
    return replace(state, view=replace(state.view, knob=kept, beta=1.0))


def set_beta(state: State, beta: float) -> State:
    """The knob is turned, to one of its settings."""
    if state.view.knob is None or beta not in state.view.knob.turned.betas:
        return state
    return replace(state, view=replace(state.view, beta=beta))


def _looking(state: State, **changes: Any) -> State:
    """Another head or prompt: what was made for the last one is closed."""
    view = replace(state.view, **changes, pattern=None, query=None, knob=None, beta=1.0)
    return replace(state, view=view, complaint="", needs_model=False)


def _fits(state: State, made: Pattern | Knob) -> bool:
    view = state.view
    return (made.result, made.head, made.side, made.number) == (state.result, view.head, view.side, view.number)


def _together(result: Result, numbers: tuple[int, ...], side: str) -> tuple[int, int]:
    """Of pairs both sides show the same number."""
    if result.experiment.design == "pairs":
        numbers = (numbers[SIDES.index(side)],) * 2
    return numbers[0], numbers[1]

"""A state as what every widget of the panel holds: name of the widget -> its data."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from helpers.widgets import checker, words
from helpers.widgets.examples import OWN
from helpers.widgets.screen import grid_data, knob_strip, matrix_data, plane_data, strips_data, table_data
from helpers.widgets.state import SIDES, State

#: Of a plain widget ``display`` is whether it is there; all else are its traits.
Screen = dict[str, dict[str, Any]]


def draw(state: State, old: State | None = None) -> Screen:
    """The whole screen, or what of it an old state may have left otherwise.

    After a state that differs in a run's progress alone, that. Boxes are filled only where a draft is another one: a run
    ends while a reader writes in them, and what is written in that moment must stay.
    """
    if old is not None and _differs_in_progress(state, old):
        return _run(state)
    boxes = {} if old is not None and state.draft == old.draft else _boxes(state)
    results = _results(state) if state.result else {"results": {"display": False}}
    return boxes | _prompts(state) | _run(state) | results


def _differs_in_progress(state: State, old: State) -> bool:
    """Whether two states differ in how far a run has come, and in nothing else."""
    return state != old and replace(old, step=state.step, done=state.done, total=state.total) == state


def _boxes(state: State) -> Screen:
    fields = ("model", "active", "control", "example", "names", "frames", "bos", "test")
    return {name: {"value": getattr(state.draft, name)} for name in fields}


def _prompts(state: State) -> Screen:
    """What stands around the boxes: which positions there are is known once the checker has read them."""
    draft, said = state.draft, state.said
    menu = checker.positions(said.tokens)
    if draft.position not in [value for _, value in menu]:
        menu = [*menu, (draft.position, draft.position)]
    return {
        "position": {"options": menu, "value": draft.position},
        "own": {"display": draft.example == OWN},
        "fold": {"description": words.summary(said), "value": not state.folded},
        "boxes": {"display": not state.folded},
    }


def _run(state: State) -> Screen:
    share, step = words.progress(state)
    return {
        "run_button": {"disabled": state.is_busy},
        "stop_button": {"disabled": not state.is_busy},
        "bar": {"value": share, "display": state.is_busy},
        "step": {"value": step},
        "messages": {"value": words.messages(state)},
        "about": {"value": words.headline(state)},
    }


def _results(state: State) -> Screen:
    assert state.result is not None
    result, view = state.result, state.view
    numbers = {
        f"{side}_number": {"max": count, "value": number + 1, "description": f"{side} prompt (of {count})"}
        for side, count, number in zip(SIDES, result.counts, view.numbers, strict=True)
    }
    if result.experiment.design == "pairs":
        numbers["active_number"]["description"] = f"pair (of {result.counts[0]})"
        numbers["control_number"]["display"] = False
    else:
        numbers["control_number"]["display"] = True
    return {
        "results": {"display": True},
        "measure": {"value": view.measure},
        "grid": grid_data(result, view),
        "table": table_data(result, view),
        "head": {"value": words.head_title(state)},
        "strips": strips_data(result, view),
        "plane": plane_data(result, view),
        "more": {"value": words.details(result)},
        **numbers,
        **_on_demand(state),
    }


def _on_demand(state: State) -> Screen:
    """The matrix and the knob: closed, or open with what was made for them."""
    result, view = state.result, state.view
    assert result is not None
    screen: Screen = {
        "matrix_button": {"value": view.pattern is not None},
        "matrix_box": {"display": view.pattern is not None},
        "knob_button": {"value": view.knob is not None},
        "knob_box": {"display": view.knob is not None},
        "load_button": {"display": state.needs_model},
    }
    if view.pattern is not None:
        screen["matrix"] = matrix_data(result, view, view.pattern)
    if view.knob is not None:
        screen["knob"] = {"value": view.beta}
        screen["knob_words"] = {"value": words.knob_words(view.knob, view.beta)}
        screen["knob_strips"] = knob_strip(result, view.knob, view.beta)
    return screen

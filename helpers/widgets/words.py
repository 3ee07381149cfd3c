"""The playground in words: what was asked and found, what the checker says, how far a run is, what the knob does."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np

from helpers.console import sentence
from helpers.design import Q
from helpers.plots.style import VERMILION
from helpers.widgets.checker import Check
from helpers.widgets.inputs import token_index
from helpers.widgets.playground import strongest
from helpers.widgets.screen import head_lines, signed
from helpers.widgets.state import STEPS, Knob, Result, State
from helpers.wording import describe, tested


def headline(state: State) -> str:
    """What was asked and what was found, as HTML; marked, where the boxes have changed since."""
    if state.result is None:
        return _block(["Two sets of prompts, one with a task and one without: which heads attend differently?"])
    lines = [f"<b>Asked</b> {html.escape(asked(state.result))}", f"<b>Found</b> {html.escape(found(state.result))}"]
    lines += [f"<i>{html.escape(note)}</i>" for note in state.result.experiment.notes]
    if state.is_stale:
        lines.insert(
            0, f'<b style="color:{VERMILION}">Of the prompts before: the boxes have changed since this run.</b>'
        )
    return _block(lines)


def asked(result: Result) -> str:
    """The question of a result in one sentence."""
    query, (active, control) = result.experiment.active.query, result.counts
    if result.experiment.design == "pairs":
        what = f"in {active} pairs, which heads attend differently from {query} in a prompt and in its twin?"
    else:
        what = f"which heads attend differently from {query} on {active} active and on {control} control prompts?"
    return f"{result.asked.model}, {result.source}: {what}"


def found(result: Result) -> str:
    """The answer, and the test behind it."""
    table = result.experiment.table
    moved = {name: int((table[f"d_{name}_q"] < Q).sum()) for name in ("kl", "chi")}
    head = strongest(result.experiment, "shift of KL")
    shift = table.d_kl.to_numpy().reshape(-1, result.records[0].n_heads)[head]
    largest = f"Largest shift of KL: head {head} ({signed(shift)})."
    return (
        f"{moved['kl']} of {len(table)} heads shift their KL and {moved['chi']} their χ (q < {Q}). {largest} "
        f"Test: {tested(result.experiment)}."
    )


def details(result: Result) -> str:
    """Model, prompts and what is known of the heads, as HTML."""
    text = html.escape(describe(result.experiment))
    return f'<pre style="white-space:pre-wrap; margin:0">{text}</pre>{_block([html.escape(result.known.sentence)])}'


def messages(state: State) -> str:
    """Why something was not done, what the checker says, and the test that the prompts would get, as HTML.

    Of prompts that are folded away, because their result is on the screen, only what is wrong is said.
    """
    kept = " The last result stays below." if state.result else ""
    failures = [f"{state.failure}{kept}" if state.failure else "", state.complaint, *state.said.errors]
    lines = [f'<b style="color:{VERMILION}">✗ {html.escape(text)}</b>' for text in failures if text]
    if state.folded and not state.is_stale:
        return _block(lines)
    lines += [f"• {html.escape(note)}" for note in state.said.notes]
    lines = lines or ["✓ Nothing to say against these prompts."]
    if state.said.test and not state.said.errors:
        lines.append(f"Test: {html.escape(state.said.test)}.")
    return _block(lines)


def _block(lines: Sequence[str]) -> str:
    """Lines as closely set as text is."""
    return f'<div style="line-height:1.4">{"<br>".join(lines)}</div>' if lines else ""


def progress(state: State) -> tuple[float, str]:
    """How far a run is, from 0 to 1, and in words."""
    if not state.step:
        return 0.0, ""
    at = STEPS.index(state.step)
    part = state.done / state.total if state.total else 0.1
    count = f" {state.done} of {state.total}" if state.total else ""
    return (at + part) / len(STEPS), f"{at + 1} of {len(STEPS)}: {state.step}{count}"


def summary(said: Check) -> str:
    """The prompts in a few words, for the folded box."""
    if said.tokens is None:
        return "Prompts"
    active, control = (len(side) for side in said.tokens.values())
    return f"Prompts ({active} pairs)" if said.design == "pairs" else f"Prompts ({active} active, {control} control)"


def head_title(state: State) -> str:
    """The open head in a few lines, and the one beside it, as HTML."""
    result, heads = state.result, [head for head in (state.view.head, state.view.compared) if head]
    assert result is not None
    return "".join(
        _block([f"<b>{html.escape(first[:1].upper() + first[1:])}</b>", *map(html.escape, rest)])
        for first, *rest in (head_lines(result, head) for head in heads)
    )


def knob_words(knob: Knob, beta: float) -> str:
    """What the model says with the head at this setting, beside what it says without, as HTML."""
    query = knob.result.experiment.active.query
    where = f"at {query}" if token_index(query) is None else "at every token"
    rows = [f"Scores of head {knob.head} {where} times beta, {knob.side} prompt {knob.number + 1}:"]
    for setting in dict.fromkeys((beta, 1.0)):
        at = knob.turned.betas.index(setting)
        difference = knob.turned.logit_difference[at]
        said = "no answer and foil are named" if np.isnan(difference) else f"logit difference {difference:+.2f}"
        words = ", ".join(f"“{html.escape(word)}” {chance:.2f}" for word, chance in knob.turned.words[at])
        rows.append(f"<b>beta = {setting:g}</b>: {said}; next: {words}")
    return _block(rows)


def what_it_says(error: Exception) -> str:
    """An error as a sentence with a full stop."""
    said = sentence(error).strip() or type(error).__name__
    return said if said.endswith(".") else f"{said}."

"""The prompt checker: what is wrong with two prompt sets, and what should be known about them, before anything runs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from helpers.attention.capture import tokenize_for
from helpers.design import Design, design_in_words, design_of, power_note
from helpers.prompts.characters import odd_character
from helpers.prompts.prompt import Prompt
from helpers.prompts.tokens import TokenizedPrompt, bos_id
from helpers.widgets.inputs import Inputs, first_token, token_index

Tokens = Mapping[str, Sequence[TokenizedPrompt]]
#: What is said of a prompt: its side, its number (from 1), and a clause that follows "Active prompt 3: ".
Finding = tuple[str, int, str]

#: Words whose repetition says nothing.
COMMON = frozenset([
    "a", "an", "and", "at", "for", "from", "had", "has", "in", "is", "it", "of", "on",
    "or", "the", "to", "was", "were", "with",
])  # fmt: skip
#: Numbers of prompts that a sentence lists.
LISTED = 5


@dataclass(frozen=True)
class Check:
    """What the checker says.

    Attributes:
        errors: sentences that forbid a run. ``notes``: sentences that don't.
        tokens: of both sides, if all could be tokenised. ``design``: which test they get then, and ``test`` that in words.
    """

    errors: list[str]
    notes: list[str]
    tokens: Tokens | None = None
    design: Design | None = None
    test: str = ""


def check(inputs: Inputs, model: Any = None, *, tokens: Tokens | None = None, n_heads: int | None = None) -> Check:
    """What is wrong with the prompts, and what should be known about them.

    Args:
        inputs: the prompts, position, first token and test.
        model: what `load_model` returns. Without it, and without ``tokens``, tokens can't be checked, which is said.
        tokens: of both sides, where they are known already. ``n_heads``: of that model.
    """
    few = [
        f"The {side} set has {len(p)} prompt{'s' * (len(p) != 1)}; at least 2 are needed."
        for side, p in inputs.sides.items()
        if len(p) < 2
    ]
    odd = grouped((side, n, fault) for side, n, p in _numbered(inputs) if (fault := odd_character(p.text)))
    about = [note for side, prompts in inputs.sides.items() for note in _reading_notes(side, prompts)]
    about += grouped(_repetitions(inputs))
    if few or odd:
        return Check([*few, *odd], about)
    if tokens is None:
        if model is None:
            return Check([], [*about, "Tokens and their number are checked when the model is loaded."])
        tokens, refused = _tokenize(inputs, model)
        if refused:
            return Check(refused, about)
        n_heads = model.n_layers * model.n_heads
    errors = grouped(_position_errors(tokens, inputs.position))
    return _with_design(
        inputs, tokens, n_heads or 1, Check(errors, [*_length_notes(tokens), *_duplicates(tokens), *about])
    )


def _with_design(inputs: Inputs, tokens: Tokens, n_heads: int, said: Check) -> Check:
    """The same check with the test that these prompts get."""
    sides = tokens["active"], tokens["control"]
    try:
        design = design_of(*sides, inputs.position, inputs.design)
    except ValueError as error:
        return Check([*said.errors, f"The test {str(error).removeprefix('design: ')}."], said.notes, tokens)
    counts = len(sides[0]), len(sides[1])
    notes = [power_note(design, *counts, n_heads)]
    if counts[0] != counts[1]:
        notes.append(
            f"{counts[0]} active and {counts[1]} control prompts can be no pairs; they are tested as two sets."
        )
    test = design_in_words(design, *counts, n_heads)
    return Check(said.errors, [*filter(None, notes), *said.notes], tokens, design, test)


# ---- sentences


def grouped(findings: Iterable[Finding]) -> list[str]:
    """One sentence for each side and kind of finding, with the prompts that it is about.

    Findings are of one kind if they differ in nothing but numbers and quoted texts.

    >>> grouped([("active", 2, "the word 'cat' is odd"), ("active", 3, "the word 'dog' is odd")])
    ["Active prompts 2 and 3: the word 'cat' is odd, and the like."]
    """
    kinds: dict[tuple[str, str], list[Finding]] = {}
    for found in findings:
        kinds.setdefault((found[0], re.sub(r"(?<!\w)'(?:[^'\\]|\\.)*'|\d+", "", found[2])), []).append(found)
    return [_sentence(some) for some in kinds.values()]


def _sentence(some: Sequence[Finding]) -> str:
    side, _, clause = some[0]
    more = ", and the like" if len({clause for *_, clause in some}) > 1 else ""
    return f"{named(side, [number for _, number, _ in some])}: {clause.removesuffix('.')}{more}."


def named(side: str, numbers: Sequence[int]) -> str:
    """``"Active prompts 2, 3 and 9"``, or the first few of them and how many more."""
    if len(numbers) == 1:
        return f"{side.capitalize()} prompt {numbers[0]}"
    shown = [str(number) for number in numbers[:LISTED]]
    last = shown.pop() if len(numbers) <= LISTED else f"{len(numbers) - LISTED} more"
    return f"{side.capitalize()} prompts {', '.join(shown)} and {last}"


def _numbered(inputs: Inputs) -> Iterable[tuple[str, int, Prompt]]:
    return ((side, n, prompt) for side, prompts in inputs.sides.items() for n, prompt in enumerate(prompts, 1))


# ---- findings


def _tokenize(inputs: Inputs, model: Any) -> tuple[dict[str, list[TokenizedPrompt]], list[str]]:
    """Every prompt that can be tokenised, and a sentence for each kind of those that can't."""
    found: dict[str, list[TokenizedPrompt]] = {side: [] for side in inputs.sides}
    first, refused = first_token(model, inputs.bos), []
    try:
        bos_id(model.tokenizer, **first)
    except ValueError as error:
        return found, [f"The first token: {str(error).removeprefix('bos: ')}."]
    for side, number, prompt in _numbered(inputs):
        try:
            found[side] += tokenize_for(model, [prompt], **first)
        except ValueError as error:
            refused.append((side, number, str(error).removeprefix("prompt 1: ")))
    return found, grouped(refused)


def _position_errors(tokens: Tokens, position: str) -> Iterable[Finding]:
    """Which prompts have no row at the position, or a row that sees only itself."""
    counted = token_index(position)
    for side, prompts in tokens.items():
        for number, prompt in enumerate(prompts, 1):
            index = prompt.positions.get(position, -1) if counted is None else counted
            if not 0 <= index < len(prompt):
                yield side, number, f"{len(prompt)} tokens and no position {position!r}"
            elif index == 0:
                yield side, number, f"{position!r} sees one token only; choose a later one"


def _length_notes(tokens: Tokens) -> list[str]:
    """Which prompts differ in length from most."""
    usual = Counter(len(p) for prompts in tokens.values() for p in prompts).most_common(1)[0][0]
    notes = []
    for side, prompts in tokens.items():
        other = {number: len(p) for number, p in enumerate(prompts, 1) if len(p) != usual}
        if other:
            low, high = min(other.values()), max(other.values())
            have = "has" if len(other) == 1 else "have"
            span = f"{low} to {high}" if low < high else f"{low}"
            notes.append(
                f"{named(side, [*other])} {have} {span} tokens, most prompts {usual}: n differs and confounds KL and chi."
            )
    return notes


def _duplicates(tokens: Tokens) -> list[str]:
    """Which prompts stand twice in one set."""
    notes = []
    for side, prompts in tokens.items():
        first: dict[tuple[int, ...], int] = {}
        again = [number for number, p in enumerate(prompts, 1) if first.setdefault(p.ids, number) != number]
        if again:
            one = len(again) == 1
            verb = "repeats an earlier one and is" if one else "repeat earlier ones and are"
            notes.append(f"{named(side, again)} {verb} counted again.")
    return notes


def repeated_words(text: str) -> list[str]:
    """Words that occur more than once, common ones left out."""
    counts = Counter(word for word in re.findall(r"\w+", text) if word.lower() not in COMMON)
    return [word for word, count in counts.items() if count > 1]


def _reading_notes(side: str, prompts: Sequence[Prompt]) -> list[str]:
    """What the reader of a text box left out."""
    return [f"{side.capitalize()} prompts: {note}" for note in getattr(prompts, "notes", ())]


def _repetitions(inputs: Inputs) -> Iterable[Finding]:
    """Active prompts in which nothing repeats, control prompts in which something does; bare texts only.

    Prompts of the tasks (they have names) are as they are meant to be.
    """
    if not any(repeated_words(p.text) for p in inputs.active):
        return
    for side, number, prompt in _numbered(inputs):
        if prompt.spans:
            continue
        words = repeated_words(prompt.text)
        if side == "active" and not words:
            yield side, number, "no name or word is repeated: a repetition circuit has nothing to do"
        if side == "control" and words:
            yield side, number, f"{words[0]!r} is repeated: it may do what the active prompts do"


# ---- positions


def positions(tokens: Tokens | None = None) -> list[tuple[str, str]]:
    """What a position menu offers, as (label, position): END, what all prompts name, every common token index."""
    if not tokens:
        return [("END", "END")]
    prompts = [prompt for side in tokens.values() for prompt in side]
    names = [n for n in prompts[0].positions if n not in ("BOS", "END") and all(n in p.positions for p in prompts)]
    menu = [(name, name) for name in ("END", *names)]
    words = [f"“{token.strip()}” in active prompt 1" for token in prompts[0].tokens]
    return menu + [(f"token {i} ({words[i]})", f"token {i}") for i in range(1, min(map(len, prompts)))]

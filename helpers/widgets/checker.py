"""The playground's prompts: ready examples, the reader's own, and a checker that speaks before anything runs."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from helpers.attention.capture import tokenize_for
from helpers.demo.corpus import OBJECTS
from helpers.prompts.characters import odd_character
from helpers.prompts.ioi import abc_prompts, ioi_prompts
from helpers.prompts.prompt import Prompt
from helpers.prompts.reading import ReadPrompts, prompt_lines
from helpers.prompts.tasks import ioi_pairs, named_like_ioi, ownership, repeated_lists
from helpers.prompts.tokens import TokenizedPrompt

Side = tuple[Prompt, ...]

#: Words whose repetition says nothing.
COMMON = frozenset([
    "a", "an", "and", "at", "for", "from", "had", "has", "in", "is", "it", "of", "on",
    "or", "the", "to", "was", "were", "with",
])  # fmt: skip


@dataclass(frozen=True)
class Inputs:
    """Two prompt sets, and whose rows to read: ``"END"``, a position that every prompt names, or ``"token 5"``."""

    active: Side
    control: Side
    position: str = "END"

    @property
    def sides(self) -> dict[str, Side]:
        return {"active": self.active, "control": self.control}


@dataclass(frozen=True)
class Check:
    """What the prompt checker says: ``errors`` forbid a run, ``notes`` don't. ``tokens`` if all could be tokenised."""

    errors: list[str]
    notes: list[str]
    tokens: dict[str, list[TokenizedPrompt]] | None = None


# ---- prompts


def parse(text: str, known: Mapping[str, Prompt] | None = None) -> ReadPrompts:
    """One prompt a line, as `read_prompts` reads a file; a line that equals a known prompt keeps its names.

    Characters that a file is refused for are left to `check`, which names every one.
    """
    lines, notes = prompt_lines(text)
    found = ReadPrompts((known or {}).get(line) or Prompt(line) for line in lines)
    found.notes = notes
    return found


def ioi_example(n: int = 12) -> Inputs:
    """The post's first prompts: IOI against ABC."""
    return _inputs(ioi_prompts(n), named_like_ioi(abc_prompts(n)))


def pairs_example(n: int = 12) -> Inputs:
    """IOI prompts against the same with another giver."""
    return _inputs(*ioi_pairs(n))


def lists_example(n: int = 12, *, seed: int = 0) -> Inputs:
    """Nine words: the last three repeat the first three, or don't."""
    return _inputs(*repeated_lists(n, words=OBJECTS, seed=seed))


def ownership_example(n: int = 12) -> Inputs:
    """Two people with a thing each: whose is the ring; or whose is what nobody has."""
    return _inputs(*ownership(n))


def own_example(names: str, frames: str, n: int = 12) -> Inputs:
    """Minimal pairs of the reader's names (separated by commas or blanks) and frames (one a line).

    Raises:
        ValueError: one sentence, if they are unusable (see `helpers.prompts.ioi.minimal_pairs`).
    """
    pool, lines = re.findall(r"[^\s,]+", names), [line.strip() for line in frames.splitlines() if line.strip()]
    if not lines:
        raise ValueError("frames: expected at least one, with {X}, {Y} and {GIVER} in it, got none")
    exist = 2 * len(lines) * math.perm(len(pool), 2)
    return _inputs(*ioi_pairs(max(1, min(n, exist)), names=pool, frames=lines))


def _inputs(active: Sequence[Prompt], control: Sequence[Prompt]) -> Inputs:
    return Inputs(tuple(active), tuple(control))


EXAMPLES: dict[str, Callable[[], Inputs]] = {
    "IOI and ABC prompts": ioi_example,
    "minimal pairs": pairs_example,
    "repeated word lists": lists_example,
    "ownership": ownership_example,
}


# ---- the checker


def check(inputs: Inputs, model: Any = None) -> Check:
    """What is wrong with the prompts, and what should be known about them; without a model, its tokens are not checked."""
    few = [
        f"The {side} set has {len(p)} prompt{'s' * (len(p) != 1)}; at least 2 are needed."
        for side, p in inputs.sides.items()
        if len(p) < 2
    ]
    odd = [
        f"{side.capitalize()} prompt {number}: {fault}."
        for side, prompts in inputs.sides.items()
        for number, prompt in enumerate(prompts, 1)
        if (fault := odd_character(prompt.text))
    ]
    about = [note for side, prompts in inputs.sides.items() for note in _reading_notes(side, prompts)]
    about += [note for side, prompts in inputs.sides.items() for note in _repetition_notes(side, prompts)]
    if model is None or few or odd:
        return Check([*few, *odd], about)
    tokens, refused = _tokenize(inputs, model)
    if refused:
        return Check(refused, about)
    return Check(
        _position_errors(tokens, inputs.position), [*_length_notes(tokens), *_duplicates(tokens), *about], tokens
    )


def _tokenize(inputs: Inputs, model: Any) -> tuple[dict[str, list[TokenizedPrompt]], list[str]]:
    """Every prompt that can be tokenised, and a sentence for each that can't."""
    found: dict[str, list[TokenizedPrompt]] = {side: [] for side in inputs.sides}
    refused = []
    for side, prompts in inputs.sides.items():
        for number, prompt in enumerate(prompts, 1):
            try:
                found[side] += tokenize_for(model, [prompt], prepend_bos=has_bos(model))
            except ValueError as error:
                refused.append(f"{side.capitalize()} prompt {number}: {str(error).removeprefix('prompt 1: ')}.")
    return found, refused


def has_bos(model: Any) -> bool:
    """Whether the model's tokenizer has a BOS token to put in front."""
    return model.tokenizer.bos_token_id is not None


def _position_errors(tokens: Mapping[str, Sequence[TokenizedPrompt]], position: str) -> list[str]:
    """Which prompts have no row at the position, or a row that sees only itself."""
    errors = []
    for side, prompts in tokens.items():
        for number, prompt in enumerate(prompts, 1):
            index = token_index(position)
            index = prompt.positions.get(position, -1) if index is None else index
            if not 0 <= index < len(prompt):
                errors.append(
                    f"{side.capitalize()} prompt {number} has {len(prompt)} tokens and no position {position!r}."
                )
            elif index == 0:
                errors.append(
                    f"{side.capitalize()} prompt {number}: {position!r} sees one token only; choose a later one."
                )
    return errors


def _length_notes(tokens: Mapping[str, Sequence[TokenizedPrompt]]) -> list[str]:
    """Which prompts differ in length from most."""
    usual = Counter(len(p) for prompts in tokens.values() for p in prompts).most_common(1)[0][0]
    notes = []
    for side, prompts in tokens.items():
        for length in sorted({len(p) for p in prompts} - {usual}):
            which = [number for number, p in enumerate(prompts, 1) if len(p) == length]
            notes.append(
                f"{_named(side, which)} {length} tokens, most prompts {usual}: n differs and confounds KL and chi."
            )
    return notes


def _named(side: str, numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return f"{side.capitalize()} prompt {numbers[0]} has"
    return f"{side.capitalize()} prompts {', '.join(map(str, numbers))} have"


def _duplicates(tokens: Mapping[str, Sequence[TokenizedPrompt]]) -> list[str]:
    """Which prompts stand twice in one set."""
    notes = []
    for side, prompts in tokens.items():
        first: dict[tuple[int, ...], int] = {}
        for number, prompt in enumerate(prompts, 1):
            if (earlier := first.setdefault(prompt.ids, number)) != number:
                notes.append(f"{side.capitalize()} prompt {number} is prompt {earlier} again and is counted twice.")
    return notes


def repeated_words(text: str) -> list[str]:
    """Words that occur more than once, common ones left out."""
    counts = Counter(word for word in re.findall(r"\w+", text) if word.lower() not in COMMON)
    return [word for word, count in counts.items() if count > 1]


def _reading_notes(side: str, prompts: Side) -> list[str]:
    """What the reader of a text box left out."""
    return [f"{side.capitalize()} prompts: {note}" for note in getattr(prompts, "notes", ())]


def _repetition_notes(side: str, prompts: Sequence[Prompt]) -> list[str]:
    """Active prompts in which nothing repeats, control prompts in which something does."""
    notes = []
    for number, prompt in enumerate(prompts, 1):
        words = repeated_words(prompt.text)
        if side == "active" and not words:
            notes.append(
                f"Active prompt {number} has no repeated name or word: a repetition circuit has nothing to do."
            )
        if side == "control" and words:
            notes.append(f"Control prompt {number} repeats {words[0]!r}: it may do what the active prompts do.")
    return notes


# ---- positions


def token_index(position: str) -> int | None:
    """5 for ``"token 5"``, None for a named position."""
    found = re.fullmatch(r"token (\d+)", position)
    return int(found[1]) if found else None


def positions(tokens: Mapping[str, Sequence[TokenizedPrompt]] | None = None) -> list[tuple[str, str]]:
    """What a position menu offers, as (label, position): END, what all prompts name, every common token index."""
    if not tokens:
        return [("END", "END")]
    prompts = [prompt for side in tokens.values() for prompt in side]
    names = [n for n in prompts[0].positions if n not in ("BOS", "END") and all(n in p.positions for p in prompts)]
    menu = [(name, name) for name in ("END", *names)]
    words = [f"“{token.strip()}” in active prompt 1" for token in prompts[0].tokens]
    return menu + [(f"token {i} ({words[i]})", f"token {i}") for i in range(1, min(map(len, prompts)))]

"""A contrast made for a tokenizer: words that are one token where they stand, and prompts of one length."""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from helpers.prompts.answers import readout_ids
from helpers.prompts.drawing import Pair, Sides, TooFew, check_count, check_frames
from helpers.prompts.initials import ACRONYM_FRAME
from helpers.prompts.ioi import FRAMES, NAMES
from helpers.prompts.prompt import Prompt, fill
from helpers.prompts.sifting import Sieve, most_frequent
from helpers.prompts.tasks import (
    AGREEMENT_FRAMES,
    DIGIT_FRAME,
    OWNERSHIP_FRAMES,
    TASKS,
    YEAR_FRAME,
    year_words,
)
from helpers.prompts.tokens import bos_id, tokenize
from helpers.prompts.words import CENTURIES, COUNTABLE, EVENTS, NOUNS, OWNERS, SCENES, THINGS, WORDS

#: Short names of the contrasts in `TASKS`, as a command line takes them.
TASK_NAMES: dict[str, str] = {
    "ioi": "IOI",
    "repeated": "repeated lists",
    "ownership": "ownership",
    "agreement": "agreement",
    "greater_than": "greater-than",
    "acronyms": "acronyms",
}

#: Options of each contrast to try in this order: the first in which a model is accurate enough is the one to use.
VARIANTS: dict[str, tuple[Mapping[str, Any], ...]] = {name: ({},) for name in TASK_NAMES} | {
    "repeated": ({}, {"length": 8, "shown": 4, "copies": 2})
}

#: Every year that `greater_than` may ask of, before a tokenizer is asked.
ALL_YEARS = tuple(100 * century + yy for century in CENTURIES for yy in range(2, 99))


@dataclass(frozen=True)
class FittedTask:
    """A contrast made for one tokenizer.

    Attributes:
        name: short name of the task, as in `TASK_NAMES`.
        clean, corrupt: prompts, paired in order; all have the same number of tokens.
        length: that number, BOS included.
        left_out: what this tokenizer does not allow and why, at most one sentence for each kind of reason.
    """

    name: str
    clean: list[Prompt]
    corrupt: list[Prompt]
    length: int
    left_out: tuple[str, ...]


def fit_task(
    name: str,
    tokenizer: Any,
    n: int = 32,
    *,
    seed: int = 0,
    prepend_bos: bool = True,
    bos: str | int | None = None,
    **options: Any,
) -> FittedTask:
    """``n`` pairs of a contrast that are right for a tokenizer, whatever it does to words. No model is asked.

    Frames that the tokenizer can't spell, and words that are not one token in every place where they can stand (after a
    blank; at the beginning of the text, if the contrast puts them there), are left out. Of the frames, and at last of
    the pairs, the most frequent length is kept; of equally frequent ones the shorter. The contrast's own function draws
    the pairs from what remains, so that a tokenizer that allows everything gives the same pairs as without this.
    Both sides of a pair have the same number of tokens, each named position is one of them, and answer and foil begin
    with different tokens.

    Args:
        name: ``ioi``, ``repeated``, ``ownership``, ``agreement``, ``greater_than`` or ``acronyms``.
        tokenizer: a Hugging Face fast tokenizer.
        n: how many pairs.
        prepend_bos, bos: the BOS that will stand in front, as in `tokenize`; it counts in the length.
        options: of the contrast's function (see `helpers.prompts.tasks`); its words and frames are sifted as well.

    Raises:
        ValueError: if there is no such task, n is below 1, or fewer than ``n`` pairs can be made, with what was left out.
    """
    if name not in TASK_NAMES:
        raise ValueError(f"task: expected one of {', '.join(TASK_NAMES)}, got {name!r}")
    check_count(n, "pair")
    sieve = Sieve(tokenizer, extra=int(bos_id(tokenizer, prepend_bos, bos) is not None))
    try:
        pools = _POOLS[name](sieve, **options)
        pairs = _one_length(sieve, n, lambda count: TASKS[TASK_NAMES[name]](count, seed=seed, **options | pools))
    except TooFew as few:
        why = f" (left out: {'; '.join(sieve.left_out)})" if sieve.left_out else ""
        message = f"task {name!r}: expected at least {n} pairs of one length, this tokenizer makes {few.exist}{why}"
        raise ValueError(message) from None
    frames = options.get("frames", FRAMES), pools.get("frames", ())
    clean, corrupt = ([_numbered(pair[side], *frames) for pair in pairs] for side in (0, 1))
    length = len(tokenize(clean + corrupt, tokenizer, prepend_bos=prepend_bos, bos=bos)[0])
    return FittedTask(name, clean, corrupt, length, tuple(sieve.left_out))


def _one_length(sieve: Sieve, n: int, draw: Callable[[int], Sides]) -> list[Pair]:
    """``n`` pairs of the most frequent length: those that are drawn, or if some don't fit, the first of more."""
    pairs = list(zip(*draw(n), strict=True))
    lengths = [_length(sieve, pair) for pair in pairs]
    if len(set(lengths)) > 1 or None in lengths:
        pairs = list(zip(*_as_many_as_exist(draw, 8 * n), strict=True))
        lengths = [_length(sieve, pair) for pair in pairs]
    wanted = most_frequent([length for length in lengths if length])
    kept = [pair for pair, length in zip(pairs, lengths, strict=True) if length and length == wanted]
    if len(kept) < len(pairs):
        others = len(pairs) - len(kept)
        sieve.left_out.append(f"{others} of {len(pairs)} pairs have other lengths, or words of several tokens")
    if len(kept) < n:
        raise TooFew(f"n: expected at most {len(kept)} pairs, got {n}", len(kept))
    return kept[:n]


def _as_many_as_exist(draw: Callable[[int], Sides], n: int) -> Sides:
    try:
        return draw(n)
    except TooFew as few:
        return draw(few.exist)


def _numbered(prompt: Prompt, given: Sequence[str], kept: Sequence[str]) -> Prompt:
    """A prompt whose frame has its number among those given, not among those kept."""
    return prompt if prompt.frame is None else replace(prompt, frame=list(given).index(kept[prompt.frame]))


def _length(sieve: Sieve, pair: Pair) -> int | None:
    """Tokens of both sides, or None if they differ, or a position or the readout is not what it should be."""
    lengths = set()
    for prompt in pair:
        if not sieve.apart(prompt.text, prompt.spans.values()):
            return None
        lengths.add(sieve.extra + len(sieve.encode(prompt.text)[0]))
    try:
        readout_ids(sieve.tokenizer, pair[0])
    except ValueError:
        return None
    return lengths.pop() if len(lengths) == 1 else None


# ---- what each contrast is made of: its options of which a tokenizer may refuse some


def _ioi(sieve: Sieve, names: Sequence[str] = NAMES, frames: Sequence[str] = FRAMES, **_: Any) -> dict[str, Any]:
    check_frames(frames, ("X", "Y", "GIVER"))
    frames = sieve.frames(frames, example=NAMES[0])
    return {"frames": frames, "names": sieve.words("name", names, frames, ("X", "Y", "GIVER"))}


def _repeated(sieve: Sieve, words: Sequence[str] = WORDS, **_: Any) -> dict[str, Any]:
    return {"words": sieve.words("word", words, ["{FIRST} {LATER}"], ("FIRST", "LATER"))}


def _ownership(sieve: Sieve, names: Sequence[str] = OWNERS, things: Sequence[str] = THINGS, **_: Any) -> dict[str, Any]:
    frames = sieve.frames(list(OWNERSHIP_FRAMES.values()), example=OWNERS[0])
    return {
        "names": sieve.words("name", names, frames, ("OWNER", "OTHER")),
        "things": sieve.words("thing", things, frames, ("THING1", "THING2", "THING")),
    }


def _agreement(
    sieve: Sieve,
    nouns: Sequence[tuple[str, str]] = COUNTABLE,
    scenes: Sequence[str] = SCENES,
    frames: Sequence[str] = AGREEMENT_FRAMES,
    **_: Any,
) -> dict[str, Any]:
    check_frames(frames, ("NOUN", "ATTRACTOR"))
    frames = sieve.frames(frames, example=SCENES[0])
    return {
        "frames": frames,
        "nouns": sieve.words("noun", nouns, frames, ("NOUN",)),
        "scenes": sieve.words("scene", scenes, frames, ("ATTRACTOR",)),
    }


def _greater_than(
    sieve: Sieve, events: Sequence[str] = EVENTS, years: Sequence[int] = ALL_YEARS, **_: Any
) -> dict[str, Any]:
    """The century and the year in it are a token each or, if more years are so, each digit is."""
    frames = sieve.frames([YEAR_FRAME], example=EVENTS[0])
    events = sieve.words("event", events, frames, ("EVENT",))
    halves, single = ([year for year in years if _splits(sieve, year, digits)] for digits in (False, True))
    digits = len(single) > len(halves)
    form = "not one token a digit" if digits else "not one token for the century and one for the year in it"
    kept = sieve.only("year", years, single if digits else halves, f"is {form}", f"are {form}")
    if digits:  # only the first digit is read: no year begins lower than 0y, and none higher than 9y
        clear = [year for year in kept if 10 <= year % 100 <= 89]
        same = "no tens digit to the earlier years alone, or none to the later ones"
        kept = sieve.only("year", kept, clear, f"leaves {same}", f"leave {same}")
    return {"events": events, "years": kept, "digits": digits}


def _splits(sieve: Sieve, year: int, digits: bool) -> bool:
    """Whether a year and the first of its century are tokens as the positions of `greater_than` want them."""
    frame, slots = (DIGIT_FRAME, ("C1", "C2", "Y1", "Y2")) if digits else (YEAR_FRAME, ("CENTURY", "YY"))
    filled = [fill(frame, year_words(EVENTS[0], first)) for first in (year, 100 * (year // 100) + 1)]
    return all(sieve.apart(text, [spans[slot] for slot in slots]) for text, spans in filled)


def _acronyms(sieve: Sieve, nouns: Sequence[str] = NOUNS, **_: Any) -> dict[str, Any]:
    sieve.frames([ACRONYM_FRAME], example="A")
    split = [noun for noun in nouns if sieve.apart(f"The {noun}", [(4, 5), (5, 4 + len(noun))])]
    form = "not one token for the capital letter and one for the rest"
    kept = sieve.only("noun", nouns, split, f"is {form}", f"are {form}")
    apart = {
        one: "".join(
            two for two in string.ascii_uppercase if two != one and sieve.apart(f"A ({one}{two}", [(3, 4), (4, 5)])
        )
        for one in string.ascii_uppercase
    }
    return {"nouns": kept, "apart": apart}


_POOLS: Mapping[str, Callable[..., dict[str, Any]]] = {
    "ioi": _ioi,
    "repeated": _repeated,
    "ownership": _ownership,
    "agreement": _agreement,
    "greater_than": _greater_than,
    "acronyms": _acronyms,
}

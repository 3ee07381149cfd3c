"""Indirect-object-identification (IOI) prompts and their ABC controls.

The protocol is the one of Fields 2026 (post 2): twelve names, seven sentence frames, Python's ``random`` seeded
with 42 for the IOI set and 43 for the ABC ("non-IOI") set. The task is Wang et al. 2022 (arXiv:2211.00593).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from helpers.prompts.drawing import TooFew, check_count, check_frames
from helpers.prompts.prompt import Prompt, fill

NAMES: tuple[str, ...] = (
    "Mary", "John", "Alice", "Bob", "Sarah", "Tom", "Emma", "James", "Lisa", "David", "Kate", "Mark",
)  # fmt: skip

FRAMES: tuple[str, ...] = (
    "When {X} and {Y} went to the store, {GIVER} gave a drink to",
    "When {X} and {Y} went to the park, {GIVER} handed a ball to",
    "When {X} and {Y} arrived at the office, {GIVER} passed a note to",
    "When {X} and {Y} got to the restaurant, {GIVER} offered a menu to",
    "When {X} and {Y} walked into the room, {GIVER} showed a book to",
    "After {X} and {Y} met at the cafe, {GIVER} sent a message to",
    "After {X} and {Y} sat down for dinner, {GIVER} gave a gift to",
)

IOI_SEED, ABC_SEED = 42, 43

_SLOTS = {
    "ABBA": {"IO": "X", "S1": "Y", "S2": "GIVER"},
    "BABA": {"S1": "X", "IO": "Y", "S2": "GIVER"},
    "ABC": {"A": "X", "B": "Y", "C": "GIVER"},
}


def ioi_prompt(template: str, frame: int, io: str, s: str, *, frames: Sequence[str] = FRAMES) -> Prompt:
    """One IOI prompt: the giver is the subject S, named before; the answer is the indirect object IO.

    ``template`` is ``"ABBA"`` (first clause "IO and S") or ``"BABA"`` ("S and IO").

    >>> ioi_prompt("ABBA", 0, io="Mary", s="John").text
    'When Mary and John went to the store, John gave a drink to'
    """
    return _make(template, frame, {"IO": io, "S1": s, "S2": s}, answer=io, foil=s, frames=frames)


def abc_prompt(frame: int, a: str, b: str, c: str, *, frames: Sequence[str] = FRAMES) -> Prompt:
    """One ABC control: a third name gives, nothing repeats, and A and B are equally good answers.

    >>> abc_prompt(0, "Mary", "John", "Kate").text
    'When Mary and John went to the store, Kate gave a drink to'
    """
    return _make("ABC", frame, {"A": a, "B": b, "C": c}, answer=a, foil=b, frames=frames)


def _make(template: str, frame: int, names: dict[str, str], *, answer: str, foil: str, frames: Sequence[str]) -> Prompt:
    slots = _SLOTS[template]
    text, spans = fill(frames[frame], {slot: names[role] for role, slot in slots.items()})
    return Prompt(
        text=text,
        template=template,
        frame=frame,
        spans={role: spans[slot] for role, slot in slots.items()},
        answer=answer,
        foil=foil,
    )


def ioi_prompts(
    n: int = 50, *, names: Sequence[str] = NAMES, frames: Sequence[str] = FRAMES, seed: int = IOI_SEED
) -> list[Prompt]:
    """Draw ``n`` distinct IOI prompts; the defaults give the post's 50, in its order.

    Source: Fields 2026, post 2: ``random.choice`` of one of the 14 templates (the frames as ABBA, then as BABA),
    then ``random.sample`` of two names (A = IO, B = S); duplicates are dropped.

    Raises:
        ValueError: if names or frames are unusable, or fewer than ``n`` distinct prompts exist.
    """
    _check_pool(n, names, frames, n_templates=2, n_names=2)
    templates = [(kind, i) for kind in ("ABBA", "BABA") for i in range(len(frames))]

    def draw(rng: random.Random) -> Prompt:
        template, frame = rng.choice(templates)
        a, b = rng.sample(list(names), 2)
        return ioi_prompt(template, frame, io=a, s=b, frames=frames)

    return _distinct(n, draw, seed)


def abc_prompts(
    n: int = 50, *, names: Sequence[str] = NAMES, frames: Sequence[str] = FRAMES, seed: int = ABC_SEED
) -> list[Prompt]:
    """Draw ``n`` distinct ABC controls; the defaults give the post's 50 "non-IOI" prompts, in its order.

    Raises:
        ValueError: if names or frames are unusable, or fewer than ``n`` distinct prompts exist.
    """
    _check_pool(n, names, frames, n_templates=1, n_names=3)

    def draw(rng: random.Random) -> Prompt:
        frame = rng.choice(range(len(frames)))
        return abc_prompt(frame, *rng.sample(list(names), 3), frames=frames)

    return _distinct(n, draw, seed)


def minimal_pairs(
    n: int = 50, *, names: Sequence[str] = NAMES, frames: Sequence[str] = FRAMES, seed: int = IOI_SEED
) -> tuple[list[Prompt], list[Prompt]]:
    """``n`` IOI prompts and, prompt by prompt, the same text with S2 replaced by a third name.

    The controls are ABC prompts whose A stands where IO stood and whose B stands where S1 stood, so that a pair
    differs in one token. Half of the pairs are ABBA and half BABA (ABBA has the odd one).

    Returns:
        (active, control): two lists of ``n`` prompts in the same order.

    Raises:
        ValueError: as `ioi_prompts`, and if there is no third name.
    """
    _check_pool(n, names, frames, n_templates=2, n_names=2)
    if len(names) < 3:
        raise TooFew(f"names: a minimal pair needs at least 3 names, got {len(names)}", 0)
    templates = iter(["ABBA", "BABA"] * (n // 2 + 1))
    rng = random.Random(seed)
    active: dict[str, Prompt] = {}
    template = next(templates)
    while len(active) < n:
        a, b = rng.sample(list(names), 2)
        prompt = ioi_prompt(template, rng.randrange(len(frames)), io=a, s=b, frames=frames)
        if prompt.text not in active:
            active[prompt.text] = prompt
            template = next(templates)
    prompts = list(active.values())
    return prompts, [_replace_s2(p, rng, names, frames) for p in prompts]


def _replace_s2(prompt: Prompt, rng: random.Random, names: Sequence[str], frames: Sequence[str]) -> Prompt:
    assert prompt.frame is not None
    assert prompt.answer
    assert prompt.foil
    third = rng.choice([name for name in names if name not in (prompt.answer, prompt.foil)])
    in_order = (prompt.answer, prompt.foil) if prompt.template == "ABBA" else (prompt.foil, prompt.answer)
    control = abc_prompt(prompt.frame, *in_order, third, frames=frames)
    at_io, at_s1 = ("A", "B") if prompt.template == "ABBA" else ("B", "A")
    spans = {"A": control.spans[at_io], "B": control.spans[at_s1], "C": control.spans["C"]}
    return replace(control, spans=spans, answer=prompt.answer, foil=prompt.foil)


def _distinct(n: int, draw: Callable[[random.Random], Prompt], seed: int) -> list[Prompt]:
    rng = random.Random(seed)
    found: dict[str, Prompt] = {}
    while len(found) < n:
        prompt = draw(rng)
        found.setdefault(prompt.text, prompt)
    return list(found.values())


def _check_pool(n: int, names: Sequence[str], frames: Sequence[str], *, n_templates: int, n_names: int) -> None:
    check_count(n)
    for what, pool in (("names", names), ("frames", frames)):
        if len(set(pool)) < len(pool):
            twice = next(item for item in pool if list(pool).count(item) > 1)
            raise ValueError(f"{what}: expected distinct {what}, got {twice!r} more than once")
    check_frames(frames, ("X", "Y", "GIVER"))
    unordered = {frame.replace("{Y}", "{X}") for frame in frames}
    if len(unordered) < len(frames):
        raise ValueError(
            "frames: expected frames that differ in more than the order of {X} and {Y}, got two that do not"
        )
    exist = len(frames) * n_templates * math.perm(len(names), n_names)
    if n > exist:
        message = f"n: {len(names)} names and {len(frames)} frames make {exist} distinct prompts, got n = {n}"
        raise TooFew(message, exist)

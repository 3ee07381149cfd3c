"""How pairs are drawn: one frame filled twice, until there are enough that differ."""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any

from helpers.prompts.prompt import Prompt, fill

Pair = tuple[Prompt, Prompt]
Sides = tuple[list[Prompt], list[Prompt]]


class TooFew(ValueError):
    """Words and frames make ``exist`` prompts, fewer than were wanted."""

    def __init__(self, message: str, exist: int) -> None:
        super().__init__(message)
        self.exist = exist


def make_pair(
    frame: str,
    active: Mapping[str, str],
    control: Mapping[str, str],
    positions: Sequence[str],
    template: str,
    **readout: Any,
) -> Pair:
    """One frame filled twice, with the named slots as positions; ``readout``: answer, foil and their like."""

    def prompt(words: Mapping[str, str]) -> Prompt:
        text, spans = fill(frame, words)
        return Prompt(text, template, spans={p: spans[p] for p in positions}, **readout)

    return prompt(active), prompt(control)


def draw_pairs(n: int, exist: int, draw: Callable[[random.Random, int], Pair], seed: int) -> Sides:
    """Pairs until there are ``n``, each with an active and a control prompt that did not occur before."""
    if not isinstance(n, Integral) or not 1 <= n <= exist:
        raise TooFew(f"n: expected 1 to {exist} prompts, as many as these words make, got {n!r}", exist)
    rng = random.Random(seed)
    pairs: list[Pair] = []
    seen: set[str] = set()
    while len(pairs) < n:
        pair = draw(rng, len(pairs))
        texts = {prompt.text for prompt in pair}
        if not texts & seen:
            seen |= texts
            pairs.append(pair)
    return [active for active, _ in pairs], [control for _, control in pairs]


def check_count(n: int, what: str = "prompt") -> None:
    """Refuse what is no number of prompts."""
    if not isinstance(n, Integral) or n < 1:
        raise ValueError(f"n: expected at least 1 {what}, got {n!r}")


def check_pool(what: str, pool: Sequence[Any], *, least: int) -> None:
    for item in pool:
        if list(pool).count(item) > 1:
            raise ValueError(f"{what}: expected distinct {what}, got {item!r} more than once")
    if len(pool) < least:
        raise TooFew(f"{what}: expected at least {least} {what}, got {len(pool)}", 0)


def check_frames(frames: Sequence[str], slots: Sequence[str]) -> None:
    """Refuse a frame that has not each of these slots once."""
    for frame in frames:
        try:
            found = sorted(slot for _, slot, _, _ in string.Formatter().parse(frame) if slot is not None)
        except ValueError:
            found = []
        if found != sorted(slots):
            *others, last = (f"{{{slot}}}" for slot in slots)
            raise ValueError(f"frames: expected {', '.join(others)} and {last} once each, got {frame!r}")

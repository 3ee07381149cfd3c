"""Prompts whose attention rows ship with the repository: they open without the model."""

from __future__ import annotations

from functools import cache

from helpers.attention.record import AttentionRecord
from helpers.measured.shipped import shipped_record
from helpers.story import one_length
from helpers.widgets.inputs import OWN_BOS, Inputs, Side
from helpers.widgets.playground import Records

#: Names of the shipped records of an example, active and control.
SHIPPED = {"minimal pairs": ("clean", "corrupt"), "IOI and ABC prompts": ("ioi", "abc")}


@cache
def shipped_sides(model: str, example: str) -> Records | None:
    """Rows of all positions of an example's prompts, all of one length, as many on both sides; None where none ship."""
    if example not in SHIPPED:
        return None
    try:
        active, control = (shipped_record(model, name) for name in SHIPPED[example])
    except (OSError, ValueError):  # what is typed as a name need not be one of a file
        return None
    active, control = one_length(active, control)
    n = min(len(active.prompts), len(control.prompts))
    return active.subset(range(n)), control.subset(range(n))


def shipped_example(model: str, example: str) -> Inputs | None:
    """The prompts of an example as they ship with a model's rows; None where none do."""
    sides = shipped_sides(model, example)
    if sides is None:
        return None
    active, control = (tuple(p.prompt for p in side.prompts) for side in sides)
    return Inputs(active, control)


def shipped_rows(model: str, inputs: Inputs) -> Records | None:
    """Rows of all positions of these very prompts, if all of them ship and nothing but the usual BOS is in front."""
    if inputs.bos != OWN_BOS:
        return None
    for example in SHIPPED:
        sides = shipped_sides(model, example)
        found = sides and [_chosen(*pair) for pair in zip(sides, (inputs.active, inputs.control), strict=True)]
        if found and found[0] and found[1]:
            return found[0], found[1]
    return None


def _chosen(record: AttentionRecord, prompts: Side) -> AttentionRecord | None:
    """The record of these prompts, in their order, if it holds all of them."""
    places = _places([p.prompt.text for p in record.prompts], [p.text for p in prompts])
    return record.subset(places) if places else None


def places_in(shipped: AttentionRecord, record: AttentionRecord) -> list[int]:
    """Where a record's prompts stand in a shipped one; empty if it lacks one of them."""
    return _places(*([p.prompt.text for p in some.prompts] for some in (shipped, record)))


def _places(texts: list[str], wanted: list[str]) -> list[int]:
    place = {text: i for i, text in enumerate(texts)}
    found = [place.get(text, -1) for text in wanted]
    return [] if -1 in found else found

"""What a prompt is: a text, the names in it, and where each of them stands."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Prompt:
    """A text whose next token is the question, with the names in it.

    Attributes:
        text: the prompt as a person reads it, without a BOS token.
        template: ``"ABBA"``, ``"BABA"``, ``"ABC"``, or ``"custom"`` for a bare text.
        frame: index of the sentence frame it was made from, or None.
        spans: character span of each named position, e.g. ``{"IO": (5, 9), "S1": (14, 18)}``.
        answer: the right next word (IO in an IOI prompt; A in an ABC prompt, where B is as good).
        foil: the word that the answer is compared with (S in an IOI prompt, B in an ABC prompt).
        glue: what stands between the text and its answer; a blank, or nothing where the answer continues a word.
        answers, foils: all right next words and all wrong ones, in a task where many are right (answer and foil are None).
    """

    text: str
    template: str = "custom"
    frame: int | None = None
    spans: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    answer: str | None = None
    foil: str | None = None
    glue: str = " "
    answers: tuple[str, ...] = ()
    foils: tuple[str, ...] = ()

    def name_at(self, position: str) -> str:
        """The word that stands at a named position, e.g. ``prompt.name_at("S2")``."""
        start, end = self.spans[position]
        return self.text[start:end]


def fill(frame: str, words: Mapping[str, str]) -> tuple[str, dict[str, tuple[int, int]]]:
    """Fill the slots of a frame; return the text and the character span of each slot.

    >>> fill("When {X} and {Y} met, {GIVER} gave a gift to", {"X": "Ann", "Y": "Bo", "GIVER": "Bo"})
    ('When Ann and Bo met, Bo gave a gift to', {'X': (5, 8), 'Y': (13, 15), 'GIVER': (21, 23)})
    """
    text, spans = "", {}
    for literal, slot, _, _ in string.Formatter().parse(frame):
        text += literal
        if slot is not None:
            spans[slot] = (len(text), len(text) + len(words[slot]))
            text += words[slot]
    return text, spans

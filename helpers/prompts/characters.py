"""Characters that can't be seen: white space of every kind, controls, marks without a width, letters that look blank."""

from __future__ import annotations

import re
import unicodedata

#: Characters of other categories that show nothing: joiners, fillers, vowels that are not written, the empty Braille cell.
BLANK = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\U00016fe4\U0001d159"
#: Characters of the category of controls that one sees: signs written around a number, and the like.
SHOWN = "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"
_SELECTOR = re.compile("[\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_ODD = re.compile(
    r"(?! )[\s\x00-\x1f\x7f-\x9f\u00ad\u180e\u200b\u2060-\u2064\u2800\u3164\ufeff\uffa0]| {2,}|[\ud800-\udfff]"
)


def trim(text: str) -> str:
    """A text without what can't be seen at its ends."""
    return text[next((i for i in range(len(text)) if _shows(text, i)), len(text)) : seen_end(text)]


def seen_end(text: str) -> int:
    """Where the part of a text ends that can be seen; 0 if nothing can."""
    return next((i + 1 for i in reversed(range(len(text))) if _shows(text, i)), 0)


def unseen_end(text: str) -> str:
    """The last character of a text by its name, if it is one that can't be seen; else an empty text."""
    return _named(text[-1]) if seen_end(text) < len(text) else ""


def odd_character(line: str) -> str:
    """What is wrong with the characters of a prompt that stands on a line, or an empty text; see `parse_prompts`.

    >>> odd_character("Mary saw a dog")
    ''
    >>> odd_character("Mary\\xa0saw")
    "expected single blanks between words, got U+00A0 NO-BREAK SPACE at character 5 of 'Mary\\\\xa0saw'"
    """
    found = _ODD.search(line)
    if found is None:
        return ""
    if surrogate := lone_surrogate(found[0]):
        return f"expected characters of Unicode, got {surrogate} at character {found.start() + 1} of {line!r}"
    what = f"{len(found[0])} blanks" if found[0].startswith(" ") else _named(found[0])
    return f"expected single blanks between words, got {what} at character {found.start() + 1} of {line!r}"


def lone_surrogate(text: str) -> str:
    """The first half of a pair that stands alone, which is no character and which no tokenizer takes; or an empty text."""
    found = _SURROGATE.search(text)
    return f"the lone surrogate U+{ord(found[0]):04X}" if found else ""


def _shows(text: str, at: int) -> bool:
    """Whether a character can be seen; a variation selector can, by what it does to a symbol or an ideograph."""
    character = text[at]
    if _SELECTOR.match(character):
        return at > 0 and unicodedata.category(text[at - 1]) in ("So", "Sm", "Lo") and _shows(text, at - 1)
    control = unicodedata.category(character) in ("Cc", "Cf") and character not in SHOWN
    return not (control or character.isspace() or character in BLANK)


def _named(character: str) -> str:
    """``"U+00A0 NO-BREAK SPACE"``."""
    plain = {"\t": "TAB", "\n": "LINE FEED", "\r": "CARRIAGE RETURN"}.get(character, "CONTROL CHARACTER")
    return f"U+{ord(character):04X} {unicodedata.name(character, plain)}"

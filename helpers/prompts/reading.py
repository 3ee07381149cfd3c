"""Prompts as people have them: a text file or a text box with one prompt a line, or what was passed as a list of them."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any

from helpers.prompts.prompt import Prompt

#: What can't be seen at the end of a line: white space of every kind, control characters, characters without a width.
UNSEEN = r"[\s\x00-\x1f\x7f-\x9f\u00ad\u180e\u200b\u2060\ufeff]"
_ENDS = re.compile(rf"\A{UNSEEN}+|{UNSEEN}+\Z")
_ODD = re.compile(rf"(?! ){UNSEEN}| {{2,}}")


class ReadPrompts(tuple[Prompt, ...]):
    """Prompts that were read from a text; ``notes``: what was taken off or left out, one sentence for each kind."""

    notes: tuple[str, ...] = ()


def read_prompts(path: str | Path, *, name: str = "path") -> ReadPrompts:
    """Prompts of a text file in UTF-8, one a line; see `parse_prompts`.

    Args:
        path: the file. A byte-order mark and any kind of line end are no part of a prompt; ``~`` is the home folder.
        name: what the file is called in a refusal.

    Raises:
        ValueError: one sentence that begins with ``name``, if it can't be read, is not UTF-8, or a line is unusable.
    """
    file = Path(os.path.expanduser(path))
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        what = "a folder" if file.is_dir() else f"a file that can't be read ({error.strerror})"
    except UnicodeDecodeError as error:
        what = f"one whose byte {error.start + 1} is not UTF-8"
    else:
        return parse_prompts(text, name=f"{name} {path}")
    raise ValueError(f"{name} {path}: expected a text file in UTF-8, one prompt a line, got {what}")


def parse_prompts(text: str, *, name: str = "text") -> ReadPrompts:
    """Prompts of a text, one a line.

    White space and characters without a width are taken off both ends of a line, with a note. Lines that hold nothing else
    are skipped; lines that begin with # are comments and are skipped with a note. Inside a line, blanks that are no single
    ordinary blank, control characters and characters without a width are refused: a tokenizer makes other tokens of them.

    Raises:
        ValueError: one sentence with the line and the character.
    """
    lines = [*_lines(text)]
    for number, line in lines:
        if fault := odd_character(line):
            raise ValueError(f"{name}, line {number}: {fault}")
    found = ReadPrompts(Prompt(line) for _, line in lines)
    found.notes = _notes(text)
    return found


def prompt_lines(text: str) -> tuple[list[str], tuple[str, ...]]:
    """The prompts of a text as `parse_prompts` reads them, unchecked, and its notes."""
    return [line for _, line in _lines(text)], _notes(text)


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
    what = f"{len(found[0])} blanks" if found[0].startswith(" ") else _character(found[0])
    return f"expected single blanks between words, got {what} at character {found.start() + 1} of {line!r}"


def trim(text: str) -> str:
    """A text without what can't be seen at its ends."""
    return _ENDS.sub("", text)


def unseen_end(text: str) -> str:
    """The last character of a text by its name, if it is one that can't be seen; else an empty text."""
    return _character(text[-1]) if re.search(rf"{UNSEEN}\Z", text) else ""


def as_prompts(prompts: Iterable[Prompt | str], name: str = "prompts") -> list[Prompt]:
    """A list of `Prompt` objects from any ordered collection of them or of bare texts.

    Raises:
        ValueError: naming the argument and what it is, if it is something else (one text, a table, a mapping, a set), or
            which item of it is neither.
    """
    if isinstance(prompts, str | bytes | Mapping | Set) or getattr(prompts, "ndim", 1) != 1:
        raise _no_prompts(name, _kind(prompts))
    try:
        given = [*prompts]
    except TypeError:
        raise _no_prompts(name, _kind(prompts)) from None
    for number, item in enumerate(given, 1):
        text = item.text if isinstance(item, Prompt) else item
        if not isinstance(text, str):
            raise _no_prompts(name, f"{_kind(text)} as prompt {number}")
    return [item if isinstance(item, Prompt) else Prompt(str(item)) for item in given]


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Number (from 1) and text of the lines that hold a prompt, without what can't be seen at their ends."""
    for number, line in enumerate(re.split(r"\r\n?|\n", text), 1):
        kept = trim(line)
        if kept and not kept.startswith("#"):
            yield number, kept


def _notes(text: str) -> tuple[str, ...]:
    lines = [(line, trim(line)) for line in re.split(r"\r\n?|\n", text.removeprefix("\ufeff"))]
    comments = sum(kept.startswith("#") for _, kept in lines)
    trimmed = sum(bool(kept) and not kept.startswith("#") and line != kept for line, kept in lines)
    said = []
    if trimmed:
        said.append(f"White space at the ends of {trimmed} line{'s' * (trimmed > 1)} was taken off.")
    if comments:
        said.append(
            f"{comments} line{'s' * (comments > 1)} that begin{'s' * (comments == 1)} with # (a comment) left out."
        )
    return tuple(said)


def _character(character: str) -> str:
    """``"U+00A0 NO-BREAK SPACE"``."""
    plain = {"\t": "TAB", "\n": "LINE FEED", "\r": "CARRIAGE RETURN"}.get(character, "CONTROL CHARACTER")
    return f"U+{ord(character):04X} {unicodedata.name(character, plain)}"


def _kind(thing: Any) -> str:
    """A thing of another kind in a few words."""
    if isinstance(thing, str):
        return f"one text, {_short(thing)}"
    if thing is None or isinstance(thing, bytes | bool | int | float):
        return f"{_short(thing)}{'' if thing is None else f' ({type(thing).__name__})'}"
    return f"a {type(thing).__name__}"


def _short(thing: Any) -> str:
    said = repr(thing)
    return said if len(said) <= 40 else f"{said[:36]} ..."


def _no_prompts(name: str, what: str) -> ValueError:
    return ValueError(f"{name}: expected a list of texts or Prompts, got {what}")

"""Prompts as people have them: a text file or a text box with one prompt a line, or what was passed as a list of them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any

from helpers.prompts.characters import lone_surrogate, odd_character, trim
from helpers.prompts.prompt import Prompt


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
    try:
        text = Path(os.path.expanduser(path)).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        what = f"one whose byte {error.start + 1} is not UTF-8"
    except OSError as error:
        what = (
            "a folder" if os.path.isdir(os.path.expanduser(path)) else f"a file that can't be read ({error.strerror})"
        )
    except (TypeError, ValueError):  # no path at all, or one with a NUL in it
        raise ValueError(f"{name}: expected the path of a text file, got {_kind(path)}") from None
    else:
        return parse_prompts(text, name=f"{name} {path}")
    raise ValueError(f"{name} {path}: expected a text file in UTF-8, one prompt a line, got {what}")


def parse_prompts(text: str, *, name: str = "text") -> ReadPrompts:
    """Prompts of a text, one a line.

    White space and all else that can't be seen (`helpers.prompts.characters`) is taken off both ends of a line, with a note.
    Lines that hold nothing else are skipped; lines that begin with # are comments and are skipped with a note. Inside a
    line, blanks that are no single ordinary blank, control characters and spaces without a width are refused: a tokenizer
    makes other tokens of them. Joiners and marks, which some scripts need, are text there.

    Raises:
        ValueError: one sentence with the line and the character, or if it is no text.
    """
    if not isinstance(text, str):
        raise ValueError(f"{name}: expected a text, one prompt a line, got {_kind(text)}")
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


def as_prompts(prompts: Iterable[Prompt | str], name: str = "prompts") -> list[Prompt]:
    """A list of `Prompt` objects from any ordered collection of them or of bare texts.

    Raises:
        ValueError: naming the argument and what it is, if it is something else (one text, a table, a mapping, a set), or
            which item of it is neither, or holds half of a surrogate pair.
    """
    given = [*in_order(prompts, name)]
    for number, item in enumerate(given, 1):
        text = item.text if isinstance(item, Prompt) else item
        if not isinstance(text, str):
            raise _no_prompts(name, f"{_kind(text)} as prompt {number}")
        if surrogate := lone_surrogate(text):
            raise ValueError(
                f"{name}: expected texts of Unicode characters, got {surrogate} in prompt {number}, {_short(text)}"
            )
    return [item if isinstance(item, Prompt) else Prompt(str(item)) for item in given]


def in_order(prompts: Iterable[Prompt | str], name: str = "prompts") -> Iterator[Prompt | str]:
    """The items of an ordered collection of prompts, one after the other, unchecked; what is none is refused at once."""
    if isinstance(prompts, str | bytes | Mapping | Set) or getattr(prompts, "ndim", 1) != 1:
        raise _no_prompts(name, _kind(prompts))
    try:
        return iter(prompts)
    except TypeError:
        raise _no_prompts(name, _kind(prompts)) from None


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

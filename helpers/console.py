"""What a command says: on any console, into a pipe that may be closed, in sentences."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO


def accept_all_characters() -> None:
    """A console that can't print a character (chi, in ASCII) shows its number."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: str, saved: Path) -> None:
    """Print to stdout what is saved in a folder by then.

    Whoever has stopped reading (``| head -1``) has had enough; that stdout can't be written is said on stderr.
    """
    error = _print(text, sys.stdout)
    if error and not isinstance(error, BrokenPipeError):
        tell(f"stdout can't be written ({sentence(error)}); the results are in {saved}/")


def tell(text: str) -> None:
    """Print to stderr, if it can be written."""
    _print(text, sys.stderr)


def _print(text: str, stream: TextIO | None) -> OSError | None:
    """Print to a stream, and to nowhere from then on if that can't be done, for the reason that is returned."""
    if stream is None:  # closed before the start
        return None
    try:
        print(text, file=stream, flush=True)
    except OSError as error:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return error
    return None


def is_watched() -> bool:
    """Whether somebody sees progress bars; a pipe may be closed at any time."""
    return sys.stderr is not None and sys.stderr.isatty()


def sentence(error: Exception) -> str:
    """An error without the number that the system has for it."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def short(path: Path) -> Path:
    """A path as one writes it from where one stands."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def path_of(text: str) -> Path:
    """A path as a shell reads it; make, which quotes it, leaves ~ to us."""
    path = Path(os.path.expanduser(text))
    return path.absolute() if text.startswith("./~") else path  # a folder here that is named so

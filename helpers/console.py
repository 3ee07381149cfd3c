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


def say(text: str, stream: TextIO | None = None) -> None:
    """Print to stdout or another stream, the results being saved by then.

    Whoever has stopped reading (``| head -1``) has had enough; that stdout can't be written is said on stderr.
    """
    stream = stream or sys.stdout
    try:
        print(text, file=stream, flush=True)
    except OSError as error:
        if stream is not sys.stderr and not isinstance(error, BrokenPipeError):
            say(f"stdout can't be written ({sentence(error)}); the results are in their folder", sys.stderr)
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


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
    return Path(os.path.expanduser(text))

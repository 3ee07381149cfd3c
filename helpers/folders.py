"""Folders of results: refused if they hold something else, and written whole or not at all."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def check_folder(out: str | Path, marker: str, form: str) -> None:
    """Refuse an output folder that holds something else than earlier results of the same form.

    Args:
        out: the folder, which need not exist.
        marker: a JSON file in it whose ``format`` says ``form``.

    Raises:
        ValueError: if it exists, is not empty and has no such marker.
    """
    out = Path(out)
    if out.is_dir() and (not any(out.iterdir()) or _is_ours(out / marker, form)):
        return
    if out.exists():
        raise ValueError(
            f"out: expected a new folder or an earlier results folder, got {str(out)!r}, which holds other files"
        )


@contextmanager
def whole_folder(out: str | Path) -> Iterator[Path]:
    """A new folder beside ``out`` that takes its place, as a whole, if the block ends without an error."""
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
        new, old = Path(scratch, "new"), Path(scratch, "old")
        new.mkdir()
        yield new
        if out.exists():
            out.rename(old)
        try:
            new.rename(out)
        except BaseException:
            if old.exists():
                old.rename(out)
            raise


def _is_ours(marker: Path, form: str) -> bool:
    try:
        return json.loads(marker.read_text()).get("format") == form
    except (OSError, ValueError, AttributeError):
        return False

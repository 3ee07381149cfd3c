"""Folders of results: refused if they hold something else, written whole or not at all, or kept until work is done."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np


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


class Kept:
    """Arrays that a long computation has finished, by name, in a folder; without one nothing is kept."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    def get(self, name: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """The array of this name: what an earlier run left, or what is computed now (and kept, whole or not at all)."""
        if self._folder is None:
            return compute()
        path = self._folder / f"{name}.npy"
        if not path.exists():
            part = path.with_suffix(".part")
            with part.open("wb") as file:
                np.save(file, compute())
            part.replace(path)
        return np.asarray(np.load(path))


@contextmanager
def kept_in(work: str | Path | None, key: str) -> Iterator[Kept]:
    """A folder for the finished parts of one computation; it is removed if the block ends without an error.

    Args:
        work: the folder, which need not exist; None keeps nothing.
        key: a text that names the computation: the folder of another one is refused.

    Raises:
        ValueError: if the folder is not of this computation.
    """
    if work is None:
        yield Kept()
        return
    folder, mark = Path(work), Path(work, "key")
    if folder.exists() and not (folder.is_dir() and _is_free(folder, mark, key)):
        raise ValueError(
            f"work: expected a new folder or what an earlier run of the same measurement left, got {str(work)!r}, which "
            "holds something else; remove it, or give another name"
        )
    folder.mkdir(parents=True, exist_ok=True)
    mark.write_text(key)
    yield Kept(folder)
    for path in (*folder.glob("*.npy"), *folder.glob("*.part"), mark):
        path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def _is_free(folder: Path, mark: Path, key: str) -> bool:
    return mark.read_text() == key if mark.is_file() else not any(folder.iterdir())


def _is_ours(marker: Path, form: str) -> bool:
    try:
        return bool(json.loads(marker.read_text()).get("format") == form)
    except (OSError, ValueError, AttributeError):
        return False

"""Folders of results: refused if they hold something else, written whole or not at all, or kept until work is done."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from safetensors import SafetensorError


def check_folder(out: str | Path, marker: str, form: str) -> None:
    """Refuse an output folder that holds something else than earlier results of the same form.

    Args:
        out: the folder, which need not exist.
        marker: a JSON file in it whose ``format`` says ``form``.

    Raises:
        ValueError: if it exists, is not empty and has no such marker, or if it can't be looked into.
    """
    folder = resolve_folder(out)
    try:
        if folder.is_dir() and _is_replaceable(folder, marker, form):
            return
    except OSError as error:
        raise _no_folder(out, error) from None
    if os.path.lexists(folder):
        what = "which holds other files" if folder.is_dir() else "which is a file"
        raise ValueError(f"out: expected a new folder or an earlier results folder, got {str(out)!r}, {what}")


def resolve_folder(out: str | Path, name: str = "out") -> Path:
    """The folder as an absolute path without links; ``~`` is the home folder, ``~user`` that of another user.

    Raises:
        ValueError: if there can be no such folder (a loop of links, a name that is too long, no such user).
    """
    try:
        path = os.fspath(os.path.expanduser(out))
        if path.startswith("~"):
            raise OSError("there is no such home folder")
        if "\0" in path:  # each Python has its own words for it
            raise OSError("no name can hold a null character")
        folder = Path(path).resolve()
        for part in (*folder.parts[1:], _scratches(folder)[0].name):  # the names that will be given
            with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                Path(_around(folder), part).lstat()
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise _no_folder(out, error, name) from None
    return folder


def check_writing(out: str | Path) -> None:
    """Write a little where the folder is, or where it will be made, and take it away again.

    Raises:
        ValueError: if that can't be done, with the reason.
    """
    folder = resolve_folder(out)
    try:
        for place in {_nearest(folder), _around(folder)}:
            with tempfile.TemporaryFile(dir=place) as file:
                file.write(bytes(1 << 16))
                file.flush()
    except OSError as error:
        raise _no_folder(out, error) from None


@contextmanager
def claimed(out: str | Path) -> Iterator[None]:
    """While the block runs, no other process, and no other thread, can claim the folder.

    Raises:
        ValueError: if another one has it now.
    """
    path = _lock(resolve_folder(out))
    lock = FileLock(path, timeout=0, is_singleton=True)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(f"out: expected a folder that no other run is writing to, got {str(out)!r}") from None
    try:
        yield
    finally:
        if lock.lock_counter == 1:
            with suppress(OSError):  # Windows can't before the release, and does so itself
                path.unlink()
        lock.release()


@contextmanager
def whole_folder(out: str | Path) -> Iterator[Path]:
    """A new folder that takes the place of ``out``, as a whole, if the block ends without an error.

    Where ``out`` itself can't be moved (a mount point, the folder in which the process stands), its content is exchanged.
    What a run that was killed in between had moved away is put back first.

    Raises:
        ValueError: if another process is writing to it.
        OSError: one sentence, if it can't be written (a full disk); what was there is as before.
    """
    folder = resolve_folder(out)
    with claimed(out):
        try:
            _recover(folder)
            scratch = _scratch(folder)
            (scratch / "new").mkdir(parents=True)
            yield scratch / "new"
            _exchange(folder, scratch)
            shutil.rmtree(scratch, ignore_errors=True)
        except (OSError, SafetensorError) as error:
            reason = _reason(error)
            raise OSError(f"out: {str(out)!r} can't be written, and is as it was before: {reason}") from error
        finally:
            _clear(folder)


def _exchange(folder: Path, scratch: Path) -> None:
    """The new folder, or all that is in it, in the place of the old; or all as before."""
    new, old = scratch / "new", scratch / "old"
    if scratch.parent == folder:
        moves = [(path, old / path.name) for path in _content(folder)]
        moves += [(path, folder / path.name) for path in new.iterdir()]
        old.mkdir()
    else:
        folder.parent.mkdir(parents=True, exist_ok=True)
        moves = [*([(folder, old)] if folder.exists() else []), (new, folder)]
    with ExitStack() as back:
        for source, target in moves:
            source.rename(target)
            back.callback(target.rename, source)
        back.pop_all()


def _recover(folder: Path) -> None:
    """Put back what a run had moved away when it was killed, and remove what it was writing."""
    for scratch in _scratches(folder):
        old = scratch / "old"
        if scratch.parent != folder and old.exists() and not folder.exists():
            old.rename(folder)
        elif scratch.parent == folder and old.exists():
            for path in [*old.iterdir()]:
                here = folder / path.name
                shutil.rmtree(here) if here.is_dir() else here.unlink(missing_ok=True)
                path.rename(here)
        if scratch.exists():
            shutil.rmtree(scratch)


def _clear(folder: Path) -> None:
    """Remove what was being written; what was moved away and could not be put back stays."""
    for scratch in _scratches(folder):
        shutil.rmtree(scratch / "new", ignore_errors=True)
        for left in (scratch / "old", scratch):
            with suppress(OSError):
                left.rmdir()  # if it is empty


def _scratches(folder: Path) -> tuple[Path, Path]:
    """Where results are written before they take their place: beside the folder, or in it."""
    name = f".{folder.name}.being-written"
    return _around(folder) / name, folder / name


def _scratch(folder: Path) -> Path:
    """The place to write in now: in the folder where it can't be moved."""
    stays = folder.is_dir() and (folder.is_mount() or Path.cwd().is_relative_to(folder))
    return _scratches(folder)[stays]


def _lock(folder: Path) -> Path:
    return _around(folder) / f".{folder.name}.lock"


def _around(folder: Path) -> Path:
    """The nearest folder above that exists; or the folder itself, if one may only write there."""
    above = _nearest(folder.parent)
    return folder if folder.is_dir() and not os.access(above, os.W_OK) else above


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(place for place in (folder, *folder.parents) if os.path.lexists(place))


def _content(folder: Path) -> list[Path]:
    """What is in a folder, but for the files of a run."""
    return [path for path in folder.iterdir() if path not in (*_scratches(folder), _lock(folder))]


def _reason(error: Exception) -> str:
    """What went wrong, without the name of a file in a scratch folder."""
    return getattr(error, "strerror", None) or str(error)


def _no_folder(out: str | Path, error: Exception, name: str = "out") -> ValueError:
    return ValueError(f"{name}: expected a folder that can be written, got {str(out)!r} ({_reason(error)})")


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
            value, part = compute(), path.with_suffix(".part")
            try:
                with part.open("wb") as file:
                    np.save(file, value)
            except OSError as error:
                raise OSError(f"work: {str(path)!r} can't be written: {_reason(error)}") from error
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
    folder = resolve_folder(work, "work")
    mark = folder / "key"
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


def _is_replaceable(folder: Path, marker: str, form: str) -> bool:
    places = folder, *(scratch / "old" for scratch in _scratches(folder))
    return not _content(folder) or any(_is_ours(place / marker, form) for place in places)


def _is_ours(marker: Path, form: str) -> bool:
    try:
        return bool(json.loads(marker.read_text()).get("format") == form)
    except (OSError, ValueError, AttributeError):
        return False

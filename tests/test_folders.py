"""Folders: what an earlier run left is used, half-written parts never are, and other people's files stay."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError

from helpers.folders import Kept, check_folder, check_writing, claimed, kept_in, resolve_folder, whole_folder


def never() -> np.ndarray:
    raise AssertionError("computed again")


def fail() -> np.ndarray:
    raise OSError("No space left on device")


def test_parts_are_computed_once(tmp_path: Path) -> None:
    """The second time an array comes from the folder, number by number; the folder is gone after the block."""
    first = np.random.default_rng(0).normal(size=(2, 3))

    def stopped() -> None:
        with kept_in(tmp_path / "work", "k") as kept:
            np.testing.assert_array_equal(kept.get("a", lambda: first), first)
            kept.get("b", fail)

    with pytest.raises(OSError, match="No space"):
        stopped()
    with kept_in(tmp_path / "work", "k") as kept:
        np.testing.assert_array_equal(kept.get("a", never), first)
        np.testing.assert_array_equal(kept.get("b", lambda: first[0]), first[0])
    assert not list(tmp_path.iterdir())


def test_half_a_part_is_no_part(tmp_path: Path) -> None:
    """A part whose writing was stopped is computed again."""
    work = tmp_path / "work"
    work.mkdir()
    (work / "key").write_text("k")
    (work / "a.part").write_bytes(b"\x93NUMPY")
    with kept_in(work, "k") as kept:
        np.testing.assert_array_equal(kept.get("a", lambda: np.ones(2)), np.ones(2))
    assert not work.exists()


def test_nothing_is_kept_without_a_folder() -> None:
    """Every call computes."""
    calls: list[int] = []
    with kept_in(None, "k") as kept:
        for _ in range(2):
            kept.get("a", lambda: np.array(calls.append(1) or len(calls)))
    assert len(calls) == 2
    assert isinstance(kept, Kept)


@pytest.mark.parametrize("state", ["other key", "no key", "a file"])
def test_refuses_the_work_of_others(state: str, tmp_path: Path) -> None:
    """A folder of another computation, a folder of something else, a file: one sentence, and they stay as they were."""
    work = tmp_path / "work"
    if state == "a file":
        work.write_text("x")
    else:
        work.mkdir()
        (work / ("key" if state == "other key" else "thesis.tex")).write_text("other")
    before = sorted(str(f) for f in tmp_path.rglob("*"))
    with (
        pytest.raises(ValueError, match=r"work: expected .*, got '.*work', which holds something else"),
        kept_in(work, "k"),
    ):
        raise AssertionError("entered")
    assert sorted(str(f) for f in tmp_path.rglob("*")) == before


def test_an_empty_folder_can_be_used_and_files_of_others_stay(tmp_path: Path) -> None:
    """What lies in the folder beside the parts when the block ends is not deleted."""
    with kept_in(tmp_path, "k") as kept:
        kept.get("a", lambda: np.zeros(1))
        (tmp_path / "notes.txt").write_text("mine")
    assert [f.name for f in tmp_path.iterdir()] == ["notes.txt"]


def test_whole_folders(tmp_path: Path) -> None:
    """A block that fails leaves the earlier folder and nothing else; one that ends replaces it as a whole."""
    out = tmp_path / "out"
    with whole_folder(out) as new:
        (new / "old.txt").write_text("1")

    def stopped() -> None:
        with whole_folder(out) as new:
            (new / "new.txt").write_text("2")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert [f.name for f in out.iterdir()] == ["old.txt"]
    with whole_folder(out) as new:
        (new / "new.txt").write_text("2")
    assert [f.name for f in out.iterdir()] == ["new.txt"]
    assert [f.name for f in tmp_path.iterdir()] == ["out"]


def test_results_of_another_form_are_refused(tmp_path: Path) -> None:
    """The marker's format must be the one that is asked for."""
    (tmp_path / "about.json").write_text('{"format": "ours/1"}')
    check_folder(tmp_path, "about.json", "ours/1")
    with pytest.raises(ValueError, match="out: expected a new folder or an earlier results folder"):
        check_folder(tmp_path, "about.json", "theirs/1")


# Where a folder is, and whether it can be written


def replace_with(out: Path | str, name: str) -> None:
    """Results of one file."""
    with whole_folder(out) as new:
        (new / name).write_text(name)


def names(folder: Path) -> list[str]:
    """Everything below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_home_here_and_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """~ is the home folder, "." where one stands, a link the folder it points to; no folder is named ~."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path / "real")
    here = tmp_path.resolve()
    assert resolve_folder("~/out") == here / "out"
    assert resolve_folder(".") == resolve_folder("~/link") == here / "real"
    replace_with("~/link", "a")
    replace_with("~/out", "b")
    assert names(tmp_path) == ["link", "out", "out/b", "real", "real/a"]
    assert (tmp_path / "link").is_symlink()


def test_refuses_names_that_can_be_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too long for a name, or for those that are made of it, nobody's home, no path: one sentence, and nothing is made."""
    monkeypatch.chdir(tmp_path)
    rule = "out: expected a folder that can be written, got"
    for out, why in {
        "x" * 300: "File name too long", "x" * 245: "File name too long", f"a/{'x' * 300}/b": "File name too long",
        "~nobody_/x": "there is no such home folder", "~nobody_": "there is no such home folder", "a\0b": "no name can hold a null character",
    }.items():  # fmt: skip
        for check in (check_writing, resolve_folder):
            with pytest.raises(ValueError, match=f"^{re.escape(f'{rule} {out!r} ({why})')}$"):
                check(out)
    with pytest.raises(ValueError, match=f"^{rule} 'None' "):
        resolve_folder(None)  # type: ignore[arg-type]
    with (
        pytest.raises(ValueError, match=r"^work: expected a folder that can be written, got '~nobody_/w'"),
        kept_in("~nobody_/w", "k"),
    ):
        raise AssertionError("entered")
    assert names(tmp_path) == []
    assert resolve_folder("./~nobody_") == tmp_path.resolve() / "~nobody_"


def test_missing_parents_are_made_at_the_end(tmp_path: Path) -> None:
    """They are there with the results, and not there if there are none."""

    def stopped() -> None:
        with whole_folder(tmp_path / "a" / "b" / "out"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert names(tmp_path) == []
    replace_with(tmp_path / "a" / "b" / "out", "x")
    assert names(tmp_path) == ["a", "a/b", "a/b/out", "a/b/out/x"]


def test_writing_is_tried(tmp_path: Path) -> None:
    """In the folder, or in the nearest one above it that there is; nothing is left of it."""
    for out in (tmp_path, tmp_path / "out", tmp_path / "a" / "b" / "out"):
        check_writing(out)
    assert names(tmp_path) == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_refuses_where_nothing_can_be_written(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No permission, a medium that is read-only, a full disk: the folder as it was given, and what the system says."""

    def refuse(**options: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(
        ValueError, match=rf"^out: expected a folder that can be written, got '.*out' \({os.strerror(number)}\)$"
    ):
        check_writing(tmp_path / "out")


def test_refuses_a_file_in_the_way(tmp_path: Path) -> None:
    """A file where the folder should be, or above it."""
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match=r"got '.*thesis.tex', which is a file"):
        check_folder(tmp_path / "thesis.tex", "about.json", "ours/1")
    with pytest.raises(ValueError, match=r"expected a folder that can be written, got '.*out' \("):
        check_writing(tmp_path / "thesis.tex" / "deep" / "out")
    assert names(tmp_path) == ["thesis.tex"]


# Folders that can't be moved: their content is exchanged


def stand_in(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(out)


def stand_below(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (out / "figures").mkdir()
    monkeypatch.chdir(out / "figures")


def mount(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "is_mount", lambda self: self == out.resolve())


def close_parent(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != out.parent.resolve())


FIXED: dict[str, Callable[[Path, pytest.MonkeyPatch], None]] = {
    "one stands in it": stand_in, "one stands below": stand_below, "mount point": mount, "parent not writable": close_parent,
}  # fmt: skip


@pytest.mark.parametrize("fix", FIXED.values(), ids=FIXED)
def test_a_folder_that_stays_gets_another_content(
    fix: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same folder (its inode), the new files alone in it, and nothing beside it; also if a file of it is open."""
    out = tmp_path / "out"
    replace_with(out, "old")
    fix(out, monkeypatch)
    inode = out.stat().st_ino
    with (out / "old").open() as file:
        replace_with(os.path.relpath(out), "new")
        assert file.read() == "old"
    assert names(tmp_path) == ["out", "out/new"]
    assert out.stat().st_ino == inode


@pytest.mark.parametrize("failing", [1, 2, 3, 4])
@pytest.mark.parametrize("fix", FIXED.values(), ids=FIXED)
def test_an_exchange_that_fails_is_taken_back(
    fix: Callable[..., None], failing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of the moves fails, the old files are where they were, and nothing else is there."""
    out = tmp_path / "out"
    with whole_folder(out) as new:
        (new / "one").write_text("1")
        (new / "same").write_text("old")
    fix(out, monkeypatch)
    before = names(tmp_path)
    rename, calls = Path.rename, []

    def fail(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == failing:
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    def exchange() -> None:
        with whole_folder(out) as new:
            (new / "same").write_text("new")
            (new / "two").write_text("2")
            monkeypatch.setattr(Path, "rename", fail)

    with pytest.raises(OSError, match=r"^out: '.*out' can't be written, and is as it was before: Input/output error$"):
        exchange()
    assert names(tmp_path) == before
    assert (out / "same").read_text() == "old"


# A full disk, a killed run, two runs at once


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "x"),
        SafetensorError("Error: No space left on device (os error 28)"),
    ],
    ids=["file", "safetensors"],
)
def test_a_full_disk_is_one_sentence(error: Exception, tmp_path: Path) -> None:
    """Whoever finds it: the folder, that it is as it was, and why; of the new results nothing is left."""
    out = tmp_path / "out"
    replace_with(out, "old")

    def write() -> None:
        with whole_folder(out) as new:
            (new / "new").write_text("2")
            raise error

    with pytest.raises(
        OSError, match=r"^out: '.*out' can't be written, and is as it was before: .*No space left on device"
    ):
        write()
    assert names(tmp_path) == ["out", "out/old"]


def test_a_full_disk_while_parts_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The part's name and the reason; the parts before it stay for the next run."""

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def keep() -> None:
        with kept_in(tmp_path / "work", "k") as kept:
            kept.get("a", lambda: np.ones(2))
            monkeypatch.setattr(np, "save", full)
            kept.get("b", lambda: np.ones(2))

    with pytest.raises(OSError, match=r"^work: '.*b\.npy' can't be written: No space left on device$"):
        keep()
    assert (tmp_path / "work" / "a.npy").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from helpers.folders import whole_folder
die = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
out, stage, rename, calls = Path(sys.argv[1]), int(sys.argv[2]), Path.rename, []
def counted(self, target):
    rename(self, target)
    calls.append(target)
    if len(calls) == stage:
        die()
if sys.argv[3] == "inside":
    os.chdir(out)
with whole_folder(out) as new:
    (new / "about.json").write_text('{"format": "ours/1", "run": 2}')
    if stage == 0:
        die()
    Path.rename = counted
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL and moving a folder that is in use are not of Windows")
@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize(
    ("place", "then"), [("outside", "outside"), ("inside", "inside"), ("inside", "outside"), ("outside", "inside")]
)
def test_a_killed_run_is_tidied_up_by_the_next(
    place: str, then: str, stage: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while it writes, or after any move: the next run finds one whole result or the other, and leaves its own alone."""
    out = tmp_path / "out"
    with whole_folder(out) as new:
        (new / "about.json").write_text('{"format": "ours/1", "run": 1}')
    done = subprocess.run([sys.executable, "-c", KILLED, str(out), str(stage), place], check=False)
    assert done.returncode == -9
    if then == "inside" and out.exists():
        monkeypatch.chdir(out)
    check_folder(out, "about.json", "ours/1")

    def stopped() -> None:
        with whole_folder(out):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()  # a run that leaves what it found
    assert names(tmp_path) == ["out", "out/about.json"]
    assert (out / "about.json").read_text()[-2] in "12"
    replace_with(out, "new")
    assert names(tmp_path) == ["out", "out/new"]


def test_two_at_once(tmp_path: Path) -> None:
    """The second is refused in one sentence, whichever way it claims the folder; the first goes on, and the next may."""
    out, said = tmp_path / "out", []

    def second(claim: Callable[[Path], object]) -> None:
        try:
            claim(out)
        except ValueError as error:
            said.append(str(error))

    def held(out: Path) -> None:
        with claimed(out):
            said.append("held")

    with claimed(out):
        for claim in (lambda out: replace_with(out, "second"), held):
            thread = threading.Thread(target=second, args=(claim,))
            thread.start()
            thread.join()
        replace_with(out, "first")
    assert said == [f"out: expected a folder that no other run is writing to, got {str(out)!r}"] * 2
    assert names(tmp_path) == ["out", "out/first"]
    second(held)
    assert said[2:] == ["held"]


HOLDS = "import sys\nfrom helpers.folders import claimed\nwith claimed(sys.argv[1]):\n    print('mine', flush=True)\n    input()"


def test_another_process_is_refused_too(tmp_path: Path) -> None:
    """While another process has the folder, and not any more once it has ended."""
    out = tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout
        assert other.stdout.readline() == "mine\n"
        with pytest.raises(ValueError, match="no other run is writing to"):
            replace_with(out, "second")
        other.communicate("\n")
    replace_with(out, "next")
    assert names(tmp_path) == ["out", "out/next"]

"""Folders: what an earlier run left is used, half-written parts never are, and other people's files stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers.folders import Kept, check_folder, kept_in, whole_folder


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

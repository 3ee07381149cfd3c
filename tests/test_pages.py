"""Notebooks as pages, without running them: tasks and where they stand, reading times, closing pages, moving pictures.

That solutions pass and wrong answers do not is tried while nbval runs a notebook (notebooks/conftest.py).
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cells import FOLDED, TASK, WITH_TASKS, cells_of, folded_after, tasks, trials

pytestmark = pytest.mark.parametrize("path", WITH_TASKS, ids=lambda path: path.stem[:2])


def test_every_task_says_what_to_do_and_has_a_solution(path: Path) -> None:
    """Three or four tasks; each is announced before its cell, and folded after it stands code that sets the answer."""
    cells = cells_of(path)
    found = tasks(cells)
    assert [answer for _, answer in found] == [f"answer_{k}" for k in range(1, len(found) + 1)]
    assert len(found) in (3, 4)
    for number, answer in found:
        before = "".join(cell.source for cell in cells[:number] if cell.cell_type == "markdown")
        assert f"> **Task {answer[-1]}: predict, then run.**" in before
        assert f"<summary>Solution of task {answer[-1]}</summary>" in cells[number + 1].source
        assert folded_after(cells, number)[0].startswith(f"{answer} = ")
        assert sum(not passes for _, passes in trials(cells, number)) == 3
        assert TASK.search(cells[number].source), "committed without an answer"


def test_the_closing_page_is_short(path: Path) -> None:
    """Shown, not shown, next: at most 250 words, before the exercises."""
    text = cells_of(path)[-1].source
    closing = text[: text.index("## Exercise")]
    assert len(closing.split()) <= 250
    assert all(f"**{part}" in closing for part in ("Shown", "Not shown", "Next"))


def test_the_reading_time_is_counted(path: Path) -> None:
    """The minutes at the top: 200 words a minute and one for each code cell, up to the closing page, folded parts left out."""
    cells = cells_of(path)
    said = re.search(r"[Aa]bout (\d+) minutes", cells[0].source)
    text = [FOLDED.sub("", c.source.split("## Exercise")[0]) for c in cells if c.cell_type == "markdown"]
    counted = sum(len(part.split()) for part in text) / 200 + sum(c.cell_type == "code" for c in cells)
    assert said
    assert abs(int(said[1]) - counted) <= 5


def test_moving_pictures_are_small(path: Path) -> None:
    """Every slider has a picture that moves; it takes less than 300 kB."""
    cells = [c for c in cells_of(path) if c.cell_type == "code"]
    pictures, sliders = ([c for c in cells if word in c.source] for word in ("moving_picture(", "interact("))
    assert len(pictures) >= len(sliders)
    for cell in pictures:
        [data] = [o.data["image/png"] for o in cell.outputs if "image/png" in o.get("data", {})]
        assert len(data) * 3 / 4 < 300_000

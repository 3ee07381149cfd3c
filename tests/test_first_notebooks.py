"""Notebooks 01 and 02 outside a kernel: their tasks and folded solutions, their reading time, their closing page."""

from __future__ import annotations

import matplotlib

matplotlib.use("agg")

import re
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nbformat
import pytest
from test_story_notebook import SOLUTION, TASK, run

FOLDER = Path(__file__).parent.parent / "notebooks"
PATHS = [FOLDER / "01_softmax_as_a_hypothesis_test.ipynb", FOLDER / "02_kl_selectivity_and_susceptibility.ipynb"]
FOLDED = re.compile(r"<details>.*?</details>", re.DOTALL)

pytestmark = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem[:2])


def cells_of(path: Path) -> list[Any]:
    return list(nbformat.read(path, as_version=4).cells)


def tasks(cells: list[Any]) -> list[tuple[int, str]]:
    """Place of each task's cell, and the name of its answer."""
    return [(i, found[1]) for i, c in enumerate(cells) if c.cell_type == "code" and (found := TASK.search(c.source))]


def folded_code(cell: Any) -> list[str]:
    return [code for part in FOLDED.findall(cell.source) for code in SOLUTION.findall(part)]


def test_every_task_says_what_to_do_and_has_a_solution(path: Path) -> None:
    """Four tasks; each is announced just before its cell, and folded after it stands code that sets the answer."""
    cells = cells_of(path)
    found = tasks(cells)
    assert [answer for _, answer in found] == ["answer_1", "answer_2", "answer_3", "answer_4"]
    for number, answer in found:
        assert f"> **Task {answer[-1]}: predict, then run.**" in cells[number - 1].source
        assert f"<summary>Solution of task {answer[-1]}</summary>" in cells[number + 1].source
        assert folded_code(cells[number + 1])[0].startswith(f"{answer} = ")


@pytest.mark.slow
def test_folded_code_runs_and_wrong_answers_fail(path: Path) -> None:
    """In its place each solution passes its task's assert and nonsense does not; all other folded code runs after its cell."""
    names: dict[str, Any] = {}
    cells = cells_of(path)
    answers = dict(tasks(cells))
    for number, cell in enumerate(cells):
        if number in answers:
            right = folded_code(cells[number + 1])[0].split("=", 1)[1]
            check(cell, answers[number], right, names)
            for wrong in ("-1", "'sideways'", "10_000"):
                with pytest.raises((AssertionError, TypeError)):
                    check(cell, answers[number], wrong, names)
        run([cell], names)
        if cell.cell_type == "markdown":
            for code in folded_code(cell):
                exec(code, dict(names))
                plt.close("all")


def check(cell: Any, answer: str, given: str, names: dict[str, Any]) -> None:
    """The task's cell with an answer in place of None."""
    cell = nbformat.from_dict(cell)
    cell.source = TASK.sub(lambda _: f"{answer} = {given}", cell.source)
    run([cell], dict(names))


def test_the_reading_time_is_counted(path: Path) -> None:
    """The minutes at the top: 200 words a minute and one for each code cell, up to the closing page, folded parts left out."""
    cells = cells_of(path)
    text = [FOLDED.sub("", c.source.split("## Exercises")[0]) for c in cells if c.cell_type == "markdown"]
    counted = sum(len(part.split()) for part in text) / 200 + sum(c.cell_type == "code" for c in cells)
    said = re.search(r"about (\d+) minutes", cells[0].source)
    assert abs(int(said[1]) - counted) <= 3  # type: ignore[index]


def test_the_closing_page_is_short(path: Path) -> None:
    """Shown, not shown, next: at most 250 words."""
    text = cells_of(path)[-1].source
    closing = text[: text.index("## Exercises")]
    assert len(closing.split()) <= 250
    assert all(f"**{part}.**" in closing for part in ("Shown", "Not shown", "Next"))


def test_moving_pictures_are_small(path: Path) -> None:
    """A picture that moves stands in the notebook for every slider, and takes less than 300 kB."""
    pictures = [c for c in cells_of(path) if c.cell_type == "code" and "moving_picture(" in c.source]
    sliders = [c for c in cells_of(path) if c.cell_type == "code" and "interact(" in c.source]
    assert len(pictures) >= len(sliders) > 0
    for cell in pictures:
        [data] = [o.data["image/png"] for o in cell.outputs if "image/png" in o.get("data", {})]
        assert len(data) * 3 / 4 < 300_000

"""Notebooks 05 and 06 outside a kernel: their tasks and folded solutions, and their closing pages."""

from __future__ import annotations

import matplotlib

matplotlib.use("agg")

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nbformat
import pytest

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parent.parent / "notebooks"
TASK = re.compile(r"^(answer_\d) = None.*$", re.MULTILINE)
SOLUTION = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module", params=["05_is_it_real", "06_from_correlation_to_circuit"])
def cells(request: pytest.FixtureRequest) -> list[Any]:
    return list(nbformat.read(FOLDER / f"{request.param}.ipynb", as_version=4).cells)


def run(cells: list[Any], names: dict[str, Any]) -> None:
    """Run code cells one after the other, without the kernel's own commands."""
    for cell in cells:
        if cell.cell_type == "code" and "%pip" not in cell.source:
            exec(compile(re.sub(r"(?m)^%.*$", "", cell.source), cell.id, "exec"), names)
            plt.close("all")


def tasks(cells: list[Any]) -> Iterator[tuple[int, str]]:
    """Place of each task's cell, and the name of its answer."""
    for number, cell in enumerate(cells):
        if cell.cell_type == "code" and (found := TASK.search(cell.source)):
            yield number, found[1]


def solution(cells: list[Any], number: int) -> str:
    """The answer in the folded text after a task's cell."""
    found = SOLUTION.search(cells[number + 1].source)
    assert found
    return found[1].split("=", 1)[1]


@pytest.fixture(scope="module")
def told(cells: list[Any]) -> tuple[dict[str, Any], dict[int, dict[str, Any]]]:
    """The notebook run as it is committed: the names at its end, and those before each task."""
    names: dict[str, Any] = {}
    before, start = {}, 0
    for number, _ in tasks(cells):
        run(cells[start:number], names)
        before[number], start = dict(names), number
    run(cells[start:], names)
    return names, before


def test_every_task_says_what_to_do_and_has_a_solution(cells: list[Any]) -> None:
    """Three or four tasks; each is announced before its cell, and folded after it stands code that sets the answer."""
    found = list(tasks(cells))
    assert [answer for _, answer in found] == [f"answer_{k}" for k in range(1, len(found) + 1)]
    assert len(found) in (3, 4)
    for number, answer in found:
        k = answer[-1]
        before = "".join(cell.source for cell in cells[:number] if cell.cell_type == "markdown")
        assert f"> **Task {k}: predict, then run.**" in before
        assert f"<summary>Solution of task {k}</summary>" in cells[number + 1].source
        assert f"{answer} = " in cells[number + 1].source


def test_solutions_pass_and_other_answers_fail(cells: list[Any], told: tuple[Any, dict[int, dict[str, Any]]]) -> None:
    """In its place in the notebook each folded solution passes the assert, and wrong answers do not."""
    for number, answer in tasks(cells):
        for given, passes in ((solution(cells, number), True), ("-1", False), ("'nothing'", False)):
            cell = nbformat.from_dict(cells[number])
            cell.source = TASK.sub(f"{answer} = {given.strip()}", cell.source)
            names = dict(told[1][number])
            if passes:
                run([cell], names)
            else:
                with pytest.raises(AssertionError):
                    run([cell], names)


def test_solutions_of_exercises_run(cells: list[Any], told: tuple[dict[str, Any], Any]) -> None:
    """Code folded under the exercises runs after the notebook."""
    found = SOLUTION.findall(cells[-1].source)
    assert found
    for code in found:
        exec(code, dict(told[0]))


def test_the_closing_page_is_short(cells: list[Any]) -> None:
    """Shown, how sure, not shown, next: at most 250 words."""
    text = cells[-1].source
    closing = text[text.index("**Shown") : text.index("## Exercises")]
    assert len(closing.split()) <= 250
    assert all(f"**{part}" in closing for part in ("Shown", "How sure", "Not shown", "Next"))

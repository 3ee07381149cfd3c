"""The cells of a notebook: its tasks with their folded solutions, and all other folded code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat

FOLDER = Path(__file__).parent.parent / "notebooks"
#: Notebooks with tasks in their flow: "answer_1 = None" in a cell that protests if another answer stands there.
WITH_TASKS = tuple(path for path in sorted(FOLDER.glob("0*.ipynb")) if not path.name.startswith("04"))
TASK = re.compile(r"^(answer_\d) = None.*$", re.MULTILINE)
SOLUTION = re.compile(r"```python\n(.*?)```", re.DOTALL)
FOLDED = re.compile(r"<details>.*?</details>", re.DOTALL)
#: Answers that are right nowhere.
WRONG = ("-1", "'sideways'", "10_000")


def cells_of(path: Path) -> list[Any]:
    """All cells of a notebook."""
    return list(nbformat.read(path, as_version=4).cells)


def code_of(cell: Any) -> str:
    """What of a code cell is Python: all but the kernel's own commands."""
    return re.sub(r"(?m)^\s*%.*$", "pass", cell.source)


def tasks(cells: list[Any]) -> list[tuple[int, str]]:
    """Place of each task's cell, and the name of its answer."""
    return [(i, found[1]) for i, c in enumerate(cells) if c.cell_type == "code" and (found := TASK.search(c.source))]


def folded_after(cells: list[Any], number: int) -> list[str]:
    """Code that is folded in the texts between a cell and the next code cell."""
    found: list[str] = []
    for cell in cells[number + 1 :]:
        if cell.cell_type == "code":
            break
        found += [code for part in FOLDED.findall(cell.source) for code in SOLUTION.findall(part)]
    return found


def answered(cell: Any, given: str) -> str:
    """A task's code with an answer in place of None."""
    return TASK.sub(lambda found: f"{found[1]} = {given.strip()}", code_of(cell))


def trials(cells: list[Any], number: int) -> list[tuple[str, bool]]:
    """What to try after a code cell has run, and whether it should pass: solutions, wrong answers, all other folded code."""
    folded = folded_after(cells, number)
    if not TASK.search(cells[number].source):
        return [(code, True) for code in folded]
    right = folded[0].split("=", 1)[1]
    own = [(answered(cells[number], given), given == right) for given in (right, *WRONG)]
    return own + [(code, True) for code in folded[1:]]

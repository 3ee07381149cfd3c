"""Notebook 03 outside a kernel: its tasks and their folded solutions, its closing page, and models of other kinds."""

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
from models import CIRCUIT
from test_story import toy_story

import helpers.story
from helpers.reference import Circuit

pytestmark = pytest.mark.slow

PATH = Path(__file__).parent.parent / "notebooks" / "03_ioi_experiment.ipynb"
CELLS = nbformat.read(PATH, as_version=4).cells
TASK = re.compile(r"^(answer_\d) = None.*$", re.MULTILINE)
SOLUTION = re.compile(r"```python\n(.*?)```", re.DOTALL)


def run(cells: list[Any], names: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run code cells one after the other, without the kernel's own commands; returns the names they leave."""
    names = {} if names is None else names
    for cell in cells:
        if cell.cell_type == "code" and "%pip" not in cell.source:
            code = re.sub(r"(?m)^%.*$", "", cell.source)
            exec(compile(code, cell.id, "exec"), names)
            plt.close("all")
    return names


def tasks() -> Iterator[tuple[int, str]]:
    """Place of each task's cell, and the name of its answer."""
    for number, cell in enumerate(CELLS):
        if cell.cell_type == "code" and (found := TASK.search(cell.source)):
            yield number, found[1]


def solved(number: int, answer: str, given: str) -> Any:
    """The task's cell with an answer in place of None."""
    cell = nbformat.from_dict(CELLS[number])
    cell.source = TASK.sub(lambda _: f"{answer} = {given}", cell.source)
    return cell


def test_every_task_says_what_to_do_and_has_a_solution() -> None:
    """Four tasks; each is announced before its cell, and folded after it stands code that sets the answer."""
    found = list(tasks())
    assert [answer for _, answer in found] == ["answer_1", "answer_2", "answer_3", "answer_4"]
    for number, answer in found:
        k = answer[-1]
        before = "".join(cell.source for cell in CELLS[:number] if cell.cell_type == "markdown")
        assert f"> **Task {k}: predict, then run.**" in before
        after = CELLS[number + 1].source
        assert f"<summary>Solution of task {k}</summary>" in after
        assert SOLUTION.search(after)[1].startswith(f"{answer} = ")  # type: ignore[index]


@pytest.mark.parametrize("wrong", ["-1", "'sideways'", "[-1]"])
def test_solutions_pass_and_other_answers_fail(
    told: tuple[dict[str, Any], dict[int, dict[str, Any]]], wrong: str
) -> None:
    """In its place in the notebook each folded solution passes the assert, and nonsense does not."""
    for number, answer in tasks():
        names = dict(told[1][number])
        code = SOLUTION.search(CELLS[number + 1].source)[1]  # type: ignore[index]
        run([solved(number, answer, code.split("=", 1)[1])], dict(names))
        with pytest.raises((AssertionError, TypeError)):
            run([solved(number, answer, wrong)], dict(names))


@pytest.fixture(scope="module")
def told() -> tuple[dict[str, Any], dict[int, dict[str, Any]]]:
    """The notebook run as it is committed: the names at its end, and those before each task."""
    names: dict[str, Any] = {}
    before = {}
    start = 0
    for number, _ in tasks():
        run(CELLS[start:number], names)
        before[number], start = dict(names), number
    return run(CELLS[start:], names), before


def test_the_exercise_s_solution_runs(told: tuple[dict[str, Any], Any]) -> None:
    """The last folded solution prints AUROCs for four numbers of prompts."""
    code = SOLUTION.search(CELLS[-1].source)[1]  # type: ignore[index]
    exec(code, dict(told[0]))


def test_the_closing_page_is_short() -> None:
    """Shown, how sure, not shown, next: at most 250 words."""
    text = CELLS[-1].source
    closing = text[text.index("**Shown.**") : text.index("## Exercise")]
    assert len(closing.split()) <= 250
    assert all(f"**{part}.**" in closing for part in ("Shown", "How sure", "Not shown", "Next"))


SHAPES = {
    "no circuit": (4, 6, None),
    "two layers": (2, 4, Circuit("made up", 2, 4, {"acts at END": ((1, 0), (1, 2))}, "made up")),
    "the shape of GPT-2 small": (12, 12, None),
    "a circuit without heads": (4, 6, Circuit("made up", 4, 6, {}, "made up")),
}


@pytest.mark.parametrize("kind", SHAPES)
def test_every_cell_runs_for_other_models(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a story of made-up rows in place of the model's own, from `tell` on, no cell fails, whatever the shape."""
    n_layers, n_heads, circuit = SHAPES[kind]
    stories = {"demo": toy_story(circuit=CIRCUIT), "toy": toy_story(n_layers, n_heads, circuit=circuit)}
    monkeypatch.setattr(helpers.story, "tell", lambda model, *, live=False: stories[model])
    monkeypatch.setenv("MODEL", "toy")
    names = run(CELLS)
    assert names["MODEL"] == "toy"
    assert names["changes"].shape[0] == n_layers * n_heads

"""Committed notebooks were run top to bottom; nbval then compares what they printed."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))

pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path: Path) -> list[Any]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def problems(cells: list[Any]) -> list[str]:
    """Why these code cells are not the result of one run from top to bottom."""
    found = []
    if [cell.execution_count for cell in cells] != list(range(1, len(cells) + 1)):
        found.append(f"execution counts {[cell.execution_count for cell in cells]}")
    found += [
        f"error in cell {cell.execution_count}" for cell in cells for o in cell.outputs if o.output_type == "error"
    ]
    return found


def test_was_run_in_order(path: Path) -> None:
    """Execution counts are 1 … n and no output is an error."""
    assert problems(code_cells(path)) == []


def test_an_unrun_notebook_would_be_noticed(path: Path) -> None:
    """Clearing one count, swapping two, or an error output is reported."""
    cells = code_cells(path)
    cells[1].execution_count = None
    assert problems(cells)
    cells = code_cells(path)
    cells[0].execution_count, cells[1].execution_count = 2, 1
    assert problems(cells)
    cells = code_cells(path)
    cells[0].outputs = [nbformat.v4.new_output("error", ename="E", evalue="", traceback=[])]
    assert problems(cells)


def test_kernel_and_metadata(path: Path) -> None:
    """The kernel is python3; no timestamps, no widget state, nothing about the machine it ran on."""
    notebook = nbformat.read(path, as_version=4)
    assert notebook.metadata.kernelspec.name == "python3"
    assert "widgets" not in notebook.metadata
    for cell in notebook.cells:
        assert "execution" not in cell.metadata
        assert str(path.parents[1]) not in str(cell.get("outputs", "")) + cell.source


def test_figures_have_alternative_text(path: Path) -> None:
    """Every committed picture says in words what it shows."""
    for cell in code_cells(path):
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                assert len(output.metadata.get("image/png", {}).get("alt", "")) > 20, f"cell {cell.execution_count}"


IMPORT = re.compile(r"^\s*from (helpers[\w.]*) import (\([^)]*\)|[^\n#]*)|^\s*import (helpers\S*)", re.MULTILINE)


def test_imports_are_of_public_names(path: Path) -> None:
    """Cells, and code in the text, import from ``helpers`` or from a group of it what that lists, nothing deeper."""
    found = [match for cell in nbformat.read(path, as_version=4).cells for match in IMPORT.finditer(cell.source)]
    assert found
    for module, names, whole in (match.groups() for match in found):
        assert (module or whole).count(".") <= 1
        listed = importlib.import_module(module or whole).__all__
        assert set(re.findall(r"\w+", names or "")) <= set(listed), module


def test_cells_are_short(path: Path) -> None:
    """One idea a cell: ten lines of code are the norm, fifteen the limit."""
    lengths = [len(cell.source.splitlines()) for cell in code_cells(path)]
    assert max(lengths) <= 15
    assert sum(length > 10 for length in lengths) <= 0.2 * len(lengths)


def test_ignored_cells_say_why(path: Path) -> None:
    """A cell whose output is not compared has a reason in its metadata or is an interactive one."""
    for cell in code_cells(path):
        if "nbval-ignore-output" in cell.metadata.get("tags", []):
            assert "interact" in cell.source or "widgets" in cell.source

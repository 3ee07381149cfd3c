"""Annotations hold: the suite checks them at every call, type checkers see the public face, the package says it is typed."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch

import helpers
from helpers.diagnostics import rows
from helpers.diagnostics.values import value_variance
from helpers.statistics.coupling import cross_correlation
from helpers.statistics.shifts import head_shifts

ROOT = Path(__file__).parents[1]
STUBS = sorted(Path(helpers.__file__).parent.rglob("__init__.pyi"))
checked = pytest.mark.skipif(jaxtyping.config.jaxtyping_disable, reason="JAXTYPING_DISABLE is set: nothing is checked")


@checked
def test_swapped_axes_are_caught() -> None:
    """v of shape (key, d_head) fits rows over key; v of shape (d_head, key) does not, though both are matrices."""
    pi, v = torch.tensor([0.25, 0.75]), torch.ones(2, 3)
    assert value_variance(pi, v).item() == 0
    with pytest.raises(jaxtyping.TypeCheckError, match="value_variance"):
        value_variance(pi, v.T)


@checked
def test_both_sides_are_of_the_same_heads() -> None:
    """Sides may differ in their number of prompts and in no other axis."""
    active, control = np.random.default_rng(0).normal(size=(2, 4, 2, 3))
    assert len(head_shifts(active, control[:3], n_resamples=9)) == 6
    with pytest.raises(jaxtyping.TypeCheckError, match="head_shifts"):
        head_shifts(active, control.transpose(0, 2, 1), n_resamples=9)


@checked
def test_results_are_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A result in another precision, or of another size, than the annotation says is caught where it is returned."""
    monkeypatch.setattr(rows, "check_rows", lambda pi, **_: (pi, None))
    assert rows.entropy(torch.tensor([0.5, 0.5]).double()).item() == pytest.approx(np.log(2))
    with pytest.raises(jaxtyping.TypeCheckError, match=r"return value of helpers\.diagnostics\.rows\.entropy"):
        rows.entropy(torch.tensor([0.5, 0.5]))
    monkeypatch.setattr(
        "helpers.statistics.coupling.correlation_matrix", lambda values, **_: np.eye(values.shape[1] + 1)
    )
    with pytest.raises(jaxtyping.TypeCheckError, match=r"return value of .*cross_correlation"):
        cross_correlation(*np.zeros((2, 4, 2, 3)))


@checked
def test_kinds_of_numbers_are_checked() -> None:
    """An int serves as a float; a float serves as no int, and an array of whole numbers as no array of floats."""
    sides = np.random.default_rng(0).normal(size=(2, 4, 2, 3))
    with pytest.raises(jaxtyping.TypeCheckError, match="n_resamples"):
        head_shifts(*sides, n_resamples=9.0)
    with pytest.raises(jaxtyping.TypeCheckError, match="active"):
        head_shifts(*sides.astype(int), n_resamples=9)


def modules() -> Iterator[ModuleType]:
    for module in pkgutil.walk_packages(helpers.__path__, "helpers."):
        if not module.name.endswith("__main__"):
            yield importlib.import_module(module.name)


def annotations(module: ModuleType) -> Iterator[str]:
    """All annotations of a module's functions, methods and fields, as they are written."""
    own = [thing for thing in vars(module).values() if getattr(thing, "__module__", None) == module.__name__]
    for thing in own:
        members = vars(thing).values() if inspect.isclass(thing) else ()
        for one in (thing, *members):
            function = getattr(one, "fget", None) or getattr(one, "__func__", one)
            yield from (text for text in getattr(function, "__annotations__", {}).values() if isinstance(text, str))


def test_annotations_can_be_read() -> None:
    """Where a name in an annotation is unknown, nothing is checked: TransformerBridge, slow to import, is the only one."""
    unknown, read = set(), 0
    for module in modules():
        for text in annotations(module):
            read += 1
            try:
                eval(text, vars(module))
            except NameError as error:
                unknown.add(error.name)
    assert read > 500  # something was read at all
    assert unknown == {"TransformerBridge"}


@pytest.mark.parametrize("stub", STUBS, ids=lambda stub: stub.parent.name)
def test_the_stub_lists_what_can_be_imported(stub: Path) -> None:
    """A stub re-exports each public name, as itself, and holds nothing else."""
    face = importlib.import_module(".".join(("helpers", *stub.parent.relative_to(STUBS[0].parent).parts)))
    listed: dict[str, Any] = {}
    for statement in ast.parse(stub.read_text()).body[1:]:
        assert isinstance(statement, ast.ImportFrom)
        assert statement.level == 1
        for alias in statement.names:
            assert alias.asname == alias.name  # only so is it exported
            where = f"{face.__name__}.{statement.module or alias.name}"
            module = importlib.import_module(where)
            listed[alias.name] = getattr(module, alias.name) if statement.module else module
    assert sorted(listed) == sorted(face.__all__)
    assert all(getattr(face, name) is thing for name, thing in listed.items())


WRONG = """\
from helpers import load_model, nothing_there
load_model(3.5)
load_model("demo", nonsense=True)
load_model("demo", device="cpu")
"""


def test_a_type_checker_sees_the_public_face(tmp_path: Path) -> None:
    """mypy finds the three mistakes of a snippet that imports from ``helpers``, and no fourth."""
    snippet = tmp_path / "snippet.py"
    snippet.write_text(WRONG)
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", str(snippet)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = [line for line in found.stdout.splitlines() if "snippet.py:" in line and ": error:" in line]
    assert len(lines) == 3, found.stdout + found.stderr
    assert 'Module "helpers" has no attribute "nothing_there"' in lines[0]
    assert 'Argument 1 to "load_model" has incompatible type "float"; expected "str"' in lines[1]
    assert 'Unexpected keyword argument "nonsense" for "load_model"' in lines[2]


def test_the_package_ships_its_types(packaged: set[str]) -> None:
    """A wheel holds ``py.typed`` and the stubs, which groups are read from: setuptools counts them among the package's files."""
    assert {"py.typed", *(str(stub.relative_to(STUBS[0].parent)) for stub in STUBS)} <= packaged

"""What importing costs: the package alone nothing, the analysis no model library; public names are the whole interface."""

from __future__ import annotations

import subprocess
import sys

import pytest

import helpers

PROBE = """
import random, sys, warnings
warnings.simplefilter("error")
state = random.getstate()
{imports}
heavy = {{"torch", "transformers", "transformer_lens", "matplotlib", "matplotlib.pyplot", "pandas", "scipy", "sklearn", "numpy"}}
print(*sorted(heavy & set(sys.modules)))
print("quiet" if random.getstate() == state else "random state changed")
"""


def modules_after(imports: str) -> set[str]:
    """Which heavy modules a fresh interpreter has loaded after some imports, which must print nothing themselves."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(imports=imports)], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    loaded, state = done.stdout.splitlines()
    assert state == "quiet"
    return set(loaded.split())


def test_the_package_costs_nothing() -> None:
    """``import helpers`` loads no numerical library, no plots, no models."""
    assert modules_after("import helpers; dir(helpers)") == set()


def test_prompts_need_no_numbers() -> None:
    """Making prompts needs the standard library alone."""
    assert modules_after("from helpers import ioi_prompts; ioi_prompts()") == set()


def test_analysis_needs_no_model_library() -> None:
    """Records, statistics, figures, report and command load neither transformer_lens nor transformers nor pyplot."""
    loaded = modules_after(
        "import helpers.results, helpers.experiment, helpers.plots.figures, helpers.plots.coupling, helpers.plots.plane\n"
        "import helpers.plots.shifts, helpers.statistics.ranking, helpers.statistics.coupling, helpers.reference.demo\n"
        "import helpers.attention.capture, helpers.models.load, helpers.patching.heads, helpers.__main__"
    )
    assert {"torch", "numpy", "matplotlib"} <= loaded
    assert not {"transformer_lens", "transformers", "matplotlib.pyplot"} & loaded


@pytest.mark.parametrize("name", helpers.__all__)
def test_public_names_exist_and_are_documented(name: str) -> None:
    """Every listed name can be imported, is that name's object, and says what it is."""
    thing = getattr(helpers, name)
    assert getattr(thing, "__name__", name) == name
    assert thing.__doc__


def test_no_other_public_names() -> None:
    """dir() lists the public names (and modules that were imported), and an unknown name is an AttributeError."""
    assert set(helpers.__all__) <= set(dir(helpers))
    assert len(helpers.__all__) == len(set(helpers.__all__))
    with pytest.raises(AttributeError, match="no_such_name"):
        helpers.no_such_name  # noqa: B018


def test_transformer_lens_is_imported_in_one_place() -> None:
    """Only helpers/models/model.py imports transformer_lens outside of type checking."""
    import ast
    from pathlib import Path

    folder = Path(helpers.__file__).parent
    users = set()
    for file in folder.rglob("*.py"):
        tree = ast.parse(file.read_text())
        typing_only = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if id(node) not in typing_only and any(name.split(".")[0] == "transformer_lens" for name in names):
                users.add(str(file.relative_to(folder)))
    assert users == {"models/model.py"}

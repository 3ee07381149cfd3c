"""What importing costs: the package alone nothing, the analysis no model library; what the public names are, and mean."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import nbformat
import pytest

import helpers

PACKAGE = Path(helpers.__file__).parent
NOTEBOOKS = sorted((PACKAGE.parent / "notebooks").glob("*.ipynb"))
MAGIC = re.compile(r"(?m)^(\s*)%.*")
FOLDED = re.compile(r"```python\n(.*?)```", re.DOTALL)
GROUPS = sorted(stub.parent.name for stub in PACKAGE.glob("*/__init__.pyi"))
FACES = {"helpers": helpers} | {name: importlib.import_module(f"helpers.{name}") for name in GROUPS}
NAMES = [(face, name) for face, module in FACES.items() for name in module.__all__]

PROBE = """
import random, sys, warnings
heavy = {"torch", "transformers", "transformer_lens", "matplotlib", "matplotlib.pyplot", "pandas", "scipy", "sklearn", "numpy"}
for code in sys.argv[1:]:
    warnings.simplefilter("error")
    state = random.getstate()
    exec(code)
    print(*sorted(heavy & set(sys.modules)), "" if random.getstate() == state else "random state changed")
"""


def modules_after(*codes: str) -> list[set[str]]:
    """Which heavy modules a fresh interpreter has loaded after each of some codes, which must print nothing themselves."""
    done = subprocess.run([sys.executable, "-c", PROBE, *codes], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    loaded = [set(line.split()) for line in done.stdout.splitlines()]
    assert len(loaded) == len(codes)
    assert "random" not in set().union(*loaded)
    return loaded


def test_the_package_costs_nothing() -> None:
    """``import helpers`` loads no numerical library, no plots, no models."""
    assert modules_after("import helpers; dir(helpers)") == [set()]


def test_groups_cost_nothing() -> None:
    """Nor does importing all groups, by either way."""
    imports = ", ".join(f"helpers.{name}" for name in GROUPS)
    assert modules_after(f"import {imports}; dir(helpers.plots)") == [set()]
    assert modules_after(f"from helpers import {', '.join(GROUPS)}; dir(plots)") == [set()]


def test_prompts_need_no_numbers() -> None:
    """Making prompts needs the standard library alone."""
    assert modules_after("from helpers import ioi_prompts; ioi_prompts()") == [set()]


@pytest.mark.slow
def test_analysis_needs_no_model_library_and_recording_no_wrapper() -> None:
    """Records, statistics, figures, report and command load neither transformers nor pyplot; a recorded model no transformer_lens."""
    analysis, recording = modules_after(
        "import helpers.results, helpers.experiment, helpers.plots.figures, helpers.plots.coupling, helpers.plots.plane\n"
        "import helpers.plots.shifts, helpers.statistics.ranking, helpers.statistics.coupling, helpers.reference.demo\n"
        "import helpers.attention.capture, helpers.models.load, helpers.patching.heads, helpers.__main__",
        "warnings.simplefilter('default')\n"
        "from helpers import load_model, record_attention\n"
        "record_attention(load_model('demo', device='cpu'), ['Mary saw John'], readout=True, progress=False)",
    )
    assert {"torch", "numpy", "matplotlib"} <= analysis
    assert not {"transformer_lens", "transformers", "matplotlib.pyplot"} & analysis
    assert "transformers" in recording
    assert "transformer_lens" not in recording


# Public names


def test_groups_are_public() -> None:
    """``helpers`` offers the groups, those and no other modules."""
    assert len(GROUPS) >= 9
    assert [name for name in helpers.__all__ if isinstance(getattr(helpers, name), ModuleType)] == GROUPS


@pytest.mark.parametrize(("face", "name"), NAMES)
def test_public_names_exist_and_are_documented(face: str, name: str) -> None:
    """Every listed name can be imported, is that name's object, and says what it is."""
    thing = getattr(FACES[face], name)
    assert getattr(thing, "__name__", name).split(".")[-1] == name
    assert thing.__doc__


@pytest.mark.parametrize("face", FACES)
def test_no_other_public_names(face: str) -> None:
    """dir() lists the public names, each once, and an unknown name is an AttributeError."""
    module = FACES[face]
    assert set(module.__all__) <= set(dir(module))
    assert len(module.__all__) == len(set(module.__all__))
    with pytest.raises(AttributeError, match="no_such_name"):
        module.no_such_name  # noqa: B018


def trees() -> Iterator[tuple[Path, ast.Module]]:
    """The modules of the package, parsed."""
    return ((file, ast.parse(file.read_text())) for file in sorted(PACKAGE.rglob("*.py")))


def defined(tree: ast.Module) -> Iterator[str]:
    """Public names that a module defines: functions, classes, variables."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign):
            names = [part.id for target in node.targets for part in ast.walk(target) if isinstance(part, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names = [node.target.id]
        else:
            names = []
        yield from (name for name in names if not name.startswith("_"))


def test_no_name_has_two_meanings() -> None:
    """A public name is one object in every face, defined in one module, and not the name of a module beside it.

    The demo model's own modules are left out: its corpus calls its sentences what the tasks are called.
    """
    public = {name for _, name in NAMES if not isinstance(getattr(FACES[_], name), ModuleType)}
    for name in public:
        assert len({id(getattr(FACES[face], name)) for face, other in NAMES if other == name}) == 1, name
    places = Counter(name for file, tree in trees() if file.parent.name != "demo" for name in defined(tree))
    assert {name: places[name] for name in public if places[name] != 1} == {}
    for face, module in FACES.items():
        beside = {path.stem for path in Path(module.__file__ or "").parent.iterdir()}
        assert not beside & (set(module.__all__) & public), face


def test_figures_are_named_by_what_they_take_and_return() -> None:
    """plot_ and label_: ``ax`` first, and it comes back; _figure: a whole figure; of other functions neither is true."""
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    modules = [importlib.import_module(f"helpers.plots.{file.stem}") for file in PACKAGE.glob("plots/[a-z]*.py")]
    functions = {
        name: (function, module)
        for module in modules
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
    }
    for name, (function, module) in functions.items():
        signature = inspect.signature(function)
        returns = eval(str(signature.return_annotation), vars(module))
        draws_on_axes = next(iter(signature.parameters), "") == "ax" and returns is Axes
        makes_figures = returns in (Figure, Figure | None, dict[str, Figure])
        assert name.startswith(("plot_", "label_")) == draws_on_axes, name
        assert name.endswith(("_figure", "_figures")) == makes_figures, name
    drawing = {name for name in functions if name.startswith(("plot_", "label_")) or "_figure" in name}
    assert drawing <= set(FACES["plots"].__all__)


def test_nothing_is_there_for_tests_alone() -> None:
    """Every public function and class is used in the package or a notebook, folded code too, or is a name of ``helpers``."""
    read: Counter[str] = Counter()
    for _, tree in trees():
        read.update(words(tree))
    for path in NOTEBOOKS:
        for cell in nbformat.read(path, as_version=4).cells:
            for code in [cell.source] if cell.cell_type == "code" else FOLDED.findall(cell.source):
                read.update(words(ast.parse(MAGIC.sub(r"\1pass", code))))
    things = {
        (str(file.relative_to(PACKAGE)), node.name)
        for file, tree in trees()
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    }
    assert len(things) > 300
    assert [thing for thing in sorted(things) if not read[thing[1]] and thing[1] not in helpers.__all__] == []


def words(tree: ast.AST) -> Iterator[str]:
    """Names that are read, as variables or attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr


def test_transformer_lens_is_imported_in_one_place() -> None:
    """Only helpers/models/model.py imports transformer_lens outside of type checking."""
    users = set()
    for file, tree in trees():
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
                users.add(str(file.relative_to(PACKAGE)))
    assert users == {"models/model.py"}

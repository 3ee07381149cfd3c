"""The reference: a page for each group of ``helpers``, made from the stubs, in which every public name stands once."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections import defaultdict
from functools import cache
from pathlib import Path

from sphinx.pycode import ModuleAnalyzer

PAGE = """\
# {face}

{intro}

{sections}
"""
INDEX = """\
# Reference

{intro}

```{{toctree}}
:maxdepth: 1

{pages}
```
"""
ABOUT = """\
Every public name of the package, from its docstring; the examples in it are run by the tests. Names are imported from `helpers`
or from the group that is a page's title; the headings on it are the modules in which the code stands.
Arrays are annotated with their axes: `Float[ndarray, "prompt layer head"]` is an array of floats with one axis for prompts, one for
layers and one for heads, in this order; `*batch` stands for any number of axes."""


def pages(package: Path) -> dict[str, str]:
    """Place in the book -> text."""
    faces = {"helpers": names_of(package / "__init__.pyi")}
    faces |= {f"helpers.{stub.parent.name}": names_of(stub) for stub in sorted(package.glob("*/__init__.pyi"))}
    listed = "\n".join(faces)
    found = {f"reference/{face}.md": page(face, faces) for face in faces}
    return found | {"reference/index.md": INDEX.format(intro=ABOUT, pages=listed)}


@cache
def names_of(stub: Path) -> dict[str, str]:
    """Public name -> module that it is imported from, relative to the stub's package ("" for a module itself).

    The stub is the one list of public names (`lazy_loader`).
    """
    imports = [node for node in ast.parse(stub.read_text("utf-8")).body if isinstance(node, ast.ImportFrom)]
    return {alias.name: node.module or "" for node in imports for alias in node.names}


def page(face: str, faces: dict[str, dict[str, str]]) -> str:
    """All names of a group under the modules that define them; those that a group of their own documents, as a table."""
    sections: dict[str, list[str]] = defaultdict(list)
    elsewhere = []
    for name, module in faces[face].items():
        if face == "helpers" and f"helpers.{name}" in faces:
            continue
        group = f"helpers.{module.split('.')[0]}"
        if face == "helpers" and name in faces.get(group, {}):
            elsewhere.append((name, group))
        else:
            sections[f"{face}.{module}" if module else f"{face}.{name}"].append(name)
    texts = [section(face, module, names) for module, names in sections.items()]
    intro = first_sentence(importlib.import_module(face))
    return PAGE.format(face=face, intro=intro, sections="\n\n".join([*texts, table(elsewhere)]))


def section(face: str, module: str, names: list[str]) -> str:
    """The names of one module, each with the directive for what it is."""
    text = "\n\n".join(directive(face, module, name, names) for name in names)
    about = first_sentence(importlib.import_module(module)) if "automodule" not in text else ""
    heading = module.removeprefix(f"{face}.")
    return f"## {heading}\n\n{about}\n\n```{{eval-rst}}\n.. currentmodule:: {face}\n\n{text}\n```"


def directive(face: str, module: str, name: str, names: list[str]) -> str:
    """The autodoc directive of a name; of a module that is itself public, those of all in it that has no entry of its own."""
    if module == f"{face}.{name}":
        own = "\n\n".join(entry(module, each) for each in defined(module) if each not in names)
        return f".. automodule:: {module}\n\n.. currentmodule:: {module}\n\n{own}\n\n.. currentmodule:: {face}"
    return entry(face, name)


def entry(place: str, name: str) -> str:
    """The directive for what a name is."""
    thing = getattr(importlib.import_module(place), name)
    if inspect.isclass(thing):
        return f".. autoclass:: {name}\n   :members:\n   :member-order: bysource"
    return f".. autofunction:: {name}" if callable(thing) else f".. autodata:: {name}\n   :no-value:"


def defined(module: str) -> list[str]:
    """Public names that a module defines and says something about, in its own order."""
    analyzer = ModuleAnalyzer.for_module(module)
    commented = {name for inside, name in analyzer.find_attr_docs() if not inside}
    names = [name for name in analyzer.tagorder if "." not in name and not name.startswith("_")]
    return [name for name in names if name in commented or name in analyzer.tags]


def table(elsewhere: list[tuple[str, str]]) -> str:
    """Names that a group documents, with links."""
    if not elsewhere:
        return ""
    rows = "\n".join(f"| {{py:obj}}`{name} <{group}.{name}>` | `{group}` |" for name, group in elsewhere)
    head = "## Names of the groups\n\nThese can be imported from `helpers` as well.\n\n"
    return f"{head}| name | documented in |\n|---|---|\n{rows}\n"


def first_sentence(module: object) -> str:
    """The first paragraph of a docstring, as Markdown."""
    return inspect.cleandoc(module.__doc__ or "").split("\n\n")[0].replace("``", "`")

"""What Sphinx is told beside its settings: signatures as they are written, comments of data, links that leave the book."""

from __future__ import annotations

import importlib
import inspect
import posixpath
import shutil
from pathlib import Path
from typing import Any

import mathjax
from docutils import nodes
from reference import names_of
from sphinx import addnodes
from sphinx.errors import NoUri
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.inspect import stringify_signature

import helpers

#: Of MathJax, what a page can ask for: SVG output has its glyphs in it and needs no font files.
MATHJAX = ("es5/tex-svg.js", "es5/input/tex/extensions/*.js", "es5/a11y/assistive-mml.js", "LICENSE")


def setup(app: Any) -> dict[str, bool]:
    """Connect the functions below."""
    app.connect("autodoc-process-signature", as_written)
    app.connect("autodoc-process-docstring", comment_of_data, priority=100)
    app.connect("autodoc-process-docstring", bars, priority=200)
    app.connect("autodoc-process-docstring", no_type, priority=600)
    app.connect("doctree-read", outside)
    app.connect("missing-reference", by_last_name)
    app.connect("build-finished", copy_mathjax)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class Made:
    """A default that a dataclass makes anew each time, as a signature shows it."""

    def __repr__(self) -> str:
        return "..."


def as_written(app: Any, what: str, name: str, obj: Any, options: Any, signature: str, returns: str) -> Any:
    """A signature with its annotations as they stand in the code: axes of arrays are not worked out."""
    if what not in ("class", "function", "method") or signature is None:
        return None
    try:
        found = inspect.signature(obj)
    except (TypeError, ValueError):
        return None
    if what == "method":
        found = found.replace(parameters=[p for p in found.parameters.values() if p.name not in ("self", "cls")])
    made = [p.replace(default=Made()) if repr(p.default) == "<factory>" else p for p in found.parameters.values()]
    found = found.replace(parameters=made)
    both = stringify_signature(found, show_return_annotation=what != "class")
    arguments, _, returned = both.rpartition(" -> ") if what != "class" and " -> " in both else (both, "", "")
    return arguments, returned


def comment_of_data(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """A public value is described by the comment (``#:``) above it, in the module that the group's stub names."""
    face, _, last = name.rpartition(".")
    stub = Path(helpers.__file__).parents[1].joinpath(*face.split("."), "__init__.pyi")
    if what == "data" and stub.exists():  # else the docstring of the value's class would stand there
        module = names_of(stub)[last]
        lines[:] = ModuleAnalyzer.for_module(f"{face}.{module}").find_attr_docs().get(("", last), [])


def bars(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """|dKL| is an absolute value, not reStructuredText's mark of a substitution; examples stay as they are."""
    example = False
    for number, line in enumerate(lines):
        example = line.lstrip().startswith(">>>") or (example and bool(line.strip()))
        if not example:
            pieces = line.split("``")  # every second one is code
            lines[number] = "``".join(p if k % 2 else p.replace("|", r"\|") for k, p in enumerate(pieces))


def no_type(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """What stands before a colon in the first line about a value or property is no type, as Napoleon reads it: put it back."""
    for number, line in enumerate(lines if what in ("data", "attribute", "property") else ()):
        if line.startswith(":type: "):
            lines[0] = f"{line.removeprefix(':type: ')}: {lines[0]}"
            del lines[number]
            break


# Links


def outside(app: Any, doctree: nodes.document) -> None:
    """A link to a file that is no page: to the host's page of it if the repository has an address, else plain text."""
    for node in list(doctree.findall(addnodes.pending_xref)):
        target, _, anchor = node["reftarget"].partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(app.env.docname), target))
        if node["reftype"] == "myst" and node.get("refdomain") != "doc" and target and is_file(app, path):
            place = f"{app.config.repository_address}/{path}" + (f"#{anchor}" if anchor else "")
            known = bool(app.config.repository_address)
            link = nodes.reference("", "", refuri=place, internal=False) if known else nodes.inline()
            link += node.children
            node.replace_self(link)


def is_file(app: Any, path: str) -> bool:
    """Whether the repository has it, and the book has it not."""
    return (Path(app.config.repository_root) / path).exists() and not (Path(app.srcdir) / path).exists()


def by_last_name(app: Any, env: Any, node: Any, text: Any) -> Any:
    """A name of the package in a docstring or annotation: found by its last part, wherever it is documented.

    Names of other libraries, and names of ours that are not public, stay plain; so does what is no name at all.
    """
    if node.get("refdomain") != "py":
        return None
    domain = env.domains.python_domain
    last = node["reftarget"].rpartition(".")[2]
    places = [name for name in domain.objects if name.rpartition(".")[2] == last and not domain.objects[name].aliased]
    if len(places) != 1:
        return text
    entry = domain.objects[places[0]]
    try:
        uri = app.builder.get_relative_uri(node.get("refdoc", env.docname), entry.docname)
    except NoUri:
        return text
    return nodes.reference("", "", text, refuri=f"{uri}#{entry.node_id}", internal=True, reftitle=places[0])


def source_of(domain: str, info: dict[str, str], address: str, root: Path) -> str | None:
    """Where the host shows the code of a name; None while the repository has no address."""
    if domain != "py" or not address:
        return None
    thing: Any = importlib.import_module(info["module"])
    try:
        for part in info["fullname"].split("."):
            thing = getattr(thing, part)
        thing = inspect.unwrap(getattr(thing, "fget", thing))
        lines, first = inspect.getsourcelines(thing)
        file = Path(inspect.getsourcefile(thing) or "").resolve().relative_to(root)
    except (AttributeError, TypeError, OSError, ValueError):
        return None
    return f"{address}/{file.as_posix()}#L{first}-L{first + len(lines) - 1}"


def copy_mathjax(app: Any, error: Exception | None) -> None:
    """MathJax travels with the site, its licence too."""
    source, target = Path(mathjax.__file__).parent / "static" / "mathjax", Path(app.outdir) / "_static" / "mathjax"
    for pattern in MATHJAX if error is None else ():
        for file in source.glob(pattern):
            place = target / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, place)

"""The sources of the book, put together: pages of this folder, notebooks, cards, and the reference made from the stubs."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nbformat
from reference import pages

#: Beside the notebooks: what is copied as it is, and keeps its place.
CARDS = ("helpers/measured/**/*.md", "helpers/demo/weights/README.md", "helpers/models/ARCHITECTURES.md")
PICTURES = ("notebooks/images/*.png",)
PART = re.compile(r"<!-- README: (.+) -->")
CARD = "<!-- cards -->"
LIVE = {"Playground(": "The app needs", "interact(": "Sliders and menus need"}
APP = "\n![The app: prompts on top, a grid of heads, one head's plane and rows](images/playground.png)\n"
SHORT = re.compile(r"\[(\d\d)\](?!\()")
ROW = re.compile(r"\| \[[^]]*\]\(notebooks/(?P<name>[^)]*)\) \| (?P<question>.*) \|$", re.MULTILINE)


def stage(root: Path, sources: Path) -> None:
    """Put every source where Sphinx finds it; a file that did not change keeps its time, so that it is not read again."""
    wanted = texts(root)
    for path, text in wanted.items():
        put(sources / path, text.encode())
    for path in found(root, PICTURES):
        put(sources / path, (root / path).read_bytes())
        wanted[path] = ""
    for path in [path for path in sources.rglob("*") if path.is_file()]:
        if path.relative_to(sources).as_posix() not in wanted:
            path.unlink()


def texts(root: Path) -> dict[str, str]:
    """Place in the book -> text, for every page."""
    readme = (root / "README.md").read_text("utf-8")
    own = {path.name: path.read_text("utf-8") for path in sorted((root / "book").glob("*.md"))}
    notebooks = found(root, ("notebooks/*.ipynb",))
    return {
        **{name: filled(text, readme, root, notebooks) for name, text in own.items()},
        **{path: (root / path).read_text("utf-8") for path in found(root, CARDS)},
        **{path: as_page(root, path) for path in notebooks},
        **pages(root / "helpers"),
    }


def found(root: Path, patterns: Iterable[str]) -> list[str]:
    """Files of the repository, by their paths in it."""
    return [path.relative_to(root).as_posix() for pattern in patterns for path in sorted(root.glob(pattern))]


def put(path: Path, content: bytes) -> None:
    if not path.exists() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


# What a page takes from elsewhere


def filled(text: str, readme: str, root: Path, notebooks: list[str]) -> str:
    """A page with its marked places filled: parts of the README, one card for each notebook; [03] is a link to notebook 03."""
    places = {Path(path).name[:2]: path for path in notebooks}
    text = SHORT.sub(lambda mark: f"[{mark[1]}]({places[mark[1]]})" if mark[1] in places else mark[0], text)
    text = PART.sub(lambda mark: part(readme, mark[1]), text)
    return text.replace(CARD, "\n".join(card(root, path, readme) for path in notebooks)) if CARD in text else text


def part(readme: str, heading: str) -> str:
    """What stands in the README under a heading of the second level, without the heading.

    >>> part("# A\\n\\n## B\\n\\nb\\n\\n### C\\n\\nc\\n\\n## D\\n", "B")
    'b\\n\\n### C\\n\\nc'
    """
    match = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", readme, re.MULTILINE | re.DOTALL)
    if match is None:
        raise ValueError(f"README.md: expected a part '## {heading}', which a page of the book takes in")
    return match[1].strip()


def card(root: Path, path: str, readme: str) -> str:
    """A notebook's card: title, picture, and its question as the README's table has it."""
    name = Path(path).name
    title = title_of(root / path)
    questions = {row["name"]: row["question"] for row in ROW.finditer(readme)}
    picture = f"notebooks/images/{name[:2]}.png"
    lines = [f":::{{grid-item-card}} {title}", f":link: {path.removesuffix('.ipynb')}", ":link-type: doc"]
    if (root / picture).exists():
        lines += [f":img-top: {picture}", f":img-alt: Figure of notebook {title}"]
    return "\n".join([*lines, "", questions.get(name, ""), ":::"])


# Notebooks


def title_of(path: Path) -> str:
    """The first heading of a notebook's text."""
    texts = [cell.source for cell in read(path).cells if cell.cell_type == "markdown"]
    found = re.search(r"^# (.+)$", "\n".join(texts), re.MULTILINE)
    if found is None:
        raise ValueError(f"{path.name}: expected a heading '# ...' in its text, got none")
    return found[1]


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def as_page(root: Path, path: str) -> str:
    """A notebook as the book shows it: figures with their alternative text, a sentence where a running kernel is needed."""
    notebook = read(root / path)
    launch = how_to_run(root, path)
    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        if "alt" in cell.metadata:
            cell.metadata["mystnb"] = {"image": {"alt": cell.metadata.alt}}
        if cell.source.startswith("# Colab lacks the package"):
            cell.metadata.setdefault("tags", []).append("hide-input")
        if is_live(cell):
            cells.append(nbformat.v4.new_markdown_cell(live_note(cell, launch), id=f"{cell.id}-live"))
    notebook.cells = cells
    return json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True)


def is_live(cell: Any) -> bool:
    """A cell that draws widgets: its output is not compared, and none is kept."""
    return cell.cell_type == "code" and "nbval-ignore-output" in cell.metadata.get("tags", []) and not cell.outputs


def live_note(cell: Any, launch: str) -> str:
    """What stands in the place of widgets; the picture of a slider is beside it, that of the app is shown here."""
    what = next((words for code, words in LIVE.items() if code in cell.source), "The widget needs")
    note = f":::{{admonition}} Live in a running notebook\n:class: note live\n{what} a kernel: {launch}.\n"
    return note + (APP if "Playground(" in cell.source else "") + ":::\n"


def how_to_run(root: Path, path: str) -> str:
    """How a reader gets a kernel: on the own machine, and in Binder once the repository has an address."""
    repository, branch = published(root).address(root)
    local = f"`make lab` opens this notebook on your own machine (`{path}`)"
    binder = f"https://mybinder.org/v2/gh/{repository}/{branch}?urlpath=lab/tree/{path}"
    return f"{local}, [Binder]({binder}) in a browser" if repository else local


def published(root: Path) -> Any:
    """The module that knows where the repository is published: ``notebooks/badges.py``."""
    spec = importlib.util.spec_from_file_location("badges", root / "notebooks" / "badges.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

"""The book: what it is made of, and the site as it is built, read from disk and looked at in a browser without a network."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
README = (ROOT / "README.md").read_text("utf-8")
CHROMIUM = shutil.which("chromium")
WIDTHS = (1280, 390)

pytest.importorskip("sphinx", reason="no sphinx here (pip install -r book/requirements.txt)")


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    """The modules of the folder ``book``, under names of their own."""
    sys.path.insert(0, str(BOOK))
    try:
        yield {name: importlib.import_module(name) for name in ("stage", "reference", "hooks")}
    finally:
        sys.path.remove(str(BOOK))


# What the book is made of


@pytest.mark.slow
def test_every_public_name_stands_once(scripts: dict[str, ModuleType]) -> None:
    """Each name of ``helpers`` and of its groups has one directive; what a group documents, ``helpers`` links to."""
    texts = scripts["reference"].pages(ROOT / "helpers")
    faces = ["helpers", *(f"helpers.{stub.parent.name}" for stub in (ROOT / "helpers").glob("*/__init__.pyi"))]
    assert set(texts) == {f"reference/{face}.md" for face in faces} | {"reference/index.md"}
    assert len(faces) > 10
    for face in faces:
        text = texts[f"reference/{face}.md"]
        within, own = face, list[str]()
        for kind, name in re.findall(r"^\.\. (auto\w+|currentmodule):: ([\w.]+)$", text, re.MULTILINE):
            within = name if kind == "currentmodule" else within
            own += [name] if kind == "automodule" or (kind != "currentmodule" and within == face) else []
        linked = re.findall(r"`(\w+) <(helpers\.\w+)\.\w+>`", text)
        assert max(Counter(own).values()) == 1
        named = [name.rpartition(".")[2] for name in own] + [name for name, _ in linked]
        groups = [name for name in faces if face == "helpers" and name != face]
        public = importlib.import_module(face).__all__
        assert sorted(named + [name.partition(".")[2] for name in groups]) == sorted(public)
        assert all(name in importlib.import_module(group).__all__ for name, group in linked)


def test_numbers_of_the_front_page_are_the_readme_s() -> None:
    """Every number with a decimal point on the front page stands in the README, whose numbers are those of the shipped tables."""
    front = set(re.findall(r"\d+\.\d+", (BOOK / "index.md").read_text("utf-8")))
    assert len(front) >= 10
    assert front - set(re.findall(r"\d+\.\d+", README)) == set()


TERMS = (
    "IOI", "ABC", "END", "BOS", "S1", "S2", "IO", "logit difference", "KL selectivity", "chi", "attainable region", "budget",
    "beta", "activation patching", "attribution patching", "path patching", "name mover", "negative name mover",
    "backup name mover", "S-inhibition head", "induction head", "duplicate token head", "previous token head", "AUROC",
    "within-layer AUROC", "depth baseline", "q-value", "sign-flip test", "output change", "minimal pair",
)  # fmt: skip


def test_the_glossary_explains_the_words() -> None:
    """Every term has an entry of its own, which says something."""
    text = (BOOK / "glossary.md").read_text("utf-8")
    entries = dict(re.findall(r"^(\S.*)\n((?:  .+\n)+)", text, re.MULTILINE))
    assert [term for term in TERMS if len(entries.get(term, "").split()) < 5] == []


def test_an_absent_part_of_the_readme_is_refused(scripts: dict[str, ModuleType]) -> None:
    """A page that takes in a part of the README that is not there is not made without it."""
    assert scripts["stage"].part("# A\n\n## B\n\nb\n\n### C\n\nc\n\n## D\n", "B") == "b\n\n### C\n\nc"
    with pytest.raises(ValueError, match=r"README\.md: expected a part '## Nothing there'"):
        scripts["stage"].part(README, "Nothing there")


@pytest.mark.slow
def test_the_code_of_the_page_on_extending_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Block after block in one namespace; where a block is followed by text, that is what it prints."""
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", (BOOK / "extend.md").read_text(), re.DOTALL)
    assert sum(bool(shown) for _, shown in blocks) >= 4
    names: dict[str, Any] = {}
    for code, shown in blocks:
        with contextlib.redirect_stdout(io.StringIO()) as said:
            exec(code, names)
        assert said.getvalue() == shown


def test_the_workflow_publishes_what_is_built() -> None:
    """It runs `make book`, hands on the folder that this writes, and deploys from the repository itself alone."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "book.yml").read_text())
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert "make book" in [step.get("run") for step in steps]
    [upload] = [step for step in steps if "upload-pages-artifact" in step.get("uses", "")]
    assert upload["with"]["path"] == "build/book"
    assert 'ROOT / "build" / "book"' in (BOOK / "build.py").read_text()
    assert "$(BIN)/python book/build.py\n" in (ROOT / "Makefile").read_text()
    assert all(re.search(r"@v\d+$", step["uses"]) for step in steps if "uses" in step)
    assert "github.event.repository.fork" in workflow["jobs"]["publish"]["if"]


# Where the repository is published


@pytest.mark.slow
def test_an_address_gives_launch_buttons_and_links(tmp_path: Path, scripts: dict[str, ModuleType]) -> None:
    """With an address: Binder and Colab on a notebook's page, and links to files that are no pages go to the host."""
    root = tmp_path / "repository"
    shutil.copytree(BOOK, root / "book", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "notebooks").mkdir()
    for name in ("badges.py", NOTEBOOKS[3].name):
        shutil.copy(ROOT / "notebooks" / name, root / "notebooks")
    table = '[tool.published]\nrepository = "ann/heads"\nbranch = "next"\n'
    (root / "pyproject.toml").write_text(table)
    (tmp_path / "sources" / "notebooks").mkdir(parents=True)
    (tmp_path / "sources" / "index.md").write_text(
        "# A\n\n[set](pyproject.toml)\n\n```{toctree}\n:glob:\nnotebooks/*\n```\n"
    )
    page = f"notebooks/{NOTEBOOKS[3].name}"
    shutil.copytree(ROOT / "notebooks" / "images", tmp_path / "sources" / "notebooks" / "images")
    (tmp_path / "sources" / page).write_text(scripts["stage"].as_page(root, page), "utf-8")
    command = ["sphinx", "-q", "-W", "-c", str(root / "book"), str(tmp_path / "sources"), str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    front, notebook = (read(tmp_path / "out" / name) for name in ("index.html", page.replace(".ipynb", ".html")))
    assert "https://github.com/ann/heads/blob/next/pyproject.toml" in front.links
    assert f"https://mybinder.org/v2/gh/ann/heads/next?urlpath=lab/tree/{page}" in notebook.links
    assert f"https://colab.research.google.com/github/ann/heads/blob/next/{page}" in notebook.links


def test_a_name_is_shown_where_it_is_defined(scripts: dict[str, ModuleType]) -> None:
    """The link to a name's code names its file and lines; without an address there is none."""
    where = scripts["hooks"].source_of
    info = {"module": "helpers.diagnostics", "fullname": "entropy"}
    assert where("py", info, "", ROOT) is None
    file, _, lines = where("py", info, "https://host", ROOT).removeprefix("https://host/").partition("#L")
    first, last = (int(line) for line in lines.split("-L"))
    code = (ROOT / file).read_text().splitlines()[first - 1 : last]
    assert code[0].startswith("def entropy(")
    assert code[-1].strip().startswith("return")


# The site


@dataclass
class Page(HTMLParser):
    """What a page links to, loads, shows and names."""

    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    alts: list[str | None] = field(default_factory=list)
    tags: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note one element."""
        has = dict(attrs)
        self.tags[tag] += 1
        self.ids |= {value for value in (has.get("id"), has.get("name") if tag == "a" else None) if value}
        if tag == "a" and has.get("href"):
            self.links.append(has["href"] or "")
        elif tag == "link" and has.get("rel") in ("stylesheet", "icon", "preload", "manifest"):
            self.loads.append(has.get("href") or "")
        elif has.get("src"):
            self.loads.append(has["src"] or "")
        if tag == "img":
            self.alts.append(has.get("alt"))


def read(path: Path) -> Page:
    """A page, parsed."""
    page = Page()
    page.feed(path.read_text("utf-8"))
    return page


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built once, without a warning."""
    out = tmp_path_factory.mktemp("site") / "book"
    command = [sys.executable, str(BOOK / "build.py"), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode == 0
    return out


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    """Place in the site -> page, for every page."""
    files = [path for path in sorted(site.rglob("*.html")) if "_static" not in path.parts]
    return {path.relative_to(site).as_posix(): read(path) for path in files}


@pytest.mark.slow
def test_every_notebook_and_card_is_a_page(site: Path, pages: dict[str, Page]) -> None:
    """Each notebook in order, on the front page too, and each card; folded parts fold; where widgets were, it says how to run them."""
    names = [f"notebooks/{path.stem}.html" for path in NOTEBOOKS]
    assert [name for name in pages if name.startswith("notebooks/")] == names
    front = [link for link in pages["index.html"].links if link in names]
    assert list(dict.fromkeys(front)) == names
    cards = [*(ROOT / "helpers").glob("measured/**/*.md"), ROOT / "helpers" / "models" / "ARCHITECTURES.md"]
    assert {card.relative_to(ROOT).with_suffix(".html").as_posix() for card in cards} <= set(pages)
    for name, path in zip(names, NOTEBOOKS, strict=True):
        cells = nbformat.read(path, as_version=4).cells
        assert pages[name].tags["summary"] >= sum(cell.source.count("<details>") for cell in cells)
        live = sum("nbval-ignore-output" in cell.metadata.get("tags", []) and not cell.outputs for cell in cells)
        assert (site / name).read_text("utf-8").count("Live in a running notebook") == live


@pytest.mark.slow
def test_every_picture_says_what_it_shows(pages: dict[str, Page]) -> None:
    """No picture without an alternative text; a figure of a notebook has the one that its cell keeps."""
    assert {name: page.alts for name, page in pages.items() if not all(alt and alt.strip() for alt in page.alts)} == {}
    for path in NOTEBOOKS:
        shown = pages[f"notebooks/{path.stem}.html"].alts
        cells = nbformat.read(path, as_version=4).cells
        assert [cell.metadata.alt for cell in cells if "alt" in cell.metadata and cell.metadata.alt not in shown] == []


@pytest.mark.slow
def test_every_link_leads_somewhere(site: Path, pages: dict[str, Page]) -> None:
    """Inside the site: to a file, and an anchor to an element of it. Nothing is loaded from elsewhere."""
    broken = [
        (name, link)
        for name, page in pages.items()
        for link in {*page.links, *page.loads}
        if not urlsplit(link).scheme and not leads_somewhere(site, pages, name, link)
    ]
    assert broken == []
    assert {
        load for page in pages.values() for load in page.loads if urlsplit(load).scheme not in ("", "data")
    } == set()


def leads_somewhere(site: Path, pages: dict[str, Page], name: str, link: str) -> bool:
    """A relative link of a page, from disk."""
    parts = urlsplit(link)
    target = (site / name).parent / unquote(parts.path) if parts.path else site / name
    place = target.resolve().relative_to(site.resolve()).as_posix()
    return target.is_file() and (
        not parts.fragment or place not in pages or unquote(parts.fragment) in pages[place].ids
    )


@pytest.mark.slow
def test_every_public_name_has_its_place(pages: dict[str, Page]) -> None:
    """Every name of every group can be linked to, and the examples of docstrings are shown."""
    ids = set().union(*(page.ids for name, page in pages.items() if name.startswith("reference/")))
    faces = ["helpers", *(f"helpers.{stub.parent.name}" for stub in (ROOT / "helpers").glob("*/__init__.pyi"))]
    ends = {name.rpartition(".")[2] for name in ids if name.startswith("helpers.")}
    for face in faces:
        public = set(importlib.import_module(face).__all__)
        missing = public - ends - {name.rpartition(".")[2] for name in faces}
        assert {name for name in missing if f"module-{face}.{name}" not in ids} == set()


@pytest.mark.slow
def test_buttons_only_with_an_address(site: Path, pages: dict[str, Page], scripts: dict[str, ModuleType]) -> None:
    """Until the repository has an address, no page names one; then each notebook has its two buttons."""
    address, _ = scripts["stage"].published(ROOT).address(ROOT)
    for path in NOTEBOOKS:
        links = pages[f"notebooks/{path.stem}.html"].links
        hosts = {urlsplit(link).netloc for link in links} & {"mybinder.org", "colab.research.google.com"}
        assert len(hosts) == (2 if address else 0)
    if not address:
        assert "OWNER/NAME" not in "".join(link for page in pages.values() for link in page.links)


# In a browser


@pytest.fixture(scope="module")
def tab(site: Path) -> Iterator[Any]:
    """An empty tab without a network; what it says and asks for is kept in ``tab.heard``."""
    sync = pytest.importorskip("playwright.sync_api", reason="no playwright (pip install playwright)")
    if CHROMIUM is None:
        pytest.skip("no chromium here (Debian: apt install chromium)")
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_context(offline=True).new_page()
        tab.heard = heard = []
        tab.on("console", lambda message: message.type in ("error", "warning") and heard.append(message.text))
        tab.on("pageerror", lambda error: heard.append(str(error)))
        tab.on("requestfailed", lambda request: heard.append(f"failed: {request.url}"))
        tab.on("request", lambda request: request.url.startswith(("file:", "data:")) or heard.append(request.url))
        yield tab
        browser.close()


#: After maths is typeset: its elements, those without a size, and TeX that is left in the text.
TYPESET = r"""async () => {
    await window.MathJax?.startup?.promise;
    const maths = [...document.querySelectorAll('mjx-container')];
    const empty = maths.filter(m => !m.closest('details:not([open])') && !(m.getBoundingClientRect().width > 2)).length;
    const walker = document.createTreeWalker(document.querySelector('main'), NodeFilter.SHOW_TEXT), raw = [];
    while (walker.nextNode()) {
        const text = walker.currentNode;
        if (/\$\$|\\(frac|mathrm|pi|chi|sum|\(|\[)/.test(text.data) && !text.parentElement.closest('pre, code, script, mjx-container'))
            raw.push(text.data.trim());
    }
    return {maths: maths.length, empty, raw};
}"""


@pytest.mark.browser
def test_every_page_from_disk_without_a_network(site: Path, pages: dict[str, Page], tab: Any) -> None:
    """No error, no request that fails or leaves, no sideways scrolling at both widths, maths typeset, no TeX left over."""
    wrong, maths = [], Counter[str]()
    for name in pages:
        tab.heard.clear()
        tab.set_viewport_size({"width": WIDTHS[0], "height": 900})
        tab.goto((site / name).as_uri())
        found = tab.evaluate(TYPESET)
        maths[name] = found.pop("maths")
        for width in WIDTHS:
            tab.set_viewport_size({"width": width, "height": 900})
            wide = tab.evaluate("Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)")
            if wide > width:
                wrong.append((name, f"{wide} of {width} px"))
        wrong += [(name, what) for what in (*tab.heard, *found["raw"], *["maths without a size"] * found["empty"])]
    assert wrong == []
    with_maths = [f"notebooks/{path.stem}.html" for path in NOTEBOOKS if "\\\\mathrm{KL}" in path.read_text("utf-8")]
    assert with_maths
    assert min(maths[name] for name in (*with_maths, "glossary.html")) > 3


#: Texts whose contrast with what is behind them is below 4.5 (WCAG AA): the text, and the contrast.
FAINT = """async () => {
    await Promise.all(document.getAnimations().map(animation => animation.finished));
    const parse = colour => (colour.match(/[\\d.]+/g) || []).map(Number);
    const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
    const behind = element => {
        for (let e = element; e; e = e.parentElement) {
            const colour = parse(getComputedStyle(e).backgroundColor);
            if (colour.length === 3 || colour[3] > 0.5) return colour;
        }
        return [255, 255, 255];
    };
    const faint = {};
    for (const e of document.querySelectorAll('main p, main li, main td, main th, main dt, main h1, main h2, main a, main code, main pre, main summary')) {
        if (!e.innerText?.trim() || !e.getBoundingClientRect().width || e.closest('.headerlink')) continue;
        const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))];
        const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (contrast < 4.5) faint[e.tagName + ': ' + e.innerText.trim().slice(0, 40)] = contrast.toFixed(1);
    }
    return faint;
}"""


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_both_themes_are_legible(site: Path, tab: Any, theme: str) -> None:
    """On the front page, a notebook with tables and folded parts, the glossary and a page of the reference."""
    tab.emulate_media(color_scheme=theme)  # a reader's own choice, which the site follows at first
    tab.set_viewport_size({"width": WIDTHS[0], "height": 900})
    for name in ("index", f"notebooks/{NOTEBOOKS[4].stem}", "glossary", "reference/helpers.statistics"):
        tab.goto((site / f"{name}.html").as_uri())
        assert tab.evaluate("document.documentElement.dataset.theme") == theme
        assert (name, tab.evaluate(FAINT)) == (name, {})


@pytest.mark.browser
def test_search_and_contents_from_disk(site: Path, tab: Any) -> None:
    """A search finds pages; on a phone's width the button opens the list of pages."""
    tab.heard.clear()
    tab.goto((site / "search.html").as_uri() + "?q=susceptibility")
    for page in ("glossary", "notebooks/02"):  # hits come one after the other
        tab.locator(f"#search-results li a[href*='{page}']").first.wait_for()
    tab.set_viewport_size({"width": WIDTHS[1], "height": 900})
    tab.goto((site / "index.html").as_uri())
    tab.locator(".primary-toggle:visible").click()
    tab.locator("nav a", has_text="Glossary").first.wait_for(state="visible")
    assert tab.heard == []

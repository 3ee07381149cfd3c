"""The playground in JupyterLab in a real browser: what a reader does, from the first prompt to a page that is sent on.

One JupyterLab and one browser for all of it, at two widths and in two themes. Pictures are kept in ``build/browser``; the
README's is ``readme.png`` of there. Needs Debian's chromium and the Python package playwright (which downloads no browser here).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
from lab import CHROMIUM, jupyterlab, ran_notebook

from helpers.models import gguf

REPOSITORY = Path(__file__).resolve().parent.parent
NOTEBOOK = "04_try_your_own_prompts.ipynb"
SHOTS = REPOSITORY / "build" / "browser"
SIZES = {
    "readme": {"width": 1300, "height": 1160}, "narrow": {"width": 900, "height": 1000}, "wide": {"width": 1600, "height": 1000},
}  # fmt: skip

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here (Debian: apt install chromium)"),
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="no playwright (pip install playwright)"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The notebook's set-up and its app, alone in a folder; nbval runs all of its cells."""
    (tmp_path / "notebooks").mkdir()
    notebook = nbformat.read(REPOSITORY / "notebooks" / NOTEBOOK, as_version=4)
    wanted = ("find_spec", "load_model(", "Playground(")
    cells = [
        cell for cell in notebook.cells if cell.cell_type == "code" and any(word in cell.source for word in wanted)
    ]
    assert len(cells) == len(wanted)
    notebook.cells = cells
    nbformat.write(notebook, tmp_path / "notebooks" / NOTEBOOK)
    return tmp_path / "notebooks"


@pytest.fixture
def page(folder: Path, tmp_path: Path) -> Iterator[Any]:
    """The notebook, open and run from top to bottom."""
    (tmp_path / "lab").mkdir()
    with (
        jupyterlab(folder / NOTEBOOK, tmp_path / "lab") as address,
        ran_notebook(address, NOTEBOOK, tmp_path / "profile", SIZES["readme"]) as page,
    ):
        yield page


#: Sets the source of a new cell below and runs it.
RUN_CODE = """async code => {
    const app = window.jupyterapp;
    await app.commands.execute('notebook:insert-cell-below');
    app.shell.currentWidget.content.activeCell.model.sharedModel.setSource(code);
    await app.commands.execute('notebook:run-cell');
}"""


#: Puts a text in a box, as one change.
PASTE = """(box, text) => {
    box.value = text;
    for (const event of ['input', 'change']) box.dispatchEvent(new Event(event, { bubbles: true }));
}"""

#: Whether grid and strips are in the window, side by side, once the app is scrolled to its top.
IN_SIGHT = """app => {
    app.scrollIntoView();
    const [grid, strips] = ['.ahd-grid', '.ahd-strip'].map(name => app.querySelector(name)?.getBoundingClientRect());
    return grid && strips && grid.right <= strips.left && strips.left <= innerWidth
        && Math.max(grid.bottom, strips.bottom) <= innerHeight && app.scrollWidth <= app.clientWidth + 1;
}"""


class App:
    """One playground on the page, as a reader finds it."""

    def __init__(self, page: Any, number: int = 0) -> None:
        self.page = page
        self.root = page.locator(".jp-OutputArea-output > .jupyter-widgets.widget-vbox").nth(number)

    def button(self, name: str) -> Any:
        return self.root.locator(".jupyter-button").filter(has_text=name).first

    def has_grid(self, heads: int) -> None:
        """The grid is drawn, with a cell for each head."""
        cells = self.root.locator(".ahd-grid [role=gridcell]")
        cells.nth(heads - 1).wait_for()
        assert cells.count() == heads

    def cell(self, head: str) -> Any:
        return self.root.locator(f'.ahd-cell[data-at="{head.replace(".", ",")}"]')

    def type(self, active: str, control: str) -> None:
        """Into the boxes, and leave them. What is read of them is said a moment later: wait for that before a run.

        JupyterLab hands the messages of some widgets to the kernel's main thread and of others to another one, so that on
        a busy machine a click may overtake the text that was typed before it.
        """
        for number, text in enumerate((active, control)):
            self.root.locator(".widget-gridbox textarea").nth(number).fill(text)
            self.page.keyboard.press("Tab")

    def paste(self, active: str, control: str) -> None:
        """Long texts, at once: the browser's own insertion takes seconds for thousands of lines."""
        for number, text in enumerate((active, control)):
            self.root.locator(".widget-gridbox textarea").nth(number).evaluate(PASTE, text)

    def run(self) -> None:
        """Press Run and wait until it can be pressed again."""
        self.button("Run").click()
        self.root.locator(".jupyter-button:not([disabled])", has_text="Run").first.wait_for()

    def says(self, text: str) -> None:
        self.root.get_by_text(text).first.wait_for()

    def shot(self, name: str) -> None:
        self.page.screenshot(path=SHOTS / f"{name}.png")

    def in_sight(self) -> None:
        """From the top of the app down, grid and head view come to stand side by side in the window; nothing scrolls sideways."""
        self.page.wait_for_function(IN_SIGHT, arg=self.root.element_handle(), timeout=10_000)


def theme(page: Any, name: str) -> None:
    page.evaluate("name => window.jupyterapp.commands.execute('apputils:change-theme', { theme: name })", name)
    page.wait_for_function("name => document.body.dataset.jpThemeName === name", arg=name)


def test_what_a_reader_does(page: Any, folder: Path) -> None:
    """Type, run, look around by mouse and keys, compare, turn the knob, save, come back; then a real model, two widths, two themes."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    app = App(page)
    app.says("Nothing to say against these prompts")
    a_bad_prompt_is_named(app)
    own_prompts_are_run(app)
    looks_right(app, "demo")
    heads_are_opened_and_compared(app)
    rows_and_knob_are_opened(app)
    page_and_table_are_saved(app, folder)
    a_long_run_is_stopped(app)
    a_link_brings_the_view_back(app)
    a_real_model_is_looked_at(app)
    assert page.errors == []


def looks_right(app: App, name: str) -> None:
    """At 900 and 1,600 pixels, light and dark, grid and head view stand side by side in sight; each is kept as a picture."""
    for colours in ("Dark", "Light"):
        theme(app.page, f"JupyterLab {colours}")
        for size in ("narrow", "wide"):
            app.page.set_viewport_size(SIZES[size])
            app.page.wait_for_timeout(200)  # for the components to measure their place
            app.in_sight()
            app.shot(f"{name}-{size}-{colours.lower()}")
    app.page.set_viewport_size(SIZES["readme"])


def a_bad_prompt_is_named(app: App) -> None:
    app.type("Mary saw a zeppelin\nred cup red", "red cup box\nold key pen")
    app.says("Active prompt 1: the word 'zeppelin' is not in this model's vocabulary")
    app.run()
    app.says("Not run")


def own_prompts_are_run(app: App) -> None:
    """Eight pairs: each word twice, or not."""
    words = ["cup", "box", "pen", "key", "map", "lamp", "apple", "coin"]
    app.type(
        "\n".join(f"{a} {b} {a}" for a, b in zip(words, words[1:] + words[:1], strict=True)),
        "\n".join(f"{a} {b} {c}" for a, b, c in zip(words, words[1:] + words[:1], words[2:] + words[:2], strict=True)),
    )
    app.says("Prompts (8 pairs)")
    app.run()
    app.says("in 8 pairs, which heads attend differently from END")
    app.has_grid(48)
    assert app.root.locator(".ahd-grid").get_attribute("aria-label")


def heads_are_opened_and_compared(app: App) -> None:
    """By a click, by arrow keys, which stay in the app; a second one by its key; every step changes what stands beside the grid."""
    keyboard = app.page.keyboard
    app.cell("2.3").click()
    app.says("Head 2.3")
    active = app.page.evaluate("() => window.jupyterapp.shell.currentWidget.content.activeCellIndex")
    keyboard.press("ArrowRight")
    app.says("Head 2.4")
    keyboard.press("ArrowDown")
    app.says("head 3.4, active prompt 1 of 8")
    assert app.page.evaluate("() => window.jupyterapp.shell.currentWidget.content.activeCellIndex") == active
    app.cell("5.0").click(modifiers=["Shift"])
    app.says("head 5.0, control prompt 1 of 8")
    app.cell("5.0").hover()
    tip = app.page.locator(".ahd-tip:visible").first.inner_text()
    assert "ΔKL" in tip
    assert "q = " in tip
    app.shot("compared")


def rows_and_knob_are_opened(app: App) -> None:
    app.button("Every row").click()
    app.root.locator("canvas").first.wait_for()
    app.button("Turn its knob").click()
    app.says("beta = 1")
    handle = app.root.locator(".noUi-handle").first
    handle.focus()
    for _ in range(8):
        app.page.keyboard.press("ArrowRight")
    app.says("beta = 4")
    app.shot("knob")


def page_and_table_are_saved(app: App, folder: Path) -> None:
    """Both beside the notebook, the table twice under two names; the page opens from the disk and is the same view."""
    for name in ("heads.csv", "heads-2.csv"):
        app.button("Table").click()
        app.says(f"Saved: results-playground/{name}")
    table = pd.read_csv(folder / "results-playground" / "heads-2.csv")
    assert len(table) == 48
    with app.page.expect_download() as saved:
        app.root.get_by_role("button", name="Download heads-2.csv").click()
    assert Path(saved.value.path()).read_text() == (folder / "results-playground" / "heads-2.csv").read_text()
    app.button("Page").click()
    app.says("Saved: results-playground/playground.html")
    opened = app.page.context.new_page()
    opened.goto((folder / "results-playground" / "playground.html").as_uri())
    opened.get_by_text("in 8 pairs, which heads attend differently").wait_for()
    cells = opened.locator(".ahd-grid [role=gridcell]")
    cells.nth(47).wait_for()
    assert cells.count() == 48
    opened.screenshot(path=SHOTS / "page.png", full_page=True)
    opened.close()


def a_long_run_is_stopped(app: App) -> None:
    """Stop is heard, and the result before it stays, marked as one of other prompts."""
    before = app.cell("2.3").get_attribute("aria-label")
    app.button("Prompts").click()
    app.paste("\n".join(["Mary has a ring"] * 2000), "\n".join(["Mary has a cup"] * 2000))
    app.says("Of the prompts before")
    app.button("Run").click()
    app.root.locator(".jupyter-button:not([disabled])", has_text="Stop").first.click()
    app.says("Stopped while")
    assert app.cell("2.3").get_attribute("aria-label") == before


def a_link_brings_the_view_back(app: App) -> None:
    """The line of the button Link, given to a new app, brings prompts, head and compared head."""
    app.button("Link").click()
    app.says("model=demo&example=your")
    line = app.root.locator("pre").last.inner_text()
    line = line.replace(
        line[line.index("&active=") : line.index("&head=")],
        "&active=red+cup+red%0Aold+key+old&control=red+cup+box%0Aold+key+pen",
    )
    app.page.evaluate(RUN_CODE, f"Playground(state={line!r}).view")
    other = App(app.page, 1)
    other.says("in 2 pairs, which heads attend differently")
    other.says("head 3.4, active prompt 1 of 2")
    other.says("head 5.0, control prompt 1 of 2")


def a_real_model_is_looked_at(app: App) -> None:
    """SmolLM2's shipped rows open without the model; what needs that says so, and brings it."""
    app.page.set_viewport_size(SIZES["readme"])
    app.page.evaluate(RUN_CODE, 'Playground("smollm2").view')
    real = App(app.page, 2)
    real.says("94 of 270 heads shift their KL")
    real.has_grid(270)
    real.cell("24.4").click()
    real.says("Head 24.4, Negative Name Mover, causal in IOI")
    app.page.mouse.move(0, 0)
    real.in_sight()
    real.root.screenshot(path=SHOTS / "readme.png")
    looks_right(real, "smollm2")
    real.button("Turn its knob").click()
    real.says("The knob runs the model again: it needs smollm2 in memory.")
    try:
        gguf.smollm2_folder()
    except gguf.UnusableFile:
        return
    real.button("Load the model").click()
    real.says("1 of 3: loading")
    real.root.locator(".jupyter-button:not([disabled])", has_text="Run").first.wait_for()
    real.button("Turn its knob").click()
    real.says("beta = 1")

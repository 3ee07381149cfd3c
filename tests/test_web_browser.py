"""The playground's components in a real browser: pages opened from the disk without a network, used by pointer and keys.

Needs Debian's chromium and the Python package playwright (which downloads no browser here).
"""

from __future__ import annotations

import base64
import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.measured import shipped_record, shipped_roles
from helpers.widgets.web import (
    AttentionMatrix,
    CopyButton,
    Download,
    HeadGrid,
    PlaneDots,
    RankedHeads,
    TokenStrips,
    role_marks,
    static_page,
)

CHROMIUM = shutil.which("chromium")
SHOTS = Path(__file__).resolve().parent.parent / "build" / "browser"
#: Tokens that are hard to show, and what is seen of them.
ODD = {
    "<|im_start|>": "<|im_start|>", " a": "·a", "\n": "↵", "\t": "⇥", "  ": "··", "$x^2$": "$x^2$", "日本語": "日本語",
    "👩‍👧": "👩‍👧", "שלום": "שלום", "\u200b": "⟨U+200B⟩", "</script>": "</script>", "": "∅", "x" * 400: "x" * 400,
}  # fmt: skip
HOSTILE = "</script><script>document.title = 'broken'</script><img src=x onerror=\"document.title = 'broken'\">"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here (Debian: apt install chromium)"),
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="no playwright (pip install playwright)"),
]


@pytest.fixture(scope="module")
def window() -> Iterator[Any]:
    """One window for all tests; it has no network."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        context = browser.new_context(viewport={"width": 900, "height": 800}, offline=True)
        context.set_default_timeout(10_000)
        page = context.new_page()
        yield page
        browser.close()


@pytest.fixture
def show(window: Any, tmp_path: Path) -> Iterator[Any]:
    """Opens a page of some components from the disk; no error and no request may come of whatever a test does there."""
    wrong: list[str] = []
    listeners = {
        "console": lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None,
        "pageerror": lambda error: wrong.append(str(error)),
        "request": lambda request: None if request.url.startswith(("file:", "blob:")) else wrong.append(request.url),
    }
    for event, listener in listeners.items():
        window.on(event, listener)

    def opened(*parts: Any, title: str = "a page", width: int = 900, theme: str = "light") -> Any:
        window.set_viewport_size({"width": width, "height": 800})
        window.emulate_media(color_scheme=theme)
        (tmp_path / "page.html").write_text(static_page(parts, title), encoding="utf-8")
        window.goto((tmp_path / "page.html").as_uri())
        window.mouse.move(0, 0)
        return window

    yield opened
    for event, listener in listeners.items():
        window.remove_listener(event, listener)
    assert wrong == []


@pytest.fixture(scope="module")
def everything() -> list[Any]:
    """Every component, with SmolLM2's record and roles that ship."""
    record = shipped_record("smollm2", "ioi")
    peaks = record.at("END").rows.amax(-1).mean(0)
    peaks = peaks - peaks.mean()
    roles = {(r.layer, r.head): r.role for r in shipped_roles("smollm2").itertuples() if r.role}
    prompt, rows = record.prompts[0], record.rows[0, 24, 4].float().numpy()
    n = len(prompt.tokens)
    strip = {
        "label": prompt.prompt.text,
        "tokens": prompt.tokens,
        "weights": rows[n - 1, :n],
        "positions": prompt.positions,
        "query": n - 1,
    }
    ranked = sorted(np.ndindex(30, 9), key=lambda head: -abs(peaks[head].item()))
    rows_ = [{"head": head, "d": peaks[head].item(), "role": roles.get(head, "")} for head in ranked]
    dots = [
        {"x": 0.02 * i, "y": 0.01 * (i % 7), "side": ("active", "control")[i % 2], "text": f"prompt {i}"}
        for i in range(40)
    ]
    columns = [{"key": "d", "label": "shift", "signed": True}, {"key": "role", "label": "role"}]
    grid = HeadGrid(
        values=peaks,
        measure="largest weight, against the mean",
        marks=role_marks(roles),
        selected=(24, 4),
        significant=ranked[:20],
    )
    return [
        [grid, RankedHeads(columns=columns, rows=rows_, selected=(24, 4))],
        [TokenStrips(strips=[strip]), AttentionMatrix(tokens=prompt.tokens, weights=rows[:n, :n], query=n - 1)],
        [PlaneDots(points=dots, region=[(0, 0), (0.5, 0.3), (1, 0)], trajectory=[(0.1, 0.1), (0.3, 0.2)], current=1), odd_strips()],
        [CopyButton(text="x"), Download(data=b"x")],
    ]  # fmt: skip


def odd_strips() -> TokenStrips:
    weights = np.linspace(0, 1, len(ODD))
    return TokenStrips(
        strips=[{"label": HOSTILE, "tokens": list(ODD), "weights": weights, "second": 2 * weights}],
        second_label="twice",
    )


def settled(page: Any) -> None:
    """Once what was asked for, or a new width asks for, is drawn."""
    page.evaluate("""async () => {
        for (let frame = 0; frame < 3; frame++) await new Promise(done => requestAnimationFrame(done));
    }""")


def tip(page: Any) -> list[str]:
    """The lines of the tooltip that is shown, which must lie inside the window."""
    box = page.locator("body > .ahd-tip")
    place, size = box.bounding_box(), page.viewport_size
    assert 0 <= place["x"] <= place["x"] + place["width"] <= size["width"]
    assert 0 <= place["y"] <= place["y"] + place["height"] <= size["height"]
    return box.locator("> *").all_inner_texts()


def selected(page: Any, where: str) -> list[str]:
    """Heads that are selected in a grid or table, once what was asked for is drawn."""
    settled(page)
    return page.locator(f"{where} [aria-selected=true]").evaluate_all("all => all.map(one => one.dataset.at)")


# ---- pages


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_pages_fit_and_can_be_read(show: Any, everything: list[Any], theme: str) -> None:
    """From 300 to 1,600 pixels nothing scrolls sideways; texts contrast at least 4.5 with what they stand on, in either theme."""
    page = show(*everything, title=HOSTILE, theme=theme)
    for width in (1600, 900, 390, 300):
        page.set_viewport_size({"width": width, "height": 800})
        settled(page)
        assert page.evaluate("() => document.documentElement.scrollWidth") == width
        if width in (390, 1600):
            SHOTS.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=SHOTS / f"components_{theme}_{width}.png", full_page=True)
    assert page.title() == HOSTILE
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 100
    assert min(contrasts) >= 4.5
    assert (page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)") == (
        theme == "light"
    )


#: Of every element that has text of its own: the contrast with the nearest background, as WCAG 2 defines it.
CONTRASTS = """() => {
    const brush = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
    const parse = colour => {
        brush.clearRect(0, 0, 1, 1);
        brush.fillStyle = colour;
        brush.fillRect(0, 0, 1, 1);
        return [...brush.getImageData(0, 0, 1, 1).data];
    };
    const linear = c => c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4;
    const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    const solid = node => {
        const colour = parse(getComputedStyle(node).backgroundColor);
        return colour[3] === 0 && node.parentElement ? solid(node.parentElement) : colour;
    };
    const own = node => [...node.childNodes].some(child => child.nodeType === 3 && child.textContent.trim());
    return [...document.querySelectorAll('main *')].filter(own).map(node => {
        const style = getComputedStyle(node);
        const ink = light(parse(node.closest('svg') ? style.fill : style.color)), paper = light(solid(node));
        return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    });
}"""


def test_the_theme_may_change(show: Any, everything: list[Any]) -> None:
    """A page that turns dark while it is open draws its cells in the colours of the dark."""
    page = show(*everything)
    colour = "() => getComputedStyle(document.querySelector('[data-at=\"3,3\"]')).backgroundColor"
    before = page.evaluate(colour)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"before => ({colour})() !== before", arg=before)


# ---- the grid


@pytest.mark.parametrize(
    ("shape", "width"), [((6, 8), 900), ((12, 12), 300), ((30, 9), 900), ((32, 32), 390), ((80, 64), 900)]
)
def test_grids_fit(show: Any, shape: tuple[int, int], width: int) -> None:
    """Every head has a cell; cells and labels keep to the height and the width that there is, as far as a cell is six pixels."""
    page = show(HeadGrid(values=np.arange(shape[0] * shape[1]).reshape(shape), scale="size"), width=width)
    assert page.locator(".ahd-grid .ahd-cell").count() == shape[0] * shape[1]
    assert page.evaluate("() => document.documentElement.scrollWidth") == width
    assert page.locator(".ahd-grid").bounding_box()["height"] <= max(420, 40 + 7 * shape[0])
    labels = "labels => labels.filter(l => l.textContent).map(l => l.getBoundingClientRect().left)"
    lefts = np.array(page.locator(".ahd-head").evaluate_all(labels))
    assert np.diff(lefts).min() >= 12
    last = page.locator(".ahd-grid .ahd-cell").last
    last.scroll_into_view_if_needed()
    page.set_viewport_size(
        {"width": width, "height": int(sum(last.bounding_box()[side] for side in ("y", "height"))) + 3}
    )
    last.hover()  # in the lowest corner of the window
    assert tip(page)[0] == f"head {shape[0] - 1}.{shape[1] - 1}"


def test_keys_move_between_heads(show: Any) -> None:
    """One Tab stop; arrows and their kin move the selection, stop at the edges, and never reach the page around."""
    page = show(HeadGrid(values=np.zeros((4, 5)), selected=(1, 1)), CopyButton(text="x"))
    page.evaluate("() => document.addEventListener('keydown', event => { window.heard = event.key; })")
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.getAttribute('role')") == "grid"
    steps = {
        "ArrowRight": "1,2", "ArrowDown": "2,2", "End": "2,4", "ArrowLeft": "2,3", "PageUp": "0,3", "ArrowUp": "0,3",
        "Home": "0,0", "PageDown": "3,0", "Control+End": "3,4", "Control+Home": "0,0",
    }  # fmt: skip
    for key, place in steps.items():
        page.keyboard.press(key)
        assert selected(page, ".ahd-grid") == [place], key
        assert tip(page)[0] == f"head {place.replace(',', '.')}"
    active = page.evaluate("() => document.activeElement.getAttribute('aria-activedescendant')")
    assert page.locator(f"#{active}").get_attribute("data-at") == "0,0"
    page.keyboard.press("c")
    page.locator(".ahd-cell[data-compared][data-at='0,0']").wait_for()
    assert page.evaluate("() => window.heard") == "Control"  # pressed alone it is no key of ours
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.textContent") == "Copy"


def test_clicks_select_and_compare(show: Any) -> None:
    """A click selects, with shift it compares, and again takes that back; a tooltip says the value, or the text given."""
    values = np.array([[0.25, np.nan], [-0.5, 1e-5]])
    tips = [["", ""], ["", "shift +0.1\nq 0.03"]]
    marks = role_marks({(0, 0): "Name Mover"})
    page = show(HeadGrid(values=values, measure="shift", tips=tips, marks=marks, significant=[(1, 0)]))
    cell = {place: page.locator(f".ahd-grid [data-at='{place}']") for place in ("0,0", "0,1", "1,0", "1,1")}
    said = {
        "0,0": ["head 0.0", "shift: +0.250", "Name Mover"], "0,1": ["head 0.1", "shift: not defined here"],
        "1,0": ["head 1.0", "shift: −0.500"], "1,1": ["head 1.1", "shift +0.1", "q 0.03"],
    }  # fmt: skip
    for place, lines in said.items():
        cell[place].hover()
        assert tip(page) == lines
    assert page.locator(".ahd-legend").inner_text().split("\n")[-3:] == ["Name Mover", "q < 0.05", "not defined here"]
    assert [page.locator(f".ahd-grid {sign}").count() for sign in (".ahd-dot", ".ahd-corner", "[data-none]")] == [1] * 3
    cell["1,0"].click()
    assert selected(page, ".ahd-grid") == ["1,0"]
    for now in (1, 0):
        cell["0,0"].click(modifiers=["Shift"])
        assert selected(page, ".ahd-grid") == ["1,0"]
        assert page.locator(".ahd-grid [data-compared]").count() == now


# ---- tokens


def test_strips_show_every_token(show: Any) -> None:
    """Odd tokens are seen as they are, or as signs, none wider than its box; both numbers are under the pointer."""
    page = show(odd_strips(), width=390)
    tokens = page.locator(".ahd-token")
    assert tokens.locator("bdi").all_inner_texts() == list(ODD.values())
    box = page.locator(".ahd-strips").bounding_box()
    edges = tokens.evaluate_all("all => all.map(one => one.getBoundingClientRect().right)")
    assert max(edges) <= box["x"] + box["width"]
    assert page.locator(".ahd-label").inner_text() == HOSTILE
    tokens.nth(6).hover()
    assert tip(page) == ["日本語", "attention: 0.500", "twice: 1.000", "token 6"]


def test_a_token_is_chosen(show: Any) -> None:
    """By a click, or by arrow keys and Enter, which stay in the box."""
    strip = {
        "label": "a",
        "tokens": ["<s>", "Mary", "to"],
        "weights": [0.5, 0.3, None],
        "positions": {"S1": 1, "END": 1},
        "query": 1,
    }
    page = show(TokenStrips(strips=[strip, strip]))
    page.locator("[data-at='1,2']").click()
    page.locator("[data-at='1,2'][data-chosen]").wait_for()
    page.locator(".ahd-strips").focus()
    for key in ("ArrowLeft", "ArrowLeft", "ArrowUp"):
        page.keyboard.press(key)
    assert tip(page) == ["Mary", "attention: 0.300", "token 1, S1, END, the query"]
    page.keyboard.press("Enter")
    page.locator("[data-at='0,1'][data-chosen]").wait_for()
    assert page.locator("[data-chosen]").count() == 1


def test_two_thousand_tokens(show: Any) -> None:
    """All are there, the box scrolls inside itself, and the last one's weight is the last one's."""
    tokens, weights = [f"w{i}" for i in range(2000)], np.arange(2000) / 1999
    page = show(
        TokenStrips(strips=[{"label": side, "tokens": tokens, "weights": weights} for side in "ab"], max_height=200)
    )
    assert page.locator(".ahd-token").count() == 4000
    assert page.locator(".ahd-strips").bounding_box()["height"] <= 200
    page.locator("[data-at='1,1998']").scroll_into_view_if_needed()
    page.locator("[data-at='1,1998']").hover()
    assert tip(page)[:2] == ["w1998", "attention: 0.999"]


# ---- the matrix


def test_matrix_shows_weights_and_tokens(show: Any) -> None:
    """Under the pointer stand the weight from the query of the row to the key of the column; a click chooses the row."""
    weights = np.tril(np.arange(1, 37).reshape(6, 6)) / 36
    page = show(AttentionMatrix(tokens=[" a", "b", "c", "d", "e", "f"], weights=weights, query=5))
    box = page.locator(".ahd-canvas").bounding_box()
    cell = box["width"] / 6
    for q, k in ((4, 2), (5, 5), (3, 0)):
        page.mouse.move(box["x"] + (k + 0.5) * cell, box["y"] + (q + 0.5) * cell)
        assert tip(page) == [
            f"{weights[q, k]:.4f}",
            f"from query {q}  {'·abcdef'[q + 1]}",
            f"to key {k}  {'·abcdef'[k + 1] if k else '·a'}",
        ]
    page.mouse.move(box["x"] + 4.5 * cell, box["y"] + 1.5 * cell)
    assert tip(page)[0] == "not visible: the key comes later"
    page.mouse.click(box["x"] + 0.5 * cell, box["y"] + 2.5 * cell)
    page.wait_for_function(
        "() => document.querySelector('.ahd-query').style.height === document.querySelector('.ahd-cross-row').style.height"
    )
    assert page.locator(".ahd-query").bounding_box()["y"] == pytest.approx(box["y"] + 2 * cell, abs=1)
    page.locator(".ahd-matrix").focus()
    page.keyboard.press("End")
    assert tip(page)[1:] == ["from query 2  c", "to key 2  c"]
    assert page.locator(".ahd-labels .ahd-y").all_inner_texts() == ["·a", "b", "c", "d", "e", "f"]


def test_large_matrices_hide_no_weight(show: Any) -> None:
    """With less than a pixel a token a single large weight is seen, at its place; what no query sees is not painted."""
    weights = np.zeros((512, 512))
    weights[301, 77] = 1
    page = show(AttentionMatrix(tokens=["t"] * 512, weights=weights), width=300)
    size, red, there = page.evaluate("""() => {
        const canvas = document.querySelector('.ahd-canvas'), size = canvas.width;
        const pixels = canvas.getContext('2d').getImageData(0, 0, size, size).data;
        const at = i => [...pixels.slice(4 * i, 4 * i + 4)];
        const dark = [...Array(size * size).keys()].filter(i => at(i)[3] && at(i)[2] < 60);
        return [size, dark, [at(size - 1), at(size * (size - 1))].map(one => one[3])];
    }""")
    assert size < 300
    assert red
    assert all(abs(i // size - 301 * size / 512) <= 1 and abs(i % size - 77 * size / 512) <= 1 for i in red)
    assert there == [0, 255]


# ---- the plane


def test_dots_say_whose_they_are(show: Any) -> None:
    """The nearest dot's side, numbers and prompt; a click selects it, arrow keys go on; sides differ in shape, too."""
    points = [
        {"x": 0.2, "y": 0.1, "side": "active", "text": "Mary gave a ball to"},
        {"x": 0.8, "y": 0.2, "side": "control", "text": "x" * 3000},
        {"x": 0.5, "y": 0.3, "side": "active", "text": HOSTILE},
    ]
    page = show(
        PlaneDots(points=points, lines=[(0, 1)], region=[(0, 0), (0.5, 0.4), (1, 0)], side_labels=["pairs", "twins"])
    )
    dots = page.locator(".ahd-plane [data-point='0'] circle"), page.locator(".ahd-plane [data-point='1'] path")
    for _ in range(2):  # in the whole plane, and where the dots are
        dots[0].hover()
        assert tip(page) == ["pairs: KL 0.200, χ 0.100", "Mary gave a ball to"]
        dots[1].hover()
        assert tip(page) == ["twins: KL 0.800, χ 0.200", "x" * 400 + " …"]
        page.get_by_text("Zoom to the dots").or_(page.get_by_text("Whole plane")).click()
    dots[1].click()
    page.locator("[data-point='1'] .ahd-chosen").wait_for()
    page.locator(".ahd-plane").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.locator("[data-point='2'] .ahd-chosen").wait_for()
    assert tip(page)[1] == HOSTILE


# ---- the table


def table() -> RankedHeads:
    columns = [
        {"key": "shift", "label": "shift", "digits": 2, "signed": True}, {"key": "interval", "label": "95 %", "digits": 1},
        {"key": "role", "label": "role"},
    ]  # fmt: skip
    values = [
        (0.5, (0.1, 0.9), "Name Mover"),
        (-0.9, (-2, 0.5), ""),
        (None, (None, None), "Induction"),
        (0.1, (-0.5, 1), ""),
    ]
    heads = [(9, 6), (10, 0), (2, 1), (0, 3)]
    rows = [{"head": h, "shift": s, "interval": i, "role": r} for h, (s, i, r) in zip(heads, values, strict=True)]
    return RankedHeads(columns=columns, rows=rows)


def test_table_sorts_and_filters(show: Any) -> None:
    """By any column, either way; a head without a value is last in both; a filter by head or role; numbers as asked."""
    page = show(table())
    order = lambda: page.locator("tbody tr").evaluate_all("rows => rows.map(row => row.dataset.at)")  # noqa: E731
    assert page.locator("tbody tr").first.locator("td").all_inner_texts() == [
        "1",
        "9.6",
        "+0.50",
        "0.1 to 0.9",
        "Name Mover",
    ]
    ways = {
        "shift": ["10,0", "0,3", "9,6", "2,1"], "95 %": ["10,0", "0,3", "9,6", "2,1"], "role": ["2,1", "9,6", "10,0", "0,3"],
        "head": ["0,3", "2,1", "9,6", "10,0"], "rank": ["9,6", "10,0", "2,1", "0,3"],
    }  # fmt: skip
    for label, expected in ways.items():
        page.get_by_role("button", name=label).click()
        page.wait_for_function(
            "label => document.querySelector('[aria-sort=ascending]')?.textContent.startsWith(label)", arg=label
        )
        assert order() == expected, label
    page.get_by_role("button", name="shift").click()
    page.get_by_role("button", name="shift").click()
    page.locator("[aria-sort=descending]").wait_for()
    assert order() == ["9,6", "0,3", "10,0", "2,1"]
    page.locator(".ahd-filter").fill("mover")
    page.get_by_text("1 of 4").wait_for()
    page.locator(".ahd-filter").press_sequentially(" x")
    page.get_by_text("0 of 4").wait_for()
    assert page.locator(".ahd-filter").input_value() == "mover x"
    page.locator(".ahd-filter").fill("0.3")
    page.get_by_text("1 of 4").wait_for()
    assert order() == ["0,3"]


def test_table_and_grid_select_together(show: Any) -> None:
    """A row that is clicked or reached by keys is the head of the grid, and the other way round; the table scrolls to it."""
    heads = list(np.ndindex(30, 9))
    rows = [{"head": head, "v": i} for i, head in enumerate(heads)]
    page = show(
        HeadGrid(values=np.zeros((30, 9))), RankedHeads(columns=[{"key": "v", "label": "v"}], rows=rows, max_height=200)
    )
    page.locator("tbody tr").nth(3).click()
    assert selected(page, ".ahd-grid") == selected(page, "tbody") == ["0,3"]
    page.locator(".ahd-ranked").focus()
    page.keyboard.press("ArrowDown")
    assert selected(page, ".ahd-grid") == ["0,4"]
    page.locator(".ahd-grid [data-at='29,8']").click()
    assert selected(page, "tbody") == ["29,8"]
    box, row = page.locator(".ahd-table").bounding_box(), page.locator("tbody [data-at='29,8']").bounding_box()
    assert box["y"] < row["y"] < box["y"] + box["height"]


# ---- buttons


def test_copying(show: Any) -> None:
    """The text is on the clipboard, also without the interface for it; where both refuse it is shown, ready to be copied."""
    page = show(CopyButton(text=HOSTILE, label="Copy as code"))
    refuse = "() => { navigator.clipboard.writeText = () => Promise.reject(new Error('no')); }"
    for before in (
        "() => { window.kept = ''; navigator.clipboard.writeText = async text => { window.kept = text; }; }",
        refuse,
    ):
        page.evaluate(before)
        page.evaluate("() => document.addEventListener('copy', () => { window.kept = document.activeElement.value; })")
        page.get_by_text("Copy as code").click()
        page.get_by_text("Copied.").wait_for()
        assert page.evaluate("() => window.kept") == HOSTILE
        page.evaluate("() => { window.kept = ''; document.querySelector('.ahd-beside').textContent = ''; }")
    page.evaluate("() => { document.execCommand = () => false; }")
    page.get_by_text("Copy as code").click()
    page.get_by_text("The browser refuses").wait_for()
    assert page.locator("textarea").input_value() == HOSTILE


def test_downloading(show: Any) -> None:
    """The browser saves the bytes, every one of them, under the name."""
    data = bytes(range(256))
    page = show(Download(data=data, filename="heads.bin", label="Save"))
    with page.expect_download() as found:
        page.get_by_text("Save").click()
    assert found.value.suggested_filename == "heads.bin"
    assert Path(found.value.path()).read_bytes() == data


# ---- in a notebook


def test_widgets_answer_their_model(show: Any) -> None:
    """As anywidget calls it: traits are drawn, and again when they or the theme change; a click is set and sent; the end is clean."""
    page = show()
    page.goto("about:blank")
    grid = HeadGrid(values=[[0.1, 0.2]], selected=(0, 0))
    state = {**grid.content, "_names": sorted(grid.content)}
    script = base64.b64encode(grid._esm.encode()).decode()
    page.evaluate(FAKE, [state, f"data:text/javascript;base64,{script}"])
    assert selected(page, ".ahd-grid") == ["0,0"]
    page.locator("[data-at='0,1']").click()
    assert page.evaluate("() => window.sent") == [{"selected": [0, 1]}]
    assert selected(page, ".ahd-grid") == ["0,1"]
    page.evaluate("() => window.model.set('values', [[1, 2, 3]])")
    page.locator("[data-at='0,2']").wait_for()
    colour = "() => getComputedStyle(document.querySelector('[data-at=\"0,0\"]')).backgroundColor"
    before = page.evaluate(colour)
    page.evaluate("() => document.body.style.setProperty('--jp-layout-color0', '#111')")
    page.evaluate("() => document.body.setAttribute('data-jp-theme-light', 'false')")  # as JupyterLab's themes do
    page.wait_for_function(f"before => ({colour})() !== before", arg=before)
    page.evaluate("() => window.end()")
    page.evaluate("() => window.model.set('values', [[1]])")
    settled(page)
    assert page.locator("[data-at='0,2']").count() == 1


#: A model as far as a component uses one, and the component rendered with it.
FAKE = """async ([state, script]) => {
    const heard = {};
    let fresh = {};
    window.sent = [];
    window.model = {
        get: name => state[name],
        set: (name, value) => { fresh[name] = state[name] = value; for (const f of heard[`change:${name}`] ?? []) f(); },
        save_changes: () => { window.sent.push(fresh); fresh = {}; },
        on: (event, f) => { (heard[event] ??= new Set()).add(f); },
        off: (event, f) => heard[event]?.delete(f),
    };
    const { default: component } = await import(script);
    window.end = component.render({ model: window.model, el: document.body.appendChild(document.createElement('div')) });
}"""

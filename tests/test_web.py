"""The components of the playground in plain Python: what they take and refuse, their colours, and the page that keeps them."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_hex, to_rgb

from helpers.plots.style import role_colour
from helpers.widgets import web
from helpers.widgets.web.colours import COLOURS, STEPS
from helpers.widgets.web.part import WebPart, source

ROOT = Path(__file__).resolve().parent.parent
HOSTILE = "</script><script>alert(1)</script><!-- \u2028 \" ' & <b>"
STRIP = {"label": "one", "tokens": ["a", "b"], "weights": [0.5, 0.5]}
POINT = {"x": 0.1, "y": 0.2, "side": "active", "text": "a prompt"}
COLUMN = {"key": "v", "label": "value"}
MARK = {"label": "causal", "shape": "ring", "colour": "#000000", "heads": [(0, 1)]}

GOOD: dict[str, dict[str, Any]] = {
    "HeadGrid": {"values": [[0.1, -0.2], [0.3, None]], "marks": [MARK], "significant": [(1, 0)], "selected": (1, 1)},
    "TokenStrips": {"strips": [STRIP | {"positions": {"END": 1}, "query": 1, "second": [1, 2]}], "chosen": (0, 1)},
    "AttentionMatrix": {"tokens": ["a", "b"], "weights": np.eye(2), "query": 1},
    "PlaneDots": {"points": [POINT, POINT], "region": [(0, 0), (1, 1)], "lines": [(0, 1)], "selected": 1},
    "RankedHeads": {"columns": [COLUMN], "rows": [{"head": (9, 6), "v": 0.5}], "selected": (9, 6)},
    "CopyButton": {"text": HOSTILE},
    "Download": {"data": b"bytes"},
}

BAD = [
    ("HeadGrid", {"values": [[1, 2], [3]]}, "values: expected numbers of shape (layer, head), got [[1, 2], [3]]"),
    ("HeadGrid", {"values": np.zeros(3)}, "values: expected numbers of shape (layer, head), got shape (3,)"),
    ("HeadGrid", {"values": [["a"]]}, "values: expected numbers of shape (layer, head), got [['a']]"),
    ("HeadGrid", {"values": 5}, "values: expected data as HeadGrid describes them, got 5"),
    ("HeadGrid", {"selected": (2, 0)}, "selected: expected heads of 2 layers x 2 heads, got (2, 0)"),
    ("HeadGrid", {"compared": (0, -1)}, "compared: expected heads of 2 layers x 2 heads, got (0, -1)"),
    ("HeadGrid", {"significant": [(0, 2)]}, "significant: expected heads of 2 layers x 2 heads, got (0, 2)"),
    ("HeadGrid", {"scale": "rainbow"}, "scale: expected one of shift, size, q, got 'rainbow'"),
    ("HeadGrid", {"limits": (1, 0)}, "limits: expected (lowest, highest), got (1, 0)"),
    ("HeadGrid", {"limits": (0, np.nan)}, "limits: expected a finite number, got nan"),
    ("HeadGrid", {"scale": "q", "limits": (0, 1)}, "limits: expected a lowest q above 0, got (0, 1)"),
    ("HeadGrid", {"tips": [["one"]]}, "tips: expected a text for each of 2 layers x 2 heads, got 1 rows"),
    ("HeadGrid", {"tips": [["a", "b"], ["c", 3]]}, "tips: expected a text, got 3"),
    ("HeadGrid", {"marks": [MARK | {"shape": "star"}]}, "marks: shape: expected one of ring, dot, got 'star'"),
    ("HeadGrid", {"marks": [{"label": "x"}]}, "marks: expected entries with label, shape, colour and heads, got {'label': 'x'}"),
    ("HeadGrid", {"digits": True}, "digits: expected a whole number from 0 to 9, got True"),
    ("HeadGrid", {"max_height": 1}, "max_height: expected a whole number from 60 to 5000, got 1"),
    ("HeadGrid", {"title": None}, "title: expected a text, got None"),
    ("TokenStrips", {"strips": [STRIP | {"weights": [1]}]}, "strips: strip 0: weights: expected a number for each of 2 tokens, got 1"),
    ("TokenStrips", {"strips": [STRIP | {"query": 2}]}, "strips: strip 0: query: expected None or an index of the 2 tokens, got 2"),
    ("TokenStrips", {"strips": [STRIP | {"tokens": "ab"}]}, "strips: strip 0: tokens: expected a list of texts, got 'ab'"),
    ("TokenStrips", {"strips": [{"label": "x"}]}, "strips: strip 0: expected label, tokens and weights, and second"),
    ("TokenStrips", {"chosen": (1, 0)}, "chosen: strip: expected a whole number from 0 to 0, got 1"),
    ("TokenStrips", {"chosen": 3}, "chosen: expected (strip, token) or None, got 3"),
    ("TokenStrips", {"limit": 0}, "limit: expected a number above 0, got 0"),
    ("AttentionMatrix", {"weights": np.eye(3)}, "weights: expected shape (token, token) with 2 tokens, got shape (3, 3)"),
    ("AttentionMatrix", {"weights": "AAAA"}, "weights: expected base64 of 16 bytes, got 3 bytes"),
    ("AttentionMatrix", {"weights": "§"}, "weights: expected base64 of 16 bytes, got no base64"),
    ("AttentionMatrix", {"query": -1}, "query: expected None or an index of the 2 tokens, got -1"),
    ("PlaneDots", {"points": [POINT | {"x": np.nan}]}, "points: point 0: x: expected a finite number, got nan"),
    ("PlaneDots", {"points": [POINT | {"side": "left"}]}, "points: point 0: side: expected one of active, control, got 'left'"),
    ("PlaneDots", {"lines": [(0, 2)]}, "lines: expected None or an index of the 2 points, got 2"),
    ("PlaneDots", {"region": [(0, 0, 0)]}, "region: expected places (x, y), got [(0, 0, 0)]"),
    ("PlaneDots", {"current": 0}, "current: expected None or an index of the 0 trajectory, got 0"),
    ("PlaneDots", {"side_labels": ["one"]}, "side_labels: expected two texts, got ['one']"),
    ("RankedHeads", {"rows": [{"head": (9, 6)}]}, "rows: expected head, v in row 0, got {'head': (9, 6)}"),
    ("RankedHeads", {"rows": [{"head": (9,), "v": 1}]}, "rows: row 0, head: expected (layer, head), got (9,)"),
    ("RankedHeads", {"columns": [{"key": "v"}]}, "columns: expected key and label, and digits or signed if wanted, got {'key': 'v'}"),
    ("RankedHeads", {"sort": "z"}, "sort: expected one of rank, head, v, got 'z'"),
    ("RankedHeads", {"descending": 1}, "descending: expected True or False, got 1"),
    ("Download", {"data": "no base64!"}, "data: expected bytes, or base64 of them, got 'no base64!'"),
    ("CopyButton", {"text": 5}, "text: expected a text, got 5"),
]  # fmt: skip


def made(kind: str) -> WebPart:
    return getattr(web, kind)(**GOOD[kind])


@pytest.mark.parametrize(("kind", "data", "says"), BAD)
def test_bad_data_get_one_sentence(kind: str, data: dict[str, Any], says: str) -> None:
    """It names the argument, what was expected and what came; nothing has changed, and no component is made of such data."""
    part = made(kind)
    before = part.content
    with pytest.raises(ValueError, match=re.escape(says)):
        part.show(**data)
    assert part.content == before
    with pytest.raises(ValueError, match=re.escape(says)):
        getattr(web, kind)(**GOOD[kind] | data)


@pytest.mark.parametrize("kind", GOOD)
def test_data_are_plain(kind: str) -> None:
    """Every trait is JSON without NaN and comes back from it as it was; what JSON gives is taken as it is."""
    part = made(kind)
    content = json.loads(json.dumps(part.content, allow_nan=False))
    assert content == part.content
    again = getattr(web, kind)(**content)
    assert again.content == content
    again.show(**content)
    assert again.content == content
    with pytest.raises(ValueError, match=r"data: expected names out of .*, got colour, nonsense"):
        part.show(nonsense=1, colour=2)


def test_several_traits_arrive_together() -> None:
    """Who observes one trait finds all others new, too; traits that were not named stay."""
    grid = web.HeadGrid(values=[[1, 2]], selected=(0, 1), title="before", digits=1)
    seen: list[tuple[Any, ...]] = []
    grid.observe(lambda change: seen.append((change.name, grid.values, grid.title)), ["title", "values", "digits"])
    grid.show(title="after", values=np.array([[3.0, np.nan]]))
    assert sorted(seen) == [("title", [[3.0, None]], "after"), ("values", [[3.0, None]], "after")]
    assert (grid.selected, grid.digits) == ([0, 1], 1)
    with pytest.raises(ValueError, match="selected: expected heads of 1 layers x 1 heads"):
        grid.show(values=[[0]])
    grid.show(values=[[0]], selected=None)
    assert grid.selected is None


def test_matrices_keep_their_numbers() -> None:
    """Weights are float32, row by row, little-endian: what JavaScript reads on every common machine."""
    weights = np.tril(np.random.default_rng(0).dirichlet(np.ones(5), size=5))
    part = web.AttentionMatrix(tokens=list("abcde"), weights=weights)
    np.testing.assert_array_equal(
        np.frombuffer(base64.b64decode(part.weights), "<f4").reshape(5, 5), weights.astype("f4")
    )


def test_marks_have_the_colours_of_the_figures() -> None:
    """One dot a role, for all heads that have it."""
    roles = {(9, 6): "Name Mover", (3, 0): "Induction", (10, 0): "Name Mover"}
    marks = web.role_marks(roles)
    assert {mark["label"]: (mark["colour"], mark["heads"]) for mark in marks} == {
        "Name Mover": (role_colour("Name Mover"), [[9, 6], [10, 0]]),
        "Induction": (role_colour("Induction"), [[3, 0]]),
    }
    assert web.HeadGrid(values=np.zeros((11, 8)), marks=marks).marks == marks


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    red, green, blue = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_colours_are_those_of_the_figures() -> None:
    """Light: the maps of the figures. Dark: zero is near the page, more is lighter at either side, to the same hues."""
    assert COLOURS["light"]["shift"][::32] == [to_hex(colormaps["PuOr_r"](x)) for x in (0.0, 0.5, 1.0)]
    assert COLOURS["light"]["size"][-1] == to_hex(colormaps["Oranges"](1.0))
    for theme in ("light", "dark"):
        assert {name: len(colours) for name, colours in COLOURS[theme].items()} == {"shift": STEPS, "size": STEPS}
        sign = 1 if theme == "dark" else -1
        middle = STEPS // 2
        for run in (COLOURS[theme]["size"], COLOURS[theme]["shift"][middle:], COLOURS[theme]["shift"][middle::-1]):
            assert np.all(sign * np.diff([luminance(colour) for colour in run]) >= -0.002)
            assert abs(luminance(run[0]) - luminance(run[-1])) > 0.4


class Reader(HTMLParser):
    """The elements of a page, and the text of each script."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.lasttag == "script":
            self.scripts.append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


def test_pages_hold_data_and_no_addresses() -> None:
    """A page has every component's data, in order, and nothing that a browser would fetch."""
    parts = [made(kind) for kind in GOOD]
    page = web.static_page([parts[:3], *parts[3:], "a text"], "title")
    reader = read(page)
    data = json.loads("".join(text for text in reader.scripts if text.startswith("[")))
    assert data == [{"kind": kind, "data": part.content} for kind, part in zip(GOOD, parts, strict=True)]
    assert [int(a["data-part"]) for _, a in reader.tags if a.get("data-part")] == list(range(len(parts)))
    assert not [a for _, a in reader.tags if {"src", "href"} & set(a)]
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(", page)


def test_pages_escape_every_text() -> None:
    """A hostile title, paragraph, label or token adds no element and ends no script."""
    tame = web.static_page([web.TokenStrips(strips=[STRIP]), web.CopyButton(text="x"), "text"], "title")
    strip = STRIP | {"label": HOSTILE, "tokens": [HOSTILE, "b"]}
    wild = web.static_page([web.TokenStrips(strips=[strip]), web.CopyButton(text=HOSTILE), HOSTILE], HOSTILE)
    assert read(wild).tags == read(tame).tags
    assert json.loads(next(t for t in read(wild).scripts if t.startswith("[")))[1]["data"]["text"] == HOSTILE


def test_scripts_are_whole() -> None:
    """The script of a component has no import left, draws it, and defines every shared name that its file imports."""
    for kind in GOOD:
        text = getattr(web, kind)._esm
        assert not re.search(r"(?m)^import ", text)
        assert re.findall(r"(?m)^export .*", text) == [f"export default {{ render: connect(DRAW.{kind}) }};"]
        imported = re.search(r"import \{ (.*) \} from \"\./common\.js\";", source(f"{kind}.js"))
        assert imported
        defined = set(re.findall(r"export function (\w+)", source("common.js")))
        assert set(imported[1].split(", ")) <= defined


def test_scripts_ship(packaged: set[str]) -> None:
    """A wheel holds every script and style beside the components, by setuptools' own count."""
    folder = ROOT / "helpers" / "widgets" / "web"
    needed = {str(path.relative_to(ROOT / "helpers")) for path in folder.iterdir() if path.suffix in (".js", ".css")}
    assert len(needed) >= 11
    assert needed <= packaged

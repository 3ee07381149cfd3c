"""The playground's widgets and where they stand; nothing here does anything yet."""

from __future__ import annotations

from functools import partial
from typing import Any

import ipywidgets as w

from helpers.widgets import checker
from helpers.widgets.examples import EXAMPLES, OWN, TYPED
from helpers.widgets.inputs import NO_BOS, OWN_BOS
from helpers.widgets.looking import BETAS
from helpers.widgets.playground import MEASURES
from helpers.widgets.state import DESIGNS, Draft
from helpers.widgets.web.buttons import CopyButton, Download
from helpers.widgets.web.grid import HeadGrid
from helpers.widgets.web.matrix import AttentionMatrix
from helpers.widgets.web.plane import PlaneDots
from helpers.widgets.web.ranked import RankedHeads
from helpers.widgets.web.strips import TokenStrips

MODELS = ("demo", "smollm2", "gpt2-small")
#: Button -> what it says.
SAVES = {
    "table": "Table",
    "rows": "Attention rows",
    "picture": "Picture",
    "page": "Page",
    "code": "Code",
    "link": "Link",
}

_WIDE = {"width": "auto"}
#: As many columns as fit; on a narrow page one below the other.
_COLUMNS = "repeat(auto-fit, minmax(min(100%, {}px), 1fr))"


class Panel:
    """Boxes, menus, buttons and components.

    Args:
        draft: what stands in the boxes first.

    Attributes:
        view: the widget to display.
        active, control, example, names, frames, position, bos, test, model: the boxes; each is named as its field of a draft.
        fold, boxes: the prompts, and the button that folds them away.
        run_button, stop_button, bar, messages: a run, and what is to be said.
        about, more: what was asked and found; ``results``: all that a result needs.
        measure, grid, table: all heads. ``head``, ``strips``, ``plane``, ``active_number``, ``control_number``: the open one.
        matrix_button, matrix: its every row. ``knob_button``, ``knob``, ``knob_strips``, ``knob_words``: its scores turned.
        load_button: shown where the model is needed and not in memory. ``saves``, ``saved``, ``download``, ``copy``: what leaves.
    """

    def __init__(self, draft: Draft) -> None:
        self._make_boxes(draft)
        self._make_run(draft)
        self._make_results()
        self._make_saves()
        self.view = self._arrange()

    def _make_boxes(self, draft: Draft) -> None:
        self.active, self.control = (_area(text, rows=8) for text in (draft.active, draft.control))
        self.example = w.Dropdown(options=[*EXAMPLES, OWN, TYPED], value=draft.example, description="prompts")
        self.names = w.Text(draft.names, description="names", continuous_update=False, layout=w.Layout(**_WIDE))
        self.frames = _area(draft.frames, rows=3, description="frames")
        self.own = w.VBox([self.names, self.frames])
        self.position = w.Dropdown(options=checker.positions(), description="row of")
        box = partial(w.Combobox, continuous_update=False, ensure_option=False)
        self.bos = box(value=draft.bos, options=[OWN_BOS, NO_BOS], description="first token")
        self.test = w.Dropdown(options=[*DESIGNS], value=draft.test, description="tested as")
        self.fold = w.ToggleButton(value=True, description="Prompts", icon="pencil", layout=w.Layout(width="auto"))

    def _make_run(self, draft: Draft) -> None:
        models = list(dict.fromkeys([draft.model, *MODELS]))
        self.model = w.Combobox(
            value=draft.model, options=models, description="model", continuous_update=False, placeholder="name or path",
            tooltip="demo, smollm2, gpt2-small, a name on the hub, a folder, or a .gguf file", layout=w.Layout(width="240px"),
            style={"description_width": "50px"},
        )  # fmt: skip
        self.run_button = w.Button(
            description="Run", icon="play", button_style="primary", layout=w.Layout(width="90px")
        )
        self.stop_button = w.Button(description="Stop", icon="stop", disabled=True, layout=w.Layout(width="90px"))
        self.bar = w.FloatProgress(max=1, layout=w.Layout(width="120px"))
        self.step, self.messages, self.about = w.HTML(), w.HTML(), w.HTML()

    def _make_results(self) -> None:
        style = {"description_width": "initial"}
        self.more = w.HTML()
        self.measure = w.Dropdown(options=list(MEASURES), description="colour", layout=w.Layout(**_WIDE), style=style)
        self.grid, self.table = HeadGrid(max_height=360), RankedHeads(max_height=290)
        self.head, self.strips, self.plane = w.HTML(), TokenStrips(max_height=330), PlaneDots(max_height=300)
        self.active_number, self.control_number = (
            w.BoundedIntText(value=1, min=1, max=1, style=style, layout=w.Layout(width="180px")) for _ in range(2)
        )
        self.matrix_button, self.knob_button = (
            w.ToggleButton(description=says, icon=icon, layout=w.Layout(width="auto"))
            for says, icon in (("Every row (matrix)", "th"), ("Turn its knob", "sliders"))
        )
        self.load_button = w.Button(description="Load the model", icon="download", layout=w.Layout(width="auto"))
        self.matrix, self.knob_strips = AttentionMatrix(), TokenStrips(max_height=180)
        self.knob = w.SelectionSlider(
            options=[(f"{beta:g}", beta) for beta in BETAS], value=1.0, description="beta", layout=w.Layout(**_WIDE)
        )
        self.knob_words = w.HTML()
        self.matrix_box = w.VBox([self.matrix])
        self.knob_box = w.VBox([self.knob, self.knob_words, self.knob_strips])

    def _make_saves(self) -> None:
        self.saves = {what: w.Button(description=name, layout=w.Layout(width="auto")) for what, name in SAVES.items()}
        self.saved, self.download, self.copy = w.HTML(), Download(), CopyButton()

    def _arrange(self) -> w.VBox:
        sides = [
            w.VBox([w.HTML(f"<b>{side} prompts</b>, one a line"), area])
            for side, area in (("Active", self.active), ("Control", self.control))
        ]
        menus = _row(self.example, self.position, self.bos, self.test)
        self.boxes = w.VBox([menus, self.own, _grid(320, sides)])
        run = _row(self.fold, self.model, self.run_button, self.stop_button, self.bar, self.step)
        left = w.VBox([self.measure, self.grid, self.table])
        chosen = _row(self.active_number, self.control_number, self.matrix_button, self.knob_button, self.load_button)
        right = w.VBox([self.head, self.strips, chosen, self.knob_box, self.plane, self.matrix_box])
        out = w.VBox([_row(w.HTML("<b>Save</b>"), *self.saves.values()), self.saved, _row(self.download, self.copy)])
        self.results = w.VBox([_grid(350, [left, right]), self.more, out])
        return w.VBox([run, self.boxes, self.messages, self.about, self.results])


def _area(text: str, **options: Any) -> w.Textarea:
    """A text box as wide as its place."""
    return w.Textarea(text, continuous_update=False, layout=w.Layout(**_WIDE), **options)


def _row(*widgets: w.Widget) -> w.HBox:
    """Side by side, on several lines where there is no room."""
    return w.HBox(list(widgets), layout=w.Layout(flex_flow="row wrap", align_items="center", overflow="hidden"))


def _grid(width: int, children: list[w.Widget]) -> w.GridBox:
    """Columns of at least a width, as many as fit."""
    for child in children:
        child.layout.min_width, child.layout.overflow = "0", "hidden"
        child.layout.padding = "2px"  # room for focus rings
    layout = w.Layout(grid_template_columns=_COLUMNS.format(width), grid_gap="4px 16px", overflow="hidden")
    return w.GridBox(children, layout=layout)

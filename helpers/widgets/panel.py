"""The playground's widgets and where they stand; nothing here does anything yet."""

from __future__ import annotations

from functools import partial

import ipywidgets as w

from helpers.widgets import checker
from helpers.widgets.playground import MEASURES

OWN = "your own frames and names"
WIDE = w.Layout(width="100%")


class Panel:
    """Text areas, menus, buttons and pictures.

    Args:
        model: name of the model that is chosen first.

    Attributes:
        view: the widget to display.
        active, control: the prompts, one a line. ``example``, ``names``, ``frames``: where they come from.
        model, position, run_button, stop_button, bar, messages: one line below, and what the checker says.
        measure, grid, legend: the heads. ``plane``, ``rows``, ``active_row``, ``control_row``: one of them.
        savers, exported: the export buttons, and what came of them.
    """

    def __init__(self, model: str) -> None:
        self._make_inputs(model)
        self._make_results()
        self.view = self._arrange()

    def _make_inputs(self, model: str) -> None:
        area = partial(w.Textarea, rows=9, continuous_update=False, layout=WIDE)
        self.active, self.control = area(), area()
        self.example = w.Dropdown(options=[*checker.EXAMPLES, OWN], value="minimal pairs", description="example")
        self.names = w.Text("Peter, Anna, Simon, Ruth", description="names", continuous_update=False, layout=WIDE)
        frames = "While {X} and {Y} waited in the library, {GIVER} read a story to"
        self.frames = area(frames, rows=3, description="frames")
        self.own = w.VBox([self.names, self.frames])
        models = list(dict.fromkeys([model, "demo", "gpt2-small"]))
        self.model = w.Combobox(value=model, options=models, description="model", continuous_update=False)
        self.model.tooltip, self.model.placeholder = "a name, or the path of a folder", "name or folder"
        self.position = w.Dropdown(options=checker.positions(), description="position")
        self.run_button = w.Button(description="Run", icon="play", button_style="primary")
        self.stop_button = w.Button(description="Stop", icon="stop", disabled=True)
        self.bar, self.messages = w.IntProgress(max=1), w.HTML()

    def _make_results(self) -> None:
        self.about, self.exported = w.HTML(), w.HTML()
        self.measure = w.Dropdown(options=list(MEASURES), description="colour")
        self.grid, self.legend, self.plane, self.rows = w.GridBox(), w.HTML(), w.HTML(), w.HTML()
        number = partial(w.BoundedIntText, value=1, min=1, max=1, style={"description_width": "initial"})
        self.active_row, self.control_row = number(description="active prompt"), number(description="control prompt")
        names = {"table": "Save table (CSV)", "record": "Save record", "code": "Copy as code"}
        self.savers = {what: w.Button(description=name) for what, name in names.items()}

    def _arrange(self) -> w.VBox:
        for name in ("legend", "plane", "rows"):
            layout = getattr(self, name).layout
            layout.flex, layout.align_self = "0 0 auto", "flex-start"  # or a box would stretch the picture
        sides = w.HBox([w.VBox([w.HTML(f"<b>{side} prompts</b>, one a line"), area], layout=w.Layout(width="50%"))
                        for side, area in (("Active", self.active), ("Control", self.control))])  # fmt: skip
        menus = w.HBox(
            [self.model, self.position, self.run_button, self.stop_button, self.bar],
            layout=w.Layout(flex_flow="row wrap"),
        )
        scroll = w.Box([self.rows], layout=w.Layout(overflow="auto", width="100%"))
        export_row, chosen = w.HBox([*self.savers.values()]), w.HBox([self.active_row, self.control_row])
        heads = w.VBox([self.measure, self.grid, self.legend])
        both = w.HBox([heads, self.plane], layout=w.Layout(flex_flow="row wrap"))
        parts = [self.about, both, chosen, scroll, export_row, self.exported]
        self.results = w.VBox(parts, layout=w.Layout(display="none"))
        return w.VBox([self.example, self.own, sides, menus, self.messages, self.results])

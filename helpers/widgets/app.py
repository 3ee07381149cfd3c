"""The playground: widgets that show the state of a session, and turn what a reader does into its methods."""

from __future__ import annotations

import html
from collections.abc import Callable
from functools import partial
from typing import Any

from helpers.models.model import LanguageModel
from helpers.widgets import export
from helpers.widgets import transitions as happen
from helpers.widgets.display import Screen
from helpers.widgets.keeper import ModelKeeper
from helpers.widgets.panel import Panel
from helpers.widgets.session import Session
from helpers.widgets.state import Draft, Result, State, View
from helpers.widgets.web.part import WebPart
from helpers.widgets.words import what_it_says

#: Bytes that are also offered as a download; what is larger is a file only.
MOST_DOWNLOADED = 20_000_000


class Playground(Panel):
    """Two prompt sets, a model and a position; a grid of heads; one head, beside another if wanted.

    Args:
        model: a model's name, or what `load_model` returns. One model at a time is kept in memory.
        state: a line that the button *Link* made: its prompts, model and head come back, and the run begins.
        threaded: run in a thread, so that *Stop* is heard; False runs before `start` returns (for tests).
        folder: where files are saved; none is ever written over.

    Attributes:
        session: what a reader can do. ``state``: all that is known (`helpers.widgets.state.State`).

    Raises:
        ValueError: if ``state`` is no such line, or ``model`` neither a name nor a model.
    """

    def __init__(
        self, model: Any = "demo", *, state: str = "", threaded: bool = True, folder: str = "results-playground"
    ) -> None:
        if not isinstance(model, str | LanguageModel):
            raise ValueError(f"model: expected a name or what load_model returns, got {type(model).__name__}")
        loaded, name = (None, model) if isinstance(model, str) else (model, model.name)
        draft, view = export.from_link(state) if state else (Draft(name), View())
        super().__init__(draft)
        self.folder, self._putting = folder, False
        self.session = Session(draft, view, ModelKeeper(loaded), self._put, threaded=threaded)
        self._connect()
        self.session.open()
        if state or self.session.ships():
            self.session.start()

    @property
    def state(self) -> State:
        return self.session.state

    def _put(self, screen: Screen) -> None:
        """Give every widget its data; what they tell of that is not an action of the reader."""
        self._putting = True
        try:
            for name, data in screen.items():
                _put_one(getattr(self, name), data)
        finally:
            self._putting = False

    # ---- what leaves

    def save(self, what: str, _: Any = None) -> None:
        """Hand over one of `helpers.widgets.panel.SAVES`: a file beside the notebook and a download, or a text to be copied."""
        result, view = self.state.result, self.state.view
        if result is None:
            return
        try:
            if what in ("code", "link"):
                text = export.as_code(result.experiment) if what == "code" else export.as_link(self.state)
                self._hand_over_text(text)
            else:
                self._hand_over_file(*self._file(what, result, view))
        except (OSError, ValueError) as error:
            self.session.do(happen.complained, f"Not saved: {what_it_says(error)}")

    def _file(self, what: str, result: Result, view: View) -> tuple[str, bytes, str]:
        """Name, content and kind of a file."""
        if what == "table":
            return "heads.csv", export.table_bytes(result), "text/csv"
        if what == "picture":
            return "grid.png", export.picture_bytes(result, view), "image/png"
        if what == "rows":
            return "attention-rows.zip", export.record_bytes(result), "application/zip"
        return "playground.html", self.page().encode(), "text/html"

    def page(self) -> str:
        """The view of now as one HTML page, which opens without a network."""
        more = [self.matrix] if self.state.view.pattern else []
        return export.as_page(self.state, [self.grid, self.table], [self.strips, self.plane], *more)

    def _hand_over_file(self, name: str, data: bytes, mime: str) -> None:
        path = export.write_new(self.folder, name, data)
        self.saved.value = f"Saved: {html.escape(str(path))}"
        self.download.show(
            data=data if len(data) <= MOST_DOWNLOADED else b"",
            filename=path.name,
            mime=mime,
            label=f"Download {path.name}",
        )
        self.download.layout.display, self.copy.layout.display = "" if len(data) <= MOST_DOWNLOADED else "none", "none"

    def _hand_over_text(self, text: str) -> None:
        self.saved.value = (
            f'<pre style="white-space:pre-wrap; max-height:240px; overflow:auto">{html.escape(text)}</pre>'
        )
        self.copy.show(text=text, label="Copy to the clipboard")
        self.download.layout.display, self.copy.layout.display = "none", ""

    # ---- wiring

    def _connect(self) -> None:
        for name in ("active", "control", "bos", "position", "test"):
            self._observe(getattr(self, name), "value", partial(self._edit, name))
        self._observe(self.model, "value", self.session.choose_model)
        self._observe(self.example, "value", self.session.choose_example)
        for name in ("names", "frames"):
            self._observe(getattr(self, name), "value", partial(self._edit_own, name))
        self._observe(self.fold, "value", lambda on: self.session.do(happen.folded, not on))
        self._observe(self.measure, "value", lambda measure: self.session.do(happen.coloured, measure))
        for part in (self.grid, self.table):
            self._observe(part, "selected", self.session.open_head)
        self._observe(self.grid, "compared", self.session.compare)
        self._observe(self.plane, "selected", self.session.show_dot)
        self._observe(self.strips, "chosen", self.session.show_token)
        self._observe(self.matrix, "query", lambda query: self.session.do(happen.queried, query))
        self._observe(self.active_number, "value", lambda n: self.session.show_prompt("active", n - 1))
        self._observe(self.control_number, "value", lambda n: self.session.show_prompt("control", n - 1))
        self._observe(self.matrix_button, "value", self.session.unfold)
        self._observe(self.knob_button, "value", self.session.take_knob)
        self._observe(self.knob, "value", lambda beta: self.session.do(happen.set_beta, beta))
        self.run_button.on_click(self.session.start)
        self.stop_button.on_click(self.session.stop)
        self.load_button.on_click(self.session.load)
        for what, button in self.saves.items():
            button.on_click(partial(self.save, what))
        self.download.layout.display = self.copy.layout.display = "none"

    def _edit(self, name: str, value: str) -> None:
        self.session.edit(**{name: value})

    def _edit_own(self, name: str, value: str) -> None:
        self.session.own_changed(**{name: value})

    def _observe(self, widget: Any, trait: str, act: Callable[[Any], None]) -> None:
        """What a reader does to a widget is an action; what the app itself puts there is none."""

        def heard(change: Any) -> None:
            with self.session.lock:
                if not self._putting:
                    act(change["new"])

        widget.observe(heard, trait)


def _put_one(widget: Any, data: dict[str, Any]) -> None:
    """New data of a component, as a whole, or traits of a plain widget."""
    if isinstance(widget, WebPart):
        widget.show(**data)
        return
    for name, value in data.items():
        if name == "display":
            widget.layout.display = "" if value else "none"
        elif name == "options":
            if list(widget.options) != value:
                widget.options = value
        elif getattr(widget, name) != value:
            setattr(widget, name, value)

"""The playground's widgets: a thin shell around `helpers.widgets.checker`, `playground` and `export`.

Every callback is a method that a test can call; what the app shows can be read from its widgets and attributes.
"""

from __future__ import annotations

import html
import threading
from functools import partial
from typing import Any

import ipywidgets as w

from helpers.experiment import Experiment
from helpers.heads import Head, head_index, heads_of
from helpers.models.load import load_model
from helpers.plots.figures import head_figure
from helpers.plots.style import VERMILION
from helpers.widgets import checker, export, playground
from helpers.widgets.checker import Check, Inputs
from helpers.widgets.panel import OWN, Panel
from helpers.wording import describe


class Playground(Panel):
    """Two prompt sets, a model and a position; a grid of heads; one head.

    Args:
        model: what `load_model` returns; further models are loaded when they are asked for.
        threaded: run in a thread, so that *Stop* is heard; False runs before `start` returns (for tests).
        folder: where the export goes.

    Attributes:
        experiment: the last good result, or None. ``head``: the head that is shown.
        said: what the checker said last.
    """

    def __init__(self, model: Any, *, threaded: bool = True, folder: str = "results-playground") -> None:
        super().__init__(model.name)
        self.models = {model.name: model}
        self.threaded, self.folder = threaded, folder
        self.experiment: Experiment | None = None
        self.head: Head | None = None
        self.said = Check([], [])
        self.known: dict[str, Any] = {}
        self.stopping = threading.Event()
        self.thread: threading.Thread | None = None
        self._connect()
        self.fill()

    # ---- callbacks: prompts

    def fill(self, _: Any = None) -> None:
        """Put the chosen example into the text areas."""
        is_own = self.example.value == OWN
        self.own.layout.display = "" if is_own else "none"
        try:
            inputs = self._example(is_own)
        except ValueError as error:
            self.say(Check([f"Your example: {error}."], []))
            return
        self.known.update({p.text: p for p in inputs.active + inputs.control})
        for area, side in ((self.active, inputs.active), (self.control, inputs.control)):
            area.value = "\n".join(p.text for p in side)
        self.check()

    def _example(self, is_own: bool) -> Inputs:
        if is_own:
            return checker.own_example(self.names.value, self.frames.value)
        return checker.EXAMPLES[self.example.value]()

    def inputs(self) -> Inputs:
        """What the widgets say now."""
        active, control = (checker.parse(area.value, self.known) for area in (self.active, self.control))
        return Inputs(active, control, self.position.value or "END")

    def check(self, _: Any = None) -> Check:
        """Let the checker speak, and offer the positions that these prompts have."""
        result = checker.check(self.inputs(), self.models.get(self.model.value.strip()))
        self.heed(result)
        return result

    def heed(self, result: Check) -> None:
        """Show what the checker says, and offer the positions that it found."""
        self.say(result)
        menu = checker.positions(result.tokens)
        if result.tokens and menu != list(self.position.options):
            chosen, self.position.options = self.position.value, menu
            self.position.value = chosen if chosen in [value for _, value in menu] else "END"

    def say(self, result: Check) -> None:
        """Show errors and notes, or that there are none."""
        self.said = result
        lines = [f'<b style="color:{VERMILION}">✗ {html.escape(error)}</b>' for error in result.errors]
        lines += [f"• {html.escape(note)}" for note in result.notes]
        self.messages.value = "<br>".join(lines or ["✓ Nothing to say against these prompts."])

    # ---- callbacks: running

    def start(self, _: Any = None) -> None:
        """Run; the last good result stays until there is a new one."""
        if self.run_button.disabled:
            return
        self.stopping.clear()
        self._busy(True)
        work = partial(self._work, self.model.value.strip(), self.inputs())
        if self.threaded:
            self.thread = threading.Thread(target=work, daemon=True)
            self.thread.start()
        else:
            work()

    def stop(self, _: Any = None) -> None:
        """Stop before the next few prompts."""
        self.stopping.set()

    def _work(self, name: str, inputs: Inputs) -> None:
        try:
            self._measure(name, inputs)
        except Exception as error:  # a thread has nobody else to tell, and the last result must stay
            self.say(Check([str(error) or type(error).__name__], self.said.notes))
        finally:
            self._busy(False)

    def _measure(self, name: str, inputs: Inputs) -> None:
        if name not in self.models:
            self.bar.description = "loading"
            self.models[name] = load_model(name)
        result = checker.check(inputs, self.models[name])
        self.heed(result)
        if not result.errors:
            self.bar.description = "running"
            options: dict[str, Any] = {"progress": self._progress, "stop": self.stopping.is_set}
            self.show(playground.run(self.models[name], inputs, **options))

    def _progress(self, done: int, total: int) -> None:
        self.bar.max, self.bar.value = total, done

    def _busy(self, on: bool) -> None:
        self.run_button.disabled, self.stop_button.disabled = on, not on
        self.bar.value, self.bar.description = (0, "") if on else (self.bar.value, "")

    # ---- callbacks: results

    def show(self, experiment: Experiment) -> None:
        """Take over a new result."""
        self.experiment, self.exported.value = experiment, ""
        self.about.value = f"<pre>{html.escape(describe(experiment))}</pre>"
        self._fit_grid(experiment.active.n_layers, experiment.active.n_heads)
        head = self.head if self.head and self._has(self.head) else playground.strongest(experiment, self.measure.value)
        self.head = head
        for menu, record in ((self.active_row, experiment.active), (self.control_row, experiment.control)):
            menu.max, menu.value = len(record.prompts), 1
        self.colour()
        self.show_head(head)
        self.results.layout.display = ""

    def colour(self, _: Any = None) -> None:
        """Colour the grid by the chosen measure."""
        if self.experiment is None:
            return
        cells = playground.grid_cells(self.experiment, self.measure.value)
        for button, cell in zip(self.grid.children, cells, strict=True):
            button.description, button.tooltip = cell.name, cell.text
            button.style.button_color, button.style.text_color = cell.background, cell.ink
        self.legend.value = playground.picture("legend", playground.legend_figure, self.experiment, self.measure.value)

    def show_head(self, head: Head, _: Any = None) -> None:
        """Open the head behind a cell."""
        self.head = head
        assert self.experiment is not None
        for number, button in enumerate(self.grid.children):
            chosen = divmod(number, self.experiment.active.n_heads) == head
            button.layout.border = "3px solid black" if chosen else "1px solid #cccccc"
        self.plane.value = playground.picture("plane", head_figure, self.experiment, head)
        self.show_rows()

    def show_rows(self, _: Any = None) -> None:
        """The head's attention in the two chosen prompts."""
        if self.experiment is not None and self.head is not None:
            chosen = self.active_row.value - 1, self.control_row.value - 1
            self.rows.value = playground.picture("rows", playground.rows_figure, self.experiment, self.head, *chosen)

    def save(self, what: str, _: Any = None) -> None:
        """Write the ``"table"`` or the ``"record"``, or print the ``"code"``."""
        assert self.experiment is not None
        if what == "code":
            self.exported.value = f"<pre>{html.escape(export.as_code(self.experiment))}</pre>"
            return
        write = {"table": export.save_table, "record": export.save_record}[what]
        try:
            self.exported.value = f"Saved: {html.escape(str(write(self.experiment, self.folder)))}"
        except OSError as error:
            self.exported.value = f"✗ Not saved: {html.escape(str(error))}"

    # ---- wiring

    def _connect(self) -> None:
        for widgets, callback in (
            ((self.example, self.names, self.frames), self.fill),
            ((self.active, self.control, self.model, self.position), self.check),
            ((self.measure,), self.colour),
            ((self.active_row, self.control_row), self.show_rows),
        ):
            for widget in widgets:
                widget.observe(callback, "value")
        self.run_button.on_click(self.start)
        self.stop_button.on_click(self.stop)
        for what, button in self.savers.items():
            button.on_click(partial(self.save, what))

    def _has(self, head: Head) -> bool:
        """Whether the model of the result has such a head."""
        record = self.experiment.active if self.experiment else None
        return record is not None and head[0] < record.n_layers and head[1] < record.n_heads

    def _fit_grid(self, n_layers: int, n_heads: int) -> None:
        if len(self.grid.children) == n_layers * n_heads and self.grid.layout.grid_template_columns == _columns(
            n_heads
        ):
            return
        layout = {"width": "58px", "height": "28px", "margin": "1px", "padding": "0"}
        buttons = [w.Button(layout=w.Layout(**layout)) for _ in range(n_layers * n_heads)]
        for head, button in zip(heads_of(head_index(n_layers, n_heads)), buttons, strict=True):
            button.on_click(partial(self.show_head, head))
        self.grid.layout.grid_template_columns = _columns(n_heads)
        self.grid.children = buttons


def _columns(n_heads: int) -> str:
    return f"repeat({n_heads}, 60px)"

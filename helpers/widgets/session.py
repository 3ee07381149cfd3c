"""A reader's session without its widgets: one state, one model in memory, and whatever a reader can do, as methods."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from helpers.experiment import analyse
from helpers.heads import HeadLike
from helpers.widgets import checker, looking, playground
from helpers.widgets import transitions as happen
from helpers.widgets.checker import Check
from helpers.widgets.display import Screen, draw
from helpers.widgets.examples import EXAMPLES, OWN, TYPED, example, own_example
from helpers.widgets.inputs import Inputs
from helpers.widgets.keeper import ModelKeeper
from helpers.widgets.known import known_heads
from helpers.widgets.shipped import shipped_example, shipped_rows
from helpers.widgets.state import SIDES, Draft, Result, State, View
from helpers.widgets.words import what_it_says

#: Tokens of the prompts that are run between two looks at whether to stop.
TOKENS_A_CHUNK = 500


class Session:
    """The state, and what changes it.

    Args:
        draft, view: what stands in the boxes, and what is looked at once there is a result.
        keeper: the model in memory.
        show: puts a screen before the reader, whole or not at all.
        threaded: run in a thread, so that `stop` is heard; False runs before `start` returns.

    Attributes:
        state: all that is known. ``thread``: of the run that is going on or was the last one. ``lock``: held while a state changes.
    """

    def __init__(
        self, draft: Draft, view: View, keeper: ModelKeeper, show: Callable[[Screen], None], *, threaded: bool = True
    ) -> None:
        self.state, self.keeper, self.show, self.threaded = State(draft, view=view), keeper, show, threaded
        self.thread: threading.Thread | None = None
        self.lock = threading.RLock()
        self._model_lock = (
            threading.Lock()
        )  # a stopped run may still be in its last pass, and two at once would mix their rows

    def open(self) -> None:
        """Fill the boxes and let the checker read them."""
        draft = self.state.draft
        if draft.example in EXAMPLES:
            self.choose_example(draft.example, position=draft.position)
        else:
            self.edit()

    def do(self, action: Callable[..., State], *args: Any, **options: Any) -> None:
        """A transition: the new state is drawn as a whole, or what is shown stays and the reader is told why."""
        with self.lock:
            old, new = self.state, action(self.state, *args, **options)
            try:
                self.show(draw(new, old))
            except Exception as error:  # whatever breaks in drawing must not leave half a screen
                sentence = f"This can't be drawn: {what_it_says(error)}"
                new = happen.complained(replace(new, result=old.result, view=old.view, folded=old.folded), sentence)
                self.show(draw(new))
            self.state = new

    # ---- the boxes

    def edit(self, **changes: str) -> None:
        """The reader has changed boxes; the checker reads them."""
        self.do(happen.edited, **changes)
        self.check()

    def choose_model(self, name: str) -> None:
        """Another model: examples are made for it, and what ships for it opens at once."""
        name = name.strip()
        self.edit(model=name)
        if self.state.draft.example in EXAMPLES:
            self.choose_example(self.state.draft.example)
        if self.ships():
            self.start()

    def choose_example(self, name: str, *, position: str = "END") -> None:
        """An example, or the reader's own prompts again, in the boxes."""
        if name == TYPED:
            self.do(happen.retyped)
            self.check()
            return
        try:
            inputs = self._example(name)
        except ValueError as error:
            complaint = f"The example: {what_it_says(error)}"
            self.do(lambda state: happen.complained(happen.edited(state, example=name), complaint))
            return
        self.do(happen.filled, name, inputs, position)
        self.check()

    def own_changed(self, **changes: str) -> None:
        """Other names or frames of the reader's own example."""
        self.do(happen.edited, **changes)
        self.choose_example(OWN)

    def _example(self, name: str) -> Inputs:
        draft = self.state.draft
        if name == OWN:
            return own_example(draft.names, draft.frames)
        return shipped_example(draft.model, name) or example(name, self.keeper.held(draft.model))

    def check(self, draft: Draft | None = None) -> Check:
        """Let the checker read a draft (default: that of now). That may take a while, so others may act meanwhile."""
        draft = draft or self.state.draft
        inputs = draft.inputs(self.state.known)
        if (rows := shipped_rows(draft.model, inputs)) is not None:
            tokens = {side: record.prompts for side, record in zip(SIDES, rows, strict=True)}
            said = checker.check(inputs, tokens=tokens, n_heads=rows[0].n_layers * rows[0].n_heads)
        else:
            said = checker.check(inputs, self.keeper.held(draft.model))
        self.do(happen.checked, draft, said)
        return said

    def ships(self) -> bool:
        """Whether what the boxes ask can be answered from rows that ship."""
        return shipped_rows(self.state.draft.model, self.state.inputs()) is not None

    # ---- a run

    def start(self, _: Any = None) -> None:
        """Load the model if need be, run, analyse; the last good result stays until there is a new one."""
        self._begin(self._work)

    def load(self, _: Any = None) -> None:
        """Load the result's model, for what needs it."""
        self._begin(self._load)

    def stop(self, _: Any = None) -> None:
        """End the run; a model that is being read is kept once it is there, all else is dropped."""
        self.do(happen.stopped)

    def _begin(self, work: Callable[[int], None]) -> None:
        if self.state.is_busy:
            return
        self.do(happen.started)
        task = partial(self._guarded, work, self.state.run)
        if self.threaded:
            self.thread = threading.Thread(target=task, daemon=True)
            self.thread.start()
        else:
            task()

    def _guarded(self, work: Callable[[int], None], run: int) -> None:
        try:
            with self._model_lock:
                work(run)
        except Exception as error:  # a thread has nobody else to tell, and the last result must stay
            self.do(happen.failed, run, what_it_says(error))

    def _work(self, run: int) -> None:
        asked = self.state.draft
        rows = shipped_rows(asked.model, asked.inputs(self.state.known))
        source = "from shipped rows" if rows else "run here"
        model = None if rows else self.keeper.get(asked.model)
        if not self._is_on(run):
            return
        asked = self._suited(asked, model)
        said, inputs = self.check(asked), asked.inputs(self.state.known)
        if said.errors:
            raise ValueError("Not run: there is something wrong with the prompts (below).")
        self.do(happen.stepped, run, "running")
        rows = rows or self._record(run, model, inputs, said)
        self.do(happen.stepped, run, "analysing")
        active, control = (playground.at_position(record, inputs.position) for record in rows)
        experiment = analyse(active, control, design=inputs.design)
        self.do(happen.finished, run, Result(asked, experiment, rows, known_heads(active), source))

    def _record(self, run: int, model: Any, inputs: Inputs, said: Check) -> playground.Records:
        """Rows of all prompts, a few at a time: fewer of long ones, so that Stop does not leave much work behind."""
        longest = max(len(p) for prompts in (said.tokens or {}).values() for p in prompts)
        return playground.record(
            model,
            inputs,
            progress=lambda done, total: self.do(happen.stepped, run, "running", done, total),
            stop=lambda: not self._is_on(run),
            chunk=max(1, min(8, TOKENS_A_CHUNK // longest)),
        )

    def _load(self, run: int) -> None:
        assert self.state.result is not None
        self.keeper.get(self.state.result.asked.model)
        self.do(happen.loaded, run)

    def _suited(self, asked: Draft, model: Any) -> Draft:
        """A draft whose example was chosen before the model was there, with the example made for its tokenizer."""
        if model is None or asked.example not in EXAMPLES:
            return asked
        inputs = example(asked.example, model)
        if inputs.sides == asked.inputs(self.state.known).sides:
            return asked
        new = happen.filled(replace(self.state, draft=asked), asked.example, inputs, asked.position)
        self.do(lambda state: replace(state, known=new.known, draft=new.draft if state.draft == asked else state.draft))
        return new.draft

    def _is_on(self, run: int) -> bool:
        return self.state.is_busy and self.state.run == run

    # ---- a result

    def open_head(self, head: HeadLike | None) -> None:
        """Open a head."""
        if head is not None:
            self.do(happen.picked, tuple(head))

    def compare(self, head: HeadLike | None) -> None:
        """A second head beside the open one, or none."""
        self.do(happen.compared, None if head is None else tuple(head))

    def show_prompt(self, side: str, number: int) -> None:
        """Another prompt of a side, from 0."""
        self.do(happen.turned, side, number)

    def show_dot(self, index: int | None) -> None:
        """The prompt of a dot of the plane."""
        if index is not None and self.state.result is not None:
            first = self.state.result.counts[0]
            self.show_prompt(*(("active", index) if index < first else ("control", index - first)))

    def show_token(self, chosen: list[int] | None) -> None:
        """The row of a token that was clicked, in the whole matrix of the open head."""
        if chosen is None or chosen[0] >= len(SIDES):
            return
        side = SIDES[chosen[0]]
        self.show_prompt(side, self.state.view.numbers[chosen[0]])
        self.unfold(True)
        self.do(happen.queried, chosen[1])

    def unfold(self, on: bool) -> None:
        """Every row of the open head in the prompt that is looked at."""
        self._on_demand(looking.pattern_of, happen.unfolded, on)

    def take_knob(self, on: bool) -> None:
        """The open head with its scores turned."""
        self._on_demand(looking.knob_of, happen.tuned, on)

    def _on_demand(self, make: Callable[..., Any], put: Callable[..., State], on: bool) -> None:
        result, view = self.state.result, self.state.view
        if result is None or not on:
            self.do(put, None)
            return
        if not self._model_lock.acquire(blocking=False):
            self.do(happen.complained, "The model is in use by a run; this can be looked at when that has ended.")
            return
        try:
            made = make(result, view, self.keeper.held(result.asked.model))
        except Exception as error:  # the model's own refusals among them
            self.do(happen.complained, what_it_says(error), needs_model=isinstance(error, looking.NeedsModel))
        else:
            self.do(lambda state: put(happen.complained(state, ""), made))
        finally:
            self._model_lock.release()

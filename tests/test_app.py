"""The playground's widgets without a browser: one state, whatever a reader does; three steps, each of which can be stopped."""

from __future__ import annotations

import gc
import html
import re
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from models import CUDA_BUILD, save_tiny_gpt2

from helpers import load_model
from helpers.models import gguf
from helpers.widgets import examples, export, playground, screen, session, transitions
from helpers.widgets.app import Playground
from helpers.widgets.examples import OWN, TYPED
from helpers.widgets.inputs import NO_BOS
from helpers.widgets.keeper import ModelKeeper
from helpers.widgets.state import STEPS

pytestmark = pytest.mark.slow

ACTIVE, CONTROL = "red cup red\nold key old", "red cup box\nold key pen"
STALE = "Of the prompts before"


@pytest.fixture(scope="module")
def demo() -> Any:
    return load_model("demo", device="cpu")


@pytest.fixture
def app(demo: Any, tmp_path: Path) -> Playground:
    """A fresh app that runs before `click` returns."""
    return Playground(demo, threaded=False, folder=str(tmp_path / "out"))


@pytest.fixture
def ran(app: Playground) -> Playground:
    """An app that shows two short pairs."""
    app.active.value, app.control.value = ACTIVE, CONTROL
    app.run_button.click()
    assert app.state.result is not None
    return app


def on_screen(app: Playground) -> tuple[Any, ...]:
    """What a result puts on the screen."""
    parts = app.grid, app.table, app.strips, app.plane
    return (app.state.result, app.more.value, app.head.value, *(str(part.content) for part in parts))


# ---- the boxes


def test_starts_with_an_example_and_no_result(app: Playground) -> None:
    assert len(app.active.value.splitlines()) == len(app.control.value.splitlines()) == examples.N
    assert "✓ Nothing to say against these prompts." in app.messages.value
    assert "Test: paired sign-flip test over 20 pairs" in app.messages.value
    assert app.results.layout.display == "none"
    assert app.stop_button.disabled


@pytest.mark.parametrize("name", [*examples.EXAMPLES, OWN])
def test_every_example_can_be_chosen_and_run(app: Playground, name: str) -> None:
    app.example.value = name
    assert (app.state.said.errors, app.state.said.notes) == ([], [])
    app.run_button.click()
    result = app.state.result
    assert result is not None
    assert [p.prompt.text for p in result.records[0].prompts] == app.active.value.splitlines()
    assert (app.own.layout.display == "") == (name == OWN)
    assert app.boxes.layout.display == "none"  # folded away, so that the result is in sight
    assert result.experiment.notes == []


def test_own_names_fill_the_text_areas(app: Playground) -> None:
    """New names are taken at once; unusable ones get a sentence and change nothing."""
    app.example.value = OWN
    app.names.value = "Nina, Oscar, Vera"
    assert "Nina" in app.active.value
    before = app.active.value
    app.names.value = "Nina"
    assert "✗ The example: " in app.messages.value
    assert app.active.value == before


def test_typed_prompts_come_back(app: Playground) -> None:
    """An example takes the place of typed prompts; the menu brings them back."""
    app.active.value, app.control.value = ACTIVE, CONTROL
    assert app.example.value == TYPED
    app.example.value = "ownership"
    assert app.active.value != ACTIVE
    app.example.value = TYPED
    assert (app.active.value, app.control.value) == (ACTIVE, CONTROL)


def test_positions(app: Playground) -> None:
    """Examples offer names; a bare line takes them away, and a chosen one falls back to END."""
    assert "S2" in dict(app.position.options)
    app.position.value = "S2"
    app.run_button.click()
    assert "rows of the S2 token" in app.more.value
    app.active.value += "\nred red"
    assert "S2" not in dict(app.position.options)
    assert app.position.value == "END"
    app.position.value = "token 2"
    app.run_button.click()
    assert app.state.result is not None
    assert app.state.result.experiment.active.query == "token 2"


def test_first_token_and_test_can_be_chosen(ran: Playground) -> None:
    """No first token, or another; pairs tested as two sets: the result is of what was chosen, and says so."""
    ran.bos.value = NO_BOS
    ran.test.value = "two sets"
    assert STALE in ran.about.value
    ran.run_button.click()
    result = ran.state.result
    assert result is not None
    assert result.records[0].settings["prepend_bos"] is False
    assert result.experiment.design == "sets"
    assert "rank test" in ran.about.value
    ran.bos.value = "nobody"
    assert "✗ The first token: expected a token" in ran.messages.value


# ---- a run


def test_run_fills_the_screen(ran: Playground) -> None:
    """Question and answer, grid, list, open head, its rows and dots; the strongest head is open."""
    result = ran.state.result
    assert result is not None
    assert "Test: paired sign-flip test over 2 pairs" in ran.about.value
    assert np.shape(ran.grid.values) == (6, 8)
    assert tuple(ran.grid.selected) == playground.strongest(result.experiment, "shift of KL")
    assert len(ran.table.rows) == 48
    assert [s["tokens"][1:] for s in ran.strips.strips] == [["red", "cup", "red"], ["red", "cup", "box"]]
    assert len(ran.plane.points) == 4
    assert ran.bar.layout.display == "none"
    assert not ran.run_button.disabled


def test_an_edit_marks_the_result(ran: Playground) -> None:
    """Until the boxes ask again what the result answers; a line end more asks nothing else."""
    before = on_screen(ran)
    ran.active.value = ACTIVE.replace("cup", "pen")
    assert STALE in ran.about.value
    assert on_screen(ran) == before
    ran.active.value = ACTIVE + "\n"
    assert STALE not in ran.about.value


def test_new_prompts_give_a_new_grid(ran: Playground) -> None:
    before = ran.grid.content
    ran.active.value, ran.control.value = "Mary met Mary\nJohn met John", "Mary met Bob\nJohn met Bob"
    ran.run_button.click()
    assert ran.grid.content["values"] != before["values"]
    assert STALE not in ran.about.value


@pytest.mark.parametrize(
    ("active", "sentence"),
    [
        ("red zork\nold key", "Active prompt 1: the word 'zork' is not in this model's vocabulary"),
        ("", "The active set has 0 prompts"),
        ("red " * 70 + "\nred", "Active prompt 1: expected at most 64 tokens"),
    ],
)
def test_bad_input_is_said_and_nothing_is_lost(ran: Playground, active: str, sentence: str) -> None:
    """The sentence comes before Run and after it; the last good result stays, marked."""
    before = on_screen(ran)
    ran.active.value = active
    assert html.escape(sentence) in ran.messages.value
    ran.run_button.click()
    assert any(sentence in error for error in ran.state.said.errors)
    assert "Not run" in ran.messages.value
    assert "The last result stays below." in ran.messages.value
    assert STALE in ran.about.value
    assert on_screen(ran) == before
    assert not ran.run_button.disabled


def test_fewer_prompts_after_the_last_one_was_looked_at(app: Playground) -> None:
    """12 + 12 prompts, the twelfth looked at, then 2 + 2: the screen is of the new run, and shows its second prompt."""
    app.run_button.click()
    app.active_number.value = 20
    app.active.value, app.control.value = ACTIVE, CONTROL
    app.run_button.click()
    assert app.state.failure == app.state.complaint == ""
    assert app.state.view.numbers == (1, 1)
    assert "active prompt 2 of 2" in app.strips.strips[0]["label"]


def test_text_cannot_become_markup(app: Playground) -> None:
    app.active.value = "<b>x</b>\n<script>"
    assert "<script>" not in app.messages.value
    app.session.choose_model("<script>alert(1)</script>")
    app.run_button.click()
    assert "<script>" not in app.messages.value


@pytest.mark.parametrize("part", ["about", "grid", "plane"])
def test_a_failed_drawing_leaves_the_last_result(ran: Playground, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever part can't be drawn: all of the last result stays, one sentence says why, and the app goes on."""
    before, put = on_screen(ran), ran.session.show
    new = ["Mary met Mary\nJohn met John", "Mary met Bob\nJohn met Bob"]
    ran.active.value, ran.control.value = new

    def broken(shown: dict[str, Any]) -> None:
        if part in shown and ran.state.step == "analysing" and not failed:
            failed.append(part)
            put({name: data for name, data in shown.items() if name != part})
            raise RuntimeError("no pen")
        put(shown)

    failed: list[str] = []
    monkeypatch.setattr(ran.session, "show", broken)
    ran.run_button.click()
    assert failed == [part]
    assert on_screen(ran) == before
    assert "This can&#x27;t be drawn: no pen." in ran.messages.value
    assert not ran.run_button.disabled
    ran.run_button.click()
    assert on_screen(ran) != before
    assert "no pen" not in ran.messages.value


# ---- looking around


def test_a_click_opens_a_head(ran: Playground) -> None:
    """From the grid or the list; both mark it; strips, dots and words are its own."""
    ran.grid.selected = [1, 3]
    assert ran.state.view.head == (1, 3)
    assert ran.table.selected == [1, 3]
    assert "Head 1.3" in ran.head.value
    assert "head 1.3" in ran.strips.strips[0]["label"]
    ran.table.selected = [4, 2]
    assert ran.grid.selected == [4, 2]
    assert "Head 4.2" in ran.plane.title


def test_pairs_turn_together_and_sets_apart(ran: Playground) -> None:
    ran.active_number.value = 2
    assert ran.state.view.numbers == (1, 1)
    assert ran.control_number.layout.display == "none"
    ran.test.value = "two sets"
    ran.run_button.click()
    assert ran.control_number.layout.display == ""
    ran.control_number.value = 1
    assert ran.state.view.numbers == (1, 0)
    ran.plane.selected = 3
    assert (ran.state.view.side, ran.state.view.numbers) == ("control", (1, 1))
    ran.active_number.value = 99
    assert ran.active_number.value == 2


def test_two_heads_beside_each_other(ran: Playground) -> None:
    """A second head has its own strips and lines; the same head twice is none; opening it ends the comparison."""
    ran.grid.selected = [1, 3]
    ran.grid.compared = [2, 0]
    assert len(ran.strips.strips) == 4
    assert "Head 2.0" in ran.head.value
    ran.grid.compared = [1, 3]
    assert ran.grid.compared is None
    ran.grid.compared = [2, 0]
    ran.grid.selected = [2, 0]
    assert ran.state.view.compared is None


def test_measures_colour_the_grid(ran: Playground) -> None:
    ran.measure.value = "chi, control"
    result = ran.state.result
    assert result is not None
    np.testing.assert_allclose(np.ravel(ran.grid.values), result.experiment.table.chi_control)
    assert "chi, control" in ran.table.title


def test_every_row_and_the_knob(ran: Playground) -> None:
    """The matrix opens with END's row chosen, a clicked token chooses its own; the knob's rows follow beta; another head closes both."""
    ran.matrix_button.value = True
    assert (len(ran.matrix.tokens), ran.matrix.query) == (4, 3)
    ran.strips.chosen = [1, 2]
    assert (ran.state.view.side, ran.matrix.query) == ("control", 2)
    ran.knob_button.value = True
    assert "beta = 1" in ran.knob_words.value
    before = ran.knob_strips.strips
    ran.knob.value = 8.0
    assert ran.knob_strips.strips != before
    assert "beta = 8" in ran.knob_words.value
    assert len(ran.plane.trajectory) == 25
    ran.grid.selected = [0, 0]
    assert (ran.matrix_box.layout.display, ran.knob_box.layout.display) == ("none", "none")
    assert (ran.matrix_button.value, ran.knob_button.value) == (False, False)


# ---- models


def test_another_model(app: Playground, tiny_folder: Path) -> None:
    """A path is loaded on Run; the grid takes its shape, and the head that was open gives way to its strongest."""
    app.run_button.click()
    app.grid.selected = [5, 7]
    app.model.value = str(tiny_folder)
    app.run_button.click()
    assert np.shape(app.grid.values) == (3, 4)
    result = app.state.result
    assert result is not None
    assert result.experiment.active.model == str(tiny_folder)
    assert app.state.view.head == playground.strongest(result.experiment, "shift of KL")


def test_a_model_that_is_not_there(ran: Playground) -> None:
    before = on_screen(ran)
    ran.model.value = "/no/such/folder"
    ran.run_button.click()
    assert "there is no such folder" in ran.messages.value
    assert on_screen(ran) == before


@pytest.mark.parametrize("name", ["x" * 5000, "no/such.gguf", "", "a\0b", "../demo"])
def test_names_that_are_no_models(ran: Playground, name: str) -> None:
    """Whatever is typed as a model: a sentence, and the result stays."""
    before = on_screen(ran)
    ran.model.value = name
    ran.run_button.click()
    assert "✗" in ran.messages.value
    assert on_screen(ran) == before


def test_one_model_in_memory(tiny_folder: Path, tmp_path: Path) -> None:
    """The first model is gone when the second is being loaded, and a model that can't be had leaves none behind."""
    other = save_tiny_gpt2(tmp_path / "other", seed=1)
    seen = []

    def load(name: str) -> Any:
        gc.collect()
        seen.append(None if first is None else first())
        return load_model(name, device="cpu")

    first: Any = None
    keeper = ModelKeeper(load=load)
    app = Playground(str(tiny_folder), threaded=False)
    app.session.keeper = keeper
    app.run_button.click()
    app.session.unfold(True)
    app.session.take_knob(True)  # makes the wrapper, too
    assert app.state.complaint == ""
    first = weakref.ref(keeper.held(str(tiny_folder)).hf)
    app.model.value = str(other)
    app.run_button.click()
    assert app.state.failure == ""
    assert seen == [None, None]
    assert first() is None


def test_shipped_rows_open_without_a_model() -> None:
    """SmolLM2: the result is there at once, no model is held; what needs it says so and offers to load it."""
    app = Playground("smollm2", threaded=False)
    assert app.state.result is not None
    assert np.shape(app.grid.values) == (30, 9)
    assert "from shipped rows" in app.about.value
    assert app.state.result.experiment.notes == []
    app.session.unfold(True)
    assert app.state.view.pattern is not None
    app.knob_button.value = True
    assert "The knob runs the model again: it needs smollm2 in memory." in app.messages.value
    assert app.load_button.layout.display == ""
    assert not app.knob_button.value
    assert app.session.keeper.held("smollm2") is None


def test_the_model_can_be_loaded_for_what_needs_it(demo: Any) -> None:
    """Load brings it, and the result stays."""
    app = Playground("smollm2", threaded=False)
    result = app.state.result
    app.session.keeper = ModelKeeper(load=lambda name: demo)
    app.knob_button.value = True
    app.load_button.click()
    assert app.load_button.layout.display == "none"
    assert app.state.result is result
    assert app.messages.value == ""


MEMORY = """
import resource
from helpers.widgets import Playground
app = Playground("smollm2", threaded=False)
app.session.edit(active="Mary met Mary\\nJohn saw John", control="Mary met John\\nJohn saw Mary")
app.session.start()
app.session.unfold(True)
app.session.take_knob(True)
assert app.state.failure == app.state.complaint == "", app.messages.value
assert app.state.view.knob is not None
app.session.choose_model("demo")
app.session.start()
assert app.state.result.asked.model == "demo", app.messages.value
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux alone")
def test_memory_with_a_real_model() -> None:
    """Loaded, run, its matrix and its knob, then the demo model in its place: 1.6 GB are enough (Binder has 2)."""
    if torch.version.cuda is not None:
        pytest.skip(CUDA_BUILD)
    try:
        gguf.smollm2_folder()
    except gguf.UnusableFile as error:
        pytest.skip(f"SmolLM2: {error}")
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1.6e9


# ---- stop


def test_what_is_written_while_a_run_ends_stays(ran: Playground) -> None:
    """A run's thread draws between the arrival of a text and its being heard: the text is the reader's all the same."""
    with ran.active.hold_trait_notifications():  # as ipywidgets takes what a browser sends
        ran.active.value = CONTROL
        ran.session.do(transitions.failed, ran.state.run, "it broke")
        ran.session.do(transitions.checked, ran.state.draft, ran.state.said)
    assert (ran.active.value, ran.state.draft.active) == (CONTROL, CONTROL)


class Gate:
    """Holds a function back until it is told to go on."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.reached, self.go = function, threading.Event(), threading.Event()

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.reached.set()
        assert self.go.wait(60)
        return self.function(*args, **options)


@pytest.mark.parametrize("step", STEPS)
def test_stop_is_heard_in_each_step(step: str, tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop frees the app at once; what the stopped run still brings is dropped; the next run goes well."""
    app = Playground(tiny.name)
    app.session.keeper = ModelKeeper(load=lambda name: tiny)
    app.session.edit(active=ACTIVE, control=CONTROL)
    app.session.start()
    assert app.session.thread is not None
    app.session.thread.join(60)
    before = on_screen(app)
    assert before[0] is not None
    gates = {
        "loading": Gate(lambda name: tiny),
        "running": Gate(playground.record_at),
        "analysing": Gate(session.analyse),
    }
    gate = gates[step]
    if step == "loading":
        app.session.keeper = ModelKeeper(load=gate)
    else:
        module, name = {"running": (playground, "record_at"), "analysing": (session, "analyse")}[step]
        monkeypatch.setattr(module, name, gate)
    app.run_button.click()
    thread = app.session.thread
    assert gate.reached.wait(60)
    assert app.step.value.startswith(f"{STEPS.index(step) + 1} of 3: {step}")
    assert app.bar.layout.display == ""
    app.run_button.click()  # a second run beside the first is refused
    assert app.session.thread is thread
    app.stop_button.click()
    assert f"Stopped while {step}" in app.messages.value
    assert (app.run_button.disabled, app.stop_button.disabled) == (False, True)
    gate.go.set()
    thread.join(60)
    assert f"Stopped while {step}" in app.messages.value
    assert on_screen(app) == before
    app.run_button.click()
    app.session.thread.join(60)
    assert app.state.failure == ""
    assert app.state.result is not before[0]


def test_a_run_after_a_stopped_one_waits_for_it(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two passes of one model at once would mix their rows: the second run begins when the last pass of the first has ended."""
    app = Playground(tiny)
    app.session.edit(active=ACTIVE, control=CONTROL)
    gate = Gate(playground.record_at)
    monkeypatch.setattr(playground, "record_at", gate)
    app.run_button.click()
    first = app.session.thread
    assert gate.reached.wait(60)
    app.stop_button.click()
    gate.reached.clear()
    app.run_button.click()
    assert app.session.thread is not first
    assert not gate.reached.wait(0.3)
    gate.go.set()
    for thread in (first, app.session.thread):
        assert thread is not None
        thread.join(60)
    assert app.state.failure == ""
    assert app.state.result is not None


def test_nothing_is_looked_at_while_the_model_runs(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row and the knob need the model for themselves, and say so; they can be had afterwards."""
    app = Playground(tiny)
    app.session.edit(active=ACTIVE, control=CONTROL)
    app.session.start()
    assert app.session.thread is not None
    app.session.thread.join(60)
    gate = Gate(playground.record_at)
    monkeypatch.setattr(playground, "record_at", gate)
    app.run_button.click()
    assert gate.reached.wait(60)
    app.matrix_button.value = True
    assert "The model is in use by a run" in app.messages.value
    assert not app.matrix_button.value
    gate.go.set()
    app.session.thread.join(60)
    app.matrix_button.value = True
    assert app.state.view.pattern is not None


def test_edits_while_a_run_goes_on(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run answers what stood in the boxes when it began; the result is then marked as one of the prompts before."""
    app = Playground(tiny)
    app.session.edit(active=ACTIVE, control=CONTROL)
    gate = Gate(playground.record_at)
    monkeypatch.setattr(playground, "record_at", gate)
    app.run_button.click()
    assert gate.reached.wait(60)
    app.active.value = "Mary met Mary\nJohn met John"
    gate.go.set()
    assert app.session.thread is not None
    app.session.thread.join(60)
    assert app.state.result is not None
    assert app.state.result.asked.active == ACTIVE
    assert STALE in app.about.value
    assert app.active.value == "Mary met Mary\nJohn met John"


# ---- what leaves


def test_saves(ran: Playground) -> None:
    """Files of what is on the screen, offered for download too, none written over; texts can be copied."""
    result = ran.state.result
    assert result is not None
    for _ in range(2):
        ran.saves["table"].click()
    assert "heads-2.csv" in ran.saved.value
    for name in ("heads.csv", "heads-2.csv"):
        table = pd.read_csv(Path(ran.folder) / name)
        pd.testing.assert_frame_equal(table, result.experiment.table, check_exact=True)
    assert ran.download.filename == "heads-2.csv"
    for what, name in {"rows": "attention-rows.zip", "picture": "grid.png", "page": "playground.html"}.items():
        ran.saves[what].click()
        assert (Path(ran.folder) / name).stat().st_size > 1000
    ran.saves["code"].click()
    assert ran.copy.text == export.as_code(result.experiment)
    ran.folder = str(Path(ran.folder) / "heads.csv")
    ran.saves["table"].click()
    assert "Not saved" in ran.messages.value


def test_the_page_holds_the_view(ran: Playground) -> None:
    """The saved page is one file, with question, answer and all components as they are on the screen."""
    ran.session.unfold(True)
    page = ran.page()
    for kind in ("HeadGrid", "RankedHeads", "TokenStrips", "PlaneDots", "AttentionMatrix"):
        assert f'"kind": "{kind}"' in page
    assert "12 pairs" not in page
    assert "in 2 pairs, which heads attend differently" in page
    assert not re.search(r"https?://(?!www\.w3\.org)", page)


def test_a_link_restores_prompts_model_and_head(ran: Playground, demo: Any) -> None:
    """The line of one app opens the same view in another."""
    ran.grid.selected, ran.measure.value = [1, 3], "chi, control"
    ran.grid.compared = [2, 0]
    ran.active_number.value = 2
    ran.saves["link"].click()
    other = Playground(demo, state=ran.copy.text, threaded=False)
    assert (other.active.value, other.control.value) == (ACTIVE, CONTROL)
    assert other.state.view == replace(ran.state.view, pattern=None)
    assert on_screen(other)[1:] == on_screen(ran)[1:]


def test_bad_links_and_models_are_refused() -> None:
    with pytest.raises(ValueError, match="state: expected a line that the playground made"):
        Playground(state="hello")
    with pytest.raises(ValueError, match="model: expected a name or what load_model returns, got float"):
        Playground(3.5)


def test_long_lists_and_odd_text(app: Playground) -> None:
    """300 prompts a side are one run; dollars, emoji, other scripts and markup are told apart from words, in a sentence a kind."""
    words = ["cup", "box", "pen", "key", "map", "lamp"]
    lines = [(f"red {a} {b} {c} red", f"red {a} {b} {c} old") for a in words for b in words for c in words][:150]
    app.session.edit(active="\n".join(a for a, _ in lines * 2), control="\n".join(c for _, c in lines * 2))
    assert not app.state.said.errors
    assert sum("counted again" in note for note in app.state.said.notes) == 2
    app.run_button.click()
    assert app.state.result is not None
    assert app.state.result.counts == (300, 300)
    app.session.edit(active="$$ $x$\n日本語\nمرحبا\n😀\n<|im_start|>", control=CONTROL)
    assert len(app.state.said.errors) == 1
    assert app.state.said.errors[0].startswith("Active prompts 1, 2, 3, 4 and 5: the word '$$'")


# ---- whatever a reader does, in any order


@pytest.fixture(scope="module")
def two_models(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two tiny models of different shapes."""
    folder = save_tiny_gpt2(tmp_path_factory.mktemp("models") / "other", seed=1, n_layer=2, n_head=2)
    return {"tiny": tiny, "other": load_model(str(folder), device="cpu")}


LINES = [
    "red cup red\nold key old\nred pen red", "red cup box\nold key pen\nred pen box", "red cup\nold key", "cup", "",
    "zork\nred", "red old red old\nold red old red", "Mary met Mary\nJohn met John\nBob met Bob\nAnna met Anna",
]  # fmt: skip


class Reader(RuleBasedStateMachine):
    """Random actions of a reader; after each of them the screen is of one run, and the app is ready."""

    models: dict[str, Any]
    folder: str

    def __init__(self) -> None:
        super().__init__()
        self.app = Playground(self.models["tiny"], threaded=False, folder=self.folder)
        self.app.session.keeper = ModelKeeper(load=lambda name: self.models[name])
        self.app.session.edit(active=LINES[0], control=LINES[1], model="tiny")

    @rule(side=st.sampled_from(["active", "control"]), text=st.sampled_from(LINES))
    def type_prompts(self, side: str, text: str) -> None:
        getattr(self.app, side).value = text

    @rule(name=st.sampled_from([*examples.EXAMPLES, OWN, TYPED]))
    def choose_example(self, name: str) -> None:
        self.app.example.value = name

    @rule(name=st.sampled_from(["tiny", "other", "missing"]))
    def choose_model(self, name: str) -> None:
        self.app.model.value = name

    @rule(
        test=st.sampled_from(["pairs if they are", "pairs", "two sets"]),
        bos=st.sampled_from(["the tokenizer's BOS", "none", "nobody"]),
    )
    def choose_how(self, test: str, bos: str) -> None:
        self.app.test.value, self.app.bos.value = test, bos

    @rule(data=st.data())
    def choose_position(self, data: st.DataObject) -> None:
        self.app.position.value = data.draw(st.sampled_from([value for _, value in self.app.position.options]))

    @rule()
    def run(self) -> None:
        before = self.app.state.result
        self.app.run_button.click()
        result = self.app.state.result
        if result is before:
            assert "✗" in self.app.messages.value
        else:
            assert result is not None
            assert result.asked == self.app.state.draft
            assert not self.app.state.is_stale

    @rule(after=st.integers(0, 2))
    def run_and_stop(self, after: int) -> None:
        """The reader presses Stop after some chunks."""
        before, real = self.app.state.result, playground.record_at
        calls = iter(range(100))

        def record(*args: Any) -> Any:
            if next(calls) == after:
                self.app.stop_button.click()
            return real(*args)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(playground, "record_at", record)
            self.app.run_button.click()
        if "Stopped" in self.app.state.failure:
            assert self.app.state.result is before

    @rule(where=st.sampled_from(["record_at", "analyse", "draw"]))
    def run_and_fail(self, where: str) -> None:
        """Something breaks on the way."""
        before = self.app.state.result
        broken = iter([True])

        def fail(*args: Any, **options: Any) -> Any:
            if where != "draw" or (self.app.state.step == "analysing" and next(broken, False)):
                raise RuntimeError("it broke")
            return real(*args, **options)

        module = playground if where == "record_at" else session
        real = getattr(module, where)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, where, fail)
            self.app.run_button.click()
        assert self.app.state.result is before
        assert "✗" in self.app.messages.value

    @rule(head=st.tuples(st.integers(0, 2), st.integers(0, 3)), how=st.sampled_from(["open", "list", "compare"]))
    def choose_head(self, head: tuple[int, int], how: str) -> None:
        result = self.app.state.result
        if result is None or not result.has(head):
            self.app.session.open_head(head)
            return
        widget, trait = {"open": (self.app.grid, "selected"), "list": (self.app.table, "selected")}.get(
            how, (self.app.grid, "compared")
        )
        setattr(widget, trait, list(head))

    @rule(side=st.sampled_from(["active", "control"]), number=st.integers(1, 30))
    def choose_prompt(self, side: str, number: int) -> None:
        getattr(self.app, f"{side}_number").value = number

    @rule(on=st.booleans(), what=st.sampled_from(["matrix_button", "knob_button", "fold"]))
    def toggle(self, on: bool, what: str) -> None:
        getattr(self.app, what).value = on

    @rule(
        measure=st.sampled_from(["shift of KL", "chi, active", "significance of the KL shift (q)", "total variation"])
    )
    def colour(self, measure: str) -> None:
        self.app.measure.value = measure

    @rule(beta=st.sampled_from([0.125, 1.0, 8.0]))
    def turn_the_knob(self, beta: float) -> None:
        self.app.knob.value = beta

    @rule(what=st.sampled_from(["table", "code", "link"]))
    def save(self, what: str) -> None:
        result = self.app.state.result
        self.app.saves[what].click()
        if result is None:
            return
        if what == "table":
            newest = max(Path(self.folder).glob("heads*.csv"), key=lambda path: path.stat().st_mtime_ns)
            pd.testing.assert_frame_equal(pd.read_csv(newest), result.experiment.table, check_exact=True)
            assert self.app.download.filename == newest.name
        elif what == "code":
            assert self.app.copy.text == export.as_code(result.experiment)
            assert all(repr(p.prompt.text) in self.app.copy.text for record in result.records for p in record.prompts)
        else:
            draft, view = export.from_link(self.app.copy.text)
            assert draft.asks() == self.app.state.draft.asks()
            assert (view.head, view.numbers) == (self.app.state.view.head, self.app.state.view.numbers)

    @invariant()
    def the_app_is_ready(self) -> None:
        assert not self.app.state.is_busy
        assert (self.app.run_button.disabled, self.app.stop_button.disabled) == (False, True)
        assert self.app.bar.layout.display == "none"

    @invariant()
    def the_boxes_are_the_draft(self) -> None:
        draft = self.app.state.draft
        for name in ("model", "active", "control", "example", "position", "bos", "test"):
            assert getattr(self.app, name).value == getattr(draft, name), name

    @invariant()
    def the_screen_is_of_one_run(self) -> None:
        app, result, view = self.app, self.app.state.result, self.app.state.view
        assert (app.results.layout.display == "none") == (result is None)
        if result is None:
            return
        assert (STALE in app.about.value) == (result.asked.asks() != app.state.draft.asks())
        assert result.experiment.design == ("pairs" if "paired sign-flip" in app.about.value else "sets")
        assert f"<b>Asked</b> {result.asked.model}, " in app.about.value
        expected = screen.grid_data(result, view)
        np.testing.assert_array_equal(np.array(app.grid.values, dtype=float), expected["values"])
        assert view.head is not None
        assert result.has(view.head)
        assert app.grid.selected == app.table.selected == list(view.head)
        assert app.grid.compared == (list(view.compared) if view.compared else None)
        assert len(app.table.rows) == len(result.experiment.table)
        texts = [[p.prompt.text for p in record.prompts] for record in result.records]
        assert [p["text"].split(": ", 1)[1] for p in app.plane.points] == texts[0] + texts[1]
        for strip, record, number in zip(app.strips.strips, result.records, view.numbers, strict=False):
            assert strip["tokens"] == list(record.prompts[number].tokens)
        assert app.active_number.value == view.numbers[0] + 1
        assert (app.matrix_box.layout.display == "none") == (view.pattern is None) == (not app.matrix_button.value)
        assert (app.knob_box.layout.display == "none") == (view.knob is None) == (not app.knob_button.value)
        if view.pattern:
            assert app.matrix.tokens == list(result.records[view.side == "control"].prompts[view.number].tokens)


def test_whatever_a_reader_does(two_models: dict[str, Any], tmp_path: Path) -> None:
    """Random sequences of actions, failures among them: what is shown, saved and said is of one run, and no exception escapes."""
    Reader.models = {
        "tiny": replace_name(two_models["tiny"], "tiny"),
        "other": replace_name(two_models["other"], "other"),
    }
    Reader.folder = str(tmp_path)
    run_state_machine_as_test(
        Reader, settings=settings(max_examples=8, stateful_step_count=20, deadline=None, derandomize=True)
    )


def replace_name(model: Any, name: str) -> Any:
    """The same model under a name that is no path."""
    from helpers.models.model import LanguageModel

    return LanguageModel(model.hf, model.tokenizer, name)

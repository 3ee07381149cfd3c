"""The playground's widgets without a browser: set values, press buttons, read what is shown."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from helpers import load_model
from helpers.widgets import checker, playground
from helpers.widgets.app import Playground
from helpers.widgets.panel import OWN

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo() -> Any:
    return load_model("demo", device="cpu")


@pytest.fixture
def app(demo: Any, tmp_path: Path) -> Playground:
    """A fresh app that runs before `click` returns."""
    return Playground(demo, threaded=False, folder=str(tmp_path / "out"))


@pytest.fixture
def ran(app: Playground) -> Playground:
    """An app that shows four short prompts."""
    app.active.value, app.control.value = "red cup red\nold key old", "red cup box\nold key pen"
    app.run_button.click()
    assert app.experiment is not None
    return app


def state(app: Playground) -> tuple[Any, ...]:
    """Everything that a result puts on the screen."""
    pictures = app.legend.value, app.plane.value, app.rows.value
    return (app.experiment, app.about.value, app.head, *pictures, *(b.tooltip for b in app.grid.children))


def test_starts_with_an_example_and_no_result(app: Playground) -> None:
    assert len(app.active.value.splitlines()) == len(app.control.value.splitlines()) == 12
    assert "Nothing to say" in app.messages.value
    assert app.results.layout.display == "none"
    assert app.stop_button.disabled


@pytest.mark.parametrize("name", [*checker.EXAMPLES, OWN])
def test_every_example_can_be_chosen_and_run(app: Playground, name: str) -> None:
    app.example.value = name
    assert app.said.errors == []
    app.run_button.click()
    assert app.experiment is not None
    assert [p.prompt.text for p in app.experiment.active.prompts] == app.active.value.splitlines()
    assert (app.own.layout.display == "") == (name == OWN)


def test_own_names_fill_the_text_areas(app: Playground) -> None:
    """New names are taken at once; unusable ones get a sentence and change nothing."""
    app.example.value = OWN
    app.names.value = "Nina, Oscar, Vera"
    assert "Nina" in app.active.value
    before = app.active.value
    app.names.value = "Nina"
    assert "✗ Your example: " in app.messages.value
    assert app.active.value == before


def test_run_fills_the_screen(ran: Playground) -> None:
    """A button a head with name, value and colour; the strongest head open; pictures; progress at its end."""
    assert [b.description for b in ran.grid.children][:9] == [f"0.{i}" for i in range(8)] + ["1.0"]
    assert ran.grid.children[10].tooltip.startswith("head 1.2, shift of KL: ")
    assert ran.head == playground.strongest(ran.experiment, "shift of KL")
    assert all('src="data:image/png;base64,' in picture.value for picture in (ran.legend, ran.plane, ran.rows))
    assert 'alt="Head ' in ran.plane.value
    assert (ran.bar.value, ran.bar.max) == (4, 4)
    assert ran.results.layout.display == ""
    assert "rows of the END token" in ran.about.value
    assert not ran.run_button.disabled


def test_new_prompts_change_the_grid(ran: Playground) -> None:
    before = [b.style.button_color for b in ran.grid.children]
    ran.active.value = "Mary met Mary\nJohn met John"
    ran.run_button.click()
    assert before != [b.style.button_color for b in ran.grid.children]


def test_colour_menu(ran: Playground) -> None:
    before = ran.legend.value
    ran.measure.value = "chi, control"
    assert ran.grid.children[0].tooltip.startswith("head 0.0, chi, control: ")
    assert ran.legend.value != before


def test_a_click_opens_a_head(ran: Playground) -> None:
    """Pressing a cell shows its head; only that cell has the thick frame; choosing prompts changes the rows only."""
    ran.grid.children[11].click()
    assert ran.head == (1, 3)
    assert [i for i, b in enumerate(ran.grid.children) if b.layout.border_top.startswith("3px")] == [11]
    plane, rows = ran.plane.value, ran.rows.value
    ran.grid.children[12].click()
    assert (ran.plane.value != plane, ran.rows.value != rows) == (True, True)
    plane, rows = ran.plane.value, ran.rows.value
    ran.active_row.value = 2
    assert (ran.plane.value == plane, ran.rows.value != rows) == (True, True)
    ran.active_row.value = 99
    assert ran.active_row.value == 2


def test_the_open_head_stays_open(ran: Playground) -> None:
    ran.grid.children[11].click()
    ran.run_button.click()
    assert ran.head == (1, 3)


@pytest.mark.parametrize(
    ("active", "sentence"),
    [
        ("red zork\nold key", "Active prompt 1: the word 'zork' is not in this model's vocabulary"),
        ("", "The active set has 0 prompts"),
        ("red " * 70 + "\nred", "Active prompt 1: expected at most 64 tokens"),
    ],
)
def test_bad_input_is_said_and_nothing_is_lost(ran: Playground, active: str, sentence: str) -> None:
    """The sentence comes before Run and after it; the last good result stays."""
    before = state(ran)
    ran.active.value = active
    assert sentence.replace("'", "&#x27;") in ran.messages.value
    ran.run_button.click()
    assert any(sentence in error for error in ran.said.errors)
    assert state(ran) == before
    assert not ran.run_button.disabled


def test_text_cannot_become_markup(app: Playground) -> None:
    app.active.value = "<b>x</b>\n<script>"
    assert "<script>" not in app.messages.value


def test_positions(app: Playground) -> None:
    """Examples offer names; a bare line takes them away, and a chosen one falls back to END."""
    assert "S2" in dict(app.position.options)
    app.position.value = "S2"
    app.run_button.click()
    assert "rows of the S2 token" in app.about.value
    app.active.value += "\nred red"
    assert "S2" not in dict(app.position.options)
    assert app.position.value == "END"
    app.position.value = "token 2"
    app.run_button.click()
    assert app.experiment is not None
    assert app.experiment.active.query == "token 2"


def test_another_model(app: Playground, tiny_folder: Path) -> None:
    """A path in the model menu is loaded on Run; the grid takes its shape and the open head fits it."""
    app.run_button.click()
    app.grid.children[47].click()
    app.model.value = str(tiny_folder)
    app.run_button.click()
    assert len(app.grid.children) == 12
    assert app.experiment is not None
    assert app.experiment.active.model == str(tiny_folder)
    assert app.head == playground.strongest(app.experiment, "shift of KL")


def test_a_model_that_is_not_there(ran: Playground) -> None:
    before = state(ran)
    ran.model.value = "/no/such/folder"
    ran.run_button.click()
    assert "there is no such folder" in ran.messages.value
    assert state(ran) == before


def test_stop_between_chunks(demo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a thread: Stop ends the run before the next chunk, says so, and leaves the last result and a free button."""
    app = Playground(demo, folder=str(tmp_path))
    app.run_button.click()
    assert app.thread is not None
    app.thread.join(60)
    before, reached, go = state(app), threading.Event(), threading.Event()
    record = playground.record_at

    def slow(*args: Any) -> Any:
        reached.set()
        go.wait(60)
        return record(*args)

    monkeypatch.setattr(playground, "record_at", slow)
    app.run_button.click()
    assert reached.wait(60)
    assert app.run_button.disabled
    app.start()  # a second run beside the first is refused
    app.stop_button.click()
    go.set()
    app.thread.join(60)
    assert app.said.errors == ["Stopped after 4 of 24 prompts."]
    assert state(app) == before
    assert (app.run_button.disabled, app.stop_button.disabled) == (False, True)


def test_export(ran: Playground) -> None:
    """The CSV is the table; the code is the code that gives it; a folder that can't be written gets a sentence."""
    ran.savers["table"].click()
    saved = pd.read_csv(Path(ran.folder) / "heads.csv")
    pd.testing.assert_frame_equal(saved, ran.experiment.table, check_exact=True)
    assert "heads.csv" in ran.exported.value
    ran.savers["record"].click()
    assert (Path(ran.folder) / "records" / "control.safetensors").is_file()
    ran.savers["code"].click()
    assert "analyse(active, control).table" in ran.exported.value
    ran.folder = str(Path(ran.folder) / "heads.csv")
    ran.savers["table"].click()
    assert "Not saved" in ran.exported.value

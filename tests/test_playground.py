"""The playground's plain functions: examples, the checker's sentences, chunks and stops, the grid, pictures, export."""

from __future__ import annotations

import base64
import html
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from helpers import Prompt, analyse, load_model, record_attention
from helpers.plots.figures import head_figure
from helpers.results import load_records
from helpers.widgets import checker, export, playground
from helpers.widgets.checker import Inputs, check, parse

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo() -> Any:
    return load_model("demo", device="cpu")


@pytest.fixture(scope="module")
def pairs() -> Inputs:
    return checker.pairs_example(6)


@pytest.fixture(scope="module")
def measured(demo: Any, pairs: Inputs) -> Any:
    return playground.run(demo, pairs)


def typed(active: str, control: str = "red cup\nold key", position: str = "END") -> Inputs:
    return Inputs(parse(active), parse(control), position)


def described_png(image: str) -> str:
    """The alternative text of an HTML image whose data are a PNG."""
    alt, data = re.fullmatch(
        r'<img class="playground-\w+" .*alt="([^"]+)" src="data:image/png;base64,(.*)">', image
    ).groups()
    assert base64.b64decode(data).startswith(b"\x89PNG")
    return html.unescape(alt)


# ---- prompts


def test_one_prompt_a_line() -> None:
    """Empty lines and outer blanks don't count; a known text keeps the names it was made with."""
    known = Prompt("Ann met Bob", spans={"IO": (0, 3)})
    assert parse("  Ann met Bob \n\n\tred cup\n", {known.text: known}) == (known, Prompt("red cup"))
    assert parse("") == ()


def test_text_boxes_are_read_as_files_are(demo: Any) -> None:
    """Comments and blanks at the ends are noted, odd characters inside named, each with its prompt, and nothing runs."""
    said = check(typed("# mine\nred red \nold\u00a0old", "red  cup\nold key"), demo)
    assert said.errors == [
        "Active prompt 2: expected single blanks between words, got U+00A0 NO-BREAK SPACE at character 4 of 'old\\xa0old'.",
        "Control prompt 1: expected single blanks between words, got 2 blanks at character 4 of 'red  cup'.",
    ]
    assert said.notes[:2] == [
        "Active prompts: White space at the ends of 1 line was taken off.",
        "Active prompts: 1 line that begins with # (a comment) left out.",
    ]


@pytest.mark.parametrize("name", checker.EXAMPLES)
def test_every_example_runs(demo: Any, name: str) -> None:
    """The checker has nothing to say, and the demo model has a shift for each head."""
    inputs = checker.EXAMPLES[name]()
    assert (check(inputs, demo).errors, check(inputs, demo).notes) == ([], [])
    assert playground.run(demo, inputs).table.notna().all(axis=None)


def test_own_names_and_frames(demo: Any) -> None:
    """Names by commas or blanks, frames by lines; no more prompts than exist; the checker finds nothing wrong."""
    inputs = checker.own_example("Peter, Anna Simon", "While {X} and {Y} waited, {GIVER} read a story to\n")
    assert len(inputs.active) == len(inputs.control) == 12
    assert all(p.spans["S2"] for p in inputs.active + inputs.control)
    assert check(inputs, demo).errors == []
    assert len(checker.own_example("Peter Anna Simon", "{X} and {Y} met, {GIVER} left", n=50).active) == 12


@pytest.mark.parametrize(
    ("names", "frames", "sentence"),
    [
        ("Peter, Anna", "{X} and {Y}, {GIVER}", "at least 3 names"),
        ("", "{X} and {Y}, {GIVER}", "prompts"),
        ("Peter, Anna, Simon", "", "frames: expected at least one"),
        ("Peter, Anna, Simon", "{X} and {Y}", "once each"),
    ],
)
def test_unusable_names_and_frames(names: str, frames: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        checker.own_example(names, frames)


# ---- the checker: one sentence a finding, with the prompt's number


def test_too_few_prompts() -> None:
    assert check(typed("red cup")).errors == ["The active set has 1 prompt; at least 2 are needed."]
    assert len(check(typed("", "")).errors) == 2


def test_unknown_words(demo: Any) -> None:
    """Every prompt with an unknown word is named, not only the first; nothing is tokenised by halves."""
    said = check(typed("red cup\nred zork\nold blork", "Ann\nold key"), demo)
    assert [e.split(" is not")[0] for e in said.errors] == [
        "Active prompt 2: the word 'zork'", "Active prompt 3: the word 'blork'", "Control prompt 1: the word 'Ann'",
    ]  # fmt: skip
    assert said.tokens is None


def test_too_long_and_special(demo: Any) -> None:
    errors = check(typed("red " * 70 + "\n<|endoftext|> red"), demo).errors
    assert "Active prompt 1: expected at most 64 tokens" in errors[0]
    assert "Active prompt 2: expected no BOS token" in errors[1]


def test_unequal_lengths(demo: Any) -> None:
    notes = check(typed("red red\nold old old", "red cup\nold key box\nold key"), demo).notes
    assert notes == [
        "Active prompt 2 has 4 tokens, most prompts 3: n differs and confounds KL and chi.",
        "Control prompt 2 has 4 tokens, most prompts 3: n differs and confounds KL and chi.",
    ]


def test_same_prompt_twice(demo: Any) -> None:
    notes = check(typed("red red\nold old\nred red"), demo).notes
    assert notes == ["Active prompt 3 is prompt 1 again and is counted twice."]


def test_repetitions() -> None:
    """Active prompts should repeat something, control prompts should not; common words don't count."""
    notes = check(typed("Mary met John\nthe cup to the cup", "a key to a box\nJohn met John")).notes
    assert notes == [
        "Active prompt 1 has no repeated name or word: a repetition circuit has nothing to do.",
        "Control prompt 2 repeats 'John': it may do what the active prompts do.",
    ]


@pytest.mark.parametrize(
    ("position", "sentence"),
    [
        ("token 9", "Active prompt 1 has 3 tokens and no position 'token 9'."),
        ("S2", "Active prompt 1 has 3 tokens and no position 'S2'."),
        ("token 0", "Active prompt 1: 'token 0' sees one token only; choose a later one."),
    ],
)
def test_positions_that_are_not_there(demo: Any, position: str, sentence: str) -> None:
    assert check(typed("red red\nold old", position=position), demo).errors[0] == sentence


def test_positions_on_offer(demo: Any, pairs: Inputs) -> None:
    """END always; names if all prompts have them; token indices up to the shortest prompt."""
    assert checker.positions() == [("END", "END")]
    named = [value for _, value in checker.positions(check(pairs, demo).tokens)]
    assert set(named[:5]) == {"END", "IO", "S1", "S1+1", "S2"}
    assert named[5:] == [f"token {i}" for i in range(1, 15)]
    bare = checker.positions(check(typed("red red\nold old old"), demo).tokens)
    assert bare == [("END", "END"), ("token 1 (“red” in active prompt 1)", "token 1"),
                    ("token 2 (“red” in active prompt 1)", "token 2")]  # fmt: skip


# ---- measuring


def test_chunks_give_the_same_table(demo: Any, pairs: Inputs, measured: Any) -> None:
    """Prompts in chunks = all at once, whatever the chunk."""
    once = analyse(*(record_attention(demo, side, progress=False) for side in pairs.sides.values()))
    pd.testing.assert_frame_equal(measured.table, once.table, atol=1e-5)
    pd.testing.assert_frame_equal(playground.run(demo, pairs, chunk=5).table, once.table, atol=1e-5)


def test_progress_and_stop(demo: Any, pairs: Inputs) -> None:
    """Progress after each chunk; a stop is heard before the next."""
    seen: list[tuple[int, int]] = []
    playground.run(demo, pairs, progress=lambda *done: seen.append(done))
    assert seen == [(4, 12), (6, 12), (10, 12), (12, 12)]
    seen.clear()
    with pytest.raises(playground.Stopped, match=r"Stopped after 6 of 12 prompts"):
        playground.run(demo, pairs, progress=lambda *done: seen.append(done), stop=lambda: len(seen) == 2)
    assert seen == [(4, 12), (6, 12)]


def test_a_token_index_is_a_position(demo: Any, pairs: Inputs) -> None:
    """The giver is token 10 of every prompt: reading S2 or token 10 is the same. END is token 14.

    One row and all rows are computed by other products, so they differ by rounding.
    """
    for name, index in (("S2", 10), ("END", 14)):
        named, counted = (playground.run(demo, replace(pairs, position=p)) for p in (name, f"token {index}"))
        torch.testing.assert_close(named.active.rows, counted.active.rows, atol=1e-6, rtol=0)
        assert (named.active.query, counted.active.query) == (name, f"token {index}")
        pd.testing.assert_frame_equal(named.table, counted.table, check_exact=False, atol=1e-5, rtol=1e-4)


def test_token_index_out_of_range(demo: Any) -> None:
    record = record_attention(demo, ["red cup"], query="all", progress=False)
    with pytest.raises(ValueError, match="prompt 1 has the tokens 0 to 2, got 3"):
        playground.at_token(record, 3)


# ---- the grid and the pictures


@pytest.mark.parametrize("measure", playground.MEASURES)
def test_grid(measured: Any, measure: str) -> None:
    """Every head once, in reading order; the tooltip has its value; the strongest head is the darkest."""
    values = playground.grid_values(measured, measure)
    cells = playground.grid_cells(measured, measure)
    assert [cell.head for cell in cells] == list(np.ndindex(6, 8))
    row = measured.table.query("layer == 4 and head == 2").iloc[0]
    assert values[4, 2] == row[playground.MEASURES[measure]]
    cell = cells[4 * 8 + 2]
    assert cell.text.startswith(f"head 4.2, {measure}: ")
    assert float(cell.text.rsplit(": ", 1)[1]) == pytest.approx(values[4, 2], abs=0.006)
    layer, head = playground.strongest(measured, measure)
    extreme = values.min() if "(q)" in measure else np.abs(values).max()
    assert abs(values[layer, head]) == extreme


def test_no_shift_is_white_and_signs_have_sides(demo: Any, pairs: Inputs) -> None:
    """Shift 0 has the neutral colour; the same set twice is all neutral; + is more red than blue."""
    same = playground.run(demo, replace(pairs, control=pairs.active))
    assert len({cell.background for cell in playground.grid_cells(same, "shift of KL")}) == 1
    experiment = playground.run(demo, pairs)
    values = playground.grid_values(experiment, "shift of KL").ravel()
    shades = [cell.background for cell in playground.grid_cells(experiment, "shift of KL")]
    for number in (values.argmax(), values.argmin()):
        red, blue = int(shades[number][1:3], 16), int(shades[number][5:], 16)
        assert (red > blue) == (values[number] > 0)


def test_ink_can_be_read(measured: Any) -> None:
    """Text and background differ in luminance."""
    for measure in playground.MEASURES:
        for cell in playground.grid_cells(measured, measure):
            back, ink = (sum(int(c[i : i + 2], 16) for i in (1, 3, 5)) / 765 for c in (cell.background, cell.ink))
            assert abs(back - ink) > 0.3


def test_pictures(measured: Any) -> None:
    """Each is a PNG that says what it shows; the rows' picture has both prompts' tokens and weights."""
    for draw, args, says in (
        (playground.grid_figure, ("shift of KL",), "shift of KL, strongest in"),
        (playground.legend_figure, ("shift of KL",), "colours of the grid: shift of KL"),
        (head_figure, ((2, 0),), "Head 2.0 of "),
        (playground.rows_figure, ((2, 0),), "attention of END in active prompt 1"),
    ):
        assert says in described_png(playground.picture("x", draw, measured, *args))
    figure = playground.rows_figure(measured, (2, 0), active=1, control=3)
    words = [text.get_text() for text in figure.axes[0].texts]
    assert {t.strip() for t in measured.control.prompts[3].tokens[1:]} <= set(words)
    heaviest = measured.active.rows[1, 2, 0].max()
    assert f"{heaviest:.2f}" in words
    assert "active prompt 2 and control prompt 4" in figure.axes[0].get_title()


def test_rows_show_what_the_query_sees(demo: Any, pairs: Inputs) -> None:
    """From token 3 on nothing is drawn after it; long prompts keep BOS and the last tokens."""
    early = playground.run(demo, replace(pairs, position="token 3"))
    assert len(playground.rows_figure(early, (0, 0)).axes[0].images[0].get_array()[0]) == 4
    long = typed("red " * 60 + "\n" + "old " * 60, "cup " * 60 + "\n" + "key " * 60)
    rows = playground.rows_figure(playground.run(demo, long), (0, 0)).axes[0].images[0].get_array()
    assert rows.shape == (2, playground.MOST_TOKENS)


# ---- export


def test_csv_is_the_table(measured: Any, tmp_path: Path) -> None:
    """Read back, the CSV equals the experiment's table, every digit."""
    path = export.save_table(measured, tmp_path / "new")
    pd.testing.assert_frame_equal(pd.read_csv(path), measured.table, check_exact=True)


def test_record_can_be_loaded(measured: Any, tmp_path: Path) -> None:
    records = load_records(export.save_record(measured, tmp_path))
    assert torch.equal(records[0].rows, measured.active.rows)
    pd.testing.assert_frame_equal(analyse(*records).table, measured.table)


@pytest.mark.parametrize("position", ["END", "S2", "S1+1", "token 5"])
def test_code_gives_the_same_table(demo: Any, pairs: Inputs, position: str) -> None:
    """The printed Python runs and gives the table; three lines do the work."""
    experiment = playground.run(demo, replace(pairs, position=position))
    code = export.as_code(experiment)
    found: dict[str, Any] = {}
    exec(code, found)
    pd.testing.assert_frame_equal(found["table"], experiment.table, atol=1e-5)
    assert len(code.strip().rsplit("\n\n", 1)[1].splitlines()) == 3

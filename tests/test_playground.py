"""The playground's plain functions: examples, the checker's sentences, chunks and stops, known heads, screens, export."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from helpers import Prompt, analyse, load_model, record_attention
from helpers.heads import Head
from helpers.measured import shipped_record
from helpers.reference.measured import measured_circuit
from helpers.results import load_records
from helpers.widgets import checker, examples, export, looking, playground, screen, shipped, words
from helpers.widgets.checker import check
from helpers.widgets.inputs import NO_BOS, Inputs, prompts_of
from helpers.widgets.known import known_heads
from helpers.widgets.state import Draft, Pattern, Result, State, View
from helpers.widgets.transitions import shown

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo() -> Any:
    return load_model("demo", device="cpu")


@pytest.fixture(scope="module")
def pairs() -> Inputs:
    return examples.pairs_example(6)


@pytest.fixture(scope="module")
def measured(demo: Any, pairs: Inputs) -> Any:
    return playground.run(demo, pairs)


@pytest.fixture(scope="module")
def result(measured: Any) -> Result:
    """The measured pairs as a result of the playground."""
    records = measured.active, measured.control
    asked = Draft("demo", *("\n".join(p.prompt.text for p in side.prompts) for side in records))
    return Result(asked, measured, records, known_heads(measured.active))


@pytest.fixture(scope="module")
def real() -> Result:
    """Six of SmolLM2's shipped pairs, without the model."""
    sides = [record.subset(range(6)) for record in shipped.shipped_sides("smollm2", "minimal pairs")]
    experiment = analyse(*(record.at("END") for record in sides))
    return Result(
        Draft("smollm2"), experiment, (sides[0], sides[1]), known_heads(experiment.active), "from shipped rows"
    )


def typed(active: str, control: str = "red cup\nold key", position: str = "END", **more: Any) -> Inputs:
    return Inputs(prompts_of(active), prompts_of(control), position, **more)


# ---- prompts


def test_one_prompt_a_line() -> None:
    """Empty lines and outer blanks don't count; a known text keeps the names it was made with."""
    known = Prompt("Ann met Bob", spans={"IO": (0, 3)})
    assert prompts_of("  Ann met Bob \n\n\tred cup\n", {known.text: known}) == (known, Prompt("red cup"))
    assert prompts_of("") == ()


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


@pytest.mark.parametrize("name", examples.EXAMPLES)
def test_every_example_runs_without_a_word(demo: Any, name: str) -> None:
    """The checker has nothing to say about an example, and the demo model has a shift for each head."""
    inputs = examples.example(name, demo)
    said = check(inputs, demo)
    assert (said.errors, said.notes) == ([], [])
    assert said.design == ("sets" if name == "IOI and ABC prompts" else "pairs")
    found = playground.run(demo, inputs)
    assert found.design == said.design
    assert found.table.drop(columns=found.table.columns[found.table.isna().all()]).notna().all(axis=None)


@pytest.mark.parametrize("name", examples.EXAMPLES)
def test_examples_suit_other_tokenizers(narrow_gpt2: Any, name: str) -> None:
    """With GPT-2's tokenizer too, which splits some of the demo model's words, nothing is to be said of any example."""
    said = check(examples.example(name, narrow_gpt2), narrow_gpt2)
    assert (said.errors, said.notes) == ([], [])


@pytest.mark.parametrize("name", shipped.SHIPPED)
def test_shipped_examples_need_no_model(name: str) -> None:
    """Their prompts are those of the records, all of one length; a part of them is found again, others are not."""
    inputs = shipped.shipped_example("smollm2", name)
    rows = shipped.shipped_rows("smollm2", inputs)
    tokens = dict(zip(("active", "control"), (r.prompts for r in rows), strict=True))
    said = check(inputs, tokens=tokens, n_heads=270)
    assert (said.errors, said.notes) == ([], [])
    few = replace(inputs, active=inputs.active[4:1:-1], control=inputs.control[:3])
    some = shipped.shipped_rows("smollm2", few)
    assert [p.prompt for p in some[0].prompts] == list(few.active)
    assert torch.equal(some[0].rows, rows[0].rows[[4, 3, 2]])
    assert shipped.shipped_rows("smollm2", replace(few, active=(Prompt("another"), *few.active))) is None
    assert shipped.shipped_rows("smollm2", replace(few, bos=NO_BOS)) is None
    assert shipped.shipped_rows("demo", few) is None


def test_own_names_and_frames(demo: Any) -> None:
    """Names by commas or blanks, frames by lines; no more prompts than exist; the checker finds nothing wrong."""
    inputs = examples.own_example("Peter, Anna Simon", "While {X} and {Y} waited, {GIVER} read a story to\n")
    assert len(inputs.active) == len(inputs.control) == 12
    assert all(p.spans["S2"] for p in inputs.active + inputs.control)
    assert check(inputs, demo).errors == []
    assert len(examples.own_example("Peter Anna Simon", "{X} and {Y} met, {GIVER} left", n=50).active) == 12


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
        examples.own_example(names, frames)


# ---- the checker: one sentence a kind of finding, with the prompts' numbers


def test_too_few_prompts() -> None:
    assert check(typed("red cup")).errors == ["The active set has 1 prompt; at least 2 are needed."]
    assert len(check(typed("", "")).errors) == 2


def test_findings_are_grouped() -> None:
    """Findings that differ in numbers and quoted texts alone are one sentence; sides and kinds stay apart."""
    many = [("active", n, f"the word 'w{n}' is odd") for n in range(1, 205)]
    assert checker.grouped(many) == ["Active prompts 1, 2, 3, 4, 5 and 199 more: the word 'w1' is odd, and the like."]
    two = [("active", 3, "x"), ("control", 3, "x"), ("active", 4, "x"), ("active", 9, "y")]
    assert checker.grouped(two) == ["Active prompts 3 and 4: x.", "Control prompt 3: x.", "Active prompt 9: y."]


def test_unknown_words(demo: Any) -> None:
    """Prompts with unknown words are named; nothing is tokenised by halves."""
    said = check(typed("red cup\nred zork\nold blork", "Ann\nold key"), demo)
    assert said.errors == [
        "Active prompts 2 and 3: the word 'zork' is not in this model's vocabulary ('red zork'), and the like.",
        "Control prompt 1: the word 'Ann' is not in this model's vocabulary ('Ann').",
    ]
    assert said.tokens is None


def test_too_long_and_special(demo: Any) -> None:
    errors = check(typed("red " * 70 + "\n<|endoftext|> red"), demo).errors
    assert "Active prompt 1: expected at most 64 tokens" in errors[0]
    assert "Active prompt 2: expected no BOS token" in errors[1]


def test_unequal_lengths(demo: Any) -> None:
    notes = check(typed("red red\nold old old", "red cup\nold key box\nold key"), demo).notes
    assert "Active prompt 2 has 4 tokens, most prompts 3: n differs and confounds KL and chi." in notes
    assert "Control prompt 2 has 4 tokens, most prompts 3: n differs and confounds KL and chi." in notes


def test_many_duplicates_are_one_sentence(demo: Any) -> None:
    """204 copies of a prompt are one note, not 204."""
    notes = check(typed("red red\n" * 205, "old key\n" * 2), demo).notes
    again = [note for note in notes if "counted again" in note]
    assert again == [
        "Active prompts 2, 3, 4, 5, 6 and 199 more repeat earlier ones and are counted again.",
        "Control prompt 2 repeats an earlier one and is counted again.",
    ]


def test_repetitions() -> None:
    """If some active prompts repeat something, all should, and control prompts should not; common words don't count."""
    notes = check(typed("Mary met John\nthe cup to the cup", "a key to a box\nJohn met John")).notes
    assert notes[:2] == [
        "Active prompt 1: no name or word is repeated: a repetition circuit has nothing to do.",
        "Control prompt 2: 'John' is repeated: it may do what the active prompts do.",
    ]
    assert len(check(typed("Mary met John\nthe cup", "a key\nJohn met John")).notes) == 1


def test_what_can_be_tested_is_said(demo: Any) -> None:
    """12 against 7: no pairs; 2 pairs: nothing can be significant; without the model: tokens are not checked yet."""
    seven = replace(examples.pairs_example(12), control=examples.pairs_example(12).control[:7])
    assert any("12 active and 7 control prompts can be no pairs" in note for note in check(seven, demo).notes)
    few = check(examples.pairs_example(2), demo)
    assert "can't be reached" in few.notes[0]
    assert few.test.startswith("paired sign-flip test over 2 pairs")
    assert "Tokens and their number are checked when the model is loaded." in check(seven).notes
    forced = check(replace(seven, design="pairs"), demo)
    assert forced.errors == ["The test expected as many active as control prompts for pairs, got 12 and 7."]


@pytest.mark.parametrize(
    ("bos", "sentence"),
    [("nobody", "The first token: expected a token or id of this model's vocabulary, got 'nobody'."), ("box", "")],
)
def test_first_tokens(demo: Any, bos: str, sentence: str) -> None:
    """Any token of the vocabulary can stand in front; what is none is named once."""
    said = check(typed("red red\nold old", bos=bos), demo)
    assert said.errors == [sentence] * bool(sentence)
    if said.tokens:
        assert {p.tokens[0].strip() for side in said.tokens.values() for p in side} == {bos}


@pytest.mark.parametrize(
    ("position", "sentence"),
    [
        ("token 9", "Active prompts 1 and 2: 3 tokens and no position 'token 9'."),
        ("S2", "Active prompts 1 and 2: 3 tokens and no position 'S2'."),
        ("token 0", "Active prompts 1 and 2: 'token 0' sees one token only; choose a later one."),
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
def test_grid_figure(measured: Any, measure: str) -> None:
    """Every head's value stands in the picture; the strongest head is the largest value, or the smallest q."""
    values = playground.grid_values(measured, measure)
    row = measured.table.query("layer == 4 and head == 2").iloc[0]
    assert values[4, 2] == row[playground.MEASURES[measure]] or np.isnan(values[4, 2])
    ax = playground.grid_figure(measured, measure).axes[0]
    said = [text.get_text() for text in ax.texts][4 * 8 + 2]
    assert float(said) == pytest.approx(values[4, 2], abs=0.006) if not np.isnan(values[4, 2]) else said == "n/a"
    layer, head = playground.strongest(measured, measure)
    extreme = np.nanmin(values) if "(q)" in measure else np.nanmax(np.abs(values))
    assert abs(values[layer, head]) == extreme


def test_rows_show_what_the_query_sees(demo: Any, pairs: Inputs, measured: Any) -> None:
    """From token 3 on nothing is drawn after it; long prompts keep BOS and the last tokens; weights and tokens are there."""
    figure = playground.rows_figure(measured, (2, 0), active=1, control=3)
    drawn = [text.get_text() for text in figure.axes[0].texts]
    assert {t.strip() for t in measured.control.prompts[3].tokens[1:]} <= set(drawn)
    assert f"{measured.active.rows[1, 2, 0].max():.2f}" in drawn
    early = playground.run(demo, replace(pairs, position="token 3"))
    assert len(playground.rows_figure(early, (0, 0)).axes[0].images[0].get_array()[0]) == 4
    long = typed("red " * 60 + "\n" + "old " * 60, "cup " * 60 + "\n" + "key " * 60)
    rows = playground.rows_figure(playground.run(demo, long), (0, 0)).axes[0].images[0].get_array()
    assert rows.shape == (2, playground.MOST_TOKENS)


def odd_texts() -> Iterator[str]:
    yield from ("the $x$ and $ costs $$", "日本語 の 文", "مرحبا بالعالم", "😀 👍", "<|im_start|>user")


def test_odd_text_can_be_drawn(measured: Any) -> None:
    """Dollars are no formulas, and letters that a figure's font lacks are written by number; nothing is raised or warned."""
    for text in odd_texts():
        tokens = (text,) * len(measured.active.prompts[0])
        prompts = [replace(p, tokens=tokens) for p in measured.active.prompts]
        experiment = replace(measured, active=replace(measured.active, prompts=prompts, model="$$"))
        for figure in (playground.rows_figure(experiment, (2, 0)), playground.grid_figure(experiment, "shift of KL")):
            figure.savefig(BytesIO())


# ---- what is known


def test_known_heads_of_the_demo_model(result: Result) -> None:
    """Causal heads are those of the shipped measurement; prompts of no known task are looked at with IOI's, which is said."""
    causal = measured_circuit("demo").table.query("causal")
    assert result.known.causal == {Head(r.layer, r.head) for r in causal.itertuples()}
    assert result.known.task == "IOI"
    assert "may ask something else" not in result.known.sentence
    bare = [replace(p, prompt=Prompt(p.prompt.text)) for p in result.records[0].prompts]
    other = known_heads(replace(result.records[0], prompts=bare))
    assert other.causal == result.known.causal
    assert "may ask something else" in other.sentence


def test_nothing_is_known_of_other_models(result: Result) -> None:
    assert known_heads(replace(result.records[0], model="mine")).sentence == ""
    small = replace(result.records[0], rows=result.records[0].rows[:, :3])  # a model of that name, of another shape
    assert known_heads(small).causal == frozenset()


# ---- the screen


def test_grid_data(real: Result) -> None:
    """Values, tips with interval and q, marks of causal heads and roles, notches where q < 0.05."""
    data = screen.grid_data(real, View(head=Head(3, 1)))
    table = real.experiment.table.set_index(["layer", "head"])
    np.testing.assert_array_equal(np.ravel(data["values"]), table.d_kl)
    row = table.loc[(23, 2)]
    said = f"ΔKL {row.d_kl:+.3f} (95 % {row.d_kl_low:+.3f} to {row.d_kl_high:+.3f}), q = {row.d_kl_q:.2g}"
    assert said.replace("-", "−") in data["tips"][23][2]
    ring = next(mark for mark in data["marks"] if mark["shape"] == "ring")
    assert len(ring["heads"]) == 17
    assert {tuple(h) for h in data["significant"]} == set(table.index[table.d_kl_q < 0.05])
    assert "causal in IOI" in data["tips"][ring["heads"][0][0]][ring["heads"][0][1]]


def test_table_data(real: Result) -> None:
    """All heads once, in the order of the chosen measure."""
    for measure in ("shift of KL", "KL, active", "significance of the chi shift (q)"):
        rows = screen.table_data(real, View(measure, Head(0, 0)))["rows"]
        assert len({row["head"] for row in rows}) == 270
        values = [playground.grid_values(real.experiment, measure)[row["head"]] for row in rows]
        keys = values if "(q)" in measure else [-abs(v) for v in values]
        assert keys == sorted(keys)


def test_strips_and_plane(real: Result) -> None:
    """Weights and numbers are the record's, of the chosen prompts; the second head's strips stand below; pairs are joined."""
    view = View(head=Head(23, 2), compared=Head(24, 4), numbers=(3, 3))
    strips = screen.strips_data(real, view)["strips"]
    assert [s["label"].split(",")[0] for s in strips] == ["head 23.2"] * 2 + ["head 24.4"] * 2
    np.testing.assert_allclose(strips[1]["weights"], real.experiment.control.rows[3, 23, 2, :15])
    assert strips[0]["second"] == strips[1]["weights"]
    assert strips[0]["positions"]["END"] == strips[0]["query"] == 14
    plane = screen.plane_data(real, view)
    assert [p["x"] for p in plane["points"]] == [
        *real.experiment.kl_chi_active.kl[:, 23, 2], *real.experiment.kl_chi_control.kl[:, 23, 2]
    ]  # fmt: skip
    assert (plane["lines"][2], plane["selected"]) == ((2, 8), 3)
    assert "n = 15" in plane["title"]


def test_lengths_that_differ_keep_the_region() -> None:
    """Prompts of 15 and 16 tokens: the region is that of most of them, and the title says how many have another n."""
    sides = [shipped_record("smollm2", name).at("END") for name in ("ioi", "abc")]
    mixed = Result(Draft("smollm2"), analyse(*sides), (sides[0], sides[1]))
    plane = screen.plane_data(mixed, View(head=Head(0, 0)))
    assert plane["region"]
    assert "n = 15 tokens, 9 prompts have another" in plane["title"]


# ---- on demand


def test_every_row_of_a_head(demo: Any, result: Result, real: Result) -> None:
    """The last row is the recorded one; shipped rows need no model, others do, and say so."""
    view = View(head=Head(2, 0), numbers=(1, 1), side="control")
    pattern = looking.pattern_of(result, view, demo)
    np.testing.assert_allclose(pattern.weights[-1], result.records[1].rows[1, 2, 0], atol=1e-6)
    np.testing.assert_allclose(pattern.weights.sum(1), 1, atol=1e-5)
    with pytest.raises(looking.NeedsModel, match="need the model demo in memory"):
        looking.pattern_of(result, view, None)
    shipped_rows = looking.pattern_of(real, view, None)
    assert isinstance(shipped_rows, Pattern)
    np.testing.assert_array_equal(shipped_rows.weights, real.records[1].rows[1, 2, 0, :15, :15])


def test_the_knob(demo: Any, result: Result, real: Result) -> None:
    """beta = 1 is the recorded row; a larger beta has a larger KL; words are probabilities; no model, one sentence."""
    view = View(head=Head(2, 0), numbers=(1, 1))
    knob = looking.knob_of(result, view, demo)
    one = knob.turned.plain
    np.testing.assert_allclose(knob.turned.rows[one], result.records[0].rows[1, 2, 0], atol=1e-5)
    path, current = screen.knob_path(knob, 1.0)
    assert current == one
    assert (np.diff([kl for kl, _ in path]) > 0).all()
    assert path[one][0] == pytest.approx(result.experiment.kl_chi_active.kl[1, 2, 0], abs=1e-4)
    assert all(0 <= p <= 1 for some in knob.turned.words for _, p in some)
    assert "logit difference" in words.knob_words(knob, 4.0)
    with pytest.raises(looking.NeedsModel, match="needs smollm2 in memory"):
        looking.knob_of(real, view, None)


def test_long_prompts_are_refused_in_one_sentence(real: Result) -> None:
    long = replace(real.records[0].prompts[0], ids=(0,) * 2000)
    record = replace(real.records[0], prompts=[long] * 6)
    with pytest.raises(ValueError, match=r"prompts of at most 512 tokens .* this one has 2000"):
        looking.pattern_of(replace(real, records=(record, record)), View(head=Head(0, 0)), None)


# ---- export


def test_table_and_rows(result: Result, tmp_path: Path) -> None:
    """Read back, the CSV equals the table, every digit, and the rows give the same table."""
    table = pd.read_csv(BytesIO(export.table_bytes(result)))
    pd.testing.assert_frame_equal(table, result.experiment.table, check_exact=True)
    zipfile.ZipFile(BytesIO(export.record_bytes(result))).extractall(tmp_path)
    pd.testing.assert_frame_equal(analyse(*load_records(tmp_path)).table, result.experiment.table)


def test_files_are_never_written_over(tmp_path: Path) -> None:
    """Three files of a name are three files."""
    paths = [export.write_new(tmp_path / "new", "heads.csv", str(i).encode()) for i in range(3)]
    assert [path.name for path in paths] == ["heads.csv", "heads-2.csv", "heads-3.csv"]
    assert [path.read_text() for path in paths] == ["0", "1", "2"]


@pytest.mark.parametrize("position", ["END", "S2", "S1+1", "token 5"])
def test_code_gives_the_same_table(demo: Any, pairs: Inputs, position: str) -> None:
    """The printed Python runs and gives the table; three lines do the work."""
    experiment = playground.run(demo, replace(pairs, position=position))
    code = export.as_code(experiment)
    found: dict[str, Any] = {}
    exec(code, found)
    pd.testing.assert_frame_equal(found["table"], experiment.table, atol=1e-5)
    assert len(code.strip().rsplit("\n\n", 1)[1].splitlines()) == 3


@pytest.mark.parametrize("design", ["pairs", "sets"])
@pytest.mark.parametrize("bos", [NO_BOS, "box"])
def test_code_keeps_first_token_and_test(demo: Any, pairs: Inputs, bos: str, design: Any) -> None:
    experiment = playground.run(demo, replace(pairs, bos=bos, design=design))
    found: dict[str, Any] = {}
    exec(export.as_code(experiment), found)
    pd.testing.assert_frame_equal(found["table"], experiment.table, atol=1e-5)


@pytest.mark.parametrize("position", ["END", "token 5"])
def test_code_of_shipped_rows_needs_no_model(real: Result, position: str) -> None:
    """It reads the rows that ship, and gives the table bit by bit."""
    experiment = analyse(*(playground.at_position(record, position) for record in real.records))
    code = export.as_code(experiment)
    assert "load_model" not in code
    found: dict[str, Any] = {}
    exec(code, found)
    pd.testing.assert_frame_equal(found["table"], experiment.table, check_exact=True)


def test_link_restores_what_it_says(result: Result) -> None:
    """From a state to a line and back: boxes, heads, prompts and measure; an example is named, typed prompts are written out."""
    draft = replace(
        result.asked,
        example="your own prompts",
        active="a $1 = 50 % & more\nb?",
        control="c\nd",
        bos="none",
        test="two sets",
    )
    view = View("chi, active", Head(2, 0), Head(5, 7), (3, 4), "control")
    state = replace(shown(State(draft), result), view=view)
    assert export.from_link(export.as_link(state)) == (draft, view)
    plain = State(Draft("smollm2"))
    assert export.as_link(plain) == "model=smollm2&example=minimal+pairs&measure=shift+of+KL"
    assert export.from_link(export.as_link(plain)) == (plain.draft, plain.view)


@pytest.mark.parametrize(
    "line",
    ["", "hello", "model=demo&head=x", "example=ownership", "model=demo&example=nothing", "model=demo&example=ownership&side=up",
     "model=demo&example=ownership&prompts=0,1", "model=demo&example=ownership&measure=size", "model=demo&example=ownership&test=t"],
)  # fmt: skip
def test_other_lines_are_refused(line: str) -> None:
    with pytest.raises(ValueError, match="state: expected a line that the playground made"):
        export.from_link(line)

"""The knob as a widget: turned by setting values, read from its components; live on a tiny model, and as it ships."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from helpers import Head, ioi_prompts, run_tempered
from helpers.diagnostics import kl_selectivity, susceptibility
from helpers.knob import TurnedHead, turn_head
from helpers.measured import measured_knob, shipped_record
from helpers.widgets import HeadKnob, shipped_turn
from helpers.widgets.knob import turned_view

PROMPTS = ioi_prompts(2)
HEADS = {Head(1, 2): "acts at END", Head(0, 3): ""}


@pytest.fixture(scope="module")
def turned(tiny: Any) -> TurnedHead:
    return turn_head(tiny, PROMPTS[0], (1, 2))


@pytest.fixture
def knob(tiny: Any) -> HeadKnob:
    return HeadKnob(lambda i, head: turn_head(tiny, PROMPTS[i], head), [p.text for p in PROMPTS], HEADS)


def test_a_turned_head_is_the_tempered_run(tiny: Any, turned: TurnedHead) -> None:
    """Rows, logit difference and next words are those of `run_tempered` with that head at that beta."""
    for beta in (0.0, 1.0, 4.0):
        at = list(turned.betas).index(beta)
        run = run_tempered(tiny, PROMPTS[:1], {(1, 2): beta}, progress=False)
        np.testing.assert_allclose(turned.rows[at], run.rows[0, 0, 0], atol=1e-6)
        np.testing.assert_allclose(turned.logit_difference[at], run.logit_difference[0], atol=1e-5)
        chances, ids = run.top(5)
        assert [word for word, _ in turned.words[at]] == [tiny.tokenizer.decode([i]) for i in ids[0, 0].tolist()]
        np.testing.assert_allclose([p for _, p in turned.words[at]], chances[0, 0], atol=1e-6)


def test_places_are_those_of_the_rows(turned: TurnedHead) -> None:
    """The path that is computed from the plain row goes through KL and chi of the rows that the running model used."""
    measured = [f(torch.tensor(turned.rows)) for f in (kl_selectivity, susceptibility)]
    np.testing.assert_allclose(turned.places(turned.betas), np.stack(measured, -1), atol=1e-5)


def test_turning_needs_the_head_as_it_is(tiny: Any) -> None:
    """Settings without beta = 1 are a ValueError."""
    with pytest.raises(ValueError, match=r"betas: expected 1, .*got 0.5, 2"):
        turn_head(tiny, PROMPTS[0], (1, 2), [0.5, 2])


def test_the_slider_moves_everything(knob: HeadKnob, turned: TurnedHead) -> None:
    """Row, dot and answer are those of the setting; what stands beside them is the head as it is."""
    knob.beta.value = 4.0
    at = list(turned.betas).index(4.0)
    now, trained = knob.strips.content["strips"]
    np.testing.assert_allclose(now["weights"], turned.rows[at], atol=1e-6)
    np.testing.assert_allclose(trained["weights"], turned.rows[turned.plain], atol=1e-6)
    plane = knob.plane.content
    here, as_trained = ([point["x"], point["y"]] for point in plane["points"])
    np.testing.assert_allclose([here, as_trained], turned.places([4.0, 1.0]), atol=1e-6)
    np.testing.assert_allclose(plane["trajectory"][plane["current"]], here)
    assert f"{turned.answer} − {turned.foil}: <b>{turned.logit_difference[at]:.2f}</b>" in knob.says.value
    assert all(f"<td>{p:.3f}</td>" in knob.says.value for _, p in turned.words[at])


def test_another_head_another_prompt(knob: HeadKnob, tiny: Any) -> None:
    """The menus change whose row is shown, the slider keeps its place, and what was turned once is kept."""
    knob.beta.value = 0.5
    knob.head.value = Head(0, 3)
    knob.prompt.value = 1
    run = run_tempered(tiny, PROMPTS[1:], {(0, 3): 0.5}, progress=False)
    np.testing.assert_allclose(knob.strips.content["strips"][0]["weights"], run.rows[0, 0, 0], atol=1e-6)
    assert knob.strips.content["title"] == "Head 0.3 at the last token"
    first = knob.turned
    knob.prompt.value, knob.head.value = 0, Head(1, 2)
    knob.prompt.value, knob.head.value = 1, Head(0, 3)
    assert knob.turned is first


def test_a_text_without_answer_has_words_alone(tiny: Any) -> None:
    """No logit difference is named where there is none."""
    shown = turned_view(turn_head(tiny, "Mary and John went to the", (1, 2)), 2.0)
    assert "logit difference" not in shown["says"]
    assert shown["says"].count("<tr>") == 6


def test_a_setting_that_is_none_is_refused(turned: TurnedHead) -> None:
    """The sentence names those that there are."""
    with pytest.raises(ValueError, match=r"beta: expected one of 0, 0.25, .*, got 0.3"):
        turned_view(turned, 0.3)


def test_words_are_text(turned: TurnedHead) -> None:
    """A token that looks like markup is shown as it is."""
    odd = TurnedHead(
        turned.head, turned.tokens, turned.betas, turned.rows, turned.visible, turned.logit_difference,
        [[("<b>", 1.0)]] * len(turned.betas), "<i>", "&",
    )  # fmt: skip
    says = turned_view(odd, 1.0)["says"]
    assert "&lt;b&gt;" in says
    assert "&lt;i&gt; − &amp;" in says


def test_as_it_ships() -> None:
    """SmolLM2's points: rows tempered from the shipped record have the KL and chi that the running model had."""
    points, record = measured_knob("smollm2").points, shipped_record("smollm2", "clean")
    turn, name = shipped_turn(points, record), next(iter(points["heads"]))
    turned = turn(1, Head.parse(name))
    one = points["heads"][name][1]
    n = np.log(len(turned.tokens))
    np.testing.assert_allclose(
        turned.places(turned.betas) * [n, n**2], np.stack([one["kl"], one["chi"]], -1), atol=5e-3
    )
    assert list(turned.logit_difference) == one["ld"]
    assert turned_view(turned, 0.5)["strips"]["strips"][0]["tokens"] == ["BOS", *points["prompts"][1]["tokens"][1:]]


def test_points_of_other_prompts_are_refused() -> None:
    """Rows of one prompt under the tokens of another would be wrong without a sign."""
    points = dict(measured_knob("smollm2").points)
    points["prompts"] = [dict(points["prompts"][0], tokens=["other"])]
    with pytest.raises(ValueError, match="record: expected the prompts of the points"):
        shipped_turn(points, shipped_record("smollm2", "clean"))

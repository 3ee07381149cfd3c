"""What ships about the knob: the protocol's texts, tables that follow from each other, verdicts that can come out either way."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from helpers import load_model
from helpers.diagnostics import kl_selectivity
from helpers.folders import kept_in
from helpers.heads import Head
from helpers.knob import linear_response, reach, run_tempered
from helpers.knob.hooks import TemperedLayer, keys_seen
from helpers.knob.lengths import kl_at_lengths
from helpers.knob.turned import SETTINGS
from helpers.measured import (
    demo_documents,
    ids_of,
    long_stretches,
    measured_knob,
    shipped_record,
    short_stretches,
)
from helpers.measured.knob import answers
from helpers.measured.knob.answers import TURNED_BETAS, response, slopes, turned
from helpers.measured.knob.loss import tempered_losses
from helpers.measured.knob.shipped import KINDS, LENGTHS, PARTS, MeasuredKnob
from helpers.measured.knob.tables import (
    NAMED_PREDICTOR,
    PREDICTORS,
    correlation_table,
    curvature_heads,
    length_table,
    matched_heads,
    turned_table,
)
from helpers.measured.knob.text import TEXTS, shuffled
from helpers.measured.knob.verdicts import (
    described,
    judge_tables,
    lengths_verdict,
    optimum_verdict,
    response_verdict,
    sign_verdict,
    slopes_verdict,
)
from helpers.measured.knob.work import Work
from helpers.models.forward import token_losses
from helpers.prompts.fit import fit_task
from helpers.reference.measured import measured_circuit
from helpers.statistics.ranks import rank_correlation

MODELS = ("demo", "smollm2")
BOTH = pytest.mark.parametrize("model", MODELS)
HASHES = {
    "alice": "ed7d934e18873431",
    "constitution": "679af08c6421f574",
    "prose": "b2968a8b3ad5c95e",
}


@cache
def knob(model: str) -> MeasuredKnob:
    return measured_knob(model)


# ---- the texts


@pytest.mark.parametrize("text", TEXTS)
def test_texts_are_those_that_were_measured(text: str) -> None:
    """The files of the protocol, byte by byte."""
    path = Path(__file__).parents[1] / "helpers" / "measured" / "text" / f"{text}.txt"
    assert hashlib.sha256(path.read_bytes()).hexdigest()[:16] == HASHES[text]


def test_stretches_are_cut_as_the_protocol_says(words: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """8 of 4,096 tokens with BOS, each going on where the last one ended; 16 of 256, from the first token and from 2,048 on."""

    def count(text: str, **options: Any) -> dict[str, list[int]]:
        return {"input_ids": list(range(5, 20_005))}

    tokenizer = type("Counter", (), {"bos_token_id": 0, "__call__": staticmethod(count)})()
    long = long_stretches(tokenizer)
    short = short_stretches(long)
    assert [one.text for one in long] == ["alice"] * 4 + ["constitution"] + ["prose"] * 3
    assert {len(one.ids) for one in long} == {4096}
    assert (long[0].ids[:2], long[1].ids[:2], long[1].start) == ((0, 5), (0, 5 + 4095), 4095)
    assert ids_of(short).shape == (16, 256)
    assert [one.ids[:2] for one in short[:3]] == [(0, 5), (0, long[0].ids[2048]), (0, 5 + 4095)]
    assert [one.start for one in short[:3]] == [0, 2047, 4095]


def test_shuffled_text_keeps_its_tokens_and_its_bos(words: Any) -> None:
    """The same tokens in another order, BOS in front; the same for the same seed."""
    one = demo_documents(words)[0]
    other = shuffled(one, 3)
    assert other.ids[0] == words.bos_token_id
    assert other.ids != one.ids
    assert sorted(other.ids) == sorted(one.ids)
    assert other == shuffled(one, 3)


def test_demo_documents_are_of_one_length_and_known_words(words: Any) -> None:
    """64 different documents of 48 tokens, BOS in front and nowhere else, no unknown word."""
    ids = ids_of(demo_documents(words))
    assert ids.shape == (64, 48)
    assert len({*map(tuple, ids.tolist())}) == 64
    assert (ids == words.bos_token_id).sum(0).tolist() == [64] + [0] * 47
    assert not (ids == words.unk_token_id).any()


# ---- tables that follow from each other


@BOTH
def test_verdicts_follow_from_the_tables(model: str) -> None:
    """The shipped verdicts are those of the shipped tables, number by number."""
    pd.testing.assert_frame_equal(judge_tables(knob(model)), knob(model).verdicts, rtol=2e-5, atol=1e-6)
    assert set(knob(model).verdicts.section) == ({1, 2, 3, 4} if model == "smollm2" else {1, 2, 3})


@BOTH
def test_every_head_has_its_rows(model: str) -> None:
    """One row a head (and beta), in reading order; numbers finite."""
    circuit = measured_circuit(model)
    assert circuit is not None
    heads = [*np.ndindex(*circuit.shape)]
    for name in ("reach", "slopes", "loss", "random"):
        table = getattr(knob(model), name)
        assert [*zip(table.layer, table["head"], strict=True)] == heads
        assert np.isfinite(table.drop(columns=["resolved", "causal"], errors="ignore").to_numpy(dtype=float)).all()
    assert len(knob(model).response) == 6 * len(heads)
    assert knob(model).slopes.causal.sum() == circuit.table.causal.sum()


def test_correlations_follow_from_the_slopes() -> None:
    """From the printed slopes and predictors: of the demo model every correlation, of SmolLM2 the one that was named."""
    again = correlation_table(knob("demo").slopes)
    assert tuple(again.predictor) == PREDICTORS
    pd.testing.assert_frame_equal(again, knob("demo").correlations, rtol=1e-4, atol=2e-3)
    table = knob("smollm2").slopes
    named = vars(rank_correlation(table[NAMED_PREDICTOR], table.slope.abs(), table.layer))
    shipped = knob("smollm2").correlations.set_index("predictor").loc[NAMED_PREDICTOR]
    np.testing.assert_allclose([*named.values()], shipped[[*named]], atol=2e-3)


@BOTH
def test_heads_were_chosen_by_the_rules(model: str) -> None:
    """Turned: causal heads and `matched_heads` of the printed KL. Curvature: `curvature_heads` of the printed slopes."""
    table, turned, shape = knob(model).slopes, knob(model).turned, measured_circuit(model).shape  # type: ignore[union-attr]
    pairs = matched_heads(table.causal.to_numpy(bool).reshape(shape), table.kl.to_numpy().reshape(shape))
    expected = {(str(head), str(other)) for pair in pairs for head, other in (pair, pair[::-1])}
    names = turned.layer.astype(str) + "." + turned["head"].astype(str)
    assert {*zip(names, turned.partner.astype(str), strict=True)} == expected
    assert [*dict.fromkeys(turned.beta)] == [beta for beta in TURNED_BETAS if beta != 1]
    curved = knob(model).curvature.drop_duplicates(["layer", "head"])
    assert [(*head, group) for head, group in curvature_heads(knob(model).loss)] == [
        *zip(curved.layer, curved["head"], curved.group, strict=True)
    ]


def test_slopes_against_length_follow_from_the_rows() -> None:
    """lengths.csv from the shipped KL; parts add up; stretch slopes have the printed mean."""
    real = knob("smollm2")
    pd.testing.assert_frame_equal(length_table(real.long_rows, real.sink_weights), real.lengths, rtol=1e-4, atol=1e-5)
    assert real.long_rows.shape == (8, len(KINDS), len(LENGTHS), 30, 9, len(PARTS))
    np.testing.assert_allclose(real.long_rows[..., 1] + real.long_rows[..., 2], real.long_rows[..., 0], atol=2e-6)
    np.testing.assert_allclose(real.stretch_slopes.mean(0).ravel(), real.loss.slope, rtol=1e-5, atol=1e-8)


def test_first_order_predictions_follow_from_the_shipped_rows() -> None:
    """Of SmolLM2: the response and the reach of ten heads from the attention rows that ship, without the model."""
    record, real = shipped_record("smollm2", "ioi").at("END"), knob("smollm2")
    visible = record.visible().expand(record.rows.shape)[:, 20:21]
    rows = record.rows[:, 20:21]
    for found, shipped in (
        (
            linear_response(rows, visible, (0.5, 0.9, 1.1, 2.0)),
            real.response[real.response.beta.isin([0.5, 0.9, 1.1, 2])],
        ),
        (reach(rows, visible), real.reach.drop(columns="resolved")),
    ):
        expected = shipped[shipped.layer == 20].drop(columns="layer").reset_index(drop=True)
        pd.testing.assert_frame_equal(found.drop(columns="layer"), expected, rtol=2e-3, atol=2e-4)


def test_points_are_of_the_heads_that_were_turned() -> None:
    """Each causal and matched head on the first three recorded prompts; at beta = 1 all heads say the same; KL(0) = 0."""
    real, record = knob("smollm2"), shipped_record("smollm2", "clean")
    points = real.points
    names = {f"{layer}.{head}" for layer, head in zip(real.turned.layer, real.turned["head"], strict=True)}
    assert set(points["heads"]) == names
    assert tuple(points["betas"]) == SETTINGS
    assert [p["text"] for p in points["prompts"]] == [p.prompt.text for p in record.prompts[:3]]
    one = SETTINGS.index(1)
    assert record.readout is not None
    for entries in points["heads"].values():
        for i, entry in enumerate(entries):
            assert entry["ld"][one] == pytest.approx(float(record.readout.logit_difference[i]), abs=1e-3)
            assert entry["kl"][0] == pytest.approx(0, abs=1e-5)
            assert (np.diff(entry["kl"]) >= -1e-5).all()
            assert [len(top) for top in entry["top"]] == [5] * len(SETTINGS)


@BOTH
def test_files_stay_small(model: str) -> None:
    """What ships of a model's knob is less than 2.5 MB."""
    assert sum(path.stat().st_size for path in knob(model).folder.iterdir()) < 2.5e6


def test_nothing_that_was_not_measured_is_refused_by_name() -> None:
    """Another model: one sentence with those that there are."""
    with pytest.raises(ValueError, match="model: expected one of demo, smollm2, got 'gpt2-small'"):
        measured_knob("gpt2-small")


# ---- rules, on planted data


def test_matched_heads_are_near_and_used_once() -> None:
    """Nearest KL in the layer; not the same twice; the nearest layer once a layer has none left; reading order."""
    causal = np.array([[True, True, False], [True, True, True], [False, False, False]])
    kl = np.array([[1.0, 2.0, 1.4], [3.0, 0.5, 0.6], [2.9, 0.4, 0.7]])
    pairs = [(str(one), str(other)) for one, other in matched_heads(causal, kl)]
    assert pairs == [("0.0", "0.2"), ("0.1", "2.0"), ("1.0", "2.2"), ("1.1", "2.1")]


def test_effects_of_turning_are_means_over_prompts() -> None:
    """LD(beta) - LD(1) of every head and beta; a head that moves every prompt alike has a small p, one at rest p = 1."""
    ld = np.zeros((2, 3, 12)) + np.random.default_rng(0).normal(size=12)
    ld[0, 2] += 2
    found = turned_table([(Head(3, 1), Head(3, 2))], (0.5, 1.0, 2.0), ld).set_index(["head", "beta"])
    assert found.effect.round(9).to_dict() == {(1, 0.5): 0, (1, 2.0): 2, (2, 0.5): 0, (2, 2.0): 0}
    assert found.q[1, 2.0] < 0.01
    assert found.p[2, 2.0] == 1
    assert found.kind.tolist() == ["causal"] * 2 + ["matched"] * 2
    assert found.partner.astype(str).tolist() == ["3.2"] * 2 + ["3.1"] * 2
    np.testing.assert_allclose(found.ld - found.plain, found.effect, atol=1e-12)


@pytest.mark.parametrize(
    ("below", "above", "verdict"),
    [(0.05, 0.06, "holds"), (0.3, 0.4, "fails"), (0.05, 0.4, "undecided")],
)
def test_verdict_on_linear_response(below: float, above: float, verdict: str) -> None:
    """Both medians and intervals below 0.10: holds; both above: fails; else undecided. Unresolved heads don't count."""
    heads = np.random.default_rng(0).normal(1, 0.05, 40)
    tables = [pd.DataFrame({"beta": b, "error": e * heads}) for b, e in ((0.9, below), (1.1, above), (2.0, 9))]
    for table in tables:
        table.loc[39, "error"] = np.nan
    resolved = pd.Series([True] * 39 + [False])
    rows = response_verdict(pd.concat(tables), resolved)
    assert [row["verdict"] for row in rows] == [verdict] * 2
    assert "1 of 40 heads left out" in str(rows[0]["numbers"])
    assert rows[0]["value"] == pytest.approx(below, rel=0.05)


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(0.51, 0.9, "holds"), (0.1, 0.49, "fails"), (0.4, 0.6, "undecided")]
)
def test_verdict_on_the_named_predictor(low: float, high: float, verdict: str) -> None:
    """The interval of its within-layer correlation above, below, or about 0.5; other predictors don't count."""
    named = {"predictor": "chi x value spread", "rho": 0.7, "within": (low + high) / 2, "p": 0.01}
    table = pd.DataFrame(
        [named | {"within_low": low, "within_high": high}, named | {"predictor": "chi", "within_low": 0.9}]
    )
    assert slopes_verdict(table)[0]["verdict"] == verdict


@pytest.mark.parametrize(("size", "verdict"), [(0.4, "holds"), (1.5, "fails")])
def test_verdict_on_the_optimum(size: float, verdict: str) -> None:
    """The median of R against the 97.5 % point of the medians of the null."""
    rng = np.random.default_rng(0)
    null = pd.DataFrame({"median": rng.normal(0.68, 0.04, 1000)})
    row = optimum_verdict(pd.DataFrame({"ratio": size * np.abs(rng.normal(1, 0.1, 60))}), null)[0]
    assert row["verdict"] == verdict
    assert row["limit"] == pytest.approx(0.68 + 1.96 * 0.04, abs=0.02)


@pytest.mark.parametrize(
    ("negative", "of", "verdict"), [(20, 22, "holds"), (2, 22, "fails"), (11, 22, "undecided"), (0, 0, "undecided")]
)
def test_verdict_on_the_sign(negative: int, of: int, verdict: str) -> None:
    """The share of negative slopes with q < 0.05, its exact interval against one half; with no such heads nothing is decided."""
    slope = np.r_[-np.ones(negative), np.ones(of - negative), -np.ones(30)]
    table = pd.DataFrame({"slope": slope, "q": np.r_[np.full(of, 0.01), np.full(30, 0.2)]})
    assert sign_verdict(table)[0]["verdict"] == verdict


@pytest.mark.parametrize(("share", "verdict"), [(0.9, "holds"), (0.2, "fails"), (0.5, "undecided")])
def test_verdict_on_the_law(share: float, verdict: str) -> None:
    """Heads with a straight line of slope 1 or 0, natural text and whole KL alone; a bent line or slope 1/2 is not described."""
    n, good = 40, round(40 * share)
    slope = np.where(np.arange(n) < good, np.where(np.arange(n) % 2, 1.05, -0.08), 0.5)
    table = pd.DataFrame({"slope": slope, "r2": 0.95, "kind": "natural", "part": "kl"})
    other = table.assign(slope=1.0, kind="shuffled")
    assert lengths_verdict(pd.concat([table, other]))[0]["verdict"] == verdict
    one, zero = described(table)
    assert (one.sum(), zero.sum()) == (good // 2, good - good // 2)
    assert not any(side.any() for side in described(table.assign(r2=0.89)))


def test_the_texts_ship(packaged: set[str]) -> None:
    """A wheel holds what the measurements are made again from."""
    assert {f"measured/text/{name}.txt" for name in TEXTS} <= packaged


# ---- measured again


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after three heads, then run again: the other heads alone are turned, and the table is the shipped one."""
    model, turned_heads = load_model("demo", device="cpu"), []

    def counted(*args: Any, **options: Any) -> Any:
        if len(turned_heads) == 3:
            turned_heads.append(None)
            raise KeyboardInterrupt
        turned_heads.append(next(iter(args[2])))
        return run_tempered(*args, **options)

    monkeypatch.setattr(answers, "run_tempered", counted)
    with pytest.raises(KeyboardInterrupt), kept_in(tmp_path / "kept", "key") as kept:
        turned(Work(model, tmp_path / "out", kept))
    with kept_in(tmp_path / "kept", "key") as kept:
        turned(Work(model, tmp_path / "out", kept))
    done = [head for head in turned_heads if head is not None]
    assert len(done) == len({*done}) == 2 * knob("demo").slopes.causal.sum()
    pd.testing.assert_frame_equal(MeasuredKnob(tmp_path / "out").turned, knob("demo").turned, rtol=1e-3, atol=1e-3)
    assert not (tmp_path / "kept").exists()


@pytest.mark.slow
def test_the_demo_models_rows_and_slopes_are_made_again(tmp_path: Path) -> None:
    """Sections 1 and 2 of the demo model, in full: the same tables."""
    work = Work(load_model("demo", device="cpu"), tmp_path)
    response(work)
    slopes(work)
    for name in ("response", "reach", "slopes"):
        again, shipped = (getattr(one, name) for one in (MeasuredKnob(tmp_path), knob("demo")))
        pd.testing.assert_frame_equal(again, shipped, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_the_demo_models_losses_are_made_again() -> None:
    """Loss of every document, and of two heads turned, on the first documents."""
    model = load_model("demo", device="cpu")
    ids, shipped = ids_of(demo_documents(model.tokenizer)), knob("demo")
    with torch.no_grad():
        found = token_losses(model, ids).mean(-1)
    np.testing.assert_allclose(found, shipped.stretches.loss, rtol=1e-4)
    head, _ = curvature_heads(shipped.loss)[0]
    rows = shipped.curvature[(shipped.curvature.layer == head.layer) & (shipped.curvature["head"] == head.head)]
    again = tempered_losses(model, ids[:8], head, tuple(rows.beta)).mean(-1)
    np.testing.assert_allclose(again, rows.loss, rtol=1e-4)


@pytest.mark.slow
def test_a_length_is_measured_again(smollm2: Any) -> None:
    """One stretch, natural and shuffled, cut after 64 tokens: KL, its parts and BOS's weight at n = 16, 32 and 64."""
    real, stretch = knob("smollm2"), long_stretches(smollm2.tokenizer)[4]
    for k, text in enumerate((stretch.ids[:64], shuffled(stretch, 4).ids[:64])):
        found = kl_at_lengths(smollm2, torch.tensor(text), LENGTHS[:3])
        for i, part in enumerate((found.kl, found.sink, found.rest)):
            np.testing.assert_allclose(real.long_rows[4, k, :3, :, :, i], part, atol=1e-3)
        np.testing.assert_allclose(real.sink_weights[4, k, :3], found.weight, atol=1e-4)


@pytest.mark.slow
def test_a_slope_of_the_loss_is_measured_again(smollm2: Any) -> None:
    """On one stretch the loss, and by finite differences the slope of the head whose loss is steepest there."""
    real = knob("smollm2")
    ids = ids_of(short_stretches(long_stretches(smollm2.tokenizer)))[8:9]
    layer, head = np.unravel_index(np.abs(real.stretch_slopes[8]).argmax(), (30, 9))
    losses = []
    for beta in (0.9, 1.1):
        betas = torch.ones(1, 9)
        betas[0, head] = beta
        hooks = TemperedLayer(smollm2, int(layer), betas, keys_seen(smollm2, ids)).hooks
        with torch.no_grad():
            losses.append(float(token_losses(smollm2, ids, hooks).double().mean()))
    assert np.mean(losses) == pytest.approx(real.stretches.loss[8], abs=2e-3)
    assert (losses[1] - losses[0]) / 0.2 == pytest.approx(real.stretch_slopes[8, layer, head], rel=0.05)


@pytest.mark.slow
def test_a_turned_head_is_measured_again(smollm2: Any) -> None:
    """The head with the largest effect at beta = 2, and a point of the widget: logit differences and rows as printed."""
    real = knob("smollm2")
    row = real.turned[real.turned.beta == 2].sort_values("effect", key=abs).iloc[-1]
    prompts, name = fit_task("ioi", smollm2.tokenizer, 32).clean, f"{row.layer}.{row['head']}"
    assert [p.text for p in prompts] == [p.prompt.text for p in shipped_record("smollm2", "clean").prompts]
    run = run_tempered(smollm2, prompts, {(int(row.layer), int(row["head"])): 2.0}, progress=False)
    assert run.logit_difference.mean() == pytest.approx(row.ld, abs=1e-3)
    point, at = real.points["heads"][name][0], SETTINGS.index(2)
    assert float(run.logit_difference[0, 0]) == pytest.approx(point["ld"][at], abs=1e-3)
    kl = kl_selectivity(run.rows[0, 0, 0], n=len(run.prompts[0]), normalized=False)
    assert float(kl) == pytest.approx(point["kl"][at], abs=1e-4)
    assert smollm2.tokenizer.decode([int(run.top(1)[1][0, 0, 0])]) == point["top"][at][0][0]

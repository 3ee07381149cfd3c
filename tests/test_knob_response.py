"""What rows and one forward pass say about the knob: against finite differences, autograd, and the running model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from architectures import ALL, build
from hypothesis import given, settings
from hypothesis import strategies as st
from models import random_rows
from scipy import stats

from helpers import load_model, minimal_pairs, record_attention, record_outputs, run_tempered
from helpers.contents.residual import answer_readers, trace
from helpers.diagnostics import kl_selectivity, susceptibility, temper_rows, value_variance
from helpers.knob import knob_predictors, linear_response, output_response, reach, tempered_kl
from helpers.knob.directions import knob_ratio, random_ratios
from helpers.knob.hooks import TemperedLayer, keys_seen
from helpers.models.forward import forward, hook_z
from helpers.models.model import LanguageModel
from helpers.prompts.answers import with_answers

CLEAN, _ = minimal_pairs(4, seed=2)


@pytest.fixture(scope="module")
def demo() -> LanguageModel:
    """The demo model."""
    return load_model("demo", device="cpu")


def rows_of(seed: int, *shape: int, spread: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random rows in float64, whose last key is not visible, and which keys are."""
    rows = random_rows(*shape[:-1], shape[-1] - 1, seed=seed, spread=spread).double()
    rows = torch.nn.functional.pad(rows / rows.sum(-1, keepdim=True), (0, 1))
    return rows, (torch.arange(shape[-1]) < shape[-1] - 1).expand(rows.shape)


def cumulants(row: np.ndarray, beta: float) -> tuple[float, float]:
    """Variance and third cumulant of log pi under pi_beta, by their definitions."""
    log_pi = np.log(row)
    weight = np.exp(beta * log_pi) / np.exp(beta * log_pi).sum()
    off = log_pi - weight @ log_pi
    return float(weight @ off**2), float(weight @ off**3)


# ---- KL(beta)


@settings(max_examples=25)
@given(st.floats(0.05, 5), st.integers(0, 99))
def test_slope_of_kl_is_beta_times_the_variance(beta: float, seed: int) -> None:
    """d KL / d beta = beta Var_beta(log pi): finite differences of `tempered_kl`, and autograd through the tempered row."""
    rows, visible = rows_of(seed, 1, 7)
    variance, _ = cumulants(rows[0, :-1].numpy(), beta)
    high, low = (tempered_kl(rows, visible, beta + step)[0] for step in (1e-4, -1e-4))
    assert (high - low) / 2e-4 == pytest.approx(beta * variance, rel=1e-5, abs=1e-8)
    knob = torch.tensor([beta], dtype=torch.float64, requires_grad=True)
    kl_selectivity(temper_rows(rows, knob, visible), mask=visible, normalized=False).sum().backward()
    assert knob.grad is not None
    assert float(knob.grad) == pytest.approx(beta * variance, rel=1e-9)


@pytest.mark.parametrize("beta", [0.3, 1.0, 2.0])
def test_curvature_of_kl_is_variance_and_third_cumulant(beta: float) -> None:
    """d^2 KL / d beta^2 = Var_beta + beta kappa_3, so that at 1 linear response errs by (beta - 1)^2 (Var + kappa_3) / 2."""
    rows, visible = rows_of(5, 1, 7)
    variance, third = cumulants(rows[0, :-1].numpy(), beta)
    high, middle, low = (tempered_kl(rows, visible, beta + step)[0] for step in (1e-3, 0, -1e-3))
    assert (high - 2 * middle + low) / 1e-6 == pytest.approx(variance + beta * third, rel=1e-4)


def test_ends_of_kl() -> None:
    """KL(0) = 0; KL(1) is the row's own; KL(8) stays below log n."""
    rows, visible = rows_of(1, 3, 6)
    np.testing.assert_allclose(tempered_kl(rows, visible, 0), 0, atol=1e-15)
    np.testing.assert_allclose(tempered_kl(rows, visible, 1), kl_selectivity(rows, mask=visible, normalized=False))
    assert (tempered_kl(rows, visible, 8) < np.log(5)).all()


def test_tempered_rows_are_those_of_the_running_model(demo: LanguageModel) -> None:
    """KL of the rows that heads use at END, turned at all tokens in the running model, is `tempered_kl` of the plain rows."""
    betas = [0.0, 0.7, 1.0, 3.0]
    record = record_attention(demo, CLEAN, progress=False)
    visible = record.visible().expand(record.rows.shape)
    for head in ((0, 3), (4, 6)):
        run = run_tempered(demo, CLEAN, {head: betas}, progress=False)
        for i, beta in enumerate(betas):
            found = kl_selectivity(run.rows[i, :, 0], mask=visible[:, 0, 0], normalized=False)
            expected = tempered_kl(record.rows[:, head[0], head[1]], visible[:, 0, 0], beta)
            np.testing.assert_allclose(found, expected, atol=2e-6)


# ---- the first-order prediction


def test_errors_are_those_of_the_definition() -> None:
    """Every row of the table from a loop over prompts: mean |KL + (beta - 1) chi - KL(beta)| over mean |KL(beta) - KL(1)|."""
    rows, visible = rows_of(3, 5, 2, 3, 8)
    table = linear_response(rows, visible, [2.0, 0.8]).set_index(["layer", "head", "beta"])
    assert len(table) == 2 * 3 * 2
    for (layer, head, beta), found in table.iterrows():  # type: ignore[misc]
        kl, plain, chi = (
            np.array([f(rows[p, layer, head]) for p in range(5)])
            for f in (
                lambda row, beta=beta: float(np.log(7) - stats.entropy((row[:-1] ** beta).numpy())),
                lambda row: float(np.log(7) - stats.entropy(row[:-1].numpy())),
                lambda row: cumulants(row[:-1].numpy(), 1.0)[0],
            )
        )
        predicted = plain + (beta - 1) * chi
        assert found.kl == pytest.approx(kl.mean())
        assert found.predicted == pytest.approx(predicted.mean())
        assert found.error == pytest.approx(np.abs(predicted - kl).mean() / np.abs(kl - plain).mean())


def test_error_vanishes_towards_one_and_where_nothing_moves_there_is_none() -> None:
    """Halving beta - 1 halves the error; uniform rows don't move: NaN."""
    rows, visible = rows_of(3, 5, 1, 4, 8)
    error = linear_response(rows, visible, [1.02, 1.01]).pivot_table("error", "head", "beta")
    np.testing.assert_allclose(error[1.02] / error[1.01], 2, rtol=0.05)
    level = torch.full((2, 1, 1, 4), 0.25)
    assert linear_response(level, torch.ones(2, 1, 1, 4, dtype=torch.bool), [0.5]).error.isna().all()


def test_reach_ends_where_the_error_does() -> None:
    """At the end of its reach a head's error is at most the limit, and 2 % further out it is larger; a wider limit reaches further."""
    rows, visible = rows_of(7, 6, 2, 3, 9)
    found = reach(rows, visible)
    for column, beyond in (("reach_low", -0.015), ("reach_high", 0.02)):
        for i, end in enumerate(found[column]):
            at, after = (linear_response(rows, visible, [beta]).error[i] for beta in (end, end * (1 + beyond)))
            assert at <= 0.10
            assert after > 0.10
    wider = reach(rows, visible, good=0.3)
    assert (wider.reach_low < found.reach_low).all()
    assert (wider.reach_high > found.reach_high).all()
    np.testing.assert_allclose(found.chi, susceptibility(rows, mask=visible, normalized=False).mean(0).ravel())


# ---- predictors


@settings(max_examples=25)
@given(st.integers(0, 99))
def test_output_response_is_the_slope_of_the_output(seed: int) -> None:
    """Cov(log pi, v) = d/d beta of sum_i pi_i v_i, and its square is at most chi d_head Var_v."""
    rows, visible = rows_of(seed, 2, 6)
    v = torch.randn(2, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    found, one = output_response(rows, v), torch.ones(2, dtype=torch.float64)
    high, low = ((temper_rows(rows, step * one, visible)[..., None] * v).sum(-2) for step in (1 + 1e-5, 1 - 1e-5))
    torch.testing.assert_close(found, (high - low) / 2e-5, rtol=1e-6, atol=1e-8)
    bound = susceptibility(rows, mask=visible, normalized=False) * 3 * value_variance(rows, v)
    assert (found.square().sum(-1) <= bound * (1 + 1e-9)).all()


@pytest.mark.parametrize("kind", ["demo", "gemma2", "gpt_oss"])
def test_responses_are_the_slopes_in_the_running_model(kind: str, demo: LanguageModel, words: Any) -> None:
    """Direct and output response = finite differences of what heads write, tempered by hooks at END; sinks and post-norms too."""
    model = demo if kind == "demo" else _random(kind, words)
    found, step = knob_predictors(model, CLEAN, progress=False), 0.02
    tokenized = with_answers(record_attention(model, CLEAN, progress=False).prompts, model.tokenizer)
    ids = torch.tensor([p.ids for p in tokenized])
    at = [len(p) - 1 for p in tokenized]
    run = trace(model, ids, at)
    readers = answer_readers(model, run, range(len(at)), [(p.right, p.wrong) for p in tokenized])
    for layer in range(model.n_layers):
        high, low = (_outputs(model, ids, layer, beta, at) for beta in (1 + step, 1 - step))
        scale = run.scale[layer]
        change = (high - low) / (2 * step) / (1 if scale is None else scale[:, -1, :, None].double())
        direct = (change * readers[:, layer]).sum(-1).numpy()
        size = np.abs(found.attribution).max() + np.abs(direct).max()
        np.testing.assert_allclose(found.direct[:, layer], direct, atol=1e-3 * size)
    assert np.abs(found.direct).max() > 0.01 * np.abs(found.attribution).max()


def _outputs(model: LanguageModel, ids: torch.Tensor, layer: int, beta: float, at: list[int]) -> torch.Tensor:
    """z of a layer at END with all its heads tempered there."""
    seen: list[torch.Tensor] = []
    hooks = TemperedLayer(model, layer, torch.full((len(ids), model.n_heads), beta), keys_seen(model, ids), at).hooks
    with torch.no_grad():
        forward(model, ids, [*hooks, (hook_z(layer), lambda z, hook: seen.append(z[:, -1].double()))])
    return seen[0]


def _random(kind: str, words: Any) -> LanguageModel:
    name, shape = ALL[kind]
    special = {"vocab_size": len(words), "bos_token_id": words.bos_token_id, "eos_token_id": 0, "pad_token_id": 1}
    return LanguageModel(build(name, shape | special), words, kind)


def test_other_predictors_are_known_numbers(demo: LanguageModel) -> None:
    """Attribution, |z| and Var_v are those of `record_outputs`, chi that of the rows; the table holds means of their products."""
    found, outputs = knob_predictors(demo, CLEAN, progress=False), record_outputs(demo, CLEAN, progress=False)
    np.testing.assert_allclose(found.attribution, outputs.attribution, atol=1e-5)
    np.testing.assert_allclose(found.size, np.sqrt(outputs.magnitude * demo.d_head), rtol=1e-5)
    np.testing.assert_allclose(found.spread, outputs.value_variance * demo.d_head, rtol=1e-4)
    rows = record_attention(demo, CLEAN, progress=False).rows
    np.testing.assert_allclose(found.chi, susceptibility(rows, normalized=False), rtol=1e-4, atol=1e-6)
    table = found.table()
    expected = np.sqrt(found.chi * found.spread).mean(0).ravel()
    np.testing.assert_allclose(table["chi x value spread"], expected)
    np.testing.assert_allclose(table["direct response"], np.abs(found.direct).mean(0).ravel())
    assert len(table) == demo.n_layers * demo.n_heads


def test_a_sink_is_a_key_of_chi(words: Any) -> None:
    """Of a model with learned sinks chi is that of the rows with the sink as one more key."""
    model = _random("gpt_oss", words)
    rows = record_attention(model, CLEAN, sink="a key", progress=False).rows
    expected = susceptibility(rows, normalized=False)
    np.testing.assert_allclose(knob_predictors(model, CLEAN, progress=False).chi, expected, rtol=1e-4, atol=1e-6)


def test_prompts_without_answers_are_refused(demo: LanguageModel) -> None:
    """One sentence with the prompt's number."""
    with pytest.raises(ValueError, match="prompts: expected an answer and a foil each, got none in prompt 1"):
        knob_predictors(demo, ["Mary saw John"], progress=False)


# ---- random directions


def test_random_ratios_are_those_of_random_orthogonal_matrices() -> None:
    """The same distribution as trace(M C) with scipy's Haar-random M, and root mean square 1, whatever C."""
    turn = np.random.default_rng(0).normal(size=(2, 6, 6)) + np.diag([5, 0, 0, 0, 0, 0.0])
    found = random_ratios(turn, n_draws=4000)
    np.testing.assert_allclose(np.sqrt(np.square(found).mean(0)), 1, atol=0.05)
    drawn = stats.ortho_group(6, seed=1).rvs(4000)
    expected = np.abs(np.einsum("nij,ji->n", drawn, turn[0])) * np.sqrt(6) / np.linalg.norm(turn[0])
    assert stats.ks_2samp(found[:, 0], expected).pvalue > 0.01
    np.testing.assert_array_equal(found[:7], random_ratios(turn, n_draws=4000)[:7])


def test_ratio_of_known_matrices() -> None:
    """R = d_head^(1/2) |trace| / |C|: d_head for the identity, 0 for a rotation by 90 degrees, the same for C and -3 C."""
    assert float(knob_ratio(np.eye(9))) == pytest.approx(9)
    assert float(knob_ratio(np.array([[0.0, 1.0], [-1.0, 0.0]]))) == 0
    some = np.random.default_rng(1).normal(size=(4, 4))
    assert float(knob_ratio(-3 * some)) == pytest.approx(float(knob_ratio(some)))

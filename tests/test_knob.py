"""Tempering heads in a running model: against scaled query weights, finite differences and autograd in plain PyTorch."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from architectures import ALL, build
from hypothesis import given, settings
from hypothesis import strategies as st
from models import random_rows
from scipy.special import softmax

from helpers import load_model, minimal_pairs, record_attention, run_tempered
from helpers.diagnostics import temper_rows
from helpers.knob import answer_slopes, loss_slopes
from helpers.models.forward import token_losses
from helpers.models.model import LanguageModel

CLEAN, CORRUPT = minimal_pairs(4, seed=2)
HEADS = ((0, 1), (1, 2))


@pytest.fixture(scope="module")
def llama(words: Any) -> LanguageModel:
    """A random Llama with grouped queries and the word-level tokenizer."""
    return _model("llama", words)


def _model(kind: str, words: Any) -> LanguageModel:
    name, shape = ALL[kind]
    special = {"vocab_size": len(words), "bos_token_id": words.bos_token_id, "eos_token_id": 0, "pad_token_id": 1}
    return LanguageModel(build(name, shape | special), words, kind)


def _ids(model: LanguageModel, prompts: Any = CLEAN) -> torch.Tensor:
    return torch.tensor([p.ids for p in record_attention(model, prompts, progress=False).prompts])


def _queries(model: LanguageModel, layer: int) -> Any:
    return next(m for name, m in model.hf.named_modules() if f".{layer}." in name and name.endswith("q_proj"))


def _scaled(model: LanguageModel, betas: dict[tuple[int, int], float]) -> Any:
    """A copy of transformers' model with the query weights of some heads multiplied by beta."""
    other = LanguageModel(copy.deepcopy(model.hf), model.tokenizer)
    for (layer, head), beta in betas.items():
        _queries(other, layer).weight.data.view(model.n_heads, -1, model.hf.config.hidden_size)[head] *= beta
    return other.hf


# ---- rows


@settings(max_examples=30)
@given(st.floats(0, 8), st.floats(0, 4), st.integers(2, 9), st.integers(0, 99))
def test_rows_are_softmax_of_scaled_scores(beta: float, more: float, n: int, seed: int) -> None:
    """pi^beta / sum pi^beta = softmax(beta z), and tempering twice is tempering by the product."""
    z = torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    seen, one = torch.ones(n, dtype=torch.bool), torch.tensor(1.0, dtype=torch.float64)
    rows = temper_rows(z.softmax(-1), beta * one, seen)
    np.testing.assert_allclose(rows, softmax(beta * z.numpy()), atol=1e-12)
    np.testing.assert_allclose(temper_rows(rows, more * one, seen), softmax(more * beta * z.numpy()), atol=1e-12)


def test_ends_of_the_knob() -> None:
    """0 is uniform over visible keys, a key with weight 0 among them; infinity the largest, ties shared; hidden keys get nothing."""
    pi = torch.tensor([[0.4, 0.4, 0.2, 0.0, 0.0], [0.1, 0.6, 0.3, 0.0, 0.0]])
    seen = torch.tensor([True, True, True, True, False])
    assert temper_rows(pi, torch.zeros(2), seen.expand(2, 5)).tolist() == [[0.25] * 4 + [0.0]] * 2
    sharp = temper_rows(pi, torch.full((2,), math.inf), seen.expand(2, 5))
    assert sharp.tolist() == [[0.5, 0.5, 0, 0, 0], [0, 1, 0, 0, 0]]


def test_slope_of_a_row_is_its_covariance_with_the_scores() -> None:
    """d pi / d beta = pi (log pi - mean of log pi), with weights that underflow to 0 too."""
    pi = random_rows(3, 6).float()
    pi = torch.cat([pi, torch.zeros(3, 1)], 1)
    seen, one = torch.ones(3, 7, dtype=torch.bool), torch.ones(3)
    found = torch.autograd.functional.jvp(lambda beta: temper_rows(pi, beta, seen), one, torch.ones(3))[1]
    log_pi = torch.where(pi > 0, pi, 1.0).log()
    expected = pi * (log_pi - (pi * log_pi).sum(-1, keepdim=True))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


# ---- runs


@pytest.mark.parametrize("kind", ["llama", "gpt_neo", "gemma"])
def test_a_run_is_the_model_with_scaled_queries(kind: str, words: Any) -> None:
    """Heads of two layers at once, also where attention is the module's own code and shows its weights late."""
    model = _model(kind, words)
    betas = [[0.25, 2.0], [3.0, 0.5]]
    run = run_tempered(model, CLEAN, dict(zip(HEADS, betas, strict=True)), progress=False)
    for setting in range(2):
        hf = _scaled(model, {head: beta[setting] for head, beta in zip(HEADS, betas, strict=True)})
        with torch.no_grad():
            expected = hf(_ids(model), use_cache=False).logits[:, -1]
        torch.testing.assert_close(run.logits[setting], expected, rtol=0, atol=2e-5)
    assert (run.logits - run.plain).abs().max() > 1e-2
    assert run.betas.tolist() == [[0.25, 3.0], [2.0, 0.5]]


def test_one_is_the_plain_run_exactly(llama: LanguageModel) -> None:
    """With beta = 1 not a bit of the logits changes; rows are the record's."""
    run = run_tempered(llama, CLEAN, dict.fromkeys(HEADS, 1.0), batch_size=2, progress=False)
    assert torch.equal(run.logits[0], run.plain)
    rows = record_attention(llama, CLEAN, progress=False).rows
    expected = torch.stack([rows[:, layer, head] for layer, head in HEADS], 1)
    torch.testing.assert_close(run.rows[0], expected, rtol=0, atol=1e-6)


def test_zero_is_uniform_and_infinity_the_largest(words: Any) -> None:
    """In the running model, at END: over the keys of the window where a layer has one."""
    model = _model("gemma2", words)
    assert model.config.sliding_window == 5
    run = run_tempered(model, CLEAN, {(0, 1): [0, math.inf], (1, 1): [0, math.inf]}, progress=False)
    n = len(run.prompts[0])
    np.testing.assert_allclose(run.rows[0, :, 0], [[0] * (n - 5) + [0.2] * 5] * 4, atol=1e-6)
    np.testing.assert_allclose(run.rows[0, :, 1], 1 / n, atol=1e-6)
    record = record_attention(model, CLEAN, progress=False)
    assert torch.equal(run.rows[1, :, 0], torch.nn.functional.one_hot(record.rows[:, 0, 1].argmax(-1), n).float())
    assert torch.equal(run.visible, record.visible()[:, :, 0])


def test_one_position_alone(llama: LanguageModel) -> None:
    """Tempered at a named position: the query of that token alone is scaled."""
    run = run_tempered(llama, CLEAN, {(0, 1): 3.0}, position="S2", progress=False)
    at = [p.position("S2") for p in run.prompts]

    def scale(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        queries = output.clone()
        queries.view(len(at), -1, llama.n_heads, queries.shape[-1] // llama.n_heads)[range(len(at)), at, 1] *= 3.0
        return queries

    handle = _queries(llama, 0).register_forward_hook(scale)
    with torch.no_grad():
        expected = llama.hf(_ids(llama), use_cache=False).logits[:, -1]
    handle.remove()
    torch.testing.assert_close(run.logits[0], expected, rtol=0, atol=2e-5)
    assert run.rows.shape == (1, 4, 1, max(map(len, run.prompts)))
    assert not run.rows[0, range(4), 0, [t + 1 for t in at]].any()


def test_what_is_read(llama: LanguageModel) -> None:
    """The logit difference of each prompt's answer and foil, NaN without them; the most likely tokens in order."""
    run = run_tempered(llama, [*CLEAN, "Mary gave a ball to"], {(0, 1): [0.5, 1]}, progress=False)
    find = llama.tokenizer.convert_tokens_to_ids
    for i, prompt in enumerate(CLEAN):
        pair = run.logits[:, i, [find(prompt.answer), find(prompt.foil)]].double()
        np.testing.assert_array_equal(run.logit_difference[:, i], pair[:, 0] - pair[:, 1])
    assert np.isnan(run.logit_difference[:, -1]).all()
    p, ids = run.top(3)
    order = run.logits.double().softmax(-1).sort(-1, descending=True)
    assert torch.equal(ids, order.indices[..., :3])
    torch.testing.assert_close(p, order.values[..., :3])


@pytest.mark.parametrize(
    ("betas", "message"),
    [
        ({}, r"^betas: expected the beta of at least one head, got none$"),
        ({(0, 1): -0.5}, r"^betas: expected inverse temperatures >= 0, got -0.5$"),
        ({(0, 1): [1, math.nan]}, r"^betas: expected inverse temperatures >= 0, got nan$"),
        ({(0, 1): []}, r"^betas: expected one beta a head or as many for each, got \[0\] of them$"),
        ({(0, 1): [1, 2], (1, 1): [1, 2, 3]}, r"^betas: expected one beta a head or as many for each, got \[2, 3\]"),
        ({(2, 0): 1}, r"^betas: expected heads of 2 layers x 4 heads, got \(2, 0\)$"),
    ],
)
def test_refusals(betas: Any, message: str, llama: LanguageModel) -> None:
    """One sentence that names the argument, the rule and the value."""
    with pytest.raises(ValueError, match=message):
        run_tempered(llama, CLEAN, betas, progress=False)


def test_a_position_that_a_prompt_lacks_is_refused(llama: LanguageModel) -> None:
    """As everywhere else."""
    with pytest.raises(ValueError, match=r"^position: expected one of BOS, END, got 'S2'$"):
        run_tempered(llama, ["Mary gave a ball to"], {(0, 1): 1}, position="S2", progress=False)


# ---- slopes


@pytest.mark.parametrize("kind", ["llama", "gpt_neo"])
@pytest.mark.parametrize("position", [None, "END"])
def test_answer_slopes_are_finite_differences(kind: str, position: str | None, words: Any) -> None:
    """(LD(1 + h) - LD(1 - h)) / 2h of the tempered run, for each prompt."""
    model, h = _model(kind, words), 0.005
    slopes = answer_slopes(model, CLEAN, position=position, batch_size=3, progress=False)
    for head in HEADS:
        run = run_tempered(model, CLEAN, {head: [1 - h, 1 + h]}, position=position, progress=False)
        expected = np.diff(run.logit_difference, axis=0)[0] / (2 * h)
        np.testing.assert_allclose(slopes[:, *head], expected, atol=3e-4)
        assert np.abs(expected).max() > 5e-4


def test_answer_slopes_need_an_answer(llama: LanguageModel) -> None:
    """A text without answer and foil has no logit difference."""
    message = r"^prompts: expected one answer and one foil, got none or several in prompt 5$"
    with pytest.raises(ValueError, match=message):
        answer_slopes(llama, [*CLEAN, "Mary gave a ball to"], progress=False)


def test_loss_slopes_are_the_gradient_along_the_query_weights(llama: LanguageModel) -> None:
    """d loss / d beta_h = <d loss / d W_Q, W_Q> over the rows of head h, by autograd through transformers' own loss."""
    ids = _ids(llama)
    found = loss_slopes(llama, ids, batch_size=3)
    hf = copy.deepcopy(llama.hf)
    other = LanguageModel(hf, llama.tokenizer)
    weights = [_queries(other, layer).weight.requires_grad_() for layer in range(llama.n_layers)]
    loss = hf(ids, labels=ids, use_cache=False).loss
    assert found.loss.mean() == pytest.approx(float(loss.detach()), abs=1e-5)
    grads = torch.autograd.grad(loss, weights)
    for layer, (grad, weight) in enumerate(zip(grads, weights, strict=True)):
        expected = (grad * weight).detach().reshape(llama.n_heads, -1).sum(-1)
        np.testing.assert_allclose(found.slope.mean(0)[layer], expected, atol=1e-6)
    np.testing.assert_allclose(np.trace(found.turn, axis1=2, axis2=3), found.slope.mean(0), atol=1e-6)
    assert np.abs(found.slope).max() > 1e-3


def test_turning_queries_changes_the_loss_as_said(llama: LanguageModel) -> None:
    """d loss along q -> q + h M q is trace(M C) h, by finite differences, for a random M (before rotary embedding)."""
    ids, (layer, head), h = _ids(llama), (1, 2), 0.01
    turn = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)))[0]
    found = loss_slopes(llama, ids).turn[layer, head]

    def losses(step: float) -> float:
        def move(q: torch.Tensor, hook: Any) -> torch.Tensor:
            q = q.clone()
            q[:, :, head] += step * q[:, :, head] @ turn.T
            return q

        with torch.no_grad():
            return float(token_losses(llama, ids, [(f"blocks.{layer}.attn.hook_q", move)]).mean())

    slope = (losses(h) - losses(-h)) / (2 * h)
    assert np.trace(turn.numpy() @ found) == pytest.approx(slope, abs=5e-5)
    assert abs(slope) > 1e-3


@pytest.mark.parametrize("shape", [(3,), (2, 1), (2, 3, 4)])
def test_other_shapes_are_refused(shape: tuple[int, ...], llama: LanguageModel) -> None:
    """Two tokens at least, one row a stretch."""
    with pytest.raises(
        ValueError, match=r"^ids: expected stretches of at least two tokens, \(stretch, token\), got \("
    ):
        loss_slopes(llama, torch.ones(shape, dtype=torch.long))


def test_the_demo_model_by_its_name() -> None:
    """The knob on the shipped model: turning a causal head of it off costs logit difference."""
    run = run_tempered(load_model("demo"), CLEAN, {(0, 3): [0, 1]}, progress=False)
    assert (run.logit_difference[1] - run.logit_difference[0] > 1).all()

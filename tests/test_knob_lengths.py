"""KL against length: several rows of one pass, the chain rule, and slopes of rows whose law is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from architectures import LENGTH, SERVED, VOCABULARY, build

from helpers import load_model
from helpers.diagnostics import kl_selectivity
from helpers.knob import kl_at_lengths, length_slopes
from helpers.knob.lengths import LengthRows
from helpers.models.forward import attention_rows
from helpers.models.fused import rows_of
from helpers.models.model import LanguageModel

AT = [[LENGTH - 1, 2, 7], [0, 4, 5], [3, 9, 12]]
LENGTHS = (4, 8, 16, 32, 64)


@pytest.fixture(scope="module")
def demo() -> LanguageModel:
    """The demo model."""
    return load_model("demo", device="cpu")


@pytest.fixture(scope="module")
def text() -> torch.Tensor:
    """64 tokens of the demo model's vocabulary, BOS first."""
    return torch.cat([torch.zeros(1, dtype=torch.long), torch.arange(2, 65)])


@pytest.fixture(scope="module")
def found(demo: LanguageModel, text: torch.Tensor) -> LengthRows:
    return kl_at_lengths(demo, text, LENGTHS)


# ---- several queries a prompt


@pytest.mark.parametrize("kind", ["gpt2", "llama", "mistral", "gemma2", "gpt_oss", "jamba"])
def test_several_queries_are_the_rows_of_each(kind: str) -> None:
    """Rows and visible keys of three positions a prompt = three passes with one; other positions in every prompt."""
    model = build(kind, SERVED[kind].shape)
    ids = torch.randint(3, VOCABULARY, (len(AT), LENGTH), generator=torch.Generator().manual_seed(1))
    several = rows_of(model, ids, AT, logits=True)
    for i in range(3):
        one = rows_of(model, ids, [positions[i] for positions in AT], logits=True)
        torch.testing.assert_close(several.rows[:, :, :, i], one.rows, rtol=0, atol=1e-6)
        assert torch.equal(several.visible[:, :, i], one.visible)
        assert torch.equal(several.logits, one.logits)  # type: ignore[arg-type]


def test_several_queries_of_the_wrapper_are_the_same(demo: LanguageModel, text: torch.Tensor) -> None:
    """Where rows come from the wrapper's patterns, because somebody hooked it, they are those of the fused pass."""
    ids, at = text[None].repeat(2, 1), [[3, 63], [10, 20]]
    fused = attention_rows(demo, ids, at)
    hooked = load_model("demo", device="cpu")
    hooked.lens.add_hook("blocks.0.attn.hook_z", lambda z, hook: None)
    wrapped = attention_rows(hooked, ids, at)
    torch.testing.assert_close(wrapped.rows, fused.rows, rtol=0, atol=1e-5)
    assert torch.equal(wrapped.visible, fused.visible)


@pytest.mark.parametrize(
    ("at", "sentence"),
    [
        ([[1, 2], [3]], r"at: expected as many query positions for every prompt, got \[2, 1\]"),
        ([[], []], r"at: expected as many query positions for every prompt, got \[0, 0\]"),
        ([[1, 5], [2, 13]], r"at: expected positions from 0 to 12, got 13"),
    ],
)
def test_queries_that_do_not_fit_are_refused(at: list[list[int]], sentence: str) -> None:
    """One sentence, before anything is computed."""
    with pytest.raises(ValueError, match=sentence):
        rows_of(build("gpt2", SERVED["gpt2"].shape), torch.ones(2, LENGTH, dtype=torch.long), at)


# ---- KL at lengths


def test_kl_is_that_of_the_text_cut_there(found: LengthRows, demo: LanguageModel, text: torch.Tensor) -> None:
    """At every length: KL of the END rows of the first n tokens run alone, n visible keys, and BOS's weight."""
    for i, n in enumerate(LENGTHS):
        rows = attention_rows(demo, text[None, :n], [n - 1]).rows[0]
        np.testing.assert_allclose(found.kl[i], kl_selectivity(rows, normalized=False), atol=1e-5)
        np.testing.assert_allclose(found.weight[i], rows[..., 0], atol=1e-6)
        assert (found.n[i] == n).all()


def test_parts_add_up(found: LengthRows) -> None:
    """Sink + rest = KL to rounding, neither is negative, and the sink's part is KL of (b, 1 - b) from (1/n, 1 - 1/n)."""
    np.testing.assert_allclose(found.sink + found.rest, found.kl, rtol=1e-12)
    assert min(found.sink.min(), found.rest.min()) > -1e-12
    b, n = found.weight, np.array(LENGTHS)[:, None, None]
    np.testing.assert_allclose(found.sink, b * np.log(b * n) + (1 - b) * np.log((1 - b) * n / (n - 1)), atol=1e-6)


def test_windows_leave_no_sink(words: Any) -> None:
    """In a layer that sees five keys n stays 5 and the sink is NaN once BOS is out of sight; the other layer sees all."""
    shape = SERVED["gemma2"].shape | {"vocab_size": len(words), "bos_token_id": 0}
    found = kl_at_lengths(LanguageModel(build("gemma2", shape), words, "gemma2"), torch.arange(13), (4, 8, 13))
    assert found.n.tolist() == [[4, 4], [5, 8], [5, 13]]
    assert np.isnan(found.sink[1:, 0]).all()
    assert np.isfinite(found.sink[:, 1]).all()
    assert (np.isfinite(found.kl).all(), (found.kl[:, 0] <= np.log(5)).all()) == (True, True)


def test_a_learned_sink_is_left_out(words: Any) -> None:
    """Of a model with learned sinks, KL is that of the rows over their sum."""
    shape = SERVED["gpt_oss"].shape | {"vocab_size": len(words), "bos_token_id": 0}
    model = LanguageModel(build("gpt_oss", shape), words, "gpt_oss")
    rows = attention_rows(model, torch.arange(13)[None], [12]).rows[0, 1]
    assert rows.sum(-1).max() < 0.99
    found = kl_at_lengths(model, torch.arange(13), (13,))
    np.testing.assert_allclose(found.kl[0, 1], kl_selectivity(rows / rows.sum(-1, keepdim=True), normalized=False))


@pytest.mark.parametrize("lengths", [(1, 4), (65,), ()])
def test_lengths_that_do_not_fit_are_refused(lengths: tuple[int, ...], demo: LanguageModel, text: torch.Tensor) -> None:
    """One token has nothing to select, and a text has no more tokens than it has."""
    with pytest.raises(ValueError, match="lengths: expected lengths from 2 to the 64 tokens, got"):
        kl_at_lengths(demo, text, lengths)


# ---- slopes

N = (16, 64, 256, 1024)


def kl_of(rows: Any) -> np.ndarray:
    """(stretch, n, layer, head) of one head whose row over n keys is ``rows(n)``, alike in three stretches."""
    kl = [float(kl_selectivity(torch.tensor(rows(n), dtype=torch.float64), normalized=False)) for n in N]
    return np.broadcast_to(np.array(kl)[None, :, None, None], (3, len(N), 1, 1))


@pytest.mark.parametrize(
    ("rows", "slope"),
    [
        (lambda n: np.full(n, 1 / n), 0.0),
        (lambda n: np.r_[np.full(4, 0.25), np.zeros(n - 4)], 1.0),
        (lambda n: np.r_[np.full(n // 4, 4 / n), np.zeros(n - n // 4)], 0.0),
    ],
    ids=["uniform", "four equal weights", "a fixed share of the tokens"],
)
def test_slopes_of_known_rows(rows: Any, slope: float) -> None:
    """Uniform rows and rows over a fixed share have slope 0, k equal weights slope 1, exactly, with no interval and no residual."""
    found = length_slopes(kl_of(rows), N).iloc[0]
    np.testing.assert_allclose([found.slope, found.low, found.high], slope, atol=1e-12)
    assert found.r2 == pytest.approx(1)


@pytest.mark.parametrize("b", [0.3, 0.8])
def test_slope_of_a_sink_over_a_level_rest_is_its_weight(b: float) -> None:
    """Weight b on one token and the rest level: KL -> b log n - H(b), slope b for long texts."""
    found = length_slopes(kl_of(lambda n: np.r_[b, np.full(n - 1, (1 - b) / (n - 1))]), N).iloc[0]
    assert found.slope == pytest.approx(b, abs=0.02)
    assert found.r2 > 0.999


def test_slope_is_least_squares_and_its_interval_is_over_stretches() -> None:
    """Against numpy's polyfit of the mean; a stretch whose slope differs widens the interval about the mean of slopes."""
    rng = np.random.default_rng(0)
    kl = rng.normal(size=(8, len(N), 2, 3)) + np.log(N)[:, None, None] * np.linspace(0, 1, 8)[:, None, None, None]
    found = length_slopes(kl, N)
    line = np.polyfit(np.log(N), kl.mean(0).reshape(len(N), -1), 1)
    np.testing.assert_allclose(found.slope, line[0])
    left = kl.mean(0).reshape(len(N), -1) - (np.outer(np.log(N), line[0]) + line[1])
    np.testing.assert_allclose(found.r2, 1 - left.var(0) / kl.mean(0).reshape(len(N), -1).var(0))
    each = np.polyfit(np.log(N), kl.transpose(1, 0, 2, 3).reshape(len(N), -1), 1)[0].reshape(8, -1)
    half = 1.96 * each.std(0, ddof=1) / np.sqrt(8)
    np.testing.assert_allclose((found.high - found.low) / 2, half, rtol=0.35)
    np.testing.assert_allclose(found["first"], kl[:, 0].mean(0).ravel())


@pytest.mark.parametrize(
    ("kl", "lengths", "sentence"),
    [
        (np.zeros((1, 4, 1, 1)), N, "kl: expected at least 2 stretches"),
        (np.zeros((3, 4, 1, 1)), N[:2], "kl: expected at least 2 stretches at 2 >= 3 lengths"),
        (np.full((3, 4, 1, 1), np.nan), N, "kl: expected finite values, got 12 others"),
    ],
)
def test_bad_arrays_are_refused(kl: np.ndarray, lengths: tuple[int, ...], sentence: str) -> None:
    """Too few stretches or lengths, or NaN: one sentence."""
    with pytest.raises(ValueError, match=sentence):
        length_slopes(kl, lengths)

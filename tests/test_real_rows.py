"""GPT-2 small's own attention: 144 heads on three sentences of six tokens (no BOS), scores and patterns in float32."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax

from helpers.diagnostics.plane import largest_chi
from helpers.diagnostics.rows import kl_selectivity, susceptibility

Array = NDArray[np.float64]


class Sentence(NamedTuple):
    """Scores and attention of one sentence, shape (layer, head, query, key)."""

    scores: Array
    pattern: NDArray[np.float32]


@pytest.fixture(params=["sentence_0", "sentence_1", "sentence_2"])
def sentence(request: pytest.FixtureRequest, shared: Path) -> Sentence:
    with np.load(shared / "gpt2_attention" / f"{request.param}.npz") as data:
        return Sentence(data["scores"].astype(float), data["pattern"])


@pytest.fixture
def n(sentence: Sentence) -> NDArray[np.int64]:
    """Query t sees t + 1 keys."""
    return np.arange(1, sentence.pattern.shape[-1] + 1)


def loop(pattern: Array, what: str) -> Array:
    """KL (nats) or Var_pi(log pi) of every causal row, one row at a time in float64."""
    values = np.empty(pattern.shape[:-1])
    for layer, head, query in np.ndindex(values.shape):
        row = [float(p) for p in pattern[layer, head, query, : query + 1]]
        row = [p / math.fsum(row) for p in row]
        mean = math.fsum(p * math.log(p) for p in row if p > 0)
        variance = math.fsum(p * (math.log(p) - mean) ** 2 for p in row if p > 0)
        values[layer, head, query] = math.log(query + 1) + mean if what == "KL" else variance
    return values


def test_pattern_is_the_softmax_of_the_scores(sentence: Sentence) -> None:
    """pi = softmax(z) over the keys up to the query, and exactly 0 behind it: the data are what they claim to be."""
    assert sentence.pattern.shape[:2] == (12, 12)
    causal = np.tri(sentence.pattern.shape[-1], dtype=bool)
    expected = softmax(np.where(causal, sentence.scores, -np.inf), axis=-1)
    np.testing.assert_allclose(sentence.pattern, expected, atol=1e-6)
    assert (sentence.pattern[..., ~causal] == 0).all()


def test_kl_agrees_with_a_loop(sentence: Sentence, n: NDArray[np.int64]) -> None:
    """KL of all causal rows at once, with n per row, equals a plain float64 loop to 1e-6 nats."""
    np.testing.assert_allclose(
        kl_selectivity(sentence.pattern, n=n, normalized=False), loop(sentence.pattern, "KL"), atol=1e-6
    )


def test_chi_agrees_with_a_loop(sentence: Sentence, n: NDArray[np.int64]) -> None:
    """chi of all causal rows at once, with n per row, equals a plain float64 loop to 1e-6 nats^2."""
    np.testing.assert_allclose(
        susceptibility(sentence.pattern, n=n, normalized=False), loop(sentence.pattern, "chi"), atol=1e-6
    )


def test_chi_is_the_variance_of_the_model_scores(sentence: Sentence, n: NDArray[np.int64]) -> None:
    """Var_pi(log pi) = Var_pi(z) with the model's own z; 1e-4 nats^2 for patterns rounded to float32."""
    pi = sentence.pattern / sentence.pattern.sum(-1, keepdims=True, dtype=float)
    seen = np.where(np.tri(len(n), dtype=bool), sentence.scores, 0.0)
    mean = (pi * seen).sum(-1, keepdims=True)
    variance = (pi * (seen - mean) ** 2).sum(-1)
    np.testing.assert_allclose(susceptibility(sentence.pattern, n=n, normalized=False), variance, atol=1e-4)


def test_mask_and_n_agree(sentence: Sentence, n: NDArray[np.int64]) -> None:
    """The causal mask and n = t + 1 say the same."""
    causal = np.tri(len(n), dtype=bool)
    for statistic in (kl_selectivity, susceptibility):
        by_mask = statistic(sentence.pattern[..., 1:, :], mask=causal[1:])
        np.testing.assert_allclose(by_mask, statistic(sentence.pattern[..., 1:, :], n=n[1:]), rtol=1e-14)


def test_first_token_sees_only_itself(sentence: Sentence) -> None:
    """Query 0 has n = 1: KL is 0 nats; taken over all six keys by mistake it would be log 6."""
    first = sentence.pattern[:, :, 0]
    assert (kl_selectivity(first, n=1, normalized=False) == 0).all()
    np.testing.assert_allclose(kl_selectivity(first, normalized=False), math.log(6), atol=1e-6)


def test_real_heads_lie_in_the_attainable_region(sentence: Sentence) -> None:
    """The 144 last rows (n = 6) have 0 <= KL <= 1 and 0 <= chi <= largest_chi(KL), to float64 rounding."""
    last = sentence.pattern[:, :, -1]
    for kl, chi in zip(kl_selectivity(last).flatten().tolist(), susceptibility(last).flatten().tolist(), strict=True):
        assert 0 <= kl <= 1
        assert 0 <= chi <= largest_chi(kl, 6) + 1e-9

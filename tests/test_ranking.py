"""Ranking heads against a circuit: U, AUROC, the layer baseline, within-layer permutation tests, published figures."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from helpers.reference import published
from helpers.reference.circuits import IOI_POST
from helpers.statistics.ranking import (
    adjust_for_depth,
    auroc,
    auroc_gain,
    chance_within_layers,
    rank_each,
    rank_heads,
    within_layer_auroc,
)

LAYER = np.repeat(np.arange(12), 12)
POST = np.array([divmod(i, 12) in IOI_POST.heads for i in range(144)])


def heads(n_layers: int = 5, n_heads: int = 4, n_circuit: int = 6, *, seed: int = 0) -> tuple[Any, Any, Any]:
    """Scores, labels and layers of a made-up model; scores are independent of the labels."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n_layers * n_heads) < n_circuit)
    return rng.normal(size=n_layers * n_heads), labels, np.repeat(np.arange(n_layers), n_heads)


@st.composite
def labelled(draw: Any) -> tuple[Any, Any, Any]:
    """Scores with many ties, labels with both kinds at least twice, layers in any order."""
    n = draw(st.integers(4, 30))
    score = draw(st.lists(st.integers(0, 5), min_size=n, max_size=n))
    labels = draw(st.permutations([True] * 2 + [False] * 2 + [draw(st.booleans()) for _ in range(n - 4)]))
    layer = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    return np.array(score, dtype=float), np.array(labels), np.array(layer)


def brute_force(score: Any, labels: Any, layer: Any = None) -> float:
    """Share of pairs (circuit, other), of one layer if given, that the circuit head wins; ties count half."""
    wins = [
        (score[i] > score[j]) + (score[i] == score[j]) / 2
        for i, j in itertools.product(np.flatnonzero(labels), np.flatnonzero(~labels))
        if layer is None or layer[i] == layer[j]
    ]
    return sum(wins) / len(wins) if wins else float("nan")


# AUROC and U


@given(labelled())
def test_auroc(data: tuple[Any, Any, Any]) -> None:
    """AUROC = sklearn's, = the share of won pairs, = U / pairs, ties included; -score gives 1 - AUROC."""
    score, labels, _ = data
    value = auroc(score, labels)
    assert value == pytest.approx(roc_auc_score(labels, score))
    assert value == pytest.approx(brute_force(score, labels))
    u = stats.mannwhitneyu(score[labels], score[~labels]).statistic
    assert value == pytest.approx(u / (labels.sum() * (~labels).sum()))
    assert auroc(-score, labels) == pytest.approx(1 - value)


def test_u_and_p_are_one_sided_mann_whitney() -> None:
    """u and p = scipy's one-sided test, circuit > others; means and population sds of both groups."""
    score, labels, layer = heads()
    r = rank_heads(score, labels, layer, n_permutations=10, n_resamples=10)
    expected = stats.mannwhitneyu(score[labels], score[~labels], alternative="greater", method="asymptotic")
    assert (r.u, r.p) == pytest.approx((expected.statistic, expected.pvalue))
    assert (r.n_circuit, r.n_other) == (6, 14)
    assert r.auroc == pytest.approx(r.u / (6 * 14))
    assert (r.mean_circuit, r.sd_circuit) == pytest.approx((np.mean(score[labels]), np.std(score[labels])))
    assert (r.mean_other, r.sd_other) == pytest.approx((np.mean(score[~labels]), np.std(score[~labels])))
    assert r.layer_auroc == pytest.approx(brute_force(layer, labels))


def test_every_field_is_a_plain_number() -> None:
    """Results go into JSON as they are."""
    import json
    from dataclasses import asdict

    assert json.loads(json.dumps(asdict(rank_heads(*heads(), n_permutations=10, n_resamples=10))))


def test_perfect_and_reversed_rankings() -> None:
    """Circuit heads above all others: AUROC 1 with interval [1, 1], U = all pairs; below all others: 0."""
    _, labels, layer = heads()
    best, worst = (rank_heads(s, labels, layer, n_permutations=99) for s in (labels * 1.0, labels * -1.0))
    assert (best.auroc, best.low, best.high, best.u, best.within_auroc) == pytest.approx((1, 1, 1, 6 * 14, 1))
    assert (worst.auroc, worst.low, worst.high, worst.u, worst.within_auroc) == (0, 0, 0, 0, 0)
    assert max(best.auroc, best.low, best.high) <= 1 + 1e-12
    assert best.p < 1e-3
    assert worst.p > 0.999


def test_many_scores_are_ranked_as_each_alone() -> None:
    """The draws are shared and nothing else: every number of every score is that of `rank_heads`, whatever is beside it."""
    _, labels, layer = heads()
    scores = [heads(seed=1)[0], layer * 1.0, np.zeros(20), heads(seed=2)[0].round()]
    options = {"n_permutations": 200, "n_resamples": 100, "level": 0.8, "seed": 3}
    assert rank_each(scores, labels, layer, **options) == [rank_heads(s, labels, layer, **options) for s in scores]
    assert rank_each([], labels, layer) == []
    with pytest.raises(ValueError, match="score: expected finite values, got 4 others"):
        rank_each([scores[0], np.where(layer == 0, np.nan, 0)], labels, layer)


# Within layers


@given(labelled())
def test_within_layer_auroc_is_the_share_of_won_pairs_of_one_layer(data: tuple[Any, Any, Any]) -> None:
    """Brute force over pairs that share a layer, heads in any order; NaN if no layer has both kinds."""
    score, labels, layer = data
    value, p = within_layer_auroc(score, labels, layer, n_permutations=20)
    assert value == pytest.approx(brute_force(score, labels, layer), nan_ok=True)
    assert np.isnan(p) == np.isnan(value)
    if not np.isnan(p):
        assert 1 / 21 <= p <= 1


def test_layer_index_has_nothing_within_layers() -> None:
    """A score that is a function of the layer: within-layer AUROC exactly 0.5 and p = 1, whatever its AUROC."""
    for score in (LAYER, LAYER**2 - 3 * LAYER):
        r = rank_heads(score, POST, LAYER, n_permutations=200, n_resamples=50)
        assert (r.within_auroc, r.within_p) == (0.5, 1.0)
    assert rank_heads(LAYER, POST, LAYER, n_permutations=10).auroc > 0.7


def test_adding_a_layer_effect_changes_nothing_within_layers() -> None:
    """score + f(layer) has the within-layer AUROC and p of score."""
    score, labels, layer = heads()
    plain = within_layer_auroc(score, labels, layer, n_permutations=500)
    assert within_layer_auroc(score + 100 * np.sin(layer), labels, layer, n_permutations=500) == plain


def test_permutation_p_equals_the_exact_one() -> None:
    """Two layers of 4 heads, 2 circuit heads each: all 6 x 6 label assignments, enumerated, against 20,000 draws."""
    score = np.array([3.0, 1.0, 2.0, 0.0, 5.0, 5.0, 4.0, 7.0])
    labels = np.array([True, False, True, False, False, True, False, True])
    layer = np.repeat([0, 1], 4)
    pairs = list(itertools.combinations(range(4), 2))

    def total(first: tuple[int, ...], second: tuple[int, ...]) -> float:
        chosen = np.zeros(8, dtype=bool)
        chosen[[*first, *(4 + i for i in second)]] = True
        return brute_force(score, chosen, layer)

    null = [total(first, second) for first in pairs for second in pairs]
    value, p = within_layer_auroc(score, labels, layer)
    assert value == pytest.approx(brute_force(score, labels, layer))
    exact = np.mean([v >= value - 1e-12 for v in null])
    assert p == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 20_000) + 1e-4)


def test_smallest_p() -> None:
    """p is never 0: with B permutations none of which reaches the observed value it is 1 / (1 + B)."""
    score = np.tile(np.arange(12.0), 12)
    labels = score >= 10
    assert within_layer_auroc(score, labels, LAYER, n_permutations=99) == (1.0, pytest.approx(0.01))


def test_permutation_p_is_uniform_under_the_null() -> None:
    """300 data sets whose labels know nothing of the score, though both depend on the layer: p is uniform (KS p > 1e-3).

    The plain Mann-Whitney p of the same data sets is far from uniform: depth alone makes it small.
    """
    rng = np.random.default_rng(0)
    layer = np.repeat(np.arange(6), 8)
    within, plain = [], []
    for _ in range(300):
        labels = rng.random(48) < np.linspace(0.05, 0.6, 6)[layer]
        score = rng.normal(size=48) + layer
        if not 2 <= labels.sum() <= 46:
            continue
        within.append(within_layer_auroc(score, labels, layer, n_permutations=199, rng=rng)[1])
        plain.append(stats.mannwhitneyu(score[labels], score[~labels], alternative="greater").pvalue)
    assert stats.kstest(within, "uniform").pvalue > 1e-3
    assert 0.02 < np.mean(np.array(within) <= 0.05) < 0.09
    assert np.mean(np.array(plain) <= 0.05) > 0.5


# Intervals


def test_interval_agrees_with_a_bootstrap_by_hand() -> None:
    """Percentiles of AUROC with circuit heads and others resampled separately, to simulation error."""
    score, labels, layer = heads(8, 8, 20, seed=2)
    score = score + labels
    r = rank_heads(score, labels, layer, n_permutations=10, n_resamples=4000)
    rng = np.random.default_rng(7)
    circuit, other = score[labels], score[~labels]
    values = []
    for _ in range(4000):
        a, b = rng.choice(circuit, len(circuit)), rng.choice(other, len(other))
        values.append(np.mean(a[:, None] > b) + np.mean(a[:, None] == b) / 2)
    np.testing.assert_allclose([r.low, r.high], np.quantile(values, [0.025, 0.975]), atol=0.015)
    assert r.low < r.auroc < r.high


def test_interval_narrows_with_level_and_is_reproducible() -> None:
    """A 50 % interval lies inside the 95 % one; the same seed gives the same numbers, another gives others."""
    data = heads(8, 8, 20)
    wide, narrow = (rank_heads(*data, level=level, n_permutations=50) for level in (0.95, 0.5))
    assert wide.low < narrow.low < narrow.high < wide.high
    assert wide == rank_heads(*data, n_permutations=50)
    assert wide.low != rank_heads(*data, n_permutations=50, seed=1).low


def test_plain_lists() -> None:
    """Whole numbers for scores, 0 and 1 for labels, lists for arrays: the same ranking, AUROC, gain and adjusted scores."""
    score, labels, layer = [3, 1, 2, 2, 5, 0], [1, 0, 1, 0, 0, 1], [0, 0, 0, 1, 1, 1]
    arrays = np.array(score, dtype=float), np.array(labels, dtype=bool), np.array(layer)
    assert rank_heads(score, labels, layer) == rank_heads(*arrays)
    assert auroc(score, labels) == auroc(*arrays[:2]) == brute_force(*arrays[:2])
    assert within_layer_auroc(score, labels, layer) == within_layer_auroc(*arrays)
    assert auroc_gain(score, layer, labels) == auroc_gain(arrays[0], arrays[2], arrays[1])
    np.testing.assert_array_equal(adjust_for_depth(score, layer), adjust_for_depth(arrays[0], arrays[2]))


def test_one_seed_for_resamples_and_permutations() -> None:
    """Another seed gives other permutations of the labels as well: p within layers is another."""
    data = heads(8, 8, 20)
    p = [rank_heads(*data, n_permutations=500, n_resamples=10, seed=seed).within_p for seed in range(5)]
    assert len(set(p)) > 1
    assert p[3] == rank_heads(*data, n_permutations=500, n_resamples=10, seed=3).within_p


# Published figures


@pytest.fixture(scope="module")
def out_magnitude(shared: Path) -> Any:
    """|mean shift| of the 144 heads' output magnitude between 1000 IOI and 1000 non-IOI prompts (the author's data)."""
    data = np.load(shared / "reference" / "fields_outmag.npz")
    return np.abs(data["ioi"].astype(float).mean(0) - data["non_ioi"].astype(float).mean(0))


def test_out_magnitude(out_magnitude: Any) -> None:
    """The author's U = 2168, p = 1.16e-5, AUROC 0.779, ratio of means 30.5; within layers 0.746, p = 2.0e-4."""
    r = rank_heads(out_magnitude, POST, LAYER)
    assert r.u == 2168
    assert r.p == pytest.approx(1.16e-5, abs=5e-8)
    assert r.auroc == pytest.approx(0.779, abs=5e-4)
    assert r.mean_circuit / r.mean_other == pytest.approx(30.5, abs=0.05)
    assert r.within_auroc == pytest.approx(published.OUT_MAGNITUDE.within, abs=5e-4)
    assert 5e-5 < r.within_p < 5e-4
    assert r.layer_auroc == pytest.approx(0.726, abs=5e-4)
    assert r.low < 0.779 < r.high


@pytest.mark.parametrize(
    ("column", "value", "within", "p"), [("act_output", 0.916, 0.910, 1.3e-10), ("attr_output", 0.902, 0.886, 5.2e-10)]
)
def test_published_patching(column: str, value: float, within: float, p: float) -> None:
    """Activation and attribution patching of TransformerLens's demo, by |effect|; no permutation beats them."""
    r = rank_heads(published.head_patching()[column].abs(), POST, LAYER)
    assert (r.auroc, r.within_auroc) == pytest.approx((value, within), abs=5e-4)
    assert r.p == pytest.approx(p, rel=0.05)
    assert r.within_p == pytest.approx(5e-5, rel=0.01)


def test_layer_index_alone() -> None:
    """Layer numbers rank the post's 23 heads with AUROC 0.726, p = 2.9e-4, and no model at all."""
    r = rank_heads(LAYER, POST, LAYER, n_permutations=10)
    assert r.auroc == r.layer_auroc == published.layer_auroc() == pytest.approx(0.726, abs=5e-4)
    assert r.p == pytest.approx(2.9e-4, abs=5e-6)


@pytest.mark.parametrize(("row", "u", "value"), [(0, 2049, 0.736), (1, 2219, 0.797)])
def test_published_u_is_that_auroc(row: int, u: int, value: float) -> None:
    """U / (23 x 121), and p of that U by the normal approximation without ties, to the printed digits."""
    test = published.TESTS.iloc[row]
    assert (test.u, test.auroc) == (u, pytest.approx(value, abs=5e-4))
    mean, sd = 23 * 121 / 2, np.sqrt(23 * 121 * 145 / 12)
    assert stats.norm.sf((u - 0.5 - mean) / sd) == pytest.approx(test.p, rel=0.1)


def test_published_means_and_sds() -> None:
    """Mean and population sd of the published |shifts| of the 23 heads are the printed ones, to their last digit."""
    for test, column in zip(published.TESTS.itertuples(), ("d_kl", "d_chi"), strict=True):
        size = published.circuit_heads()[column].abs().to_numpy()
        labels = np.arange(25) < 23
        r = rank_heads([*size, 0.0, 0.0], labels, np.zeros(25), n_permutations=1, n_resamples=1)
        assert (r.mean_circuit, r.sd_circuit) == pytest.approx((test.mean_circuit, test.sd_circuit), abs=1e-4)


# Refusals


BAD: dict[str, tuple[Callable[..., tuple[Any, Any, Any]], str]] = {
    "lengths": (lambda s, c, la: (s[:-1], c, la), r"score, in_circuit, layer: expected one value a head each, got shapes \(19,\), \(20,\), \(20,\)"),
    "layers": (lambda s, c, la: (s, c, la[:3]), r"got shapes \(20,\), \(20,\), \(3,\)"),
    "matrix": (lambda s, c, la: (s.reshape(5, 4), c.reshape(5, 4), la.reshape(5, 4)), "expected one value a head each"),
    "NaN": (lambda s, c, la: (np.where(s > 1, np.nan, s), c, la), r"score: expected finite values, got \d+ others"),
    "no circuit": (lambda s, c, la: (s, c & False, la), "in_circuit: expected at least 2 heads on each side, got 0 of 20"),
    "one head": (lambda s, c, la: (s, np.arange(20) == 3, la), "in_circuit: expected at least 2 heads on each side, got 1 of 20"),
    "all heads": (lambda s, c, la: (s, c | True, la), "in_circuit: expected at least 2 heads on each side, got 20 of 20"),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "words"), BAD.values(), ids=BAD)
def test_refuses(spoil: Any, words: str) -> None:
    """Unusable input is refused by one sentence that names the argument."""
    with pytest.raises(ValueError, match=words):
        rank_heads(*spoil(*heads()))


# Gain and depth


def test_gain_is_a_difference_of_aurocs() -> None:
    """gain = AUROC(score) - AUROC(baseline); 0 with interval [0, 0] against itself; changes sign when swapped."""
    rng = np.random.default_rng(5)
    labels = np.arange(60) < 15
    one, two = labels + rng.normal(size=60), rng.normal(size=60)
    gain, low, high = auroc_gain(one, two, labels)
    assert gain == pytest.approx(auroc(one, labels) - auroc(two, labels))
    assert low < gain < high
    assert auroc_gain(one, one, labels) == (0, 0, 0)
    assert auroc_gain(two, one, labels) == pytest.approx((-gain, -high, -low))


def test_gain_uses_what_scores_share() -> None:
    """Two scores that share most of their noise: the interval is narrower than that of either AUROC."""
    rng = np.random.default_rng(6)
    labels = np.arange(80) < 20
    shared = labels + rng.normal(size=80)
    _, low, high = auroc_gain(shared + 0.05 * rng.normal(size=80), shared, labels)
    alone = rank_heads(shared, labels, np.zeros(80), n_permutations=9)
    assert high - low < 0.5 * (alone.high - alone.low)


def test_adjusting_for_depth_is_least_squares() -> None:
    """Residuals sum to 0, are uncorrelated with the layer, equal numpy's, and do not change with an added line."""
    rng = np.random.default_rng(7)
    score, layer = rng.normal(size=48), np.repeat(np.arange(6), 8)
    adjusted = adjust_for_depth(score, layer)
    np.testing.assert_allclose(adjusted, score - np.polyval(np.polyfit(layer, score, 1), layer), atol=1e-12)
    assert adjusted.sum() == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(adjust_for_depth(score + 3 - 0.7 * layer, layer), adjusted, atol=1e-12)


def test_published_rankings() -> None:
    """The table that notebook 05 shows: quoted and computed values of science and of the author's data agree."""
    table = published.rankings()
    assert table.auroc.to_dict() == pytest.approx(
        {"layer index": 0.726, "|dKL| at END": 0.736, "|dchi| at END": 0.797, "|d output magnitude| at END": 0.779,
         "|d Var_v| at END": 0.767, "|d log Var_v| at END": 0.838, "attribution patching": 0.902, "activation patching": 0.916}
    )  # fmt: skip
    assert table.within["|dKL| at END":"|dchi| at END"].isna().all()
    assert table.within["activation patching"] == 0.91


# Had other heads been in the circuit


def test_chance_is_the_share_of_all_labellings():
    """Two layers, one and two of four heads in the circuit: p of each of the 24 labellings, counted; shuffles meet all of them."""
    score = np.array([3.0, 1.0, 2.0, 2.0, 0.5, 4.0, 1.0, 3.0])
    layer = np.repeat([0, 1], 4)
    labels = np.array([1, 0, 0, 0, 1, 1, 0, 0], dtype=bool)
    every = [
        within_layer_auroc(score, np.isin(range(8), [a, 4 + b, 4 + c]), layer, n_permutations=0)[0]
        for a in range(4) for b, c in itertools.combinations(range(4), 2)
    ]  # fmt: skip
    exact = {np.mean(np.array(every) >= value - 1e-9) for value in every}
    found = chance_within_layers([score], labels, layer, n_permutations=20_000)
    assert found.shape == (20_000, 1)
    values = np.unique(found)
    assert len(values) == len(exact)
    np.testing.assert_allclose(values, sorted(exact), atol=0.012)
    assert (found < 0.05).mean() <= 0.05


def test_chance_is_of_all_scores_together():
    """Equal scores pass together, a reversed one when they fail; layers with one kind of head alone give no p."""
    rng = np.random.default_rng(0)
    score, labels, layer = rng.normal(size=40), rng.random(40) < 0.3, np.repeat(range(5), 8)
    p = chance_within_layers([score, 2 * score + 1, -score], labels, layer, n_permutations=400)
    np.testing.assert_array_equal(p[:, 0], p[:, 1])
    assert np.corrcoef(p[:, 0], p[:, 2])[0, 1] < -0.99
    assert p.mean(0) == pytest.approx([0.5] * 3, abs=0.03)  # a little above: ties count against a shuffle
    assert np.isnan(chance_within_layers([score], layer == 2, layer, n_permutations=3)).all()


def test_chance_refuses_no_scores():
    with pytest.raises(ValueError, match="scores: expected at least one, got none"):
        chance_within_layers([], [True, False], [0, 0])

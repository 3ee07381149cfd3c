"""Direct coupling: partial correlations against textbook cases and other ways to compute them, and edge rankings."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import average_precision_score, roc_auc_score

from helpers.statistics import direct
from helpers.statistics.coupling import correlation_matrix
from helpers.statistics.direct import (
    PENALTIES,
    average_precision_interval,
    edge_table,
    partial_correlations,
    rank_edges,
)

Matrix = NDArray[np.float64]
METHODS = ["graphical lasso", "ledoit-wolf"]


def chain(n: int = 2000, seed: int = 0) -> Matrix:
    """a drives b and b drives c: three heads of one layer."""
    a, *noise = np.random.default_rng(seed).normal(size=(3, n))
    b = a + 0.7 * noise[0]
    return np.stack([a, b, b + 0.7 * noise[1]], axis=1)[:, None]


def mixed(n: int = 20_000, heads: int = 6, seed: int = 0) -> Matrix:
    """Correlated Gaussians: 2 layers, each head a random mixture of independent sources."""
    rng = np.random.default_rng(seed)
    mixing = np.eye(heads) + 0.4 * rng.normal(size=(heads, heads))
    return (rng.normal(size=(n, heads)) @ mixing).reshape(n, 2, -1)


def noise(n: int = 50, heads: tuple[int, int] = (3, 4), seed: int = 0) -> Matrix:
    """Independent heads."""
    return np.random.default_rng(seed).normal(size=(n, *heads))


def by_inversion(values: Matrix) -> Matrix:
    """r_ij = -P_ij / sqrt(P_ii P_jj), P the inverse of the empirical covariance."""
    precision = np.linalg.inv(np.cov(values.reshape(len(values), -1).T))
    partial = -precision / np.sqrt(np.outer(np.diag(precision), np.diag(precision)))
    np.fill_diagonal(partial, 1)
    return partial


def by_regression(values: Matrix, i: int, j: int) -> float:
    """Correlation of what is left of heads i and j after least squares on all other heads."""
    flat = values.reshape(len(values), -1)
    others = np.column_stack([np.ones(len(flat)), np.delete(flat, [i, j], axis=1)])
    left = [flat[:, k] - others @ np.linalg.lstsq(others, flat[:, k], rcond=None)[0] for k in (i, j)]
    return float(np.corrcoef(*left)[0, 1])


# Partial correlations


@pytest.mark.parametrize("method", METHODS)
def test_a_chain_has_no_direct_link_between_its_ends(method: Any) -> None:
    """a -> b -> c: a and c correlate by over 0.6, and by 0 given b; the links a - b and b - c stay."""
    values = chain()
    partial = partial_correlations(values, method=method)
    assert correlation_matrix(values[:, 0])[0, 2] > 0.6
    assert abs(partial[0, 2]) < 0.06
    assert min(partial[0, 1], partial[1, 2]) > 0.4


@pytest.mark.parametrize("method", METHODS)
def test_a_common_effect_sets_its_causes_against_each_other(method: Any) -> None:
    """a and b independent, c = a + b + noise: given c, a and b correlate negatively (explaining away)."""
    a, b, c = np.random.default_rng(0).normal(size=(3, 2000))
    partial = partial_correlations(np.stack([a, b, a + b + 0.5 * c], axis=1)[:, None], method=method)
    assert partial[0, 1] < -0.4
    assert partial[0, 2] > 0.5


def test_many_prompts_need_no_regularisation() -> None:
    """n >> heads: Ledoit-Wolf shrinks next to nothing, and its entries are those of the inverted covariance."""
    values = mixed()
    expected = by_inversion(values)
    assert np.abs(expected[np.triu_indices(6, 1)]).max() > 0.5
    np.testing.assert_allclose(partial_correlations(values, method="ledoit-wolf"), expected, atol=0.01)


@pytest.mark.parametrize(("method", "atol"), [("ledoit-wolf", 0.01), ("graphical lasso", 0.1)])
def test_what_two_regressions_leave(method: Any, atol: float) -> None:
    """r_ij = correlation of the residuals of i and j after regressing both on all others; the lasso shrinks it a little."""
    values = mixed()
    partial = partial_correlations(values, method=method)
    for i, j in zip(*np.triu_indices(6, 1), strict=True):
        assert partial[i, j] == pytest.approx(by_regression(values, i, j), abs=atol)


@pytest.mark.parametrize("method", METHODS)
def test_matrix(method: Any) -> None:
    """Symmetric, 1 on the diagonal, within [-1, 1], for fewer prompts than heads as well."""
    for values in (noise(), noise(20, (3, 8))):
        partial = partial_correlations(values, method=method)
        np.testing.assert_allclose(partial, partial.T, atol=1e-9)
        assert np.array_equal(np.diag(partial), np.ones(len(partial)))
        assert np.abs(partial).max() <= 1


@pytest.mark.parametrize("method", METHODS)
def test_units_do_not_matter(method: Any) -> None:
    """Heads moved and scaled, each by its own amount: the same matrix; a sign turns its row and column."""
    values = chain(200)
    scale, place = np.array([1e-4, 3.0, -200.0]), np.array([0.5, -7.0, 1e3])
    moved = partial_correlations(values * scale + place, method=method)
    signs = np.outer(np.sign(scale), np.sign(scale))
    np.testing.assert_allclose(moved, signs * partial_correlations(values, method=method), atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_constant_heads_are_nan(method: Any) -> None:
    """A head that does not vary (or by 1e-8) has NaN in its row and column; the others are what they are without it."""
    values = noise(40, (2, 3))
    values[:, 0, 1], values[:, 1, 1] = 0.3, 0.7 + 1e-8 * values[:, 0, 0]
    partial = partial_correlations(values, method=method)
    kept = [0, 2, 3, 5]
    assert np.isnan(partial[[1, 4]]).all()
    assert np.isnan(partial[:, [1, 4]]).all()
    alone = partial_correlations(values.reshape(40, 1, 6)[:, :, kept], method=method)
    np.testing.assert_allclose(partial[np.ix_(kept, kept)], alone, atol=1e-9)


# The graphical lasso


@pytest.mark.parametrize("penalty", [0.05, 0.2, 0.5])
def test_solution_meets_its_conditions(penalty: float) -> None:
    """W = inv(P): W_ii = S_ii + a; W_ij = S_ij + a sign(P_ij) where P_ij is not 0, and |W_ij - S_ij| <= a where it is."""
    values = mixed(30).reshape(30, 6)
    precision = direct._penalised_precision(values, penalty)
    scatter, covariance = np.cov(values.T, bias=True), np.linalg.inv(precision)
    gap, apart = covariance - scatter, ~np.eye(6, dtype=bool)
    np.testing.assert_allclose(np.diag(gap), penalty, atol=2e-3)
    zero, linked = precision == 0, apart & (precision != 0)
    assert zero.any()
    assert linked.any()
    np.testing.assert_allclose(gap[linked], penalty * np.sign(precision[linked]), atol=2e-3)
    assert (np.abs(gap[zero]) <= penalty + 2e-3).all()


def test_held_out_likelihood_is_that_of_the_gaussian() -> None:
    """Mean over 5 folds of the mean log density of a fold under N(mean, inv(P)) of the other prompts, by scipy."""
    values = mixed(40).reshape(40, 6)
    scores = []
    for fold in np.split(np.arange(40), 5):
        others = np.delete(values, fold, axis=0)
        covariance = np.linalg.inv(direct._penalised_precision(others, 0.1))
        scores.append(stats.multivariate_normal(others.mean(0), covariance).logpdf(values[fold]).mean())
    assert direct._held_out_likelihood(values, 0.1) == pytest.approx(np.mean(scores), rel=1e-6)


def test_the_likeliest_penalty_is_chosen() -> None:
    """The solution is the one for the penalty whose held-out likelihood is largest, which lies within the grid."""
    values = noise(40, (1, 6)).reshape(40, 6)
    values[:, 1] += values[:, 0]
    scores = [direct._held_out_likelihood(values, penalty) for penalty in PENALTIES]
    best = int(np.argmax(scores))
    assert 0 < best < len(PENALTIES) - 1
    expected = direct._penalised_precision(values, PENALTIES[best])
    np.testing.assert_allclose(direct._sparse_precision(values), expected, rtol=1e-12)


def test_independent_heads_are_not_linked() -> None:
    """50 prompts of 24 independent heads: raw partial correlations are large, the lasso keeps hardly a link and none above 0.2."""
    values = noise(50, (3, 8))
    links = partial_correlations(values)[np.triu_indices(24, 1)]
    assert np.abs(by_inversion(values)[np.triu_indices(24, 1)]).max() > 0.5
    assert (links != 0).mean() < 0.25
    assert np.abs(links).max() < 0.2


def test_penalties_where_the_solver_fails_are_no_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """The solver diverges, or warns, at all penalties but the fourth: it is taken. At all of them: a plain sentence."""
    solve, usable, taken = direct._penalised_precision, [PENALTIES[3]], []

    def fragile(values: Matrix, penalty: float) -> Matrix:
        if penalty not in usable and penalty > 0.1:
            raise FloatingPointError("too ill-conditioned")
        if penalty not in usable:
            warnings.warn("did not converge", ConvergenceWarning, stacklevel=1)
        taken.append(penalty)
        return solve(values, penalty)

    monkeypatch.setattr(direct, "_penalised_precision", fragile)
    partial_correlations(chain(50))
    assert taken == [PENALTIES[3]] * 6
    usable.clear()
    with pytest.raises(ValueError, match="the graphical lasso does not converge on them; try method='ledoit-wolf'"):
        partial_correlations(chain(50))


def test_warnings_of_the_search_stay_in_it() -> None:
    """48 heads that are all but one and the same: the solver fails at small penalties, and no warning gets out."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(40, 1, 1)) + 0.05 * rng.normal(size=(40, 4, 12))
    partial = partial_correlations(values)
    assert 0 < np.abs(partial[np.triu_indices(48, 1)]).max() < 0.2


@pytest.mark.slow
def test_real_heads() -> None:
    """KL of the demo model's 48 heads over 50 prompts: no warning, a sparse matrix, and its strongest links are correlations."""
    from helpers import diagnose, ioi_prompts, load_model, record_attention

    record = record_attention(load_model("demo", device="cpu"), ioi_prompts(50), progress=False)
    values = diagnose(record).kl
    upper = np.triu_indices(48, 1)
    lasso, shrunk = (
        partial_correlations(values, method=method)[upper] for method in ("graphical lasso", "ledoit-wolf")
    )  # type: ignore[arg-type]
    assert 0.2 < (lasso == 0).mean() < 0.8
    assert np.corrcoef(lasso, shrunk)[0, 1] > 0.8
    strongest = np.abs(lasso).argmax()
    assert abs(correlation_matrix(values.reshape(50, -1))[upper][strongest]) > 0.5


@pytest.mark.parametrize(
    ("values", "method", "words"),
    [
        (noise(9), "ledoit-wolf", r"values: expected at least 10 prompts, .*got shape \(9, 3, 4\)"),
        (noise()[:, 0], "ledoit-wolf", r"values: .*\(prompt, layer, head\), got shape \(50, 4\)"),
        (noise()[:, :1, :1], "ledoit-wolf", "values: expected at least 2 heads that vary, got 1"),
        (noise() * 0 + 0.3, "graphical lasso", "values: expected at least 2 heads that vary, got 0"),
        (noise(), "inverse", "method: expected one of graphical lasso, ledoit-wolf, got 'inverse'"),
    ],
)
def test_refuses(values: Matrix, method: Any, words: str) -> None:
    """Too few prompts or heads, another shape, an unknown method."""
    with pytest.raises(ValueError, match=words):
        partial_correlations(values, method=method)


# Edges


def test_edges_join_different_layers() -> None:
    """6 layers x 8 heads: 15 x 64 pairs, the earlier layer first, each once."""
    table = edge_table({}, 6, 8)
    assert len(table) == 15 * 64
    assert (table.layer_1 < table.layer_2).all()
    assert not table.duplicated().any()
    assert set(table.head_1) == set(table.head_2) == set(range(8))


def test_edges_hold_sizes_of_entries() -> None:
    """2 x 2 heads have four edges; each has |entry| of its pair in every matrix, NaN as 0."""
    matrix = np.arange(16.0).reshape(4, 4)
    matrix[0, 3] = np.nan
    table = edge_table({"c": matrix, "direct": -matrix.T}, 2, 2)
    assert table[["layer_1", "head_1", "layer_2", "head_2"]].to_numpy().tolist() == [
        [0, 0, 1, 0], [0, 0, 1, 1], [0, 1, 1, 0], [0, 1, 1, 1],
    ]  # fmt: skip
    assert table.c.tolist() == [2, 0, 6, 7]
    assert table.direct.tolist() == [8, 12, 9, 13]


# Average precision


def test_average_precision_by_hand() -> None:
    """True items at ranks 1 and 3: (1/1 + 2/3) / 2; the sign of the score matters."""
    truth = np.array([True, False, True, False])
    value, low, high = average_precision_interval(np.array([4.0, 3, 2, 1]), truth, n_resamples=200)
    assert value == pytest.approx((1 + 2 / 3) / 2)
    assert 0 <= low <= value <= high <= 1
    value, *_ = average_precision_interval(np.array([1.0, 2, 3, 4]), truth, n_resamples=1)
    assert value == pytest.approx((1 / 2 + 2 / 4) / 2)


def test_perfect_and_random_orders() -> None:
    """All true items first: 1 in every resample. A random or constant score: the base rate, here 0.2, in the interval."""
    rng = np.random.default_rng(0)
    truth = rng.permutation(np.repeat([True, False], [200, 800]))
    perfect = average_precision_interval(truth + 0.1 * rng.random(1000), truth, n_resamples=100)
    assert perfect == pytest.approx((1, 1, 1))
    value, low, high = average_precision_interval(rng.random(1000), truth, n_resamples=200)
    assert value == pytest.approx(0.2, abs=0.03)
    assert low < 0.2 < high
    assert average_precision_interval(np.ones(1000), truth, n_resamples=10)[0] == pytest.approx(0.2)


def test_interval_narrows_with_items_and_widens_with_level() -> None:
    """Width falls by about sqrt(16) from 100 to 1600 items; 99 % is wider than 50 %; one seed, one interval."""

    def width(n: int, **kwargs: Any) -> float:
        truth = np.arange(n) % 4 == 0
        score = truth + np.tile(np.linspace(-1.5, 1.5, 20), n // 20)
        _, low, high = average_precision_interval(score, truth, n_resamples=100, **kwargs)
        return high - low

    assert 2.5 < width(100) / width(1600) < 6
    assert width(100, level=0.99) > 1.5 * width(100, level=0.5)
    assert width(100) == width(100) != width(100, seed=1)


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_both_ends_are_percentiles(level: float) -> None:
    """The same 60 resamples of 40 items by hand: (1 - level)/2 of them lie below low, as many above high."""
    rng = np.random.default_rng(8)
    score, truth = rng.normal(size=40), np.arange(40) % 3 == 0
    draws = np.random.default_rng(2)
    some = [draws.integers(0, 40, 40) for _ in range(60)]
    values = [average_precision_score(truth[items], score[items]) for items in some]
    expected = np.percentile(values, [50 * (1 - level), 50 * (1 + level)])
    found = average_precision_interval(score, truth, level=level, n_resamples=60, seed=2)
    np.testing.assert_allclose(found[1:], expected)


def test_one_true_item() -> None:
    """Resamples without the one true item are drawn again: the interval is a number."""
    _, low, high = average_precision_interval(np.arange(5.0), np.arange(5) == 3, n_resamples=50)
    assert 0 < low <= high <= 1


@pytest.mark.parametrize(
    ("truth", "words"),
    [
        (np.array([True, False]), "got 1 true of 2 for 3 scores"),
        (np.ones(3, dtype=bool), "some true and some not, got 3 true of 3"),
        (np.zeros(3, dtype=bool), "some true and some not, got 0 true of 3"),
    ],
)
def test_average_precision_refuses(truth: NDArray[np.bool_], words: str) -> None:
    """Lengths that differ, nothing true, everything true."""
    with pytest.raises(ValueError, match=words):
        average_precision_interval(np.arange(3.0), truth)


# Ranking edges


def test_rank_edges_is_the_references() -> None:
    """Average precision and AUROC are scikit-learn's; a score that is a function of the layers has within 0.5 and p 1."""
    rng = np.random.default_rng(9)
    table = edge_table({"noise": rng.normal(size=(12, 12))}, 3, 4).assign(causal=rng.random(48) < 0.3)
    table["layers"] = 10.0 * table.layer_1 - table.layer_2
    ranked = rank_edges(table, ["noise", "layers"], n_resamples=50)
    assert list(ranked.index) == ["noise", "layers", "early layers first"]
    assert ranked.AUROC["noise"] == pytest.approx(roc_auc_score(table.causal, table.noise))
    assert ranked["average precision"]["noise"] == pytest.approx(average_precision_score(table.causal, table.noise))
    assert (ranked["base rate"] == table.causal.mean()).all()
    assert (ranked.within[["layers", "early layers first"]] == 0.5).all()
    assert (ranked["within p"][["layers", "early layers first"]] == 1).all()
    assert (ranked.low <= ranked["average precision"]).all()


def test_early_layers_come_first() -> None:
    """Edges between the first layers are the causal ones: the baseline that looks at no prompt has AUROC 1, and 0 turned."""
    table = edge_table({}, 4, 2)
    depth = (table.layer_1 + table.layer_2).to_numpy()
    assert depth.min() == 1 < 3 < depth.max() == 5
    early = rank_edges(table.assign(causal=depth < 3), [], n_resamples=20).loc["early layers first"]
    late = rank_edges(table.assign(causal=depth > 3), [], n_resamples=20).loc["early layers first"]
    assert (early.AUROC, early["average precision"]) == (1, 1)
    assert late.AUROC == 0
    assert late["average precision"] == pytest.approx(average_precision_score(depth > 3, -depth))


def test_edges_are_compared_within_two_layers() -> None:
    """within = share of won pairs (causal, not) of the same two layers, by brute force; p is one of 2,000 permutations."""
    rng = np.random.default_rng(4)
    table = edge_table({"c": rng.normal(size=(8, 8))}, 4, 2).assign(causal=rng.random(24) < 0.4)
    ranked = rank_edges(table, ["c"], n_resamples=20).loc["c"]
    wins = [
        float(one.c > other.c)
        for _, block in table.groupby(["layer_1", "layer_2"])
        for one in block[block.causal].itertuples()
        for other in block[~block.causal].itertuples()
    ]
    assert ranked.within == pytest.approx(np.mean(wins))
    assert ranked["within p"] * 2001 == pytest.approx(round(ranked["within p"] * 2001))

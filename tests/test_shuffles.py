"""The largest |C_diff| against shuffled labels, and the bootstrap of the strongest pairs."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from helpers.heads import pairs_of
from helpers.statistics.coupling import couple_heads, strongest_pairs, upper_triangle
from helpers.statistics.shuffles import (
    BATCH,
    CouplingNull,
    _orders,
    _strata,
    coupling_intervals,
    coupling_null,
)

Sides = tuple[NDArray[np.float64], NDArray[np.float64]]


def unrelated(n: tuple[int, int] = (40, 40), heads: tuple[int, int] = (2, 3), *, seed: int = 0) -> Sides:
    """Two sets with one and the same coupling: all heads share half of their variance."""
    rng = np.random.default_rng(seed)
    return tuple(rng.normal(size=(k, *heads)) + rng.normal(size=(k, 1, 1)) for k in n)  # type: ignore[return-value]


def changed(**kwargs: Any) -> Sides:
    """Heads 0.1 and 1.2 rise together on active prompts and against each other on control prompts."""
    active, control = unrelated(**kwargs)
    noise = np.random.default_rng(99).normal(size=len(active) + len(control))
    active[:, 1, 2] = active[:, 0, 1] + 0.3 * noise[: len(active)]
    control[:, 1, 2] = -control[:, 0, 1] + 0.3 * noise[len(active) :]
    return active, control


# The permutation null


def test_observed_is_the_largest_entry() -> None:
    """observed = max |C_active - C_control| off the diagonal, sd = sd of these entries, as couple_heads has them."""
    sides = changed(n=(30, 50))
    found = coupling_null(*sides, n_permutations=50)
    entries = upper_triangle(couple_heads(*sides).difference)
    assert found.observed == pytest.approx(np.abs(entries).max(), rel=1e-12)
    assert found.sd == pytest.approx(entries.std(), rel=1e-12)
    assert found.n_heads == 6


def test_numbers_by_hand() -> None:
    """p = (1 + #{permuted >= observed}) / (1 + permutations); sigmas = observed / sd; the 95 % point of permuted sigmas."""
    largest = np.array([0.1, 0.6, 0.3, 0.2])
    null = CouplingNull(observed=0.3, largest=largest, sd=0.1, null_sd=np.full(4, 0.2), n_heads=3)
    assert null.p == pytest.approx(3 / 5)
    assert null.sigmas == pytest.approx(3)
    assert null.chance_sigmas == pytest.approx(np.quantile(largest, 0.95) / 0.2)


def test_p_is_the_exact_permutation_test() -> None:
    """5 + 4 prompts: p and the mean of the null are those of all 126 ways to label them, by couple_heads."""
    sides = changed(n=(5, 4), heads=(2, 3))
    prompts = np.concatenate([(side - side.mean(0)) / side.std(0) for side in sides])
    every = []
    for chosen in combinations(range(9), 5):
        here = np.isin(np.arange(9), chosen)
        every.append(np.abs(upper_triangle(couple_heads(prompts[here], prompts[~here]).difference)).max())
    found = coupling_null(*sides, n_permutations=4000)
    exact = np.mean(np.array(every) >= found.observed - 1e-9)
    assert found.p == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 4000) + 1e-3)
    assert found.largest.mean() == pytest.approx(np.mean(every), abs=4 * np.std(every) / np.sqrt(4000))
    assert set(found.largest.round(9)) <= set(np.round(every, 9))


def test_p_is_uniform_under_the_null() -> None:
    """150 pairs of sets with one coupling: p is uniform (Kolmogorov-Smirnov), small in about 5 % of them."""
    p = [coupling_null(*unrelated((25, 30), seed=seed), n_permutations=200).p for seed in range(150)]
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert np.mean(np.array(p) <= 0.05) < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 150)


def test_a_changed_coupling_is_found() -> None:
    """One correlation turns from +1 to -1: p is the smallest there is; among 435, its sigmas exceed what chance gives."""
    few, many = (coupling_null(*changed(heads=heads), n_permutations=500) for heads in ((2, 3), (5, 6)))
    assert few.p == many.p == pytest.approx(1 / 501)
    assert min(few.observed, many.observed) > 1.5
    assert many.sigmas > many.chance_sigmas + 1


def test_four_sigmas_are_nothing_among_many_heads() -> None:
    """30 heads, no change of coupling: the largest of 435 entries is over 4 sds in 5 % of shuffles, and p is large."""
    found = coupling_null(*unrelated((20, 20), (5, 6), seed=3), n_permutations=300)
    assert found.p > 0.05
    assert found.chance_sigmas > 4


@pytest.mark.parametrize("place", [0.0, 5.0])
@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_shifts_of_means_and_spreads_are_no_coupling(place: float, scale: float) -> None:
    """Each head of the active set moved by its own amount, and scaled: every number of the null is what it was."""
    active, control = unrelated()
    moves = place * np.array([1, -2, 3, 0, 5, 1.0]).reshape(2, 3)
    found = coupling_null(scale * active + moves, control, n_permutations=200)
    plain = coupling_null(active, control, n_permutations=200)
    assert found.p == plain.p > 0.01
    np.testing.assert_allclose(found.largest, plain.largest, atol=1e-9)


def test_shifts_of_means_would_be_taken_for_coupling() -> None:
    """Why heads are centred within each set: shuffled sets that mix two means correlate by their mixture alone."""
    active, control = unrelated()
    active += 5.0
    prompts, rng = np.concatenate([active, control]), np.random.default_rng(0)
    mixed = prompts[rng.permutation(80)[:40]].reshape(40, -1)
    assert upper_triangle(np.corrcoef(mixed.T)).min() > 0.8 > upper_triangle(couple_heads(active, control).active).max()


def test_sides_may_change_places() -> None:
    """|C_diff| knows no direction: the same observed value, and p to simulation error."""
    active, control = changed(n=(12, 12))
    found, swapped = (coupling_null(*sides, n_permutations=2000) for sides in ((active, control), (control, active)))
    assert swapped.observed == pytest.approx(found.observed)
    assert swapped.p == pytest.approx(found.p, abs=4 * np.sqrt(0.25 / 2000))


def test_constant_heads_are_left_out() -> None:
    """A head that is constant in either set (or nearly: 1e-8) is compared with nothing; the others keep their numbers."""
    active, control = changed()
    active[:, 0, 0] = 0.3
    control[:, 1, 1] = 0.3 + 1e-8 * np.random.default_rng(0).normal(size=40)
    found = coupling_null(active, control, n_permutations=100)
    kept = [side.reshape(40, 6)[:, None, [1, 2, 3, 5]] for side in (active, control)]
    expected = coupling_null(*kept, n_permutations=100)
    assert found.n_heads == expected.n_heads == 4
    np.testing.assert_array_equal(found.largest, expected.largest)
    assert (found.observed, found.sd) == (expected.observed, expected.sd)


@pytest.mark.parametrize("count", [1, BATCH, BATCH + 50])
def test_number_of_permutations(count: int) -> None:
    """As many as asked for, whatever the size of a batch."""
    found = coupling_null(*unrelated(), n_permutations=count)
    assert found.largest.shape == found.null_sd.shape == (count,)


def test_reproducible() -> None:
    """The same seed gives the same null, another one another null and the same observed value."""
    first, again, other = (coupling_null(*unrelated(), n_permutations=100, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.largest, again.largest)
    assert not np.array_equal(first.largest, other.largest)
    assert first.observed == other.observed


# Groups


def test_labels_stay_within_their_group() -> None:
    """Every order is a permutation of the prompts that leaves the group of each place as it is; within groups all move."""
    groups = (["a", "b", "a", "c"], ["c", "b", "a", "a", "b"])
    strata = _strata(groups, 4, 5)
    assert sorted(map(sorted, strata)) == [[0, 2, 6, 7], [1, 5, 8], [3, 4]]
    orders = _orders(strata, 500, np.random.default_rng(0))
    names = np.array([*groups[0], *groups[1]])
    assert np.array_equal(np.sort(orders, axis=1), np.broadcast_to(np.arange(9), (500, 9)))
    assert (names[orders] == names).all()
    for stratum in strata:
        for place in stratum:
            shares = np.bincount(orders[:, place], minlength=9)[stratum] / 500
            np.testing.assert_allclose(shares, 1 / len(stratum), atol=0.1)


def test_groups_of_one_set_cannot_move() -> None:
    """No frame is in both sets: every permutation gives the observed value, p = 1; without groups p is small."""
    sides = changed()
    found = coupling_null(*sides, groups=(["a"] * 40, ["b"] * 40), n_permutations=50)
    np.testing.assert_allclose(found.largest, found.observed, rtol=1e-9)
    assert found.p == 1
    assert coupling_null(*sides, n_permutations=50).p < 0.05


def test_frames_that_explain_the_coupling() -> None:
    """Two frames in unequal shares, each with its own coupling, and no set has one of its own: only groups know it."""
    rng = np.random.default_rng(0)

    def side(together: int, apart: int) -> NDArray[np.float64]:
        first, noise = rng.normal(size=(2, together + apart))
        return np.stack([first, first * np.repeat([1, -1], [together, apart]) + 0.3 * noise], axis=1)[:, None]

    active, control = side(30, 10), side(10, 30)
    groups = (["together"] * 30 + ["apart"] * 10, ["together"] * 10 + ["apart"] * 30)
    assert coupling_null(active, control, n_permutations=500).p < 0.01
    assert coupling_null(active, control, groups=groups, n_permutations=500).p > 0.05


@pytest.mark.parametrize("name", [3, None, ("x", 1)])
def test_one_group_is_no_group(name: Any) -> None:
    """All prompts in one group, whatever its name: the same null as without groups."""
    sides = unrelated()
    found = coupling_null(*sides, groups=([name] * 40, [name] * 40), n_permutations=50)
    np.testing.assert_array_equal(found.largest, coupling_null(*sides, n_permutations=50).largest)


# The bootstrap of prompts


def test_strongest_pairs_with_intervals() -> None:
    """The pairs of strongest_pairs in their order; the interval holds C_diff; stays is a share."""
    sides = changed()
    table = coupling_intervals(*sides, top=5, n_resamples=300)
    expected = strongest_pairs(couple_heads(*sides), 3, top=5)
    assert table[expected.columns.tolist()].equals(expected)
    assert ((table.low <= table.c_diff) & (table.c_diff <= table.high)).sum() >= 4
    assert table.stays.between(0, 1).all()
    assert table.stays.nunique() > 1


def test_a_strong_pair_stays() -> None:
    """The pair that turns from +1 to -1 is among the strongest in every resample, its interval far from 0; others are not."""
    table = coupling_intervals(*changed(), top=1, n_resamples=200)
    assert pairs_of(table) == [((0, 1), (1, 2))]
    assert table.stays[0] == 1
    assert table.low[0] > 1.5
    assert coupling_intervals(*unrelated(), top=1, n_resamples=200).stays[0] < 0.9


def test_interval_is_the_bootstrap_of_a_correlation() -> None:
    """Percentiles of corr(active) - corr(control) of that pair, each set resampled by itself, by np.corrcoef."""
    active, control = unrelated((60, 40), seed=1)
    table = coupling_intervals(active, control, top=3, n_resamples=4000, level=0.9)
    rng = np.random.default_rng(5)
    for places, pair in zip(pairs_of(table), table.itertuples(), strict=True):
        differences = []
        for _ in range(2000):
            r = []
            for side in (active, control):
                some = side[rng.integers(0, len(side), len(side))]
                r.append(np.corrcoef(*(some[:, layer, head] for layer, head in places))[0, 1])
            differences.append(r[0] - r[1])
        np.testing.assert_allclose([pair.low, pair.high], np.quantile(differences, [0.05, 0.95]), atol=0.04)


def test_stays_is_the_share_of_resamples() -> None:
    """With the top 3 of 3 pairs each always stays; the top 1 of each resample is one pair, so shares add up to 1 at most."""
    sides = unrelated(heads=(1, 3))
    assert coupling_intervals(*sides, top=3, n_resamples=50).stays.tolist() == [1, 1, 1]
    one = coupling_intervals(*sides, top=1, n_resamples=200).stays
    two = coupling_intervals(*sides, top=2, n_resamples=200).stays
    assert 1 / 3 < one[0] < 1
    assert one[0] <= two[0]
    assert 1 < two.sum() <= 2


@pytest.mark.parametrize(("top", "layers"), [(1, 3), (4, 3), (20, 3), (10, 12)])
def test_stays_by_sorting_every_resample(top: int, layers: int) -> None:
    """66 pairs, and 1128: the share of the same resamples in which |C_diff| of a pair is one of the ``top`` largest, by np.sort."""
    active, control = unrelated((15, 12), (layers, 4))
    table = coupling_intervals(active, control, top=top, n_resamples=40, seed=3)
    rng, count = np.random.default_rng(3), np.zeros(top)
    places = {divmod(i, 4): i for i in range(4 * layers)}
    for _ in range(40):
        some = [side[rng.integers(0, len(side), len(side))] for side in (active, control)]
        sizes = np.abs(couple_heads(*some).difference)
        bound = np.sort(upper_triangle(sizes))[-top]
        count += [sizes[places[one], places[two]] >= bound for one, two in pairs_of(table)]
    np.testing.assert_allclose(table.stays, count / 40)


def test_fewer_pairs_than_asked_for() -> None:
    """Three heads have three pairs, with a constant head one: all are listed, and all stay."""
    active, control = unrelated(heads=(1, 3))
    assert coupling_intervals(active, control, top=10, n_resamples=20).stays.tolist() == [1, 1, 1]
    active[:, 0, 0] = 0.3
    table = coupling_intervals(active, control, top=10, n_resamples=20)
    assert pairs_of(table) == [((0, 1), (0, 2))]
    assert table.stays.tolist() == [1]


def test_names_of_heads_above_nine() -> None:
    """Head 1.11 of 2 x 12: the interval belongs to that pair, not to 1.1."""
    active, control = unrelated(heads=(2, 12))
    noise = np.random.default_rng(0).normal(size=40)
    active[:, 1, 11] = active[:, 0, 10] + 0.1 * noise
    control[:, 1, 11] = -control[:, 0, 10] + 0.1 * noise
    table = coupling_intervals(active, control, top=1, n_resamples=50)
    assert pairs_of(table) == [((0, 10), (1, 11))]
    assert table.low[0] > 1.7


def test_intervals_are_reproducible() -> None:
    """The same seed gives the same table, a wider level a wider interval."""
    table = coupling_intervals(*unrelated(), n_resamples=50)
    assert table.equals(coupling_intervals(*unrelated(), n_resamples=50))
    assert not table.equals(coupling_intervals(*unrelated(), n_resamples=50, seed=1))
    wide = coupling_intervals(*unrelated(), n_resamples=50, level=0.99)
    assert (wide.high - wide.low > table.high - table.low).all()


# Refusals

BAD: dict[str, tuple[Callable[[Any, Any], tuple[Any, Any]], str]] = {
    "one prompt": (lambda a, c: (a[:1], c), "active: expected at least 2 prompts"),
    "other heads": (lambda a, c: (a, c[:, :1]), r"control: expected the heads of active, \(2, 3\), got \(1, 3\)"),
    "NaN": (lambda a, c: (a, np.where(c > 2, np.nan, c)), r"control: expected finite values, got \d+ others"),
    "one head": (lambda a, c: (a[:, :1, :1], c[:, :1, :1]), "expected at least 2 heads that vary in both sets, got 1"),
    "constant": (lambda a, c: (a * 0 + 0.3, c), "expected at least 2 heads that vary in both sets, got 0"),
}  # fmt: skip


@pytest.mark.parametrize("function", [coupling_null, coupling_intervals])
@pytest.mark.parametrize(("spoil", "words"), BAD.values(), ids=BAD)
def test_refuses_sides(spoil: Any, words: str, function: Callable[..., Any]) -> None:
    """Sides that can't be compared, or in which fewer than two heads vary."""
    with pytest.raises(ValueError, match=words):
        function(*spoil(*unrelated()))


def test_refuses_groups() -> None:
    """A group for each prompt of each set."""
    with pytest.raises(ValueError, match="groups: expected one a prompt, 40 and 40, got 40 and 39"):
        coupling_null(*unrelated(), groups=(["a"] * 40, ["a"] * 39))


def test_summary_says_what_the_null_holds() -> None:
    """p of the spread counts shuffles at least as wide; the summary names every number."""
    null = CouplingNull(0.9, np.array([0.5, 1.0, 0.8]), 0.3, np.array([0.1, 0.3, 0.2]), 10)
    assert null.p_sd == pytest.approx(2 / 4)
    assert null.summary() == pytest.approx(
        {"largest": 0.9, "p": 2 / 4, "sd": 0.3, "p of sd": 2 / 4, "sigmas": 3.0, "median of shuffles": 4.0,
         "95 %": np.quantile([5.0, 1.0 / 0.3, 4.0], 0.95)}
    )  # fmt: skip

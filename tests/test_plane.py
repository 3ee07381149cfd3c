"""The geometry of the (KL, chi) plane: what is attainable, where the archetypes lie, how a sink splits off."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize, minimize_scalar
from scipy.special import rel_entr
from strategies import Row, rows

from helpers.diagnostics.plane import archetypes, largest_chi, one_favourite, split_sink, upper_curve
from helpers.diagnostics.rows import kl_selectivity, susceptibility


def place(row: Row) -> tuple[float, float]:
    """(KL, chi) of a row, normalised, in plain numpy."""
    weights = row[row > 0]
    log_n, log_pi = math.log(len(row)), np.log(weights)
    kl = 1 + weights @ log_pi / log_n
    return kl, weights @ (log_pi - weights @ log_pi) ** 2 / log_n**2


def favourite_chi(p: float, n: int) -> float:
    """Two distinct log weights, with odds p to 1 - p: chi = p (1 - p) (log p - log((1 - p)/(n - 1)))^2 / (log n)^2."""
    return p * (1 - p) * math.log(p * (n - 1) / (1 - p)) ** 2 / math.log(n) ** 2


# One favourite over a level rest


@pytest.mark.parametrize("n", [2, 3, 15, 1024])
def test_one_favourite_rows(n: int) -> None:
    """Weight p on key 0, (1 - p)/(n - 1) on each other; p = 1/n is uniform and p = 1 one-hot."""
    p = np.linspace(1 / n, 1, 5).reshape(5, 1)
    result = one_favourite(p, n)
    assert result.shape == (5, 1, n)
    np.testing.assert_allclose(result[..., 0], p)
    np.testing.assert_allclose(result[..., 1:], np.broadcast_to((1 - p[..., None]) / (n - 1), (5, 1, n - 1)))
    np.testing.assert_allclose(result[0, 0], np.full(n, 1 / n))
    assert result[-1, 0].tolist() == [1.0] + [0.0] * (n - 1)


@pytest.mark.parametrize(
    ("p", "n", "words"),
    [
        (0.5, 1, "n: expected at least 2 visible keys, got 1"),
        (0.1, 4, r"p: expected the favourite's weight in \[1/n, 1\] = \[0\.25, 1\], got 0\.1"),
        (1.5, 4, r"p: .*got 1\.5"),
        ([0.5, 1.5], 4, r"p: .*got 1\.5"),
        (math.nan, 4, r"p: .*got nan"),
    ],
)
def test_one_favourite_refuses(p: float, n: int, words: str) -> None:
    """Weights outside [1/n, 1] are refused, naming the weight that is."""
    with pytest.raises(ValueError, match=words):
        one_favourite(p, n)


# The attainable region


def test_fold_at_fifteen_keys() -> None:
    """n = 15: chi along the upper edge is largest, 0.3576, at p = 0.763, KL 0.566 to 0.568 (closed form)."""
    found = minimize_scalar(lambda p: -favourite_chi(p, 15), bounds=(1 / 15, 1), method="bounded")
    kl, chi = place(one_favourite(found.x, 15))
    assert (round(found.x, 3), round(chi, 4)) == (0.763, 0.3576)
    assert 0.566 <= kl <= 0.568
    assert largest_chi(kl, 15) == pytest.approx(chi, rel=1e-9)
    assert upper_curve(15)[1].max() == pytest.approx(chi, abs=1e-5)


@pytest.mark.parametrize("n", [2, 3, 15, 1024])
def test_upper_curve(n: int) -> None:
    """The curve runs from (0, 0) to (1, 0), KL increases, chi rises once and falls once."""
    kl, chi = upper_curve(n, points=101)
    assert kl.shape == chi.shape == (101,)
    assert (kl[0], chi[0]) == pytest.approx((0, 0), abs=1e-14)
    assert (kl[-1], chi[-1]) == pytest.approx((1, 0), abs=1e-14)
    assert (np.diff(kl) > 0).all()
    top = chi.argmax()
    assert (np.diff(chi[: top + 1]) > 0).all()
    assert (np.diff(chi[top:]) < 0).all()


@pytest.mark.parametrize("n", [2, 3, 15, 1024])
@pytest.mark.parametrize("part", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_largest_chi_lies_on_the_curve(part: float, n: int) -> None:
    """largest_chi at the KL of a one-favourite row is the closed-form chi of that row."""
    p = 1 / n + part * (1 - 1 / n)
    kl, _ = place(one_favourite(p, n))
    assert largest_chi(kl, n) == pytest.approx(favourite_chi(p, n), rel=1e-8)


@pytest.mark.parametrize("n", [2, 3, 15, 100])
@pytest.mark.parametrize("kl", [0.0, 1.0])
def test_nothing_to_gain_at_the_ends(kl: float, n: int) -> None:
    """Only the uniform row has KL 0 and only one-hot rows have KL 1: chi = 0 at both."""
    assert largest_chi(kl, n) == 0


@pytest.mark.parametrize("n", [2, 3, 15, 100])
@pytest.mark.parametrize("kl", [1e-17, 1e-16, 1e-12])
def test_almost_nothing_to_gain_near_uniform(kl: float, n: int) -> None:
    """KL -> 0: chi log n / KL -> 2 (both are second order in the distance from u), so chi vanishes with KL."""
    assert largest_chi(kl, n) == pytest.approx(2 * kl / math.log(n), abs=2e-15)


@given(rows(min_n=2))
def test_no_row_lies_above_the_edge(row: Row) -> None:
    """For fixed n and KL no row's chi exceeds largest_chi."""
    kl, chi = kl_selectivity(row).item(), susceptibility(row).item()
    assert chi <= largest_chi(min(kl, 1.0), len(row)) + 1e-9


@given(st.floats(0.501, 0.999))
def test_two_keys_leave_no_choice(p: float) -> None:
    """n = 2: every row is a one-favourite row, so every row lies on the edge."""
    kl, chi = place(np.array([1 - p, p]))
    assert largest_chi(kl, 2) == pytest.approx(chi, rel=1e-8)


@pytest.mark.parametrize("kl", [0.2, 0.566, 0.85])
def test_search_over_the_simplex_finds_nothing_above_the_edge(kl: float) -> None:
    """n = 15, fixed KL: maximising chi by SLSQP from random rows reaches largest_chi and never exceeds it."""
    n, rng = 15, np.random.default_rng(0)

    def climb(start: Row) -> Row:
        constraints = [
            {"type": "eq", "fun": lambda pi: pi.sum() - 1},
            {"type": "eq", "fun": lambda pi: place(pi)[0] - kl},
        ]
        options = {"maxiter": 100, "ftol": 1e-10}
        bounds = [(1e-9, 1)] * n
        return minimize(lambda pi: -place(pi)[1], start, constraints=constraints, bounds=bounds, options=options).x

    found = [place(pi / pi.sum()) for pi in map(climb, rng.dirichlet(np.full(n, 0.3), size=6))]
    met = [chi for found_kl, chi in found if abs(found_kl - kl) < 1e-6]
    assert max(met) == pytest.approx(largest_chi(kl, n), abs=1e-5)


@pytest.mark.parametrize(
    ("kl", "n", "words"),
    [
        (-0.1, 15, r"kl: expected a normalised KL in \[0, 1\], got -0\.1"),
        (1.5, 15, r"kl: .*got 1\.5"),
        (math.nan, 15, r"kl: .*got nan"),
        (0.5, 1, "n: expected at least 2 visible keys, got 1"),
    ],
)
def test_largest_chi_refuses(kl: float, n: int, words: str) -> None:
    """A KL outside [0, 1] or a single key is refused with its value."""
    with pytest.raises(ValueError, match=words):
        largest_chi(kl, n)


# Archetypes


@pytest.mark.parametrize("n", [4, 15, 100])
def test_places_of_the_archetypes(n: int) -> None:
    """Uniform (0, 0); one-hot (1, 0); a 3-way tie (log(n/3)/log n, 0); the sink on the edge; rivals by closed form."""
    places = {name: (kl_selectivity(row).item(), susceptibility(row).item()) for name, row in archetypes(n).items()}
    log_n, low = math.log(n), 0.1 / (n - 2)
    rivals_kl = 1 + (0.9 * math.log(0.45) + 0.1 * math.log(low)) / log_n
    rivals_chi = 0.9 * 0.1 * math.log(0.45 / low) ** 2 / log_n**2
    assert places.pop("uniform") == pytest.approx((0, 0), abs=1e-14)
    assert places.pop("one-hot") == pytest.approx((1, 0), abs=1e-14)
    assert places.pop("3-way tie") == pytest.approx((math.log(n / 3) / log_n, 0), abs=1e-13)
    assert places.pop("two rivals") == pytest.approx((rivals_kl, rivals_chi), rel=1e-12)
    kl, chi = places.pop("sink + flat rest")
    assert chi == pytest.approx(favourite_chi(0.75, n), rel=1e-12)
    assert chi == pytest.approx(largest_chi(kl, n), rel=1e-9)
    assert not places


def test_archetypes_put_the_sink_first() -> None:
    """Key 0 is BOS: the favourite of the sink row, and neither the one-hot key nor a rival."""
    rows_by_name = archetypes(15)
    assert rows_by_name["sink + flat rest"].argmax() == 0
    assert rows_by_name["one-hot"][0] == 0
    assert sorted(np.argsort(rows_by_name["two rivals"])[-2:]) == [1, 2]


def test_archetypes_refuse_few_keys() -> None:
    """Fewer than 4 keys cannot hold a tie of three and a rest."""
    with pytest.raises(ValueError, match="n: expected at least 4 visible keys, got 3"):
        archetypes(3)


# Splitting off a sink


@given(rows(min_n=2), st.integers(0, 10**6))
def test_sink_split_is_exact(row: Row, key: int) -> None:
    """KL = kl(b, 1/n) + (1 - b) KL(rest || u_(n-1)) and chi = between + within, to 1e-12, for any key."""
    parts = split_sink(row, sink=key % len(row))
    kl, chi = kl_selectivity(row, normalized=False), susceptibility(row, normalized=False)
    assert parts.weight.item() == pytest.approx(row[key % len(row)], abs=1e-15)
    assert (parts.kl_sink + parts.kl_rest).item() == pytest.approx(kl.item(), abs=1e-12)
    assert (parts.chi_between + parts.chi_within).item() == pytest.approx(chi.item(), abs=1e-12)
    assert min(parts.kl_sink.item(), parts.kl_rest.item()) >= -1e-15
    assert min(parts.chi_between.item(), parts.chi_within.item()) >= 0


@pytest.mark.parametrize("seed", range(3))
def test_each_part_by_its_definition(seed: int) -> None:
    """The four parts equal the binary KL, the weighted KL of the rest, and the two terms of total variance."""
    row = np.random.default_rng(seed).dirichlet(np.ones(9))
    b, others = row[4], np.delete(row, 4)
    rest = others / (1 - b)
    mean = rest @ np.log(others)
    overall = row @ np.log(row)
    parts = split_sink(row, sink=4)
    assert parts.kl_sink.item() == pytest.approx(rel_entr([b, 1 - b], [1 / 9, 8 / 9]).sum(), rel=1e-12)
    assert parts.kl_rest.item() == pytest.approx((1 - b) * rel_entr(rest, 1 / 8).sum(), rel=1e-12)
    between = b * (math.log(b) - overall) ** 2 + (1 - b) * (mean - overall) ** 2
    assert parts.chi_between.item() == pytest.approx(between, rel=1e-11)
    assert parts.chi_within.item() == pytest.approx((1 - b) * (rest @ (np.log(others) - mean) ** 2), rel=1e-11)


EDGES = {
    "all on the sink": ([1.0, 0.0, 0.0, 0.0], (1, math.log(4), 0, 0, 0)),
    "one-hot elsewhere": ([0.0, 1.0, 0.0, 0.0], (0, math.log(4 / 3), math.log(3), 0, 0)),
    "nothing on the sink": ([0.0, 0.5, 0.5, 0.0], (0, math.log(4 / 3), math.log(3 / 2), 0, 0)),
    "uniform": ([0.25] * 4, (0.25, 0, 0, 0, 0)),
    "half on the sink": ([0.5, 0.5, 0.0, 0.0], (0.5, math.log(2) - math.log(3) / 2, math.log(3) / 2, 0, 0)),
    "two keys": ([0.5, 0.5], (0.5, 0, 0, 0, 0)),
}


@pytest.mark.parametrize(("row", "expected"), EDGES.values(), ids=EDGES)
def test_edge_rows_split_as_by_hand(row: list[float], expected: tuple[float, ...]) -> None:
    """(b, kl_sink, kl_rest, chi_between, chi_within) of rows where logarithms of 0 lurk, worked out by hand."""
    assert [part.item() for part in split_sink(row)] == pytest.approx(list(expected), abs=1e-15)


def test_sink_split_of_a_batch_and_negative_index() -> None:
    """A batch splits row by row, and sink = -1 is the last key."""
    batch = np.random.default_rng(0).dirichlet(np.ones(6), size=(2, 3))
    last, same = split_sink(batch, sink=5), split_sink(batch, sink=-1)
    for name, part in last._asdict().items():
        assert part.shape == (2, 3)
        torch.testing.assert_close(getattr(same, name), part, rtol=0, atol=0)
        assert part[1, 2].item() == pytest.approx(getattr(split_sink(batch[1, 2], sink=5), name).item(), abs=1e-15)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ([1.0], "pi: splitting off a sink needs at least 2 keys, got 1"),
        ([0.5, 0.25], r"sum to 1 over the last axis .*got a sum of 0\.75"),
    ],
)
def test_sink_split_refuses(row: list[float], words: str) -> None:
    """One key, or rows that are no distributions, are refused."""
    with pytest.raises(ValueError, match=words):
        split_sink(row)


@pytest.mark.parametrize("sink", [3, -4])
def test_sink_split_refuses_a_key_that_is_not_there(sink: int) -> None:
    """A sink index outside the row is an error (IndexError, as for any sequence, or ValueError), not another key."""
    with pytest.raises((IndexError, ValueError)):
        split_sink([0.5, 0.25, 0.25], sink=sink)

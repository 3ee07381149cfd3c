"""Having looked at many positions: shifts and rows that move nowhere have uniform p, those that move are found where they do."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import special, stats

from helpers.diagnostics.distances import total_variation
from helpers.statistics.pairs import paired_tests, position_scan, row_scan

Sides = tuple[NDArray[np.float64], NDArray[np.float64]]


def rows(n: int, heads: tuple[int, int], places: int, keys: int, *, seed: int = 0) -> Sides:
    """Rows of exchangeable sides: scores that the pair shares (its names), and as much noise of each side's own."""
    rng = np.random.default_rng(seed)
    shared, own = rng.normal(size=(n, *heads, places, keys)), rng.normal(size=(2, n, *heads, places, keys))
    active, control = special.softmax(shared + own, axis=-1)
    return active, control


def names(count: int) -> list[str]:
    return [f"token {t}" for t in range(1, count + 1)]


def planted(n: int = 20) -> Sides:
    """Head 1.2 moves half of its weight to key 3 at token 2 in every active row; no other head moves."""
    active, control = rows(n, (2, 3), 4, 6)
    active[:, 1, 2, 1] *= 0.5
    active[:, 1, 2, 1, 3] += 0.5
    return active, control


# Calibration


@pytest.mark.parametrize("by", ["t", "shift"])
def test_shifts_that_are_none_have_uniform_p(by: str) -> None:
    """400 heads, 12 positions of unlike spread, exchangeable sides: p of the largest is uniform (Kolmogorov-Smirnov)."""
    active, control = np.random.default_rng(1).normal(size=(2, 12, 20, 20, 12)) * np.linspace(0.1, 2, 12)
    p = position_scan(active, control, names(12), by=by, n_flips=999).p  # type: ignore[arg-type]
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert (p < 0.05).mean() == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / 400))


@pytest.mark.parametrize("groups", [None, ["ABBA", "BABA"] * 6], ids=["one group", "two groups"])
def test_rows_that_move_nowhere_have_uniform_p(groups: list[str] | None) -> None:
    """400 heads with exchangeable sides, 6 positions, 5 keys: p is uniform, though the mean distance is far from 0."""
    active, control = rows(12, (20, 20), 6, 5, seed=3)
    table = row_scan(active, control, names(6), groups=groups, n_flips=999)
    assert stats.kstest(table.p, "uniform").pvalue > 0.01
    assert (table.p < 0.05).mean() == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / 400))
    assert table.distance.min() > 0.2


def test_the_best_position_alone_is_not_calibrated() -> None:
    """The same rows, p at the position of the largest distance without a correction: far more than 5 % below 0.05."""
    active, control = rows(12, (10, 10), 12, 5, seed=4)
    alone = np.array([row_scan(active[..., [t], :], control[..., [t], :], ["x"], n_flips=999).p for t in range(12)])
    assert (alone.min(0) < 0.05).mean() > 0.2
    assert (row_scan(active, control, names(12), n_flips=999).p < 0.05).mean() < 0.12


def test_no_null_by_other_pairs() -> None:
    """Why controls of other pairs are no null: with nothing moved they are further away than the pair's own."""
    active, control = rows(20, (2, 3), 4, 6)
    own = total_variation(*(torch.from_numpy(side) for side in (active, control))).mean(0)
    other = total_variation(torch.from_numpy(active), torch.from_numpy(np.roll(control, 1, axis=0))).mean(0)
    assert (own < other).all()


# What moves is found


def test_a_planted_position_is_found() -> None:
    """One head has q < 0.05; its position, mean distance and directed distance are those by hand."""
    active, control = planted()
    table = row_scan(active, control, names(4))
    (row,) = table[table.q < 0.05].itertuples()
    assert (row.layer, row.head) == (1, 2)
    distance = total_variation(*(torch.from_numpy(side) for side in (active, control))).mean(0)
    np.testing.assert_allclose(table.distance, distance.max(-1).ravel(), rtol=1e-12)
    assert list(table.position) == [f"token {t + 1}" for t in distance.argmax(-1).ravel()]
    directed = np.abs((active - control).mean(0)).sum(-1).max(-1).ravel() / 2
    np.testing.assert_allclose(table.directed, directed, rtol=1e-9)
    assert (table.directed <= table.distance + 1e-12).all()


def test_p_is_the_exact_test() -> None:
    """Four pairs: p = share of all 2^4 flips whose largest directed distance reaches the observed one."""
    active, control = (side[:4] for side in planted())
    d = (active - control)[:, 1, 2]
    signs = np.array(list(product([1, -1], repeat=4)))
    largest = np.abs(np.einsum("fk,ktn->ftn", signs, d) / 4).sum(-1).max(-1) / 2
    exact = (largest >= largest[0] - 1e-12).mean()
    found = row_scan(active, control, names(4)).p[5]
    assert found == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 10_000) + 1e-3)


def test_groups_keep_opposite_directions_apart() -> None:
    """Half of the pairs move from key 0 to 1, half from 1 to 0: nothing as one group, found as two; the order is free."""
    rng = np.random.default_rng(0)
    base = rng.dirichlet(np.ones(4), (20, 1, 2, 1)) * 0.5
    active, control = base.copy(), base.copy()
    active[:10, 0, 0, 0, 1] += 0.5
    control[:10, 0, 0, 0, 0] += 0.5
    active[10:, 0, 0, 0, 0] += 0.5
    control[10:, 0, 0, 0, 1] += 0.5
    active[:, 0, 1, 0, 2] += 0.5
    control[:, 0, 1, 0, 2] += 0.5
    together = row_scan(active, control, ["x"])
    apart = row_scan(active, control, ["x"], groups=[("A",)] * 10 + [("B", 1)] * 10)
    assert (together.directed[0], together.p[0]) == (0, 1)
    assert apart.directed[0] == pytest.approx(0.5)
    assert apart.p[0] < 0.001
    assert apart.p[1] == 1
    order = rng.permutation(20)
    mixed = row_scan(active[order], control[order], ["x"], groups=[("A",) if k < 10 else ("B", 1) for k in order])
    np.testing.assert_allclose(mixed.directed, apart.directed)


def test_by_shift_is_the_largest_mean() -> None:
    """The position of the largest |mean difference|, not of the largest |t|; at one position p is the sign-flip test's."""
    active, control = np.random.default_rng(2).normal(size=(2, 15, 2, 3, 4)) * np.array([0.01, 1, 0.1, 3])
    active[..., 0] += 0.02
    table = position_scan(active, control, names(4), by="shift")
    mean = (active - control).mean(0).reshape(6, 4)
    assert list(table.position) == [f"token {t + 1}" for t in np.abs(mean).argmax(-1)]
    np.testing.assert_allclose(table["shift"], np.take_along_axis(mean, np.abs(mean).argmax(-1)[:, None], 1)[:, 0])
    assert set(position_scan(active, control, names(4)).position) != set(table.position)
    one = position_scan(active[..., [1]], control[..., [1]], ["x"], by="shift")
    np.testing.assert_allclose(one.p, paired_tests(active[..., 1], control[..., 1]).p, rtol=1e-12)


def test_equal_sides() -> None:
    """Nothing moves, or by 1e-8: distance, directed 0 and p 1."""
    active, _ = planted()
    table = row_scan(active, active + 1e-8, names(4))
    assert not table[["distance", "directed"]].to_numpy().any()
    assert (table.p == 1).all()


def test_refusals() -> None:
    """Names, groups and sides that do not fit; no such statistic."""
    active, control = planted()
    with pytest.raises(
        ValueError, match=r"^active: expected shape \(pair, layer, head, 3 positions, key\), got \(20, 2"
    ):
        row_scan(active, control, names(3))
    with pytest.raises(ValueError, match=r"^groups: expected a label for each of 20 pairs, got 2$"):
        row_scan(active, control, names(4), groups=["a", "b"])
    with pytest.raises(ValueError, match=r"^active, control: expected at least 2 pairs, got shapes"):
        row_scan(active, control[:10], names(4))
    with pytest.raises(ValueError, match=r"^by: expected 't' or 'shift', got 'mean'$"):
        position_scan(active[..., 0], control[..., 0], names(4), by="mean")  # type: ignore[arg-type]

"""Heads by name, and tables with one row a head or one row a pair of heads."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from helpers.heads import (
    PAIR,
    Head,
    check_heads,
    head_index,
    head_names,
    heads_of,
    model_shape,
    pair_index,
    pairs_of,
    parse_heads,
)


def test_a_name_read_is_the_head_written() -> None:
    """parse(str(h)) = h for every head of 13 x 13, and no two of them share a name."""
    every = [Head(*place) for place in np.ndindex(13, 13)]
    assert [Head.parse(str(head)) for head in every] == every
    assert len({str(head) for head in every}) == 169
    assert (str(Head(9, 6)), f"{Head(11, 10)}") == ("9.6", "11.10")


def test_a_head_is_its_pair_of_numbers() -> None:
    """Equal to (layer, head), hashed and sorted like it (9.9 before 9.10), and an index of arrays, tensors and tables."""
    assert Head(9, 6) == (9, 6)
    assert {Head(9, 6): "x"}[9, 6] == "x"
    assert sorted([Head(10, 0), Head(9, 10), Head(9, 9)]) == [(9, 9), (9, 10), (10, 0)]
    values = np.arange(6).reshape(2, 3)
    assert values[Head(1, 2)] == torch.from_numpy(values)[Head(1, 2)] == 5
    table = head_index(2, 3).assign(value=values.ravel()).set_index(["layer", "head"])
    assert table.value[Head(1, 2)] == table.loc[Head(1, 2), "value"] == 5
    assert table.loc[[Head(1, 2), Head(0, 1)], "value"].tolist() == [5, 1]


def test_lists_of_heads() -> None:
    """Spaces, commas and line breaks separate; the order of the text is kept; nothing gives nothing."""
    assert parse_heads("9.6 9.9, 10.0,\n0.1") == ((9, 6), (9, 9), (10, 0), (0, 1))
    assert parse_heads(" ") == ()


@pytest.mark.parametrize("name", ["9", "9.6.1", "9,6", "-1.0", "a.b", "9.", ".6", "", " 9.6", "9.6\n", "1_0.2", "٣.١"])
def test_what_is_no_name(name: str) -> None:
    """Anything but two whole numbers with a point between is refused, and shown."""
    with pytest.raises(
        ValueError, match=r'^name: expected a layer and a head, such as "9.6", got ' + re.escape(repr(name))
    ):
        Head.parse(name)


def test_heads_that_a_model_has() -> None:
    """Any pairs of whole numbers, once each in reading order; None is all; a head out of range is named."""
    found = check_heads("heads", [(1, 0), Head(0, 2), (np.int64(1), np.int64(0))], 2, 3)
    assert found == [(0, 2), (1, 0)]
    assert [*map(str, found)] == ["0.2", "1.0"]
    assert check_heads("heads", None, 2, 3) == list(np.ndindex(2, 3))
    for wrong in ((2, 0), (0, 3), (-1, 0), (0, -1)):
        with pytest.raises(ValueError, match=re.escape(f"heads: expected heads of 2 layers x 3 heads, got {wrong}")):
            check_heads("heads", [(0, 0), wrong], 2, 3)


def test_a_table_of_heads() -> None:
    """Rows are in reading order, each with its head and name; the shape is that of the model; other orders are kept."""
    table = head_index(2, 12)
    assert heads_of(table) == list(np.ndindex(2, 12))
    assert model_shape(table) == (2, 12)
    some = table.iloc[[23, 0]]
    assert head_names(some) == ["1.11", "0.0"]
    assert all(type(number) is int for head in heads_of(some) for number in head)


def test_a_table_of_pairs() -> None:
    """The pairs that were put in come out, from heads, tuples or arrays; no pairs make a table without rows."""
    pairs = [(Head(8, 1), Head(9, 6)), (Head(0, 11), Head(11, 0))]
    first, second = zip(*pairs, strict=True)
    table = pair_index(first, second)
    assert list(table.columns) == PAIR
    assert pairs_of(table) == pairs
    assert table.equals(pair_index(np.array(first), np.array(second)))
    empty = pair_index([], [])
    assert (list(empty.columns), len(empty)) == (PAIR, 0)
    assert pairs_of(empty) == []
    assert set(empty.dtypes) == {np.dtype(int)}

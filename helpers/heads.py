"""Attention heads by name: "9.6" is layer 9, head 6; tables with one row a head, or one row a pair of heads."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

#: What a function takes where it asks for a head: a `Head` or any pair (layer, head).
HeadLike = tuple[int, int]
#: The columns of a table with one row a pair of heads, the earlier head first.
PAIR = ["layer_1", "head_1", "layer_2", "head_2"]


class Head(NamedTuple):
    """A head of a model: its layer and its number there, both from 0; equal to the pair ``(layer, head)``.

    >>> print(Head(9, 6), Head.parse("9.6") == (9, 6))
    9.6 True
    """

    layer: int
    head: int

    def __str__(self) -> str:
        return f"{self.layer}.{self.head}"

    @classmethod
    def parse(cls, name: str) -> Head:
        """A head from its name.

        Raises:
            ValueError: if it is no layer and head with a point between.
        """
        if not re.fullmatch(r"[0-9]+\.[0-9]+", name):
            raise ValueError(f'name: expected a layer and a head, such as "9.6", got {name!r}')
        layer, head = map(int, name.split("."))
        return cls(layer, head)


def parse_heads(text: str) -> tuple[Head, ...]:
    """Heads as the papers write them, with spaces or commas between.

    >>> print(*parse_heads("9.6, 9.9 10.0"))
    9.6 9.9 10.0

    Raises:
        ValueError: as `Head.parse`.
    """
    return tuple(map(Head.parse, text.replace(",", " ").split()))


def check_heads(name: str, heads: Iterable[HeadLike] | None, n_layers: int, n_heads: int) -> list[Head]:
    """Heads that the model has, in reading order and once each; all of them for None.

    Raises:
        ValueError: naming the argument, if the model has no such head.
    """
    if heads is None:
        return heads_of(head_index(n_layers, n_heads))
    chosen = sorted({Head(int(layer), int(head)) for layer, head in heads})
    for head in chosen:
        if not (0 <= head.layer < n_layers and 0 <= head.head < n_heads):
            raise ValueError(f"{name}: expected heads of {n_layers} layers x {n_heads} heads, got {tuple(head)}")
    return chosen


# ---- one row a head


def head_index(n_layers: int, n_heads: int) -> pd.DataFrame:
    """One row a head: columns ``layer`` and ``head``, in reading order."""
    layer, head = np.divmod(np.arange(n_layers * n_heads), n_heads)
    return pd.DataFrame({"layer": layer, "head": head})


def heads_of(table: pd.DataFrame) -> list[Head]:
    """The head of each row, from columns ``layer`` and ``head``.

    >>> print(*heads_of(head_index(1, 2)))
    0.0 0.1
    """
    return _heads(table.layer, table["head"])


def head_names(table: pd.DataFrame) -> list[str]:
    """The name of each row's head, ``"9.6"``."""
    return [str(head) for head in heads_of(table)]


def model_shape(table: pd.DataFrame) -> tuple[int, int]:
    """Layers, and heads a layer, of the model whose every head has a row."""
    return int(table.layer.max()) + 1, int(table["head"].max()) + 1


# ---- one row a pair of heads


def pair_index(first: ArrayLike, second: ArrayLike) -> pd.DataFrame:
    """One row a pair of heads: columns `PAIR`, from two lists of heads (or arrays of shape ``(pair, 2)``).

    >>> pair_index([(0, 1)], [(2, 3)]).to_dict("list")
    {'layer_1': [0], 'head_1': [1], 'layer_2': [2], 'head_2': [3]}
    """
    sides = (np.asarray(side, dtype=int).reshape(-1, 2) for side in (first, second))
    return pd.DataFrame(np.hstack([*sides]), columns=PAIR)


def pairs_of(table: pd.DataFrame) -> list[tuple[Head, Head]]:
    """The two heads of each row, from the columns `PAIR`."""
    return list(zip(_heads(table.layer_1, table.head_1), _heads(table.layer_2, table.head_2), strict=True))


def _heads(layers: pd.Series, heads: pd.Series) -> list[Head]:
    return [Head(int(layer), int(head)) for layer, head in zip(layers, heads, strict=True)]

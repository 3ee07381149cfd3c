"""Pairs or sets: which test a comparison of two prompt sets gets, what it could find at best, and its name in words."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal, get_args

import pandas as pd

from helpers.prompts.pairing import are_pairs
from helpers.prompts.tokens import TokenizedPrompt
from helpers.statistics.pairs import paired_tests, smallest_paired_p
from helpers.statistics.shifts import PerPrompt, Resolution, check_sides, head_shifts, head_tests, smallest_p

Design = Literal["pairs", "sets"]
#: A head shifts if its false-discovery rate is below this.
Q = 0.05


def design_of(
    active: Sequence[TokenizedPrompt],
    control: Sequence[TokenizedPrompt],
    query: str = "END",
    wanted: Design | None = None,
) -> Design:
    """``wanted``, if that can be had; else ``"pairs"`` where the sides are pairs (`are_pairs`), and ``"sets"`` where not.

    Raises:
        ValueError: if ``wanted`` is neither, or pairs are wanted of sides with different numbers of prompts.
    """
    if wanted is None:
        return "pairs" if are_pairs(active, control, query) else "sets"
    if wanted not in get_args(Design):
        raise ValueError(f"design: expected 'pairs' or 'sets', got {wanted!r}")
    if wanted == "pairs" and len(active) != len(control):
        raise ValueError(
            f"design: expected as many active as control prompts for pairs, got {len(active)} and {len(control)}"
        )
    return wanted


def shifts_and_tests(
    active: PerPrompt, control: PerPrompt, design: Design, *, resolution: Resolution
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Means, shift and interval of each head (columns as `head_shifts`), and its test (p, q).

    Pairs: `paired_tests` (sign flips, bootstrap over pairs). Sets: `head_tests` (Mann-Whitney), both sides resampled apart.
    """
    if design == "sets":
        return head_shifts(active, control, resolution=resolution), head_tests(active, control, resolution=resolution)
    check_sides(active, control)
    found = paired_tests(active, control, resolution=resolution)
    means = {name: side.mean(0).ravel() for name, side in (("active", active), ("control", control))}
    return found.assign(**means), found


def smallest_q(design: Design, n_active: int, n_control: int, n_heads: int, shifting: int = 1) -> float:
    """The q of heads that shift as clearly as can be, if ``shifting`` heads do and no other; at most 1."""
    p = smallest_paired_p(n_active) if design == "pairs" else smallest_p(n_active, n_control)
    return min(1.0, p * n_heads / shifting)


def design_in_words(design: Design, n_active: int, n_control: int, n_heads: int) -> str:
    """Which test, over how many prompts, and the smallest q that a head could reach by itself."""
    alone = smallest_q(design, n_active, n_control, n_heads)
    what = (
        f"paired sign-flip test over {n_active} pairs"
        if design == "pairs"
        else f"rank test (Mann-Whitney) over two sets of {n_active} and {n_control} prompts"
    )
    return f"{what}; smallest q of a head that shifts alone: {alone:.2g}"


def power_note(design: Design, n_active: int, n_control: int, n_heads: int) -> str:
    """What so few prompts can't show; empty if a head can be significant by itself."""
    best = partial(smallest_q, design, n_active, n_control)
    if best(n_heads) < Q:
        return ""
    needed = next((m for m in range(2, n_heads + 1) if best(n_heads, m) < Q), None)
    what = f"needs {needed} heads that do" if needed else "can't be reached"
    prompts = f"{n_active} pairs" if design == "pairs" else f"{n_active} and {n_control} prompts"
    return f"With {prompts} a head that shifts as clearly as can be has p = {best(1):.2g}: q < {Q} over {n_heads} heads {what}."

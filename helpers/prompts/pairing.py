"""Whether two prompt sets are pairs: every prompt and its twin on the other side."""

from __future__ import annotations

from collections.abc import Sequence

from helpers.prompts.tokens import TokenizedPrompt

#: A twin differs in at most this share of the tokens. Pairs of the tasks here differ in 0.06 to 0.30 of them; of the post's
#: IOI and ABC prompts, which are no pairs, most differ in half or more.
MOST_CHANGED = 1 / 3


def are_pairs(active: Sequence[TokenizedPrompt], control: Sequence[TokenizedPrompt], query: str = "END") -> bool:
    """Whether prompt k of one side and prompt k of the other are a minimal pair, for every k.

    Both are as long, differ in at least one token and at most in a third of them, and ``query`` names the same token.
    """
    return len(active) == len(control) and all(
        are_twins(one, other) and one.positions.get(query) == other.positions.get(query)
        for one, other in zip(active, control, strict=True)
    )


def are_twins(one: TokenizedPrompt, other: TokenizedPrompt) -> bool:
    """Whether two prompts are as long and differ in at least one token and at most in a third of them."""
    changed = sum(a != b for a, b in zip(one.ids, other.ids, strict=False))
    return len(one) == len(other) and 0 < changed <= MOST_CHANGED * len(one)

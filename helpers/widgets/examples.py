"""The playground's ready prompts, and those of a reader's own names and frames; made for a model's tokenizer where need be."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from helpers.attention.capture import tokenize_for
from helpers.demo.corpus import OBJECTS
from helpers.prompts.fit import fit_task
from helpers.prompts.ioi import abc_prompts, ioi_prompts
from helpers.prompts.prompt import Prompt
from helpers.prompts.sifting import most_frequent
from helpers.prompts.tasks import ioi_pairs, named_like_ioi, ownership, repeated_lists
from helpers.widgets.inputs import Inputs

#: Prompts a side: enough for one head of a few hundred to be found by a paired test (p = 0.0001 at best).
N = 20
#: What the menu of examples calls prompts of the reader's own.
OWN, TYPED = "your own frames and names", "your own prompts"


def ioi_example(n: int = N) -> Inputs:
    """The post's first prompts: IOI against ABC."""
    return _inputs(ioi_prompts(n), named_like_ioi(abc_prompts(n)))


def pairs_example(n: int = N) -> Inputs:
    """IOI prompts against the same with another giver."""
    return _inputs(*ioi_pairs(n))


def lists_example(n: int = N, *, seed: int = 0) -> Inputs:
    """Nine words: the last three repeat the first three, or don't."""
    return _inputs(*repeated_lists(n, words=OBJECTS, seed=seed))


def ownership_example(n: int = N) -> Inputs:
    """Two people with a thing each: whose is the ring; or whose is what nobody has."""
    return _inputs(*ownership(n))


EXAMPLES: dict[str, Callable[[int], Inputs]] = {
    "minimal pairs": pairs_example,
    "IOI and ABC prompts": ioi_example,
    "repeated word lists": lists_example,
    "ownership": ownership_example,
}
_TASKS = {"minimal pairs": "ioi", "repeated word lists": "repeated", "ownership": "ownership"}


def example(name: str, model: Any = None, n: int = N) -> Inputs:
    """An example as it is, or, where a model's tokenizer splits its names or makes prompts of several lengths, made for that.

    Args:
        name: one of `EXAMPLES`.
        model: what `load_model` returns; None leaves the prompts as they are.

    Raises:
        ValueError: one sentence, if the tokenizer allows too few prompts.
    """
    inputs = EXAMPLES[name](n)
    if model is None or all(len(_usable(side, model)) == n for side in inputs.sides.values()):
        return inputs
    first = {"prepend_bos": model.tokenizer.bos_token_id is not None}
    if name in _TASKS:
        fitted = fit_task(_TASKS[name], model.tokenizer, n, **first)
        return _inputs(fitted.clean, fitted.corrupt)
    active, control = (_usable(side, model) for side in ioi_example(8 * n).sides.values())
    return _inputs(active[:n], control[:n])


def own_example(names: str, frames: str, n: int = N) -> Inputs:
    """Minimal pairs of the reader's names (separated by commas or blanks) and frames (one a line).

    Raises:
        ValueError: one sentence, if they are unusable (see `helpers.prompts.ioi.minimal_pairs`).
    """
    pool, lines = re.findall(r"[^\s,]+", names), [line.strip() for line in frames.splitlines() if line.strip()]
    if not lines:
        raise ValueError("frames: expected at least one, with {X}, {Y} and {GIVER} in it, got none")
    exist = 2 * len(lines) * math.perm(len(pool), 2)
    return _inputs(*ioi_pairs(max(1, min(n, exist)), names=pool, frames=lines))


def _inputs(active: Sequence[Prompt], control: Sequence[Prompt]) -> Inputs:
    return Inputs(tuple(active), tuple(control))


def _usable(prompts: Sequence[Prompt], model: Any) -> list[Prompt]:
    """The prompts that the model's tokenizer takes, of the length that most of them have."""
    lengths: dict[int, int] = {}
    for number, prompt in enumerate(prompts):
        try:
            lengths[number] = len(
                tokenize_for(model, [prompt], prepend_bos=model.tokenizer.bos_token_id is not None)[0]
            )
        except ValueError:
            continue
    usual = most_frequent([*lengths.values()])
    return [prompts[number] for number, length in lengths.items() if length == usual]

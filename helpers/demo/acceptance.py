"""Is a demo model good enough to ship? Decided by task accuracy alone; no attention row is looked at."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from scipy import stats

from helpers.attention.capture import record_attention
from helpers.attention.record import Readout
from helpers.demo.corpus import FRAMES, MIXTURE, Sentence, abc, held_out, ioi
from helpers.models.model import LanguageModel
from helpers.prompts.ioi import NAMES, abc_prompt, ioi_prompt
from helpers.prompts.prompt import Prompt

#: At least this share of held-out IOI prompts must have IO as top token, for ABBA and BABA each.
LEAST_ACCURACY = 0.99
ABC_PROMPTS, PER_KIND, CONFIDENCE = 1000, 200, 0.99


def held_out_ioi(template: str) -> list[Prompt]:
    """All IOI prompts of a template whose (frame, name pair) never occurred in training, either name as IO."""
    prompts = []
    for frame, pair in sorted((f, sorted(p)) for f, p in held_out()):
        for io, s in (pair, pair[::-1]):
            prompts.append(ioi_prompt(template, FRAMES.index(frame), io, s))
    return prompts


def held_out_abc(n: int = ABC_PROMPTS, seed: int = 0) -> list[Prompt]:
    """ABC prompts whose (frame, name pair) never occurred in training, with a random third name."""
    rng = random.Random(seed)
    combinations = sorted((f, sorted(p)) for f, p in held_out())
    prompts = []
    for _ in range(n):
        frame, pair = rng.choice(combinations)
        a, b = rng.sample(pair, 2)
        c = rng.choice([name for name in NAMES if name not in pair])
        prompts.append(abc_prompt(FRAMES.index(frame), a, b, c))
    return prompts


def examine(model: LanguageModel) -> dict[str, Any]:
    """Everything the model card reports about accuracy.

    Returns:
        ``ioi``: template -> accuracy, mean logit difference, number of prompts; ``abc``: mean share of A among A and B
        with the interval that a fair coin stays in; ``kinds``: sentence kind -> top-1 accuracy of its determined word;
        ``accepted``: the verdict of `is_accepted`.
    """
    ioi_scores = {template: _ioi(_ask(model, held_out_ioi(template))) for template in ("ABBA", "BABA")}
    result = {"ioi": ioi_scores, "abc": _abc(_ask(model, held_out_abc())), "kinds": _kinds(model)}
    return result | {"accepted": is_accepted(result)}


def is_accepted(result: dict[str, Any]) -> bool:
    """The rule, fixed before any model was trained: IOI accuracy, and no preference beyond chance on ABC prompts."""
    low, high = result["abc"]["fair_coin"]
    good = all(score["accuracy"] >= LEAST_ACCURACY for score in result["ioi"].values())
    return bool(good and low <= result["abc"]["share_of_a"] <= high)


def _ask(model: LanguageModel, prompts: Sequence[Prompt]) -> Readout:
    readout = record_attention(model, prompts, readout=True, batch_size=100, progress=False).readout
    assert readout is not None
    return readout


def _ioi(said: Readout) -> dict[str, Any]:
    return {
        "accuracy": said.correct.mean().item(),
        "logit_difference": said.logit_difference.mean().item(),
        "prompts": len(said.correct),
    }


def _abc(said: Readout) -> dict[str, Any]:
    """P(A) / (P(A) + P(B)), averaged, against what n throws of a fair coin give in 99 of 100 cases."""
    n = len(said.p_answer)
    return {
        "share_of_a": (said.p_answer / (said.p_answer + said.p_foil)).mean().item(),
        "fair_coin": [float(k) / n for k in stats.binom.interval(CONFIDENCE, n, 0.5)],
        "prompts": n,
    }


def _kinds(model: LanguageModel) -> dict[str, float]:
    """Top-1 accuracy on the word that a sentence's beginning determines, for every kind that has one."""
    rng = random.Random("acceptance")
    scores = {}
    for kind in MIXTURE:
        if kind in (ioi, abc):
            continue
        sentences = [s for s in _sample(kind, rng) if s.is_determined]
        if sentences:
            said = _ask(model, [Prompt(s.prompt, answer=s.answer) for s in sentences])
            scores[kind.__name__] = said.correct.mean().item()
    return scores


def _sample(kind: Callable[[random.Random], Sentence], rng: random.Random) -> list[Sentence]:
    return [kind(rng) for _ in range(PER_KIND)]

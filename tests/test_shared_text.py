"""Prompts that share their text up to the position read: their rows are equal but for rounding, and no head moves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from helpers.attention.capture import record_attention
from helpers.diagnostics.heads import diagnose, head_resolution
from helpers.diagnostics.resolution import ROUNDING
from helpers.experiment import Experiment, analyse
from helpers.prompts.ioi import ioi_prompts
from helpers.prompts.prompt import Prompt
from helpers.wording import report


def read_inside(texts: list[str], read: list[int]) -> list[Prompt]:
    """Prompts to be read at the word that ends at the character given."""
    ends = zip(texts, read, strict=True)
    return [Prompt(text, spans={"Q": (text.rindex(" ", 0, end) + 1, end)}) for text, end in ends]


def compared(model: Any, active: list[Prompt], control: list[Prompt]) -> Experiment:
    return analyse(*(record_attention(model, side, query="Q", progress=False) for side in (active, control)))


def assert_nothing_moves(found: Experiment) -> None:
    """No interval without 0, no q below 1, no distance, scores that rank nothing, and a report that says 0 heads."""
    for name in ("kl", "chi"):
        resolution = head_resolution(name, found.kl_chi_active, found.kl_chi_control).ravel()
        difference = getattr(found.kl_chi_active, name).mean(0) - getattr(found.kl_chi_control, name).mean(0)
        assert (np.abs(difference.ravel()) <= resolution).all()
        table = found.table.filter(regex=f"^d_{name}(_low|_high|_p|_q)?$").set_axis(
            ["shift", "low", "high", "p", "q"], axis=1
        )
        assert (table["shift"] == 0).all()
        assert ((table.low < 0) & (table.high > 0)).all()
        assert (table[["p", "q"]] == 1).all(axis=None)
    assert f"0 of {len(found.table)} heads shift their KL and 0 their chi" in report(found)


PREFIX = "The capital of France is a city that"
TAILS = [
    " is",
    " people love",
    " was built on a river long ago",
    " many visit",
    " I know",
    " never sleeps, as they say, in summer",
]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_real_model_on_one_text_continued(dtype: str, smollm2: Any) -> None:
    """SmolLM2 read inside a prefix that both sets share, 12 prompts of other lengths a side: 0 of 270 heads shift."""
    from helpers import load_model

    model = smollm2 if dtype == "float32" else load_model("smollm2", dtype=dtype, device="cpu")
    texts = [PREFIX] * 12, [PREFIX + tail for tail in TAILS * 2]
    found = compared(model, *(read_inside(side, [len(PREFIX)] * 12) for side in texts))
    assert diagnose(found.active).rounding == ROUNDING[dtype]
    assert any("this precision" in note for note in found.notes) == (dtype == "bfloat16")
    assert_nothing_moves(found)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_demo_model_before_the_sides_differ(dtype: str) -> None:
    """24 IOI prompts against the same up to S2, read there: 0 heads shift, whatever each prompt's own text is."""
    from helpers import load_model

    prompts = ioi_prompts(24)
    ends = [prompt.spans["S2"][1] for prompt in prompts]
    whole, cut = [p.text for p in prompts], [p.text[:end] for p, end in zip(prompts, ends, strict=True)]
    assert_nothing_moves(compared(load_model("demo", dtype=dtype), read_inside(whole, ends), read_inside(cut, ends)))

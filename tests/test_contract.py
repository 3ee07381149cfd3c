"""What every function that runs a model promises: the model is left as it was, batches and order don't matter, no empty batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from architectures import GEMMA, LLAMA, WINDOW
from models import random_model
from transformers import Gemma2Config, LlamaConfig

from helpers import (
    attribute_heads,
    load_model,
    minimal_pairs,
    patch_heads,
    patch_paths,
    record_attention,
    record_changes,
    record_outputs,
    run_tempered,
)
from helpers.knob import answer_slopes

pytestmark = pytest.mark.slow

Run = Callable[..., list[np.ndarray]]

#: Pairs of one length: 3 of them, so that batches of 2 are uneven.
CLEAN, CORRUPT = minimal_pairs(3, seed=3)


def _attention(model: Any, clean: Any, corrupt: Any, **options: Any) -> list[np.ndarray]:
    record = record_attention(model, clean, readout=True, progress=False, **options)
    assert record.readout is not None
    return [record.rows.numpy(), record.readout.logit_difference.numpy()]


def _all_attention(model: Any, clean: Any, corrupt: Any, **options: Any) -> list[np.ndarray]:
    return [record_attention(model, clean, query="all", progress=False, **options).rows.numpy()]


def _outputs(model: Any, clean: Any, corrupt: Any, **options: Any) -> list[np.ndarray]:
    found = record_outputs(model, clean, progress=False, **options)
    assert found.value_variance is not None
    return [found.z, found.attribution, found.value_variance]


def _changes(model: Any, clean: Any, corrupt: Any, **options: Any) -> list[np.ndarray]:
    found = record_changes(model, clean, corrupt, progress=False, **options)
    return [found.clean, found.corrupt, found.change]


def _patching(model: Any, clean: Any, corrupt: Any, **options: Any) -> list[np.ndarray]:
    run = patch_heads(model, clean, corrupt, progress=False, **options)
    return [run.clean, run.corrupt, *(np.moveaxis(x, -1, 0) for x in (run.denoised, run.noised))]


def _attribution(model: Any, clean: Any, corrupt: Any, **options: Any) -> list[np.ndarray]:
    return [np.moveaxis(attribute_heads(model, clean, corrupt, progress=False, **options), -1, 0)]


def _paths(model: Any, clean: Any, corrupt: Any, **options: Any) -> list[np.ndarray]:
    run = patch_paths(model, clean, corrupt, senders=[(0, 1), (0, 3)], progress=False, **options)
    return [run.clean, np.moveaxis(run.patched, -1, 0)]


def _tempered(model: Any, clean: Any, corrupt: Any, **options: Any) -> list[np.ndarray]:
    run = run_tempered(model, clean, {(0, 1): [0, 2], (1, 3): 0.5}, progress=False, **options)
    return [run.plain.numpy(), *(np.moveaxis(x.numpy(), 0, 1) for x in (run.logits, run.rows))]


def _answer_slopes(model: Any, clean: Any, corrupt: Any, **options: Any) -> list[np.ndarray]:
    return [answer_slopes(model, clean, progress=False, **options)]


#: Name -> a function that gives arrays whose first axis is the prompt, or the pair.
FUNCTIONS: dict[str, Run] = {
    "record_attention": _attention,
    "record_attention, all queries": _all_attention,
    "record_outputs": _outputs,
    "record_changes": _changes,
    "patch_heads": _patching,
    "attribute_heads": _attribution,
    "patch_paths": _paths,
    "run_tempered": _tempered,
    "answer_slopes": _answer_slopes,
}


KINDS = ("gpt2", "llama", "gemma2")


def folder_of(kind: str, request: pytest.FixtureRequest, words: Any, factory: pytest.TempPathFactory) -> Path:
    """The tiny GPT-2, and random models with grouped keys, and with windows in every other layer, as folders."""
    if kind == "gpt2":
        tiny: Path = request.getfixturevalue("tiny_folder")
        return tiny
    special = {"vocab_size": len(words), "bos_token_id": words.bos_token_id, "eos_token_id": 0, "pad_token_id": 1}
    window = {"sliding_window": WINDOW, "query_pre_attn_scalar": 8}
    config = LlamaConfig(**(LLAMA | special)) if kind == "llama" else Gemma2Config(**(GEMMA | special | window))
    folder = factory.mktemp("models") / kind
    random_model(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest, words: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model of each kind, loaded."""
    return load_model(str(folder_of(request.param, request, words, tmp_path_factory)), device="cpu")


@pytest.fixture(scope="module")
def whole(model: Any) -> dict[str, list[np.ndarray]]:
    """Everything in one batch."""
    return {name: run(model, CLEAN, CORRUPT) for name, run in FUNCTIONS.items()}


def state(model: Any) -> tuple[Any, ...]:
    """All that a run could leave behind: hooks, modes, gradients, the attention function, the weights."""
    modules = [*model.hf.modules(), *model.lens.modules()]
    parameters = [*model.hf.parameters(), *model.lens.parameters()]
    return (
        sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in modules),
        {m.training for m in modules},
        {"forward" in vars(m) for m in modules},
        [p.requires_grad for p in parameters],
        [p.grad for p in parameters],
        [float(p.double().sum()) for p in parameters],
        model.hf.config._attn_implementation,
        torch.is_grad_enabled(),
        model.is_as_made,
    )


def close(one: list[np.ndarray], other: list[np.ndarray]) -> None:
    for left, right in zip(one, other, strict=True):
        np.testing.assert_allclose(left, right, rtol=0, atol=2e-5 * np.nanmax(np.abs(right)))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_model_is_left_as_it_was(name: str, model: Any) -> None:
    """Hooks, modes, gradients, attention function and weights are the same after a run, and after one that fails."""
    model.lens  # noqa: B018
    before = state(model)
    FUNCTIONS[name](model, CLEAN, CORRUPT)
    assert state(model) == before
    handle = model.lens.blocks[1].register_forward_pre_hook(_fail)
    own = _last(model.hf).register_forward_pre_hook(_fail)
    try:
        with pytest.raises(ArithmeticError, match="on purpose"):
            FUNCTIONS[name](model, CLEAN, CORRUPT)
    finally:
        handle.remove()
        own.remove()
    assert state(model) == before


def _fail(*_: Any) -> None:
    raise ArithmeticError("on purpose")


def _last(hf: Any) -> Any:
    """The last block as transformers made it."""
    return next(m for m in hf.modules() if isinstance(m, torch.nn.ModuleList))[-1]


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_batches_do_not_matter(name: str, size: int, model: Any, whole: dict[str, list[np.ndarray]]) -> None:
    """One by one, or two at a time: what all at once gives, to rounding."""
    close(FUNCTIONS[name](model, CLEAN, CORRUPT, batch_size=size), whole[name])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_order_does_not_matter(name: str, model: Any, whole: dict[str, list[np.ndarray]]) -> None:
    """Prompts in another order: the same numbers in that order."""
    order = [2, 0, 1]
    found = FUNCTIONS[name](model, [CLEAN[i] for i in order], [CORRUPT[i] for i in order])
    close(found, [array[order] for array in whole[name]])


@pytest.mark.parametrize("size", [0, -1])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_empty_batch_is_refused(name: str, size: int, model: Any) -> None:
    """One sentence that names the argument, the rule and the value."""
    with pytest.raises(
        ValueError, match=rf"^batch_size: expected at least 1 (prompt|pair) a forward pass, got {size}$"
    ):
        FUNCTIONS[name](model, CLEAN, CORRUPT, batch_size=size)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_prompts_are_refused(name: str, model: Any) -> None:
    """Nothing to run is no result."""
    with pytest.raises(ValueError, match=r"expected at least one prompt, got none$"):
        FUNCTIONS[name](model, [], [])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_another_kind_of_model_is_refused(name: str) -> None:
    """One sentence that says what to pass, and how a model in memory becomes that."""
    with pytest.raises(
        ValueError, match=r"^model: expected what load_model returns, got Linear; LanguageModel\(hf_model"
    ):
        FUNCTIONS[name](torch.nn.Linear(1, 1), CLEAN, CORRUPT)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_overflow_is_refused(name: str, tiny_folder: Any) -> None:
    """float16 that overflows in the last MLP: one sentence with the dtype and the layer, not numbers made of NaN."""
    model = load_model(str(tiny_folder), device="cpu", dtype="float16")
    model.lens  # noqa: B018  (before its weights are spoilt: it would be refused)
    with torch.no_grad():
        model.hf.transformer.h[-1].mlp.c_proj.weight.fill_(6e4)
    if name == "record_attention, all queries":  # rows of the last layer come before its MLP
        assert np.isfinite(FUNCTIONS[name](model, CLEAN, CORRUPT)[0]).all()
        return
    with pytest.raises(
        ValueError, match=r"^model '.*': expected finite numbers, got .* in float16, first in layer 2; load it"
    ):
        FUNCTIONS[name](model, CLEAN, CORRUPT)

"""Rows from fused attention are the model's own eager rows, in every architecture that is not refused with its reason."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from architectures import GPT2, LENGTH, LLAMA, REFUSED, SERVED, VOCABULARY, build
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from helpers import load_model
from helpers.models import fused, interface
from helpers.models.fused import Rows, rows_of, supports_fused

AT = [LENGTH - 1, 4, 7]  # END, and queries at both sides of the window


@pytest.fixture(scope="module")
def model_of() -> Callable[..., Any]:
    """One model a kind and dtype."""
    return cache(lambda kind, dtype="float32": build(kind, SERVED[kind].shape, dtype))


def random_ids(n: int = len(AT), length: int = LENGTH) -> Tensor:
    return torch.randint(3, VOCABULARY, (n, length), generator=torch.Generator().manual_seed(1))


def eager(model: Any, ids: Tensor) -> tuple[Tensor, Tensor]:
    """What transformers says: attention (prompt, layer, head, query, key), and logits at END."""
    with torch.no_grad():
        said = model(ids, output_attentions=True, use_cache=False)
    return torch.stack([a for a in said.attentions if a is not None], dim=1), said.logits[:, -1]


def seen_by(kind: str, t: int) -> Tensor:
    """By the shape's own rule, which keys the t-th query sees: (layer, key)."""
    keys = torch.arange(LENGTH)
    shape = SERVED[kind]
    if shape.chunk:
        return torch.stack([(keys <= t) & (keys // shape.chunk == t // shape.chunk) for _ in shape.windows])
    return torch.stack([(keys <= t) & (keys > t - (window or LENGTH)) for window in shape.windows.values()])


# Equal to the eager model


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", SERVED)
def test_rows_equal_output_attentions(
    kind: str, dtype: str, model_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of one position a prompt, each its own, and logits = eager mode's (float32 to 1e-6); layers keep their numbers."""
    monkeypatch.setattr(interface, "BLOCK", 4)  # several blocks, the last one short
    model, ids = model_of(kind, dtype), random_ids()
    assert supports_fused(model) == ""
    attention, logits = eager(model, ids)
    expected = attention[torch.arange(len(AT)), :, :, AT]
    got = rows_of(model, ids, AT, logits=True)
    assert got.layers == tuple(SERVED[kind].windows)
    assert got.rows.dtype == getattr(torch, dtype)
    assert got.rows.shape == (len(AT), len(got.layers), 4, LENGTH)
    exact = dtype == "float32"
    torch.testing.assert_close(got.rows, expected, rtol=0, atol=1e-6 if exact else 3e-2)
    torch.testing.assert_close(got.logits, logits, rtol=0, atol=1e-5 if exact else 0.3)
    assert attention.float().std(2).max() > 0.05, "heads are alike: equality would say nothing"


@pytest.mark.parametrize("kind", SERVED)
def test_all_rows_equal_output_attentions(kind: str, model_of: Callable[..., Any]) -> None:
    """Rows of all positions are eager mode's, bit by bit, and the logits with them to 1e-5."""
    model, ids = model_of(kind), random_ids()
    attention, logits = eager(model, ids)
    got = rows_of(model, ids, None, logits=True)
    assert torch.equal(got.rows, attention)
    torch.testing.assert_close(got.logits, logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", SERVED)
def test_visible_keys_are_those_of_the_mask(kind: str, model_of: Callable[..., Any]) -> None:
    """Visible are the keys of the kind's window or chunk, for one position a prompt and for all; no weight elsewhere."""
    model, ids = model_of(kind), random_ids()
    one, every = rows_of(model, ids, AT), rows_of(model, ids, None)
    for prompt, t in enumerate(AT):
        assert torch.equal(one.visible[prompt], seen_by(kind, t))
    expected = torch.stack([seen_by(kind, t) for t in range(LENGTH)], dim=1)
    assert torch.equal(every.visible, expected.expand(len(AT), -1, -1, -1))
    assert not one.rows[~one.visible[:, :, None].expand_as(one.rows)].any()


# Sinks


def test_a_sink_may_count_as_a_key_or_not(model_of: Callable[..., Any]) -> None:
    """Without its sink a layer has the rows that are given when the sink is no key; otherwise rows sum to less than 1."""
    model, ids = model_of("gpt_oss"), random_ids()
    with_sink, without = (rows_of(model, ids, AT, sink_is_a_key=counts).rows for counts in (True, False))
    bare = build("gpt_oss", SERVED["gpt_oss"].shape)
    bare.model.layers[0].self_attn.sinks.data.fill_(-1e4)
    expected = rows_of(bare, ids, AT).rows
    torch.testing.assert_close(without[:, 0], expected[:, 0], rtol=0, atol=1e-6)
    torch.testing.assert_close(without.sum(-1), torch.ones(len(AT), 2, 4))
    assert with_sink.sum(-1).max() < 1
    assert with_sink.sum(-1).min() < 0.9
    torch.testing.assert_close(without, with_sink / with_sink.sum(-1, keepdim=True))


def test_a_model_without_sinks_does_not_care(model_of: Callable[..., Any]) -> None:
    """Rows of a model without sinks are the same, bit by bit, whatever a sink would count as."""
    one, other = (rows_of(model_of("llama"), random_ids(), AT, sink_is_a_key=counts).rows for counts in (True, False))
    assert torch.equal(one, other)


# What is computed


class Sizes(TorchDispatchMode):
    """Keeps the shape and type of every tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[tuple[tuple[int, ...], torch.dtype]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        several = out if isinstance(out, tuple | list) else [out]
        self.made += [(tuple(t.shape), t.dtype) for t in several if isinstance(t, Tensor)]
        return out

    def squares(self, length: int) -> list[tuple[tuple[int, ...], torch.dtype]]:
        return [(shape, dtype) for shape, dtype in self.made if shape.count(length) > 1]


LONG = 150  # longer than a block, and no other size in the models


@pytest.mark.parametrize("kind", SERVED)
def test_no_square_of_the_length(kind: str, model_of: Callable[..., Any]) -> None:
    """No operation makes a tensor with two axes of length T, neither weights nor masks; eager mode makes both."""
    model, ids = model_of(kind), random_ids(1, LONG)
    with Sizes() as ours:
        rows_of(model, ids, [LONG - 1], logits=True)
    assert ours.made
    assert not ours.squares(LONG)
    with Sizes() as theirs:
        eager(model, ids)
    squares = theirs.squares(LONG)
    assert ((1, 4, LONG, LONG), torch.float32) in squares
    assert ((1, 1, LONG, LONG), torch.bool) in squares


def test_stops_at_the_last_rows(model_of: Callable[..., Any]) -> None:
    """The last MLP runs only if logits are wanted, and rows are the same, bit by bit."""
    model, ids, ran = model_of("llama"), random_ids(), []
    handle = model.model.layers[-1].mlp.register_forward_hook(lambda *_: ran.append(1))
    try:
        stopped = rows_of(model, ids, AT)
        assert stopped.logits is None
        assert not ran
        whole = rows_of(model, ids, AT, logits=True)
    finally:
        handle.remove()
    assert ran
    assert torch.equal(stopped.rows, whole.rows)


@pytest.mark.parametrize("kind", ["gpt2", "mistral"])
def test_prompts_do_not_touch_each_other(kind: str, model_of: Callable[..., Any]) -> None:
    """A batch's rows are those of its prompts one by one."""
    model, ids = model_of(kind), random_ids()
    together = rows_of(model, ids, AT)
    for number, t in enumerate(AT):
        alone = rows_of(model, ids[number : number + 1], [t])
        torch.testing.assert_close(together.rows[number], alone.rows[0], rtol=0, atol=1e-6)


# What is left behind


def implementations(model: Any) -> set[str]:
    return {module.config._attn_implementation for module in model.modules() if hasattr(module, "config")}


@pytest.mark.parametrize("was", ["eager", "sdpa"])
@pytest.mark.parametrize("fails", [False, True], ids=["runs", "fails"])
def test_the_model_is_left_as_it_was(was: str, fails: bool) -> None:
    """Attention functions, hooks and logits of the model are the same after a pass, and after one that failed."""
    model, ids = build("llama", LLAMA), random_ids()
    model.set_attn_implementation(was)
    with torch.no_grad():
        before = model(ids).logits
    if fails:

        def fail(*_: Any) -> None:
            raise RuntimeError("on purpose")

        handle = model.model.layers[1].register_forward_pre_hook(fail)
        with pytest.raises(RuntimeError, match="on purpose"):
            rows_of(model, ids, AT)
        handle.remove()
    else:
        rows_of(model, ids, AT)
    assert implementations(model) == {was}
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    with torch.no_grad():
        assert torch.equal(model(ids).logits, before)


def test_rows_do_not_depend_on_what_the_model_was_set_to() -> None:
    """Eager, fused: the same rows, bit by bit."""
    model, ids = build("llama", LLAMA), random_ids()
    several: list[Rows] = []
    for implementation in ("eager", "sdpa"):
        model.set_attn_implementation(implementation)
        several.append(rows_of(model, ids, AT))
    assert torch.equal(several[0].rows, several[1].rows)


def test_the_registry_gains_one_name(model_of: Callable[..., Any]) -> None:
    """However often it is used, transformers' registry has our one name more, and its own functions."""
    rows_of(model_of("gpt2"), random_ids(), AT)
    before = dict(ALL_ATTENTION_FUNCTIONS)
    rows_of(model_of("gpt2"), random_ids(), AT)
    assert dict(ALL_ATTENTION_FUNCTIONS) == before
    assert interface.IMPLEMENTATION in before
    assert before["sdpa"] is transformers.integrations.sdpa_attention.sdpa_attention_forward


# Refused


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_where_attention_is_out_of_reach(kind: str) -> None:
    """One sentence that names the kind; and transformers itself can't change such a model's attention function."""
    model = build(kind, REFUSED[kind])
    reason = f"no attention of a {kind!r} model goes through transformers' AttentionInterface"
    assert supports_fused(model) == reason
    assert not model._can_set_attn_implementation()
    with pytest.raises(ValueError, match=f"^hf_model: {reason}$"):
        rows_of(model, random_ids(), AT)


def test_differential_attention_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its layers ask for attention twice: refused by name, and if the name were not known, at the second call."""
    model = build("diffllama", LLAMA)
    assert supports_fused(model) == "in a 'diffllama' model a head's pattern is the difference of two softmaxes"
    monkeypatch.setattr(fused, "OTHERWISE", {})
    with pytest.raises(ValueError, match=r"^hf_model: expected one attention pattern a layer, got another in layer 0$"):
        rows_of(model, random_ids(), AT)
    assert implementations(model) == {"eager"}


def test_sinks_outside_the_weights_are_refused() -> None:
    """granite_swa's eager weights sum to 1 though it has sinks: they would not be what its heads use."""
    model = build("granite_swa", LLAMA)
    attention, _ = eager(model, random_ids())
    torch.testing.assert_close(attention.sum(-1), torch.ones(attention.shape[:-1]))
    assert supports_fused(model) == "in a 'granite_swa' model the eager attention weights leave the sink out"


def test_models_of_another_make_are_refused(tmp_path: Path, words: Any) -> None:
    """TransformerLens's wrapped model, a body, an encoder-decoder and no model at all: a clause each."""
    shape = GPT2 | {"vocab_size": len(words)}
    build("gpt2", shape).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    wrapped = load_model(str(tmp_path), device="cpu").original_model
    assert supports_fused(wrapped).endswith("got one that TransformerLens has wrapped")
    body = build("gpt2", GPT2).transformer
    assert supports_fused(body) == "expected a causal (decoder-only) language model with its head, got GPT2Model"
    t5 = transformers.T5ForConditionalGeneration(
        transformers.T5Config(num_layers=1, d_model=16, d_kv=4, d_ff=16, num_heads=4, vocab_size=VOCABULARY)
    )
    assert supports_fused(t5).endswith("got T5ForConditionalGeneration")
    assert supports_fused("gpt2") == "expected a causal language model of transformers, got str"


@pytest.mark.parametrize(
    ("ids", "at", "sentence"),
    [
        (torch.ones(5, dtype=torch.long), [0], r"ids: expected token ids of shape \(prompt, token\), got torch.int64 \(5,\)"),
        (torch.ones(1, 5), [0], r"ids: expected token ids of shape \(prompt, token\), got torch.float32 \(1, 5\)"),
        (torch.ones(0, 5, dtype=torch.long), [], r"ids: expected .*, got torch.int64 \(0, 5\)"),
        (torch.ones(2, 5, dtype=torch.long), [0], r"at: expected one query position for each of 2 prompts, got 1"),
        (torch.ones(1, 5, dtype=torch.long), [5], r"at: expected positions from 0 to 4, got 5"),
        (torch.ones(1, 5, dtype=torch.long), [-1], r"at: expected positions from 0 to 4, got -1"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(ids: Tensor, at: list[int], sentence: str, model_of: Callable[..., Any]) -> None:
    """One sentence that names the argument, the rule and the value."""
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        rows_of(model_of("gpt2"), ids, at)


def test_training_mode_is_refused() -> None:
    """With dropout there is no one attention row."""
    model = build("gpt2", GPT2).train()
    with pytest.raises(ValueError, match=r"^hf_model: expected a model in evaluation mode"):
        rows_of(model, random_ids(), AT)

"""Contributions and direct attributions on other architectures, against derivatives of the modules of transformers alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import test_architectures
import torch
import transformers
from test_architectures import LLAMA_LIKE, SMALL
from torch import Tensor

from helpers import load_model, record_outputs
from helpers.contents.changes import record_changes
from helpers.prompts.prompt import Prompt

pytestmark = pytest.mark.slow

folder_of = test_architectures.folder_of

CLEAN = "When Mary and John went to the store , John gave a drink to"
CORRUPT = "When Mary and John went to the store , Tom gave a drink to"
SIDES = [[Prompt(text, answer="Mary", foil="John")] for text in (CLEAN, CORRUPT)]


class Anatomy(NamedTuple):
    """Where the parts of a transformers model are, and what it multiplies."""

    config: str
    shape: dict[str, Any]
    body: str = "model"
    layers: str = "layers"
    output: str = "self_attn.o_proj"
    after: str = ""
    final: str = "norm"
    writes_times: float = 1.0
    logits_times: float = 1.0


HEADS_8 = LLAMA_LIKE | {"head_dim": 8}
MODELS = {
    "a norm after attention": Anatomy("Olmo2Config", LLAMA_LIKE, after="post_attention_layernorm"),
    "that norm, weights from 1 on, capped logits": Anatomy(
        "Gemma2Config", HEADS_8 | {"final_logit_softcapping": 1.5, "query_pre_attn_scalar": 8, "sliding_window": 5},
        after="post_attention_layernorm",
    ),
    "that norm, query and key norms": Anatomy("Gemma3TextConfig", HEADS_8, after="post_attention_layernorm"),
    "sandwich norms": Anatomy("Glm4Config", HEADS_8 | {"pad_token_id": 0}, after="post_self_attn_layernorm"),
    "post-norm": Anatomy("Exaone4Config", LLAMA_LIKE, after="post_attention_layernorm"),
    "a norm without weights": Anatomy("OlmoConfig", LLAMA_LIKE),
    "scaled writes, embeddings and logits": Anatomy(
        "GraniteConfig",
        LLAMA_LIKE | {"residual_multiplier": 0.4, "logits_scaling": 3.0, "embedding_multiplier": 2.0},
        writes_times=0.4, logits_times=1 / 3,
    ),
    "parallel blocks, scaled logits": Anatomy("CohereConfig", LLAMA_LIKE | {"logit_scale": 0.25}, logits_times=0.25),
    "a norm of the embedding": Anatomy(
        "BloomConfig", {"n_layer": 2, "n_head": 4, "hidden_size": 32, "initializer_range": 0.3},
        "transformer", "h", "self_attention.dense", final="ln_f",
    ),
    "parallel blocks, biases": Anatomy(
        "PhiConfig", SMALL | {"intermediate_size": 64, "initializer_range": 0.3}, output="self_attn.dense",
        final="final_layernorm",
    ),
    "weights from 1 on in a LayerNorm": Anatomy("NemotronConfig", LLAMA_LIKE),
}  # fmt: skip


def held(norm: Any, x: Tensor, y: Tensor) -> Tensor:
    """What a norm makes of y with the scale that x gives, from its derivative alone: Dn(x) y + (n(x) - n(0)) x.y / x.x.

    For RMSNorm n(x) = g x / s, s^2 = x.x / d: Dn(x) y = g y / s - g x (x.y) / (d s^3). A LayerNorm is that of what is
    left of x and y without their means.
    """
    value, slope = torch.autograd.functional.jvp(norm, x, y)
    if torch.allclose(norm(x + 1), value):
        x, y = x - x.mean(-1, keepdim=True), y - y.mean(-1, keepdim=True)
    return (
        slope + (value - norm(torch.zeros_like(x))) * ((x * y).sum(-1) / x.square().sum(-1).clamp_min(1e-30))[..., None]
    )


def contributions(hf: Any, anatomy: Anatomy, ids: Tensor) -> tuple[Tensor, Tensor]:
    """By transformers in float64: each head's contribution, ``(layer, head, token, d_model)``, and the final norm's input."""
    body = getattr(hf, anatomy.body)
    blocks, found = getattr(body, anatomy.layers), []
    seen: dict[str, list[Tensor]] = {"z": [], "final": []}
    hooks = [
        b.get_submodule(anatomy.output).register_forward_pre_hook(lambda m, a: seen["z"].append(a[0][0]))
        for b in blocks
    ]
    final = body.get_submodule(anatomy.final)
    hooks.append(final.register_forward_pre_hook(lambda m, a: seen["final"].append(a[0][0])))
    with torch.no_grad():
        hf(ids)
    for hook in hooks:
        hook.remove()
    for block, z in zip(blocks, seen["z"], strict=True):
        project = block.get_submodule(anatomy.output)
        heads = torch.stack([torch.where(torch.arange(32) // 8 == h, z, 0) for h in range(4)])
        writes = heads @ project.weight.T
        if anatomy.after:
            norm = block.get_submodule(anatomy.after)
            writes = held(norm, project(z).expand(writes.shape), writes)
        found.append(anatomy.writes_times * writes)
    return torch.stack(found).detach(), seen["final"][-1]


@pytest.fixture(scope="module")
def taken_apart(folder_of: Callable[[str], Path]) -> Callable[[str], Any]:
    """A loaded model, and for both sides the contributions and the last stream by transformers alone."""

    @cache
    def take(name: str) -> Any:
        anatomy = MODELS[name]
        architecture = test_architectures.Architecture(getattr(transformers, anatomy.config), anatomy.shape)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(test_architectures.ARCHITECTURES, name, architecture)
            folder = folder_of(name)
        hf = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").double().eval()
        model = load_model(str(folder), device="cpu")
        ids = [torch.tensor([record_outputs(model, side, progress=False).prompts[0].ids]) for side in SIDES]
        return model, hf, [contributions(hf, anatomy, some) for some in ids]

    return take


@pytest.mark.parametrize("name", MODELS)
def test_attribution_is_the_derivative_with_scales_held(name: str, taken_apart: Callable[[str], Any]) -> None:
    """DLA of every head = u . n_final'(contribution) * factor, of logits before a cap; both norms by their derivatives."""
    model, hf, sides = taken_apart(name)
    anatomy = MODELS[name]
    right, wrong = (model.tokenizer.convert_tokens_to_ids(word) for word in ("Mary", "John"))
    u = hf.lm_head.weight[right] - hf.lm_head.weight[wrong]
    final = getattr(hf, anatomy.body).get_submodule(anatomy.final)
    for side, (writes, stream) in zip(SIDES, sides, strict=True):
        at_end = writes[:, :, -1]
        expected = anatomy.logits_times * held(final, stream[-1].expand(at_end.shape), at_end) @ u
        found = record_outputs(model, side, progress=False).attribution[0]
        np.testing.assert_allclose(found, expected.detach(), atol=2e-4 * expected.abs().max().item())
        assert expected.abs().max() > 0.01


@pytest.mark.parametrize("name", MODELS)
def test_changes_are_norms_of_contributions(name: str, taken_apart: Callable[[str], Any]) -> None:
    """Norms of both sides and of their difference = those of the writes by hand, every token; 0 before tokens differ."""
    model, _, ((one, _), (other, _)) = taken_apart(name)
    changes = record_changes(model, *SIDES, progress=False)
    expected = [x.norm(dim=-1).numpy() for x in (one, other, one - other)]
    for found, by_hand in zip((changes.clean, changes.corrupt, changes.change), expected, strict=True):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found[0], by_hand, atol=2e-4 * by_hand.max())
    first = next(
        t
        for t, (a, b) in enumerate(
            zip(*(o.prompts[0].ids for o in (changes.outputs_clean, changes.outputs_corrupt)), strict=True)
        )
        if a != b
    )
    assert not changes.change[..., :first].any()
    assert (changes.change[..., first:].max(-1) > 0).all()
    np.testing.assert_array_equal(changes.at_end(changes.change), changes.change[..., -1])
    np.testing.assert_allclose(changes.own, (changes.clean + changes.corrupt) / 2)


def test_the_cap_is_felt(taken_apart: Callable[[str], Any]) -> None:
    """The capped model's logits are far from those before the cap, so that the test above tells the two apart."""
    model, _, _ = taken_apart("that norm, weights from 1 on, capped logits")
    raw: list[Tensor] = []
    ids = torch.tensor([record_outputs(model, SIDES[0], progress=False).prompts[0].ids])
    with torch.no_grad():
        logits = model.run_with_hooks(ids, fwd_hooks=[("unembed.hook_out", lambda x, hook: raw.append(x))])
    torch.testing.assert_close(logits, 1.5 * torch.tanh(raw[0] / 1.5))
    assert (logits - raw[0]).abs().max() > 0.1


def test_logits_of_another_kind_are_refused(taken_apart: Callable[[str], Any]) -> None:
    """A cap of another size than the model names: the parts add up no more, and one sentence says so."""
    model, _, _ = taken_apart("that norm, weights from 1 on, capped logits")
    config = model.original_model.config
    config.final_logit_softcapping, cap = 1.0, config.final_logit_softcapping
    handle = model.unembed.original_component.register_forward_hook(lambda m, a, out: out + 0.3 * out.square())
    try:
        with pytest.raises(
            ValueError, match=r"^model: expected logits that are one norm and one linear map of the residual"
        ):
            record_outputs(model, SIDES[0], progress=False)
    finally:
        handle.remove()
        config.final_logit_softcapping = cap

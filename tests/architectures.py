"""Tiny shapes of many architectures, and plain PyTorch references for what is measured on them."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import pytest
import torch
import transformers
from models import random_model
from torch import Tensor

VOCABULARY, LENGTH, WINDOW = 97, 13, 5

SMALL = {
    "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "max_position_embeddings": 256,
    "vocab_size": VOCABULARY, "initializer_range": 0.2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
LLAMA = SMALL | {"intermediate_size": 64, "num_key_value_heads": 2}
GEMMA = LLAMA | {"head_dim": 8}
GPT2 = {
    "n_layer": 2, "n_head": 4, "n_embd": 32, "n_positions": 256, "vocab_size": VOCABULARY, "initializer_range": 0.2,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2, "num_experts": 4, "moe_intermediate_size": 16}
ALTERNATE = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
MLA = {
    "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8, "n_group": 1,
    "topk_group": 1, "n_routed_experts": 4, "num_experts_per_tok": 2, "first_k_dense_replace": 1,
    "moe_intermediate_size": 16, "num_key_value_heads": 4,
}  # fmt: skip
LINEAR = {
    "layer_types": ["linear_attention", "full_attention"], "linear_num_value_heads": 4, "linear_num_key_heads": 2,
    "linear_key_head_dim": 8, "linear_value_head_dim": 8, "shared_expert_intermediate_size": 16,
}  # fmt: skip
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_chunk_size": 8, "mamba_n_groups": 1}


class Kind(NamedTuple):
    """A tiny shape, and for each attention layer its window (0: none); ``chunk``: layers see their chunk alone."""

    shape: dict[str, Any]
    windows: dict[int, int] = {0: 0, 1: 0}  # noqa: RUF012  (a constant)
    chunk: int = 0


BOTH, FIRST = {0: WINDOW, 1: WINDOW}, {0: WINDOW, 1: 0}
SERVED = {
    "apertus": Kind(LLAMA),
    "arcee": Kind(LLAMA),
    "biogpt": Kind(SMALL | {"intermediate_size": 64}),
    "cohere": Kind(LLAMA),
    "cohere2": Kind(LLAMA | ALTERNATE, FIRST),
    "deepseek_v3": Kind(LLAMA | MLA),
    "exaone4": Kind(LLAMA | ALTERNATE, FIRST),
    "falcon_h1": Kind(
        LLAMA | {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_chunk_size": 8}
    ),
    "gemma": Kind(GEMMA),
    "gemma2": Kind(GEMMA | ALTERNATE | {"attn_logit_softcapping": 2.0}, FIRST),
    "gemma3_text": Kind(GEMMA | ALTERNATE | {"query_pre_attn_scalar": 8}, FIRST),
    "glm": Kind(GEMMA),
    "gpt2": Kind(GPT2),
    "gpt_bigcode": Kind(GPT2),
    "gpt_neox": Kind(SMALL | {"intermediate_size": 64}),
    "gpt_oss": Kind(GEMMA | EXPERTS | ALTERNATE, FIRST),
    "granite": Kind(LLAMA | {"attention_multiplier": 0.2}),
    "jamba": Kind(
        LLAMA | EXPERTS | {"attn_layer_offset": 1, "attn_layer_period": 2, "mamba_d_state": 4, "mamba_dt_rank": 4,
                           "use_mamba_kernels": False}, {1: 0}
    ),
    "lfm2": Kind(LLAMA | {"layer_types": ["conv", "full_attention"]}, {1: 0}),
    "llama": Kind(LLAMA),
    "llama4_text": Kind(
        GEMMA | {"num_local_experts": 2, "intermediate_size_mlp": 64, "attention_chunk_size": WINDOW}, chunk=WINDOW
    ),
    "mistral": Kind(LLAMA | {"sliding_window": WINDOW}, BOTH),
    "mixtral": Kind(LLAMA | EXPERTS),
    "nemotron": Kind(GEMMA | {"initializer_range": 0.15}),
    "olmo": Kind(LLAMA),
    "olmo2": Kind(LLAMA),
    "olmo3": Kind(LLAMA | ALTERNATE, FIRST),
    "opt": Kind(SMALL | {"ffn_dim": 64, "word_embed_proj_dim": 32, "init_std": 0.2}),
    "persimmon": Kind(LLAMA),
    "phi": Kind(LLAMA),
    "phi3": Kind(LLAMA | {"sliding_window": WINDOW, "original_max_position_embeddings": 256}, BOTH),
    "qwen2": Kind(LLAMA),
    "qwen2_moe": Kind(LLAMA | EXPERTS | {"shared_expert_intermediate_size": 16}),
    "qwen3": Kind(GEMMA),
    "qwen3_next": Kind(GEMMA | EXPERTS | LINEAR, {1: 0}),
    "smollm3": Kind(LLAMA),
    "stablelm": Kind(LLAMA),
    "starcoder2": Kind(LLAMA | {"sliding_window": WINDOW}, BOTH),
}  # fmt: skip

#: Attention written into the module: transformers has no fused path for it that a function could stand in for.
REFUSED = {
    "bloom": {"n_layer": 2, "n_head": 4, "hidden_size": 32, "vocab_size": VOCABULARY},
    "codegen": GPT2 | {"rotary_dim": 4},
    "falcon": SMALL,
    "gpt_neo": {
        "num_layers": 2, "num_heads": 4, "hidden_size": 32, "window_size": WINDOW, "vocab_size": VOCABULARY,
        "initializer_range": 0.2, "attention_types": [[["global", "local"], 1]],
    },
    "gptj": GPT2 | {"rotary_dim": 4},
    "mpt": {"n_layers": 2, "n_heads": 4, "d_model": 32, "vocab_size": VOCABULARY, "max_seq_len": 64},
    "openai-gpt": GPT2 | {"initializer_range": 0.7},
    "xglm": {
        "num_layers": 2, "attention_heads": 4, "d_model": 32, "ffn_dim": 64, "vocab_size": VOCABULARY, "init_std": 0.2,
    },
}  # fmt: skip

#: The same kinds with settings that change what attention computes or where it is written: name -> (kind, shape).
VARIANTS = {
    "bamba": ("bamba", LLAMA | MAMBA | {"attn_layer_indices": [1]}),
    "cohere, query/key norm": ("cohere", LLAMA | {"use_qk_norm": True}),
    "deepseek_v2": ("deepseek_v2", LLAMA | MLA | {"topk_method": "greedy"}),
    "diffllama": ("diffllama", LLAMA),
    "ernie4_5": ("ernie4_5", LLAMA),
    "falcon, ALiBi": ("falcon", SMALL | {"alibi": True}),
    "falcon, grouped keys": ("falcon", SMALL | {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon, multi-head": ("falcon", SMALL | {"multi_query": False}),
    "gemma3, text and images": ("gemma3", {"text_config": GEMMA | ALTERNATE | {"query_pre_attn_scalar": 8}}),
    "glm4": ("glm4", GEMMA),
    "gpt2, scaled by layer": ("gpt2", GPT2 | {"scale_attn_by_inverse_layer_idx": True}),
    "gpt2, unscaled": ("gpt2", GPT2 | {"scale_attn_weights": False}),
    "gpt_bigcode, multi-head": ("gpt_bigcode", GPT2 | {"multi_query": False}),
    "gpt_bigcode, unscaled": ("gpt_bigcode", GPT2 | {"scale_attn_weights": False}),
    "gpt_neox, sequential": ("gpt_neox", SMALL | {"intermediate_size": 64, "use_parallel_residual": False}),
    "granite_swa": ("granite_swa", LLAMA),
    "granitemoe": ("granitemoe", LLAMA | EXPERTS),
    "granitemoehybrid": (
        "granitemoehybrid",
        LLAMA | MAMBA | EXPERTS | {"layer_types": ["mamba", "attention"], "shared_intermediate_size": 16},
    ),
    "helium": ("helium", GEMMA),
    "llama, biases": ("llama", LLAMA | {"attention_bias": True, "mlp_bias": True}),
    "mamba": ("mamba", {"num_hidden_layers": 2, "hidden_size": 32, "vocab_size": VOCABULARY}),
    "mpt, clipped": ("mpt", REFUSED["mpt"] | {"attn_config": {"clip_qkv": 0.5}}),
    "olmo, clipped": ("olmo", LLAMA | {"clip_qkv": 0.3}),
    "olmoe": ("olmoe", LLAMA | EXPERTS),
    "phi, query/key norm": ("phi", LLAMA | {"qk_layernorm": True}),
    "phimoe": ("phimoe", LLAMA | EXPERTS),
    "qwen2, window": (
        "qwen2", LLAMA | {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
    ),
    "qwen3_moe": ("qwen3_moe", GEMMA | EXPERTS),
    "recurrent_gemma": (
        "recurrent_gemma",
        LLAMA | {"attention_window_size": WINDOW, "block_types": ["recurrent", "attention"], "lru_width": 32},
    ),
    "seed_oss": ("seed_oss", GEMMA),
    "stablelm, parallel": ("stablelm", LLAMA | {"use_parallel_residual": True}),
    "stablelm, query/key norm": ("stablelm", LLAMA | {"qk_layernorm": True}),
    "vaultgemma": ("vaultgemma", GEMMA | ALTERNATE),
    "zamba2": (
        "zamba2",
        LLAMA | {"mamba_d_state": 8, "n_mamba_heads": 4, "mamba_headdim": 16, "layers_block_type": ["mamba", "hybrid"],
                 "num_mem_blocks": 1, "num_key_value_heads": 4, "chunk_size": 8},
    ),
}  # fmt: skip

#: Every one of them by name.
ALL = (
    {kind: (kind, served.shape) for kind, served in SERVED.items()} | {k: (k, v) for k, v in REFUSED.items()} | VARIANTS
)


def build(kind: str, shape: dict[str, Any], dtype: str = "float32") -> Any:
    """A tiny random model of transformers, with norms and biases that are not 1 and 0."""
    model = random_model(transformers.CONFIG_MAPPING[kind](**shape), attn_implementation="eager")
    return model.to(getattr(torch, dtype)).eval()


# Plain PyTorch

_PROJECTION = re.compile(
    r"(attn|attention|self_attention|self_attn|temporal_block)\.(attention\.)?(o_proj|c_proj|out_proj|dense)$"
)


def projections(hf: Any) -> list[Any]:
    """The output projection of the attention of each layer: what it is given is z, head after head."""
    return [module for name, module in hf.named_modules() if _PROJECTION.search(name) and "vision" not in name]


def outputs_of_heads(hf: Any, ids: Tensor) -> list[Tensor]:
    """What each layer's output projection is given."""
    seen: list[Tensor] = []
    handles = [p.register_forward_pre_hook(lambda module, args: seen.append(args[0])) for p in projections(hf)]
    with torch.no_grad():
        hf(ids, use_cache=False)
    for handle in handles:
        handle.remove()
    return seen


def patched_difference(
    hf: Any, ids: Tensor, source: list[Tensor], layer: int, head: int, n_heads: int, right: Tensor, wrong: Tensor
) -> Tensor:
    """logit(right) - logit(wrong) at END where one head's output, at all tokens, is another run's."""

    def replace(module: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = args[0].clone()
        x.view(*ids.shape, n_heads, -1)[:, :, head] = source[layer].view(*ids.shape, n_heads, -1)[:, :, head]
        return (x, *args[1:])

    handle = projections(hf)[layer].register_forward_pre_hook(replace)
    try:
        with torch.no_grad():
            logits = hf(ids, use_cache=False).logits[:, -1].double()
    finally:
        handle.remove()
    return (logits.gather(1, right[:, None]) - logits.gather(1, wrong[:, None]))[:, 0]


def tempered_logits(hf: Any, ids: Tensor, layer: int, head: int, beta: float) -> Tensor:
    """Logits at END where all that a head's softmax is given is multiplied by beta: the call of torch's softmax is."""
    softmax, calls = torch.nn.functional.softmax, 0

    def scaled(scores: Tensor, *args: Any, **options: Any) -> Tensor:
        nonlocal calls
        if scores.ndim > 2 and scores.shape[-2] == ids.shape[1]:  # (…, query, key), and no router of experts
            if calls == layer:
                scores = scores.clone()
                scores.view(len(ids), -1, *scores.shape[-2:])[:, head] *= beta
            calls += 1
        return softmax(scores, *args, **options)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(torch.nn.functional, "softmax", scaled)
        logits: Tensor = hf(ids, use_cache=False).logits[:, -1]
    assert calls == len(projections(hf)), f"{calls} softmax calls of scores in {type(hf).__name__}"
    return logits

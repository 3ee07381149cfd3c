"""A model in a GGUF file: read as transformers reads it, converted once, whole or not at all, refused in one sentence."""

from __future__ import annotations

from typing import Any

import torch

from helpers import abc_prompts, ioi_prompts, record_attention

# SmolLM2 itself


def test_smollm2_rows_are_output_attentions(smollm2: Any) -> None:
    """END rows of all 270 heads, on six prompts, equal Hugging Face's own `output_attentions` of the same folder."""
    from transformers import AutoModelForCausalLM

    from helpers.models import gguf

    hf = AutoModelForCausalLM.from_pretrained(gguf.smollm2_folder(), attn_implementation="eager").eval()
    record = record_attention(smollm2, ioi_prompts()[:3] + abc_prompts()[:3], progress=False)
    assert record.rows.shape[:3] == (6, 30, 9)
    for prompt, rows in zip(record.prompts, record.rows, strict=True):
        with torch.no_grad():
            theirs = torch.cat(hf(torch.tensor([prompt.ids]), output_attentions=True).attentions)[:, :, -1]
        torch.testing.assert_close(rows[..., : len(prompt)], theirs, rtol=0, atol=1e-5)


def test_smollm2_tokenizer(smollm2: Any) -> None:
    """BOS is ``<|endoftext|>`` (id 0), put once in front; no token stands for unknown words; 49,152 tokens."""
    (prompt,) = record_attention(smollm2, ["When Mary and John"], progress=False).prompts
    assert smollm2.tokenizer.bos_token == prompt.tokens[0] == "<|endoftext|>"
    assert prompt.ids[0] == smollm2.tokenizer.bos_token_id == smollm2.original_model.config.bos_token_id == 0
    assert prompt.tokens[1:] == ("When", " Mary", " and", " John")
    assert smollm2.tokenizer.unk_token is None
    assert (len(smollm2.tokenizer), smollm2.cfg.model_name) == (49152, "smollm2")

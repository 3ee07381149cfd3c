"""The attention record: the one thing that passes between "a model ran" and "we analyse"."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from lzma import LZMAError
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from helpers.attention.packing import END, TRIANGLE, pack, unpack
from helpers.prompts.prompt import Prompt
from helpers.prompts.tokens import TokenizedPrompt
from helpers.visible import visible_keys

FORMAT = "attention-record/1"


@dataclass(frozen=True)
class Readout:
    """What the model said at END, one entry a prompt; NaN where a prompt names no answer or foil.

    Attributes:
        logit_difference: logit(answer) - logit(foil); IO - S in an IOI prompt.
        p_answer, p_foil: their probabilities.
        correct: 1 if the answer is the most likely next token of all, else 0.
    """

    logit_difference: Tensor
    p_answer: Tensor
    p_foil: Tensor
    correct: Tensor


@dataclass(frozen=True)
class AttentionRecord:
    """Attention rows of every head on a set of prompts.

    Attributes:
        prompts: the tokenised prompts, with their named positions.
        rows: float tensor, ``(prompt, layer, head, key)`` for one query position, or
            ``(prompt, layer, head, query, key)`` for all of them. Keys (and queries) that a shorter prompt does
            not have are 0.
        query: the name of the query position (``"END"``), or ``"all"``.
        model: name of the model, and ``settings``: dtype and whatever else is worth keeping.
        windows: for each layer the number of keys a query can see at most (local attention), or 0 for no limit.
        readout: what the model answered, if it was asked for.
        mask: the visible keys, where windows don't describe them (chunks, a sink that is a key of its own): boolean,
            ``rows`` without the head axis.
        identity: which weights, tokenizer and configuration the rows are of; empty in records that don't know.
    """

    prompts: Sequence[TokenizedPrompt]
    rows: Tensor
    query: str
    model: str
    settings: dict[str, Any] = field(default_factory=dict)
    windows: tuple[int, ...] = ()
    readout: Readout | None = None
    mask: Tensor | None = None
    identity: str = ""

    def __post_init__(self) -> None:
        expected = 5 if self.query == "all" else 4
        if self.rows.ndim != expected or self.rows.shape[0] != len(self.prompts):
            raise ValueError(
                f"rows: expected {expected} dimensions and {len(self.prompts)} prompts, got shape {tuple(self.rows.shape)}"
            )

    @property
    def n_layers(self) -> int:
        return self.rows.shape[1]

    @property
    def n_heads(self) -> int:
        return self.rows.shape[2]

    def visible(self) -> Tensor:
        """Which keys each row can see, a mask that broadcasts over ``rows``.

        Query t sees keys 0 … t; in a layer with local attention only the last ``window`` of them. A query that a
        shorter prompt does not have sees none. n of a row is the mask's sum.
        """
        if self.mask is not None:
            return self.mask[:, :, None]
        n_keys, windows = self.rows.shape[-1], self.windows or (0,) * self.n_layers
        if self.query == "all":
            lengths, keys = torch.tensor([len(p) for p in self.prompts]), torch.arange(n_keys)
            queries = torch.where(keys < lengths[:, None], keys, -1)
        else:
            queries = torch.tensor([p.position(self.query) for p in self.prompts])
        return visible_keys(queries, n_keys, windows)[:, :, None]

    def at(self, position: str) -> AttentionRecord:
        """The rows of one named query position, from a record of all of them.

        Raises:
            ValueError: if the record holds another single position, or a prompt lacks the name.
        """
        if self.query == position:
            return self
        if self.query != "all":
            raise ValueError(f"position: this record holds the rows of {self.query} only, got {position!r}")
        index = torch.tensor([p.position(position) for p in self.prompts])
        which = torch.arange(len(self.prompts))
        mask = None if self.mask is None else self.mask[which, :, index]
        return replace(self, rows=self.rows[which, :, :, index], query=position, mask=mask)

    def subset(self, indices: Sequence[int]) -> AttentionRecord:
        """The record of some of its prompts, in the order given."""
        chosen = torch.as_tensor(indices)
        readout = self.readout and Readout(**{k: v[chosen] for k, v in vars(self.readout).items()})
        prompts, mask = [self.prompts[i] for i in indices], None if self.mask is None else self.mask[chosen]
        return replace(self, prompts=prompts, rows=self.rows[chosen], readout=readout, mask=mask)

    def save(self, path: str | Path, *, compact: bool = False) -> None:
        """Write the record to one safetensors file, whole or not at all.

        Args:
            path: the file.
            compact: for a record of all query positions, keep END rows exactly and the rows before it in float16, all
                compressed (a fifth of the size); loading gives them back as rows that sum to 1.
        """
        path = Path(path).expanduser()
        about = {
            "format": FORMAT,
            "prompts": [asdict(p) for p in self.prompts],
            "query": self.query,
            "model": self.model,
            "settings": self.settings,
            "windows": self.windows,
            "identity": self.identity,
        }
        tensors = {"rows": self.rows} | ({} if self.mask is None else {"mask": self.mask})
        if compact and self.query == "all" and self.mask is None:
            tensors, about["packed"] = pack(self.rows, self.at("END").rows)
        tensors |= vars(self.readout) if self.readout else {}
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            save_file(
                {name: t.contiguous() for name, t in tensors.items()}, part, metadata={"about": json.dumps(about)}
            )
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path) -> AttentionRecord:
        """Read a record that `save` wrote.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file is no attention record.
        """
        path = Path(path).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"path: no attention record at {str(path)!r}")
        try:
            with safe_open(str(path), framework="pt") as file:
                about = json.loads((file.metadata() or {})["about"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return _record_from(about, tensors)
        except (SafetensorError, LZMAError, KeyError, TypeError, AttributeError, ValueError, RuntimeError):
            raise ValueError(f"path: expected an attention record of format {FORMAT}, got {str(path)!r}") from None


def check_same_run(name: str, one: AttentionRecord, other: AttentionRecord) -> None:
    """Refuse to join or compare records that were made in different ways: other settings, weights, or tokenizer.

    Raises:
        ValueError: one sentence, which begins with ``name``.
    """
    for key in sorted(one.settings.keys() | other.settings.keys()):
        left, right = (record.settings.get(key) for record in (one, other))
        if left != right:
            raise ValueError(f"{name}: expected records of one run's settings, got {key} {left!r} and {right!r}")
    if "" not in (one.identity, other.identity) and one.identity != other.identity:
        raise ValueError(
            f"{name}: expected records of one model, got {one.model!r} with two sets of weights, tokenizers or configurations "
            f"({one.identity} and {other.identity})"
        )


def _record_from(about: dict[str, Any], tensors: dict[str, Tensor]) -> AttentionRecord:
    if about["format"] != FORMAT:
        raise ValueError(about["format"])
    prompts = [_prompt_from(p) for p in about["prompts"]]
    rows = tensors.pop("rows", None)
    if rows is None:
        packed = {name: tensors.pop(name) for name in (TRIANGLE, END)}
        rows = unpack(packed, about.get("packed"), prompts)
    mask = tensors.pop("mask", None)
    readout = Readout(**tensors) if tensors else None
    fields = (about["query"], about["model"], about["settings"], tuple(about["windows"]))
    return AttentionRecord(prompts, rows, *fields, readout, mask, about.get("identity", ""))


def _prompt_from(saved: dict[str, Any]) -> TokenizedPrompt:
    about = dict(saved["prompt"])
    about["spans"] = {name: tuple(span) for name, span in about["spans"].items()}
    about |= {side: tuple(about.get(side, ())) for side in ("answers", "foils")}
    prompt = Prompt(**about)
    sides = (tuple(saved.get(side, ())) for side in ("right", "wrong"))
    return TokenizedPrompt(prompt, tuple(saved["ids"]), tuple(saved["tokens"]), saved["positions"], *sides)

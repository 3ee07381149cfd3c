"""The attention record: the one thing that passes between "a model ran" and "we analyse"."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
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
    """

    prompts: Sequence[TokenizedPrompt]
    rows: Tensor
    query: str
    model: str
    settings: dict[str, Any] = field(default_factory=dict)
    windows: tuple[int, ...] = ()
    readout: Readout | None = None

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
        keys = torch.arange(self.rows.shape[-1])
        if self.query == "all":
            lengths = torch.tensor([len(p) for p in self.prompts])
            t = torch.where(keys < lengths[:, None], keys, -1)[:, None, None, :, None]
        else:
            t = torch.tensor([p.position(self.query) for p in self.prompts])[:, None, None, None]
        windows = torch.tensor(self.windows or [0] * self.n_layers)
        reach = torch.where(windows > 0, windows, self.rows.shape[-1]).view(1, -1, *[1] * (t.ndim - 2))
        return (keys <= t) & (keys > t - reach)

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
        rows = self.rows[torch.arange(len(self.prompts)), :, :, index]
        return AttentionRecord(self.prompts, rows, position, self.model, self.settings, self.windows, self.readout)

    def subset(self, indices: Sequence[int]) -> AttentionRecord:
        """The record of some of its prompts, in the order given."""
        chosen = torch.as_tensor(indices)
        readout = self.readout and Readout(**{k: v[chosen] for k, v in vars(self.readout).items()})
        prompts = [self.prompts[i] for i in indices]
        return AttentionRecord(prompts, self.rows[chosen], self.query, self.model, self.settings, self.windows, readout)

    def save(self, path: str | Path, *, compact: bool = False) -> None:
        """Write the record to one safetensors file, whole or not at all.

        Args:
            path: the file.
            compact: for a record of all query positions, keep END rows exactly and the rows before it in float16, all
                compressed (a fifth of the size); loading gives them back as rows that sum to 1.
        """
        path = Path(path)
        about = {
            "format": FORMAT,
            "prompts": [asdict(p) for p in self.prompts],
            "query": self.query,
            "model": self.model,
            "settings": self.settings,
            "windows": self.windows,
        }
        tensors = {"rows": self.rows}
        if compact and self.query == "all":
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
        if not Path(path).is_file():
            raise FileNotFoundError(f"path: no attention record at {str(path)!r}")
        try:
            with safe_open(str(path), framework="pt") as file:
                about = json.loads((file.metadata() or {})["about"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return _record_from(about, tensors)
        except (SafetensorError, LZMAError, KeyError, TypeError, AttributeError, ValueError, RuntimeError):
            raise ValueError(f"path: expected an attention record of format {FORMAT}, got {str(path)!r}") from None


def _record_from(about: dict[str, Any], tensors: dict[str, Tensor]) -> AttentionRecord:
    if about["format"] != FORMAT:
        raise ValueError(about["format"])
    prompts = [_prompt_from(p) for p in about["prompts"]]
    rows = tensors.pop("rows", None)
    if rows is None:
        packed = {name: tensors.pop(name) for name in (TRIANGLE, END)}
        rows = unpack(packed, about.get("packed"), prompts)
    readout = Readout(**tensors) if tensors else None
    fields = (about["query"], about["model"], about["settings"], tuple(about["windows"]))
    return AttentionRecord(prompts, rows, *fields, readout)


def _prompt_from(saved: dict[str, Any]) -> TokenizedPrompt:
    about = dict(saved["prompt"])
    about["spans"] = {name: tuple(span) for name, span in about["spans"].items()}
    about |= {side: tuple(about.get(side, ())) for side in ("answers", "foils")}
    prompt = Prompt(**about)
    return TokenizedPrompt(prompt, tuple(saved["ids"]), tuple(saved["tokens"]), saved["positions"])

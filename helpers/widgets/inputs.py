"""What the playground is asked: two prompt sets, where their rows are read, and how they are tested."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from helpers.design import Design
from helpers.prompts.prompt import Prompt
from helpers.prompts.reading import ReadPrompts, prompt_lines

Side = tuple[Prompt, ...]

#: First tokens that are no name of a token: the tokenizer's own BOS (none where it has none), and none at all.
OWN_BOS, NO_BOS = "the tokenizer's BOS", "none"


@dataclass(frozen=True)
class Inputs:
    """Two prompt sets and how to read them.

    Attributes:
        active, control: the prompts.
        position: whose rows: ``"END"``, a position that every prompt names, or ``"token 5"``.
        bos: what stands in front of every prompt: `OWN_BOS`, `NO_BOS`, or a token of the vocabulary.
        design: ``"pairs"``, ``"sets"``, or None for what the prompts are.
    """

    active: Side
    control: Side
    position: str = "END"
    bos: str = OWN_BOS
    design: Design | None = None

    @property
    def sides(self) -> dict[str, Side]:
        return {"active": self.active, "control": self.control}


def prompts_of(text: str, known: Mapping[str, Prompt] | None = None) -> ReadPrompts:
    """One prompt a line, as `read_prompts` reads a file; a line that equals a known prompt keeps its names.

    Characters that a file is refused for are left to `helpers.widgets.checker.check`, which names every one.
    """
    lines, notes = prompt_lines(text)
    found = ReadPrompts((known or {}).get(line) or Prompt(line) for line in lines)
    found.notes = notes
    return found


def first_token(model: Any, bos: str = OWN_BOS) -> dict[str, Any]:
    """What stands in front of every prompt, as `record_attention` takes it."""
    if bos == OWN_BOS:
        return {"prepend_bos": model.tokenizer.bos_token_id is not None}
    return {"prepend_bos": False} if bos == NO_BOS else {"bos": bos}


def token_index(position: str) -> int | None:
    """5 for ``"token 5"``, None for a named position."""
    found = re.fullmatch(r"token (\d+)", position)
    return int(found[1]) if found else None

"""Minimal pairs as a model sees them: token ids of both sides, where they begin to differ, and what is read at END."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from helpers.attention.capture import tokenize_for
from helpers.models.forward import Logits, StoredRun
from helpers.models.model import LanguageModel
from helpers.prompts.answers import with_answers
from helpers.prompts.prompt import Prompt
from helpers.prompts.reading import as_prompts


class MinimalPairs:
    """Token ids of pairs of prompts, and what is read of a run of either side.

    The readout of a pair is the logit difference at END, logit(answer) - logit(foil); where a prompt has many right and
    wrong answers, the difference of probabilities P(answers) - P(foils). Answers and foils are those of the pair's clean
    prompt, whichever side is run.

    Attributes:
        clean, corrupt: token ids, shape ``(pair, token)``.
        answers: ids of the right and of the wrong next tokens of each pair (`with_answers`).

    Raises:
        ValueError: if the sides can't be paired, token by token, or a clean prompt has no answer or foil.
    """

    def __init__(
        self,
        model: LanguageModel,
        clean: Sequence[Prompt],
        corrupt: Sequence[Prompt],
        *,
        prepend_bos: bool = True,
        bos: str | int | None = None,
    ) -> None:
        sides = as_prompts(clean, "clean"), as_prompts(corrupt, "corrupt")
        left, right = (tokenize_for(model, side, prepend_bos=prepend_bos, bos=bos) for side in sides)
        if [len(p) for p in left] != [len(p) for p in right]:
            raise ValueError("corrupt: expected one prompt for each clean one, of the same number of tokens")
        if len({len(p) for p in left}) > 1:
            raise ValueError("clean: expected prompts of one length; patch each length by itself")
        self.model = model
        device = model.device
        self.clean, self.corrupt = (torch.tensor([p.ids for p in side], device=device) for side in (left, right))
        self._prompts = with_answers(left, model.tokenizer)
        if not all(p.right and p.wrong for p in self._prompts):
            raise ValueError("clean: expected prompts with an answer and a foil, got one without")
        self.answers = [(p.right, p.wrong) for p in self._prompts]

    @property
    def readout(self) -> str:
        """What is read: "logit difference" or "probability difference"."""
        single = all(len(right) == len(wrong) == 1 for right, wrong in self.answers)
        return "logit difference" if single else "probability difference"

    def __len__(self) -> int:
        return len(self.clean)

    def batches(self, size: int) -> list[np.ndarray]:
        """Indices of the pairs, in batches of at most ``size``.

        Raises:
            ValueError: if size is below 1.
        """
        if size < 1:
            raise ValueError(f"batch_size: expected at least 1 pair a forward pass, got {size}")
        return np.array_split(np.arange(len(self)), -(-len(self) // size))

    def at(self, position: str) -> Tensor:
        """Index of a named position in each clean prompt, ``(pair,)``.

        Raises:
            ValueError: if a prompt does not name it.
        """
        return torch.tensor([p.position(position) for p in self._prompts], device=self.clean.device)

    def positions(self) -> tuple[str, ...]:
        """The positions at which a head can act: named by every clean prompt, and not before the sides differ.

        Of two names of the same tokens the later one stays (END rather than A2).
        """
        differ = (self.clean != self.corrupt).any(0)
        first = int(differ.int().argmax())
        named = [name for name in self._prompts[0].positions if all(name in p.positions for p in self._prompts)]
        places = {tuple(self.at(name).tolist()): name for name in named}
        return tuple(name for place, name in places.items() if max(place) >= first)

    def store(self, batch: np.ndarray, *, whole: bool = False) -> tuple[StoredRun, StoredRun]:
        """Both sides of some pairs, run and kept; runs that patch them start where the sides begin to differ."""
        differ = (self.clean[batch] != self.corrupt[batch]).any(0)
        first = int(differ.int().argmax()) if differ.any() else self.clean.shape[1] - 1
        clean = StoredRun(self.model, self.clean[batch], token=first, whole=whole)
        return clean, StoredRun(self.model, self.corrupt[batch], token=first, whole=whole, twin=clean)

    def read(self, logits: Logits, batch: np.ndarray, copies: int = 1) -> Tensor:
        """Readout of every prompt, in float64 on the CPU; prompt k of the batch stands ``copies`` times in a row."""
        asked = [self.answers[i] for i in np.repeat(batch, copies)]
        if self.readout == "logit difference":
            ids = torch.tensor([(right[0], wrong[0]) for right, wrong in asked], device=logits.device)
            return logits.gather(1, ids).double().diff(dim=1)[:, 0].neg().cpu()
        p = logits.double().softmax(-1)
        said = [row[list(right)].sum() - row[list(wrong)].sum() for row, (right, wrong) in zip(p, asked, strict=True)]
        return torch.stack(said).cpu()

    def is_top(self, logits: Logits, batch: np.ndarray) -> Bool[np.ndarray, " pair"]:
        """Whether the most likely next token of all is (one of) the right ones."""
        best = logits.argmax(-1).tolist()
        return np.array([token in self.answers[i][0] for token, i in zip(best, batch, strict=True)])

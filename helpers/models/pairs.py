"""Minimal pairs as a model sees them, and the runs that patching is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from helpers.attention.capture import tokenize_for
from helpers.prompts.prompt import Prompt
from helpers.prompts.tokens import first_token

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


class MinimalPairs:
    """Token ids of pairs of prompts, and runs of either side under hooks.

    Every run returns the logit difference of each pair at END, logit(answer) - logit(foil), in float64 on the CPU;
    answer and foil are those of the pair's clean prompt, whichever side is run.

    Attributes:
        clean, corrupt: token ids, shape ``(pair, token)``.
        answers: ids of answer and foil, ``(pair, 2)``.
        at: index of the named position in each clean prompt, ``(pair,)``, or None for every position.

    Raises:
        ValueError: if the sides can't be paired, token by token, or a clean prompt has no answer, foil or position.
    """

    def __init__(
        self, model: TransformerBridge, clean: Sequence[Prompt], corrupt: Sequence[Prompt], position: str | None = None
    ) -> None:
        left, right = tokenize_for(model, clean), tokenize_for(model, corrupt)
        if [len(p) for p in left] != [len(p) for p in right]:
            raise ValueError("corrupt: expected one prompt for each clean one, of the same number of tokens")
        if len({len(p) for p in left}) > 1:
            raise ValueError("clean: expected prompts of one length; patch each length by itself")
        self.model = model
        device = model.cfg.device
        self.clean, self.corrupt = (torch.tensor([p.ids for p in side], device=device) for side in (left, right))
        first = [[_first_token(model, word, p.glue) for word in (p.answer, p.foil)] for p in clean]
        self.answers = torch.tensor(first, device=device)
        self.at = None if position is None else torch.tensor([p.position(position) for p in left], device=device)

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

    def run(self, batch: np.ndarray, ids: Tensor, hooks: list[Any]) -> Tensor:
        """Logit differences of ``ids[batch]`` under forward hooks, with gradients unless the caller turned them off."""
        options: dict[str, Any] = {"output_attentions": False, "logits_to_keep": 1}
        logits = self.model.run_with_hooks(ids[batch], fwd_hooks=hooks, **options)[:, -1].double()
        right, wrong = logits.gather(1, self.answers[batch].to(logits.device)).unbind(1)
        return (right - wrong).cpu()

    def run_with_z(self, batch: np.ndarray, ids: Tensor) -> tuple[list[Tensor], Tensor]:
        """Head outputs z of every layer, each ``(pair, token, head, d_head)``, and the logit differences."""
        kept: list[Tensor] = []

        def keep(z: Tensor, hook: Any) -> None:
            kept.append(z.clone())

        with torch.no_grad():
            difference = self.run(batch, ids, [(hook_z(layer), keep) for layer in range(self.model.cfg.n_layers)])
        return kept, difference

    def run_patched(self, batch: np.ndarray, ids: Tensor, layer: int, head: int, source: Tensor) -> Tensor:
        """Logit differences with one head's z taken from ``source``, at every position or at the chosen one."""
        rows = torch.arange(len(batch), device=ids.device)
        at = None if self.at is None else self.at[batch]

        def replace(z: Tensor, hook: Any) -> Tensor:
            if at is None:
                z[:, :, head] = source[:, :, head]
            else:
                z[rows, at, head] = source[rows, at, head]
            return z

        with torch.no_grad():
            return self.run(batch, ids, [(hook_z(layer), replace)])


def hook_z(layer: int) -> str:
    """Name of the hook at the output z = sum_i pi_i v_i of a layer's heads, ``(prompt, token, head, d_head)``."""
    return f"blocks.{layer}.attn.hook_z"


def _first_token(model: TransformerBridge, word: str | None, glue: str) -> int:
    if word is None:
        raise ValueError("clean: expected prompts with an answer and a foil, got one without")
    return first_token(model.tokenizer, word, glue)

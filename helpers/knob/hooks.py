"""Hooks that temper the attention of a layer's heads inside a running model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from helpers.diagnostics.tempering import temper_rows
from helpers.models.forward import Hook, Ids, attention_rows, forward, hook_z
from helpers.models.model import LanguageModel
from helpers.models.values import head_values, sink_weight

_INPUTS = ("hook_pattern", "hook_v")
Visible = Bool[Tensor, "layer query key"]


def keys_seen(model: LanguageModel, ids: Ids) -> Visible:
    """Which keys the queries of prompts of one length see, in each layer, by the mask that the model uses."""
    with torch.no_grad():
        return attention_rows(model, ids[:1], None).visible[0].to(model.device)


def weights_come_late(model: LanguageModel) -> bool:
    """Whether TransformerLens shows a layer's weights only after its output (attention is then the module's own code)."""
    order: list[str] = []
    names = [f"blocks.0.attn.{name}" for name in ("hook_pattern", "hook_z")]
    hooks: list[Hook] = [(name, lambda x, hook, name=name: order.append(name)) for name in names]
    with torch.no_grad():
        forward(model, torch.zeros(1, 2, dtype=torch.long, device=model.device), hooks)
    return order != names


def weights_of(run: Callable[[list[Hook]], object], layers: Iterable[int]) -> dict[int, Tensor]:
    """The weights of some layers in a run under hooks, ``(prompt, head, query, key)``, without gradients."""
    seen: dict[int, Tensor] = {}
    with torch.no_grad():
        run([(f"blocks.{layer}.attn.hook_pattern", partial(_keep, seen, layer)) for layer in layers])
    return seen


def _keep(seen: dict[Any, Tensor], name: Any, x: Tensor, hook: Any) -> None:
    seen[name] = x


class TemperedLayer:
    """Multiplies the scores of a layer's heads by beta: hooks for one forward pass.

    The model's own weights pi become pi^beta / sum pi^beta, and what a head puts out changes by the difference times its
    values, so that whatever the architecture does to its scores (scaling, caps, biases, norms) is part of the scores. The
    output of a head with beta = 1 is not touched. Where heads can attend to a learned sink, it is one more key, whose value is 0.

    Args:
        model: what `load_model` returns.
        layer: the layer's number.
        betas: of each row of the batch and head; with ``requires_grad``, the run can be differentiated with respect to it.
        visible: see `keys_seen`.
        at: the query that is tempered in each row of the batch; default: all.
        pi: the layer's weights in this run, where they must be known before (`weights_come_late`).

    Attributes:
        rows: after the run, the weights that each head used, ``(prompt, head, query, key)``, without gradients.
    """

    rows: Tensor

    def __init__(
        self,
        model: LanguageModel,
        layer: int,
        betas: Float[Tensor, "prompt head"],
        visible: Visible,
        at: Sequence[int] | None = None,
        pi: Tensor | None = None,
    ) -> None:
        self.model, self.layer, self.betas, self.visible, self.at = model, layer, betas, visible[layer], at
        self._given: dict[str, Tensor] = {} if pi is None else {"hook_pattern": pi}
        self._seen: dict[str, Tensor] = {}

    @property
    def hooks(self) -> list[Hook]:
        """To be given to `helpers.models.forward.forward`."""
        wanted = [name for name in _INPUTS if name not in self._given]
        keep = [(f"blocks.{self.layer}.attn.{name}", partial(_keep, self._seen, name)) for name in wanted]
        return [*keep, (hook_z(self.layer), self._change)]

    def _change(self, z: Tensor, hook: Any) -> Tensor:
        seen = self._given | self._seen
        self._seen.clear()
        pi, v = (seen[name] for name in _INPUTS)
        values = head_values(self.model, self.layer, pi, v, z)
        step = self._tempered(pi) - pi
        if not self.betas.requires_grad:
            step = torch.where(self.betas[..., None, None] == 1, 0, step)
        if self.at is not None:
            here = torch.arange(pi.shape[2], device=pi.device) == torch.tensor(self.at, device=pi.device)[:, None]
            step = torch.where(here[:, None, :, None], step, 0)
        self.rows = (pi + step).detach()
        return z + (step @ values).transpose(1, 2)

    def _tempered(self, pi: Tensor) -> Tensor:
        betas = self.betas[..., None].expand(pi.shape[:-1])
        visible = self.visible.expand(pi.shape)
        if not self.model.has_sinks:
            return temper_rows(pi, betas, visible)
        rows, seen = torch.cat([pi, sink_weight(pi)], -1), torch.cat([visible, visible.any(-1, keepdim=True)], -1)
        return temper_rows(rows, betas, seen)[..., :-1]

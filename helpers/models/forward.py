"""Where a model runs: batches, hook names, attention rows, the logits at END, and runs that start in the middle of another."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from helpers.models.canary import first_not_finite, not_finite
from helpers.models.fused import Rows, rows_of, supports_fused
from helpers.models.interface import LastRowsTaken, Queries
from helpers.models.model import LanguageModel
from helpers.prompts.tokens import TokenizedPrompt, by_length
from helpers.visible import visible_keys

#: A hook: its name, and a function of (activation, hook) that returns what takes the activation's place, or None.
Hook = tuple[str, Callable[..., Tensor | None]]
Ids = Int[Tensor, "prompt token"]
Logits = Float[Tensor, "prompt vocabulary"]
Start = Literal["layer and token", "layer", "input"]


def hook_z(layer: int) -> str:
    """Name of the hook at the output z = sum_i pi_i v_i of a layer's heads, ``(prompt, token, head, d_head)``."""
    return f"blocks.{layer}.attn.hook_z"


def forward(model: LanguageModel, ids: Ids, hooks: Sequence[Hook] = (), **options: Any) -> Logits:
    """Logits at END, under hooks, in the model's dtype; with gradients unless the caller turned them off."""
    logits: Tensor = model.lens.run_with_hooks(ids, fwd_hooks=list(hooks), **_lean(ids), **options)
    check_finite(model, ids, logits)
    return logits[:, -1]


def token_losses(model: LanguageModel, ids: Ids, hooks: Sequence[Hook] = ()) -> Float[Tensor, "prompt token-1"]:
    """-log p(token | tokens before) of every token but the first, in nats, under hooks."""
    logits: Tensor = model.lens.run_with_hooks(ids, fwd_hooks=list(hooks), output_attentions=False)
    check_finite(model, ids, logits)
    return torch.nn.functional.cross_entropy(logits[:, :-1].float().transpose(1, 2), ids[:, 1:], reduction="none")


def batches(
    model: LanguageModel, prompts: Sequence[TokenizedPrompt], size: int, *, unit: str = "prompt", progress: bool = True
) -> Iterator[tuple[list[int], Ids]]:
    """Indices and token ids of prompts, in batches of one length each, so that nothing is ever padded.

    Raises:
        ValueError: if size is below 1.
    """
    if size < 1:
        raise ValueError(f"batch_size: expected at least 1 {unit} a forward pass, got {size}")
    with tqdm(total=len(prompts), desc="forward passes", unit=unit, disable=not progress, leave=False) as bar:
        for batch in by_length(prompts, size):
            yield batch, torch.tensor([prompts[i].ids for i in batch], device=model.device)
            bar.update(len(batch))


def attention_rows(model: LanguageModel, ids: Ids, at: Queries | None, *, logits: bool = False) -> Rows:
    """Attention rows of the queries asked for (one a prompt, several, or None: all), of every layer and head, as `helpers.models.fused.rows_of`.

    They come from the model's fused attention. Where that is out of reach (its attention is written into its modules), or
    somebody has put hooks on the wrapper or changed its weights, they are what the wrapper's patterns are. Either way the
    weight that goes to an attention sink is left out, so that a row may sum to less than 1.
    """
    if model.is_as_made and not supports_fused(model.hf):
        found = rows_of(model.hf, ids, at, logits=logits)
    else:
        found = _wrapper_rows(model, ids, at, logits=logits)
    if not torch.isfinite(found.rows).all():
        wrong = (~torch.isfinite(found.rows)).flatten(2).any(-1).any(0)
        raise ValueError(f"model {model.name!r}: {not_finite(model, int(wrong.nonzero()[0]))}")
    if found.logits is not None:
        check_finite(model, ids, found.logits)
    return found


def _wrapper_rows(model: LanguageModel, ids: Ids, at: Queries | None, *, logits: bool) -> Rows:
    """The patterns of TransformerLens's wrapper; visible keys are those of the configuration's windows."""
    n, length = ids.shape
    queries = torch.arange(length).expand(n, -1) if at is None else torch.tensor(at)
    rows = torch.zeros(n, model.n_layers, model.n_heads, *queries.shape[1:], length, dtype=model.dtype)

    def keep(pattern: Tensor, hook: Any, layer: int) -> None:
        for row, one, wanted in zip(rows, pattern, queries, strict=True):
            row[layer] = one[:, wanted]
        if layer == model.n_layers - 1 and not logits:
            raise LastRowsTaken

    hooks: list[Hook] = [(f"blocks.{i}.attn.hook_pattern", partial(keep, layer=i)) for i in range(model.n_layers)]
    with torch.no_grad():
        try:
            said: Tensor | None = forward(model, ids, hooks).cpu()
        except LastRowsTaken:
            said = None
    seen = visible_keys(queries, length, windows(model))
    return Rows(rows, seen, tuple(range(model.n_layers)), said)


def windows(model: LanguageModel) -> tuple[int, ...]:
    """Number of keys that each layer's queries can see at most, as the configuration has it; 0 where there is no limit."""
    config = model.config
    kinds = getattr(config, "attention_layers", None) or getattr(config, "layer_types", None)
    window: int = getattr(config, "window_size", None) or getattr(config, "sliding_window", None) or 0
    if not kinds:
        return (window,) * model.n_layers
    return tuple(window if kind in ("local", "sliding_attention") else 0 for kind in kinds)


def check_finite(model: LanguageModel, ids: Ids, logits: Tensor) -> None:
    """Refuse logits that are NaN or infinite.

    Raises:
        ValueError: one sentence that names the dtype and the layer in which the plain run leaves its range.
    """
    if torch.isfinite(logits).all():
        return
    layer = None
    if not model.is_spread:
        with torch.no_grad():
            layer = first_not_finite(model.hf(ids, output_hidden_states=True, use_cache=False).hidden_states)
    raise ValueError(f"model {model.name!r}: {not_finite(model, layer)}")


def _lean(ids: Ids) -> dict[str, Any]:
    """Options that keep a pass small: no patterns of all layers held to its end, no logits but those at END.

    END is given as an index: a slice is no contiguous matrix, and torch then multiplies it prompt by prompt.
    """
    return {"output_attentions": False, "logits_to_keep": torch.tensor([ids.shape[1] - 1], device=ids.device)}


class StoredRun:
    """One run of a batch of prompts, kept so that others can start from its middle.

    A run in which a head of layer L puts out something else at tokens from t on shares two things with the unchanged run:
    the residual stream that enters layer L, and keys and values of the tokens before t. `resume` starts from these. In a
    causal decoder this is exact but for rounding. Architectures differ in what they hand from layer to layer, so that
    it is tried out on two prompts, once for each model, length and first token: where resuming without a change does not give the plain
    run's logits, runs start at the layer alone, or at the input.

    Attributes:
        starts_at: ``"layer and token"``, ``"layer"``, or ``"input"``: where runs start.
        start: the first token of resumed runs, t or 0; z and what hooks see begin there.
        logits: of the plain run at END, ``(prompt, vocabulary)``.
        z: outputs of the heads in each layer, ``(prompt, token from start on, head, d_head)``.
    """

    z: list[Tensor]
    _outputs: list[Any]
    _prefix: Any

    def __init__(
        self, model: LanguageModel, ids: Ids, *, token: int = 0, whole: bool = False, twin: StoredRun | None = None
    ) -> None:
        """Run the prompts; ``token``: the first that any run will change; ``whole``: start every run at the input.

        ``twin`` is a run with the same ``token`` of prompts that are the same before it: its keys and values serve here too.
        """
        self.model = model
        case = (model.is_as_made, ids.shape[1], token)
        if not whole and case not in model.starts:
            model.starts[case] = self._try(ids[:2], token)
        self.starts_at: Start = "input" if whole else model.starts[case]
        first = token if self.starts_at == "layer and token" else 0
        self._begin(ids, first, twin)
        self.logits = self._record()
        if self.starts_at == "input":
            self._outputs = []

    def resume(self, layer: int, hooks: Sequence[Hook] = (), *, copies: int = 1) -> Logits:
        """Logits at END of a run that is changed by hooks at ``layer`` or later.

        With ``copies``, every prompt stands that many times in a row, so that several changes share a pass.
        """
        options: dict[str, Any] = {}
        if self._prefix is not None:
            cache = copy.deepcopy(self._prefix)
            cache.batch_repeat_interleave(copies)
            options = {"past_key_values": cache, "use_cache": True}
        ids = self.ids[:, self.start :].repeat_interleave(copies, 0)
        with torch.no_grad(), _skipping(self.model, self._outputs[:layer], copies):
            return forward(self.model, ids, hooks, **options)

    def _begin(self, ids: Ids, token: int, twin: StoredRun | None = None) -> None:
        self.ids, self.start = ids, token
        self._prefix = twin._prefix if twin is not None and twin.start == token else self._keys_and_values(token)
        self.z, self._outputs = [], []

    def _record(self) -> Logits:
        """Run from ``start`` on, keeping z and what every block puts out."""
        z: list[Tensor] = []
        outputs: list[Any] = []
        hooks: list[Hook] = [(hook_z(i), lambda x, hook: z.append(x.clone())) for i in range(self.model.n_layers)]
        handles = [
            block.register_forward_hook(lambda block, args, output: outputs.append(output))
            for block in self.model.lens.blocks
        ]
        try:
            logits = self.resume(0, hooks)
        finally:
            for handle in handles:
                handle.remove()
        self.z, self._outputs = z, outputs
        return logits

    def _try(self, ids: Ids, token: int) -> Start:
        """Where runs of a few prompts can start: as late as gives the plain run's logits."""
        self._begin(ids, 0)
        plain = self._record()
        ways: list[tuple[Start, int]] = [("layer", 0)]
        if token > 0:
            ways.insert(0, ("layer and token", token))
        return next((way for way, first in ways if self._can_start(ids, first, plain)), "input")

    def _can_start(self, ids: Ids, token: int, plain: Logits) -> bool:
        try:
            self._begin(ids, token)
            tolerance = max(1e-4, 8 * torch.finfo(self.model.dtype).eps) * plain.abs().max()
            found = [
                (self._record(), 1),
                (self.resume(len(self.z) // 2), 1),
                (self.resume(len(self.z) - 1, copies=2), 2),
            ]
            wrong = [(logits - plain.repeat_interleave(copies, 0)).abs().max() for logits, copies in found]
            return all(bool(difference <= tolerance) for difference in wrong)
        except Exception:  # an architecture that can't take a cache or a skipped block says so in its own way
            return False

    def _keys_and_values(self, token: int) -> Any:
        """The cache of all tokens before ``token``."""
        if not token:
            return None
        ids = self.ids[:, :token]
        with torch.no_grad():
            return self.model.lens(ids, return_type="logits_and_cache", use_cache=True, **_lean(ids))[1]


@contextmanager
def _skipping(model: LanguageModel, outputs: Sequence[Any], copies: int) -> Iterator[None]:
    """The first blocks are not computed; what the last of them put out is taken from the stored run."""
    if not outputs:
        yield
        return
    stored = _repeated(outputs[-1], copies)
    skipped = [*model.lens.blocks][: len(outputs)]
    for block in skipped:
        vars(block)["forward"] = lambda *args, **kwargs: stored
    try:
        yield
    finally:
        for block in skipped:
            del vars(block)["forward"]


def _repeated(output: Any, copies: int) -> Any:
    """A block's output, a tensor or a tuple that begins with one, with every prompt ``copies`` times in a row."""
    if isinstance(output, tuple):
        return (output[0].repeat_interleave(copies, 0), *output[1:])
    return output.repeat_interleave(copies, 0)

"""From a model and prompts to an attention record, in one call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from helpers.attention.record import AttentionRecord, Readout
from helpers.prompts.prompt import Prompt
from helpers.prompts.tokens import TokenizedPrompt, bos_id, by_length, next_token, tokenize

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


class _LastRowsTaken(Exception):
    """Raised by our own hook when nothing more of the forward pass is needed."""


def tokenize_for(
    model: TransformerBridge,
    prompts: Iterable[Prompt | str],
    *,
    prepend_bos: bool = True,
    bos: str | int | None = None,
) -> list[TokenizedPrompt]:
    """`helpers.prompts.tokens.tokenize` with the model's own tokenizer and context length."""
    return tokenize(prompts, model.tokenizer, prepend_bos=prepend_bos, bos=bos, max_length=model.cfg.n_ctx)


def record_attention(
    model: TransformerBridge,
    prompts: Iterable[Prompt | str],
    *,
    query: str = "END",
    prepend_bos: bool = True,
    bos: str | int | None = None,
    readout: bool = False,
    batch_size: int = 32,
    progress: bool = True,
) -> AttentionRecord:
    """Run the model once over the prompts and keep the attention rows that were asked for.

    Prompts are grouped by length, never padded. A hook in each layer keeps the rows of the query position and drops
    the rest, and the forward pass stops at the last pattern unless a readout is asked for, so that memory beyond
    the record does not grow with the number of prompts.

    Args:
        model: what `load_model` returns.
        prompts: `Prompt` objects, or bare texts (which have no named position but END).
        query: the query position to keep: ``"END"``, any position that every prompt names (``"S2"``, …), or
            ``"all"``.
        prepend_bos: put one BOS token in front of each prompt.
        bos: which token that is, by its name or id in the vocabulary; default: the tokenizer's own. The record's
            settings name it where it is another.
        readout: also keep the logit difference and probabilities of each prompt's answer and foil at END.
        batch_size: prompts a forward pass.
        progress: show a progress bar.

    Raises:
        ValueError: one sentence, before anything is computed, if a prompt is unusable (see `tokenize`) or lacks the
            query position.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1 prompt a forward pass, got {batch_size}")
    tokenized = tokenize_for(model, prompts, prepend_bos=prepend_bos, bos=bos)
    rows = _empty_rows(model, tokenized, query)
    answers = {i: _answer_ids(model.tokenizer, p.prompt) for i, p in enumerate(tokenized)} if readout else {}
    said = torch.full((4, len(tokenized)), torch.nan, dtype=torch.float64)
    bar = tqdm(total=len(tokenized), desc="forward passes", unit="prompt", disable=not progress, leave=False)
    for batch in by_length(tokenized, batch_size):
        ids = torch.tensor([tokenized[i].ids for i in batch], device=model.cfg.device)
        at = None if query == "all" else [tokenized[i].position(query) for i in batch]
        logits = _forward(model, ids, rows, batch, at, with_logits=readout)
        if logits is not None:
            said[:, batch] = torch.stack([_read(logits[k], *answers[i]) for k, i in enumerate(batch)], dim=1)
        bar.update(len(batch))
    bar.close()
    settings = run_settings(model, prepend_bos, bos)
    return AttentionRecord(
        tokenized, rows, query, model.cfg.model_name, settings, _windows(model), Readout(*said) if readout else None
    )


def run_settings(model: TransformerBridge, prepend_bos: bool, bos: str | int | None = None) -> dict[str, Any]:
    """What a record keeps about how it was made; ``bos`` is there if it is not the tokenizer's own."""
    settings = {"dtype": str(model.cfg.dtype).removeprefix("torch."), "prepend_bos": prepend_bos}
    first = bos_id(model.tokenizer, prepend_bos, bos)
    if first in (None, model.tokenizer.bos_token_id):
        return settings
    return settings | {"bos": model.tokenizer.convert_ids_to_tokens(first)}


def _empty_rows(model: TransformerBridge, prompts: Sequence[TokenizedPrompt], query: str) -> Tensor:
    longest = max(map(len, prompts))
    shape = (len(prompts), model.cfg.n_layers, model.cfg.n_heads)
    if query == "all":
        return torch.zeros(*shape, longest, longest, dtype=model.cfg.dtype)
    for number, prompt in enumerate(prompts, 1):
        if query not in prompt.positions:
            named = ", ".join(prompt.positions)
            raise ValueError(f"query: prompt {number} has the positions {named}, got {query!r}")
    return torch.zeros(*shape, longest, dtype=model.cfg.dtype)


def _forward(
    model: TransformerBridge, ids: Tensor, rows: Tensor, batch: list[int], at: list[int] | None, *, with_logits: bool
) -> Tensor | None:
    """One forward pass; hooks write the wanted rows of each layer into ``rows[batch]``. Logits at END, if wanted."""
    last, width = model.cfg.n_layers - 1, ids.shape[1]
    index = torch.tensor(batch)

    def keep(pattern: Tensor, hook: Any) -> None:
        layer = int(hook.name.split(".")[1])
        if at is None:
            rows[index, layer, :, :width, :width] = pattern.to("cpu", rows.dtype)
        else:
            wanted = pattern[torch.arange(len(batch)), :, at]
            rows[index, layer, :, :width] = wanted.to("cpu", rows.dtype)
        if layer == last and not with_logits:
            raise _LastRowsTaken

    hooks: list[Any] = [(f"blocks.{layer}.attn.hook_pattern", keep) for layer in range(model.cfg.n_layers)]
    with torch.no_grad():
        try:
            # not output_attentions: it would hold the patterns of all layers until the pass ends
            options: dict[str, Any] = {"output_attentions": False} | ({"logits_to_keep": 1} if with_logits else {})
            logits: Tensor = model.run_with_hooks(ids, fwd_hooks=hooks, **options)
        except _LastRowsTaken:
            return None
    return logits[:, -1].double().cpu()


def _answer_ids(tokenizer: Any, prompt: Prompt) -> tuple[int | None, int | None]:
    """First token of the answer and of the foil as they would follow the prompt."""

    def first(name: str, word: str | None) -> int | None:
        return None if word is None else next_token(tokenizer, prompt, word, name)

    return first("answer", prompt.answer), first("foil", prompt.foil)


def _read(logits: Tensor, answer: int | None, foil: int | None) -> Tensor:
    """(logit difference, P(answer), P(foil), answer is top-1) of one prompt, NaN where it names none."""
    nan = logits.new_tensor(torch.nan)
    p = logits.softmax(-1)
    right, wrong = (nan if i is None else logits[i] for i in (answer, foil))
    p_right, p_wrong = (nan if i is None else p[i] for i in (answer, foil))
    top = nan if answer is None else (logits.argmax() == answer).to(logits.dtype)
    return torch.stack([right - wrong, p_right, p_wrong, top])


def _windows(model: TransformerBridge) -> tuple[int, ...]:
    """Number of keys each layer's queries can see at most; 0 where there is no limit."""
    config = model.original_model.config
    n_layers: int = model.cfg.n_layers
    kinds = getattr(config, "attention_layers", None) or getattr(config, "layer_types", None)
    window: int = getattr(config, "window_size", None) or getattr(config, "sliding_window", None) or 0
    if not kinds:
        return (window,) * n_layers
    return tuple(window if kind in ("local", "sliding_attention") else 0 for kind in kinds)

"""From a model and prompts to an attention record, in one call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from helpers.attention.record import AttentionRecord, Readout
from helpers.models.forward import attention_rows, batches, windows
from helpers.models.model import LanguageModel
from helpers.models.values import sink_weight
from helpers.prompts.answers import with_answers
from helpers.prompts.prompt import Prompt
from helpers.prompts.tokens import TokenizedPrompt, bos_id, tokenize
from helpers.visible import visible_keys

Sink = Literal["left out", "a key"]


def tokenize_for(
    model: LanguageModel,
    prompts: Iterable[Prompt | str],
    *,
    prepend_bos: bool = True,
    bos: str | int | None = None,
) -> list[TokenizedPrompt]:
    """`helpers.prompts.tokens.tokenize` with the model's own tokenizer, context length and embedding."""
    if not isinstance(model, LanguageModel):
        raise ValueError(
            f"model: expected what load_model returns, got {type(model).__name__}; LanguageModel(hf_model, tokenizer) makes "
            "one of a model in memory"
        )
    return tokenize(
        prompts, model.tokenizer, prepend_bos=prepend_bos, bos=bos, max_length=model.n_ctx, vocabulary=model.n_tokens
    )


def record_attention(
    model: LanguageModel,
    prompts: Iterable[Prompt | str],
    *,
    query: str = "END",
    prepend_bos: bool = True,
    bos: str | int | None = None,
    readout: bool = False,
    sink: Sink = "left out",
    batch_size: int = 32,
    progress: bool = True,
) -> AttentionRecord:
    """Run the model once over the prompts and keep the attention rows that were asked for.

    Prompts are grouped by length, never padded. Of each layer the rows of the query position are kept, beside fused
    attention, so that no matrix of all queries and keys is made (see `helpers.models.forward.attention_rows`); the
    forward pass stops at the last rows unless a readout is asked for.

    Args:
        model: what `load_model` returns.
        prompts: `Prompt` objects, or bare texts (which have no named position but END).
        query: the query position to keep: ``"END"``, any position that every prompt names (``"S2"``, …), or
            ``"all"``.
        prepend_bos: put one BOS token in front of each prompt.
        bos: which token that is, by its name or id in the vocabulary; default: the tokenizer's own. The record's
            settings name it where it is another.
        readout: also keep the logit difference and probabilities of each prompt's answer and foil at END; where a prompt
            has sets of them, P(answers) and P(foils).
        sink: of a model whose heads can attend to a learned sink that is no token (gpt-oss). ``"left out"``: rows are
            divided by the weight that lies on tokens, so that each is a distribution over tokens. ``"a key"``: the sink is one
            more visible key, after the last. The record's settings say which. Other models don't care.
        batch_size: prompts a forward pass.
        progress: show a progress bar.

    Raises:
        ValueError: one sentence, before anything is computed, if a prompt is unusable (see `tokenize`) or lacks the
            query position; or if the model's numbers are not finite.
    """
    if sink not in ("left out", "a key"):
        raise ValueError(f"sink: expected 'left out' or 'a key', got {sink!r}")
    tokenized = tokenize_for(model, prompts, prepend_bos=prepend_bos, bos=bos)
    queries = _queries(tokenized, query)
    if readout:
        tokenized = with_answers(tokenized, model.tokenizer)
    longest = max(map(len, tokenized))
    wide = [longest] if query == "all" else []
    # Empty, not zeros: a page that nothing was written to takes no memory, so that rows are not held twice during a pass.
    rows = torch.empty(len(tokenized), model.n_layers, model.n_heads, *wide, longest, dtype=model.dtype)
    visible = torch.empty(len(tokenized), model.n_layers, *wide, longest, dtype=torch.bool)
    said = torch.full((4, len(tokenized)), torch.nan, dtype=torch.float64)
    for batch, ids in batches(model, tokenized, batch_size, progress=progress):
        at = None if query == "all" else queries[batch].tolist()
        found = attention_rows(model, ids, at, logits=readout)
        rows[batch], visible[batch] = 0, False
        here: Any = (torch.tensor(batch), ..., *[slice(ids.shape[1])] * (len(wide) + 1))
        rows[here], visible[here] = found.rows, found.visible
        if found.logits is not None:
            logits = found.logits.double()
            said[:, batch] = torch.stack([_read(logits[k], tokenized[i]) for k, i in enumerate(batch)], dim=1)
    settings = run_settings(model, prepend_bos, bos, sink)
    if "sink" in settings:
        rows, visible = _with_sink(rows, visible) if sink == "a key" else (_without_sink(rows), visible)
    mask = None if torch.equal(visible, visible_keys(queries, rows.shape[-1], windows(model))) else visible
    return AttentionRecord(
        tokenized, rows, query, model.name, settings, windows(model), Readout(*said) if readout else None, mask,
        model.identity,
    )  # fmt: skip


def run_settings(
    model: LanguageModel, prepend_bos: bool, bos: str | int | None = None, sink: Sink = "left out"
) -> dict[str, Any]:
    """What a record keeps about how it was made; ``bos`` if it is not the tokenizer's own, ``sink`` if the model has one."""
    settings: dict[str, Any] = {"dtype": str(model.dtype).removeprefix("torch."), "prepend_bos": prepend_bos}
    if model.has_sinks:
        settings["sink"] = sink
    first = bos_id(model.tokenizer, prepend_bos, bos)
    if first in (None, model.tokenizer.bos_token_id):
        return settings
    return settings | {"bos": model.tokenizer.convert_ids_to_tokens(first)}


def _queries(prompts: Sequence[TokenizedPrompt], query: str) -> Tensor:
    """Index of the query in each prompt, or of all of them: ``(prompt, query)``, -1 where a prompt is shorter."""
    if query == "all":
        t = torch.arange(max(map(len, prompts)))
        return torch.where(t < torch.tensor([len(p) for p in prompts])[:, None], t, -1)
    for number, prompt in enumerate(prompts, 1):
        if query not in prompt.positions:
            named = ", ".join(prompt.positions)
            raise ValueError(f"query: prompt {number} has the positions {named}, got {query!r}")
    return torch.tensor([p.position(query) for p in prompts])


def _with_sink(rows: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
    """One more key at the end, with the weight that lies on no token; visible to all queries that there are."""
    there = visible.any(-1, keepdim=True)
    beside = torch.where(there[:, :, None], sink_weight(rows.float()), 0).to(rows.dtype)
    return torch.cat([rows, beside], -1), torch.cat([visible, there], -1)


def _without_sink(rows: Tensor) -> Tensor:
    """Rows over the weight that lies on tokens."""
    total = rows.float().sum(-1, keepdim=True)
    return torch.where(total > 0, rows / total, 0).to(rows.dtype)


def _read(logits: Tensor, prompt: TokenizedPrompt) -> Tensor:
    """(logit difference, P(answers), P(foils), an answer is top-1) of one prompt; NaN where it names none.

    With several answers or foils there is no one logit difference: it is NaN.
    """
    nan, p = logits.new_tensor(torch.nan), logits.softmax(-1)
    right, wrong = list(prompt.right), list(prompt.wrong)
    difference = logits[right[0]] - logits[wrong[0]] if len(right) == len(wrong) == 1 else nan
    top = logits.new_tensor(float(int(logits.argmax()) in right)) if right else nan
    return torch.stack([difference, p[right].sum() if right else nan, p[wrong].sum() if wrong else nan, top])

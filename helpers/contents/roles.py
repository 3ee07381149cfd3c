"""Which role a head has, by what it does: scores with standard definitions, thresholds, nulls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from helpers.contents.behaviour import Behaviour, on_prompts, on_random_tokens
from helpers.contents.copying import copying
from helpers.heads import Head, HeadLike, check_heads, head_index, heads_of, model_shape
from helpers.models.model import LanguageModel
from helpers.patching.pairs import MinimalPairs
from helpers.patching.paths import EDGE_THRESHOLD, patch_paths
from helpers.prompts.fit import fit_task
from helpers.prompts.prompt import Prompt
from helpers.prompts.tokens import bos_id
from helpers.reference.circuits import Circuit
from helpers.statistics.effects import shares_of_gap

#: Mean attention above which a head is said to attend there, as in the ARENA course's detectors of current-token,
#: previous-token and first-token heads (Wang et al.: mean 0.59 for name movers and 0.51 for S-inhibition heads.)
ATTENTION = 0.4

#: Share of names above which a head is said to copy. Wang et al. report above 0.95 for name movers and below 0.2 for an
#: average head (negative: 0.98 and 0.12); this lies between.
COPYING = 0.5

NO_ROLE = "no role found"

Pairs = tuple[Sequence[Prompt], Sequence[Prompt]]


def _above(table: pd.DataFrame, score: str, threshold: float = 0.0) -> pd.Series:
    return (table[score] > threshold) & (table[score] > table[f"{score}_null"])


def _moves(table: pd.DataFrame, score: str, copies: str) -> pd.Series:
    return (table[score] > ATTENTION * COPYING) & _above(table, "to_io") & _above(table, copies)


#: The roles and their rules, in order of precedence: what a head does in the task before what it does everywhere.
RULES: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    "Name Mover": lambda table: _moves(table, "name_mover", "copying"),
    "Negative Name Mover": lambda table: _moves(table, "negative_mover", "negative_copying"),
    "S-Inhibition": lambda table: (
        _above(table, "to_s2", ATTENTION) & (table.s_inhibition > EDGE_THRESHOLD) & (table.s_inhibition_low > 0)
    ),
    "Induction": lambda table: _above(table, "induction", ATTENTION),
    "Duplicate Token": lambda table: _above(table, "duplicate_token", ATTENTION),
    "Previous Token": lambda table: _above(table, "previous_token", ATTENTION),
}


def head_roles(
    model: LanguageModel,
    pairs: Pairs | None = None,
    *,
    n: int = 32,
    period: int | None = None,
    n_sequences: int = 16,
    batch_size: int = 100,
    prepend_bos: bool = True,
    bos: str | int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Scores of every head for the six roles of the IOI circuit, and the roles that they give it.

    - previous_token, duplicate_token, induction: attention on random tokens twice in a row (`on_random_tokens`).
    - to_io, to_s1, to_s2: END's attention to IO, S1 and S2 on the clean prompts; null: END's attention to the other
      tokens. For to_io, the same quantile of to_s1 is a second null, and the higher counts: a head that looks at both
      names alike moves no name.
    - copying, negative_copying: share of names that the head writes, or suppresses (`copying`).
    - name_mover = to_io * copying, negative_mover = to_io * negative_copying.
    - s_inhibition: path patching from the head to the name movers found, one path at a time; effects as shares of the
      gap, summed, with a bootstrap interval over pairs. NaN but for heads that attend to S2 and precede a name mover.

    A score gives a role if it exceeds both its threshold (`ATTENTION`; for movers `ATTENTION` * `COPYING`) and the 99th
    percentile of the head's own null (column ``..._null``; for movers those of both factors). An S-inhibition head must
    also move the logit difference through the name movers by more than `EDGE_THRESHOLD` of the gap, towards the wrong
    name when it is spoilt, with an interval above 0. The null is a head's own: of a hundred heads one passes it by
    chance, and the threshold is what keeps it out.

    Backup name movers are not told apart from name movers: that takes a run in which these are absent. Induction here
    is the attention pattern alone.

    Args:
        model: what `load_model` returns.
        pairs: (clean, corrupt), IOI minimal pairs of one length that name IO, S1 and S2; default: ``n`` pairs that fit
            the tokenizer (`helpers.prompts.fit.fit_task`).
        n: number of those pairs.
        period, n_sequences: length of a half, and number of random sequences.
        batch_size: prompts a forward pass in path patching.
        prepend_bos, bos: as `record_attention`; the same BOS stands before random tokens.
        seed: of random tokens and of resampling.

    Returns:
        One row a head: layer, head, the scores, and role: the roles it has, joined by ", ", in the order of `RULES`;
        "" where none. Attention and copying lie between 0 and 1.

    Raises:
        ValueError: if pairs are unusable (`MinimalPairs`) or name no IO, S1 or S2, or the period does not fit.

    Source: Wang et al. 2022 (arXiv:2211.00593); Olsson et al. 2022 (arXiv:2209.11895).
    """
    clean, corrupt = pairs or _fitting_pairs(model, n, prepend_bos, bos)
    given = MinimalPairs(model, clean, corrupt, prepend_bos=prepend_bos, bos=bos)
    first = bos_id(model.tokenizer, prepend_bos, bos)
    behaviours = on_random_tokens(model, first=first, period=period, n=n_sequences, seed=seed, progress=progress)
    behaviours |= on_prompts(model, given.clean, {f"to_{name.lower()}": given.at(name) for name in ("IO", "S1", "S2")})
    behaviours |= copying(model, given.clean, given.at("IO"), progress=progress)
    table = head_index(model.n_layers, model.n_heads)
    for name, found in behaviours.items():
        table[name], table[f"{name}_null"] = found.score.ravel(), found.bar(seed=seed).ravel()
    to_s1 = Behaviour(behaviours["to_io"].samples, null=behaviours["to_s1"].samples)
    table["to_io_null"] = table.to_io_null.clip(lower=to_s1.bar(seed=seed).ravel())
    table["name_mover"] = table.to_io * table.copying
    table["negative_mover"] = table.to_io * table.negative_copying
    candidates, movers = (
        heads_of(table[rule]) for rule in (_above(table, "to_s2", ATTENTION), RULES["Name Mover"](table))
    )
    options = {"batch_size": batch_size, "prepend_bos": prepend_bos, "bos": bos, "progress": progress}
    paths = inhibition(model, (clean, corrupt), candidates, movers, seed=seed, **options)
    table = table.merge(paths, how="left", on=["layer", "head"])
    return table.assign(role=assign_roles(table))


def inhibition(
    model: LanguageModel,
    pairs: Pairs,
    candidates: Sequence[HeadLike],
    movers: Sequence[HeadLike],
    *,
    seed: int = 0,
    **options: Any,
) -> pd.DataFrame:
    """Effect of each head through the movers, as a share of the gap: its paths to them, one at a time, summed.

        s_inhibition = sum over movers of mean(clean - patched) / mean(clean - corrupt)

    Args:
        pairs: as `head_roles`.
        candidates, movers: ``(layer, head)`` of senders and receivers.
        seed: of the bootstrap.
        options: of `patch_paths`.

    Returns:
        One row a candidate with a mover in a later layer: layer, head, s_inhibition and its 95 % bootstrap interval
        over pairs, s_inhibition_low and s_inhibition_high.
    """
    columns = ["s_inhibition", "s_inhibition_low", "s_inhibition_high"]
    senders = [head for head in candidates if movers and head[0] < max(movers)[0]]
    table = pd.DataFrame(senders, columns=["layer", "head"], dtype=int)
    if not senders:
        return table.reindex(columns=["layer", "head", *columns])
    run = patch_paths(model, *pairs, senders=senders, receivers=movers, **options)
    moved = [np.nansum(run.clean - run.patched[sender], axis=(0, 1)) for sender in senders]
    shares = shares_of_gap(np.stack(moved), run.clean - run.corrupt, level=0.95, n_resamples=2000, seed=seed)
    return table.assign(**dict(zip(columns, shares, strict=True)))


def assign_roles(table: pd.DataFrame) -> pd.Series:
    """The roles that the scores of each head give it, joined by ", ", in the order of `RULES`; "" where none."""
    given = {role: rule(table) for role, rule in RULES.items()}
    return pd.Series(
        [", ".join(r for r, has in given.items() if has[i]) for i in table.index], table.index, dtype=object
    )


def circuit_roles(table: pd.DataFrame, causal: Circuit | Iterable[HeadLike]) -> dict[str, tuple[Head, ...]]:
    """The heads of a circuit by role, as `Circuit.roles`: each under the first role it has, else under `NO_ROLE`.

    Args:
        table: what `head_roles` returns.
        causal: a circuit (its own roles are not used), or the causal ``(layer, head)``.

    Returns:
        role -> heads, in the order of `RULES`, then `NO_ROLE`; roles without heads are left out.

    Raises:
        ValueError: if a head is not in the table.
    """
    heads = check_heads("causal", causal.heads if isinstance(causal, Circuit) else causal, *model_shape(table))
    role_of = table.set_index(["layer", "head"]).role.str.split(", ").str[0]
    roles = {head: role_of[head] or NO_ROLE for head in heads}
    by_role = {role: tuple(h for h, has in roles.items() if has == role) for role in (*RULES, NO_ROLE)}
    return {role: some for role, some in by_role.items() if some}


def _fitting_pairs(model: LanguageModel, n: int, prepend_bos: bool, bos: str | int | None) -> Pairs:
    fitted = fit_task("ioi", model.tokenizer, n, prepend_bos=prepend_bos, bos=bos)
    return fitted.clean, fitted.corrupt

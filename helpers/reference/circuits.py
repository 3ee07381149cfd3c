"""Known circuits, as data: which heads of which model, in which role, said by whom."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from jaxtyping import Bool

from helpers.heads import Head, HeadLike, check_heads, heads_of, model_shape, parse_heads


@dataclass(frozen=True)
class Circuit:
    """A set of heads by role.

    Attributes:
        name: what it is called in figures and tables.
        n_layers, n_heads: shape of the model it belongs to.
        roles: role -> heads (each a `Head`, whatever pairs were given).
        source: where the list is from.

    Raises:
        ValueError: if the model has no such head.
    """

    name: str
    n_layers: int
    n_heads: int
    roles: Mapping[str, tuple[HeadLike, ...]]
    source: str

    def __post_init__(self) -> None:
        roles = {role: tuple(Head(*head) for head in heads) for role, heads in self.roles.items()}
        object.__setattr__(self, "roles", roles)
        check_heads("roles", self.heads, self.n_layers, self.n_heads)

    @cached_property
    def heads(self) -> tuple[Head, ...]:
        """All heads, in the order of the roles."""
        return tuple(Head(*head) for heads in self.roles.values() for head in heads)

    def role(self, layer: int, head: int) -> str:
        """Role of a head; ``"other"`` outside the circuit."""
        return next((role for role, heads in self.roles.items() if (layer, head) in heads), "other")

    def mask(self, n_layers: int, n_heads: int) -> Bool[np.ndarray, "layer head"]:
        """Which heads of a model are in the circuit.

        For the rows of a table of heads: ``circuit.mask(12, 12)[table.layer, table["head"]]``.

        Raises:
            ValueError: if the circuit belongs to a model of another shape.
        """
        self.check_shape(n_layers, n_heads)
        inside = np.zeros((n_layers, n_heads), dtype=bool)
        inside[tuple(np.array(self.heads, dtype=int).reshape(-1, 2).T)] = True
        return inside

    def check_shape(self, n_layers: int, n_heads: int) -> None:
        """Refuse a model of another shape than the circuit's."""
        if (self.n_layers, self.n_heads) != (n_layers, n_heads):
            raise ValueError(
                f"circuit: expected heads of a model of shape {(n_layers, n_heads)} (layers, heads), got {self.name!r} of "
                f"shape {(self.n_layers, self.n_heads)}"
            )


def _roles(**heads: str) -> dict[str, tuple[Head, ...]]:
    return {role.replace("_", " ").replace("S Inhibition", "S-Inhibition"): parse_heads(h) for role, h in heads.items()}


#: The 23 heads that post 2 tests.
IOI_POST = Circuit(
    "IOI, the post's 23",
    12,
    12,
    _roles(
        Name_Mover="9.6 9.9 10.0",
        Backup_Name_Mover="9.0 9.7 10.1 10.2 10.6 10.10 11.2 11.9",
        Negative_Name_Mover="10.7 11.10",
        S_Inhibition="7.3 7.9 8.6 8.10",
        Induction="5.5 6.9",
        Duplicate_Token="0.1 3.0",
        Previous_Token="2.2 4.11",
    ),
    "Fields 2026, Attention Diagnostics, after Wang et al. 2022 (arXiv:2211.00593)",
)

#: All 26 heads of the paper; 0.10, 5.8 and 5.9 are marked as weaker there.
IOI_PAPER = Circuit(
    "IOI, Wang et al.'s 26",
    12,
    12,
    {**IOI_POST.roles, "Induction": parse_heads("5.5 5.8 5.9 6.9"), "Duplicate Token": parse_heads("0.1 0.10 3.0")},
    "Wang et al. 2022 (arXiv:2211.00593)",
)

#: The naive core: name movers, S-inhibition, and one or two heads of each early class; no backups, no negatives.
IOI_CORE = Circuit(
    "IOI, naive core",
    12,
    12,
    _roles(
        Name_Mover="9.6 9.9 10.0",
        S_Inhibition="7.3 7.9 8.6 8.10",
        Induction="5.5 5.9",
        Duplicate_Token="0.10 3.0",
        Previous_Token="2.2 4.11",
    ),
    "the naive circuit of Wang et al. 2022 (arXiv:2211.00593)",
)

#: In the authors' script (hannamw/gpt2-greater-than, circuit_discovery.py) the first seven heads work at END and the last
#: three at YY, the last two digits of the first year; the circuit's MLPs are no heads and not listed. Other codebases
#: have 6.1 instead of 8.8 and 5.1.
GREATER_THAN = Circuit(
    "greater-than",
    12,
    12,
    _roles(circuit="9.1 8.11 7.10 6.9 5.5 8.8 5.1 0.1 0.3 0.5"),
    "Hanna et al. 2023 (arXiv:2305.00586), heads as in the authors' script; others list 6.1 instead of 8.8 and 5.1",
)

#: The 8 heads of three-letter acronyms.
ACRONYMS = Circuit(
    "acronyms",
    12,
    12,
    _roles(circuit="1.0 2.2 4.11 5.8 8.11 9.9 10.10 11.4"),
    "García-Carrasco et al. 2024 (arXiv:2405.04156)",
)


def from_effects(
    name: str, effects: pd.DataFrame, *, by_position: bool = False, source: str = "activation patching"
) -> Circuit:
    """The heads that patching found causal, as a circuit.

    Args:
        effects: one row a head of the whole model: layer, head, causal (see `helpers.patching.heads.head_effects`).
        by_position: take the position at which a head acts (column ``acts_at``) for its role; else the one role is "causal".
    """
    causal = effects[effects.causal]
    roles = map(_acts, causal.acts_at) if by_position else ["causal"] * len(causal)
    return from_roles(name, *model_shape(effects), sorted(zip(roles, heads_of(causal), strict=True)), source)


def _acts(at: str) -> str:
    """Role of a head by where it acts; that is not known of heads that the 5 % rule does not call causal."""
    return {"": "acts somewhere", "in between": "acts in between"}.get(at, f"acts at {at}")


def from_roles(name: str, n_layers: int, n_heads: int, roles: Iterable[tuple[str, HeadLike]], source: str) -> Circuit:
    """A circuit from (role, head) pairs, in their order."""
    by_role: dict[str, tuple[HeadLike, ...]] = {}
    for role, head in roles:
        by_role[role] = (*by_role.get(role, ()), head)
    return Circuit(name, n_layers, n_heads, by_role, source)

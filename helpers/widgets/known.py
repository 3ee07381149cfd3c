"""What is known of a model's heads: their roles, and which of them cause the answer of a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from helpers.attention.record import AttentionRecord
from helpers.heads import Head
from helpers.measured.shipped import shipped_roles
from helpers.reference.circuits import Circuit
from helpers.reference.measured import measured_circuit
from helpers.story import named_circuit

#: Task of a prompt by its template; prompts of no known task are looked at with the heads of IOI.
_TASK_OF = {
    "ABBA": "ioi", "BABA": "ioi", "ABC": "ioi", "repeated list": "repeated", "asked first": "ownership",
    "asked second": "ownership", "singular": "agreement", "plural": "agreement",
}  # fmt: skip
_TITLES = {"ioi": "IOI", "repeated": "repeated lists", "ownership": "ownership", "agreement": "agreement"}


@dataclass(frozen=True)
class Known:
    """What is known of the heads of a model.

    Attributes:
        roles: head -> role; of heads without one nothing stands here.
        causal: heads that cause the answer of ``task``, by activation patching.
        task: the task's name as a reader knows it, or an empty text if nothing is known.
        source: where that is from.
        other: whether the prompts are of another task than that.
    """

    roles: Mapping[Head, str] = field(default_factory=dict)
    causal: frozenset[Head] = frozenset()
    task: str = ""
    source: str = ""
    other: bool = False

    @property
    def sentence(self) -> str:
        """What the marks of the grid mean, for the reader; empty if there are none."""
        if not self.task:
            return ""
        found = f"Marked: heads that are known to matter for {self.task} ({self.source})."
        return f"{found} These prompts may ask something else." if self.other else found


def known_heads(record: AttentionRecord) -> Known:
    """Roles and causal heads of a record's model, on the task of its prompts if that was measured, else on IOI."""
    tasks = {_TASK_OF.get(p.prompt.template, "") for p in record.prompts}
    task = tasks.pop() if len(tasks) == 1 else ""
    circuit = _circuit(record.model, task) if task else None
    other = circuit is None
    circuit = circuit or named_circuit(record.model)
    if circuit is None or (circuit.n_layers, circuit.n_heads) != (record.n_layers, record.n_heads):
        return Known()
    roles = {Head(*head): role for role, heads in circuit.roles.items() for head in heads}
    title = _TITLES["ioi" if other else task]
    return Known(_all_roles(record.model) | roles, frozenset(circuit.heads), title, circuit.source, other)


def _circuit(model: str, task: str) -> Circuit | None:
    if task == "ioi":
        return named_circuit(model)
    found = measured_circuit(model, task)
    return found.circuit() if found else None


def _all_roles(model: str) -> dict[Head, str]:
    """Roles of all heads that have one, causal or not, where they were measured."""
    try:
        table = shipped_roles(model)
    except OSError:
        return {}
    some = table[table.role != ""]
    return {Head(int(r.layer), int(r.head)): r.role for r in some[["layer", "head", "role"]].itertuples(index=False)}

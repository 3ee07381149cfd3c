"""What stands on the screen for a state: pure functions from a result and a view to the data of the components."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

import numpy as np

from helpers.design import Q
from helpers.diagnostics.plane import upper_curve
from helpers.heads import Head, HeadLike, heads_of
from helpers.plots.style import BLACK
from helpers.widgets.playground import MEASURES, grid_values, scale_of
from helpers.widgets.state import SIDES, Knob, Pattern, Result, View
from helpers.widgets.web.grid import role_marks

Data = dict[str, Any]

#: Named positions that strips mark; of other names the token says enough.
MARKED = ("BOS", "IO", "S1", "S2", "A1", "B", "A2", "OWNER", "OTHER", "THING1", "THING2", "END")
#: Characters of a prompt in a tooltip.
LONGEST = 300
#: Columns of an experiment that a head's own lines, and the table's own columns, say whatever is measured.
_ALWAYS = ("d_kl", "d_kl_q", "d_chi", "d_chi_q")
_SHIFTS = {
    name: [
        {"key": f"d_{name}", "label": label, "signed": True},
        {"key": f"d_{name}_q", "label": "q", "digits": 4},
        {"key": f"{name}_interval", "label": "95 % interval", "signed": True},
    ]
    for name, label in {"kl": "ΔKL", "chi": "Δχ"}.items()
}


# ---- all heads


def grid_data(result: Result, view: View) -> Data:
    """`HeadGrid`: every head by the chosen measure, with what is known and found of it."""
    table = result.experiment.table
    chi = "chi" in MEASURES[view.measure]
    q = table["d_chi_q" if chi else "d_kl_q"]
    shifted = heads_of(table[q < Q])
    return {
        "values": grid_values(result.experiment, view.measure),
        "scale": scale_of(view.measure),
        "measure": view.measure,
        "tips": _tips(result, view.measure),
        "marks": marks(result),
        "significant": shifted,
        "significant_label": f"{'χ' if chi else 'KL'} shifts (q < {Q})",
        "selected": view.head,
        "compared": view.compared,
        "title": f"{result.asked.model}: {view.measure}, row of {result.experiment.active.query}",
    }


def marks(result: Result) -> list[Data]:
    """A ring for a head that causes the answer, a dot for one with a role."""
    known = result.known
    roles: dict[HeadLike, str] = {
        h: role for h, role in known.roles.items() if role not in ("no role found", "acts somewhere", "causal")
    }
    ring = {"label": f"causal ({known.task})", "shape": "ring", "colour": BLACK, "heads": sorted(known.causal)}
    return [*([ring] if known.causal else []), *role_marks(roles)]


def _tips(result: Result, measure: str) -> list[list[str]]:
    """What the pointer finds over each head, below its name."""
    values = grid_values(result.experiment, measure)
    said = MEASURES[measure] in _ALWAYS
    return [
        [
            "\n".join(filter(None, [
                known_as(result, head := Head(layer, number)),
                "" if said else f"{measure}: {_plain(value)}",
                *head_lines(result, head)[1:],
            ]))
            for number, value in enumerate(row)
        ]
        for layer, row in enumerate(values)
    ]  # fmt: skip


@lru_cache(maxsize=2)
def table_rows(result: Result) -> list[dict[str, Any]]:
    """The rows of a result's table, in reading order of the heads."""
    rows: list[dict[str, Any]] = result.experiment.table.to_dict("records")
    return rows


def head_lines(result: Result, head: Head) -> list[str]:
    """A head in a few lines: its name with what is known of it, its two shifts with interval and q."""
    row = table_rows(result)[head.layer * result.records[0].n_heads + head.head]
    lines = [", ".join([f"head {head}", *filter(None, [known_as(result, head)])])]
    for sign, name in (("ΔKL", "d_kl"), ("Δχ", "d_chi")):
        low, high, q = (row[f"{name}_{what}"] for what in ("low", "high", "q"))
        lines.append(f"{sign} {signed(row[name])} (95 % {signed(low)} to {signed(high)}), q = {q:.2g}")
    return lines


def signed(value: float) -> str:
    """A shift with its sign, as the components write it."""
    return f"{value:+.3f}".replace("-", "−")


def known_as(result: Result, head: Head) -> str:
    """What is known of a head; empty if nothing is."""
    role = result.known.roles.get(head, "")
    return ", ".join(filter(None, [role, f"causal in {result.known.task}" if head in result.known.causal else ""]))


def table_data(result: Result, view: View) -> Data:
    """`RankedHeads`: all heads, those that the grid's colours point at first."""
    table, values = table_rows(result), grid_values(result.experiment, view.measure).ravel()
    order = np.argsort(values if scale_of(view.measure) == "q" else -np.nan_to_num(np.abs(values)), kind="stable")
    own = [] if MEASURES[view.measure] in _ALWAYS else [{"key": "measure", "label": view.measure, "digits": 3}]
    rows = []
    for at in order:
        row = table[at]
        head = Head(int(row["layer"]), int(row["head"]))
        rows.append(
            {"head": head, "role": known_as(result, head)}
            | {key: row[key] for key in _ALWAYS}
            | {f"{name}_interval": (row[f"d_{name}_low"], row[f"d_{name}_high"]) for name in ("kl", "chi")}
            | ({"measure": float(values[at])} if own else {})
        )
    title = f"Heads by {view.measure}, strongest first"
    first, second = (
        (_SHIFTS["chi"], _SHIFTS["kl"]) if "chi" in MEASURES[view.measure] else (_SHIFTS["kl"], _SHIFTS["chi"])
    )
    columns = [*own, *first, {"key": "role", "label": "role"}, *second]
    return {"columns": columns, "rows": rows, "selected": view.head, "title": title}


# ---- one head


def strips_data(result: Result, view: View) -> Data:
    """`TokenStrips`: what the head, and the compared one, look at in the chosen prompt of either side."""
    heads = [head for head in (view.head, view.compared) if head]
    strips = [_strip(result, view, head, side) for head in heads for side in SIDES]
    return {
        "strips": strips,
        "second_label": "in the twin" if result.experiment.design == "pairs" else "",
        "chosen": None,
        "max_height": 330 if len(heads) == 1 else 560,
    }


def _strip(result: Result, view: View, head: Head, side: str) -> Data:
    record, number = getattr(result.experiment, side), view.numbers[SIDES.index(side)]
    prompt = record.prompts[number]
    weights = [_row(result, head, s, view.numbers[SIDES.index(s)]) for s in (side, *(s for s in SIDES if s != side))]
    strip = {
        "label": f"head {head}, {side} prompt {number + 1} of {len(record.prompts)}",
        "tokens": list(prompt.tokens),
        "weights": weights[0].tolist(),
        "positions": {name: i for name, i in prompt.positions.items() if name in MARKED},
        "query": prompt.position(record.query),
    }
    return strip | ({"second": weights[1].tolist()} if result.experiment.design == "pairs" else {})


def _row(result: Result, head: Head, side: str, number: int) -> np.ndarray:
    """Weights of a prompt's tokens, as many as it has; a sink that is no token is left out."""
    record = getattr(result.experiment, side)
    return np.asarray(record.rows[number, head.layer, head.head, : len(record.prompts[number])].double().numpy())


def plane_data(result: Result, view: View) -> Data:
    """`PlaneDots`: the head's KL and chi in every prompt, and what a row can reach."""
    assert view.head is not None
    experiment, head = result.experiment, view.head
    points = [
        {"x": float(x), "y": float(y), "side": side, "text": _short(prompt.prompt.text, i)}
        for side in SIDES
        for i, (prompt, x, y) in enumerate(
            zip(
                getattr(experiment, side).prompts,
                *(_numbers(result, head, side, n) for n in ("kl", "chi")),
                strict=True,
            )
        )
    ]
    first = result.counts[0]
    n, outside = usual_n(result, head)
    beside = f", {outside} prompts have another" if outside else ""
    trajectory, current = knob_path(view.knob, view.beta)
    return {
        "points": points,
        "lines": [(i, first + i) for i in range(first)] if experiment.design == "pairs" else [],
        "region": _region(n) if n > 1 else [],
        "trajectory": trajectory,
        "current": current,
        "selected": view.number + (first if view.side == "control" else 0),
        "title": f"Head {head}: a dot for each prompt (n = {n} tokens{beside})",
    }


def _numbers(result: Result, head: Head, side: str, name: str) -> np.ndarray:
    """KL or chi of a head in every prompt of a side."""
    return np.asarray(getattr(getattr(result.experiment, f"kl_chi_{side}"), name)[:, head.layer, head.head])


def usual_n(result: Result, head: Head) -> tuple[int, int]:
    """Number of visible keys in most prompts, and how many prompts have another."""
    counts: Counter[int] = Counter()
    for side in SIDES:
        seen = getattr(result.experiment, side).visible().sum(-1)
        counts.update(seen[:, head.layer, 0].tolist())
    n, most = counts.most_common(1)[0]
    return n, sum(counts.values()) - most


@cache
def _region(n: int) -> list[tuple[float, float]]:
    """Outline of what a row over n keys can reach: the upper curve, and back along the floor."""
    kl, chi = (line[::8].tolist() for line in upper_curve(n))
    return [*zip(kl, chi, strict=True), (1.0, 0.0), (0.0, 0.0)]


def _short(text: str, number: int) -> str:
    return f"{number + 1}: {text if len(text) <= LONGEST else text[:LONGEST] + ' …'}"


def _plain(value: float) -> str:
    return "n/a" if np.isnan(value) else f"{value:.3g}"


# ---- on demand


def matrix_data(result: Result, view: View, pattern: Pattern) -> Data:
    """`AttentionMatrix`: all rows of a head in one prompt."""
    prompt = getattr(result.experiment, pattern.side).prompts[pattern.number]
    title = f"Head {pattern.head}, {pattern.side} prompt {pattern.number + 1}: every row"
    return {"tokens": list(prompt.tokens), "weights": pattern.weights, "query": view.query, "title": title}


def knob_path(knob: Knob | None, beta: float) -> tuple[list[tuple[float, float]], int | None]:
    """Where the tempered row is in the plane at every setting, and which setting is chosen."""
    if knob is None:
        return [], None
    betas = knob.turned.betas
    return [(x, y) for x, y in knob.turned.places(betas).tolist()], betas.index(beta)


def knob_strip(result: Result, knob: Knob, beta: float) -> Data:
    """`TokenStrips`: the tempered row beside the row as it is."""
    prompt = getattr(result.experiment, knob.side).prompts[knob.number]
    turned = knob.turned
    shown = {f"beta = {beta:g}": turned.rows[turned.betas.index(beta)], "beta = 1": turned.rows[turned.plain]}
    common: Mapping[str, Any] = {
        "tokens": list(prompt.tokens), "positions": {k: i for k, i in prompt.positions.items() if k in MARKED},
        "query": len(prompt) - 1,
    }  # fmt: skip
    strips = [
        {"label": f"head {knob.head}, {name}", "weights": list(map(float, row)), **common}
        for name, row in shown.items()
    ]
    return {"strips": strips, "second_label": "", "chosen": None}

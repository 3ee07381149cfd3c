"""What leaves the playground: the table as CSV, the attention records, and the Python that makes the same table."""

from __future__ import annotations

from pathlib import Path

from helpers.attention.record import AttentionRecord
from helpers.experiment import Experiment
from helpers.prompts.prompt import Prompt
from helpers.results import SIDES
from helpers.widgets.checker import token_index

_CODE = """\
{imports}

ACTIVE = [
{active}
]
CONTROL = [
{control}
]

model = load_model({model!r})
active, control = ({record} for side in (ACTIVE, CONTROL))
table = analyse(active, control).table
"""


def save_table(experiment: Experiment, folder: str | Path) -> Path:
    """Write the table, every digit, to ``heads.csv`` in a folder; return its path."""
    path = Path(folder, "heads.csv")
    path.parent.mkdir(parents=True, exist_ok=True)
    experiment.table.to_csv(path, index=False, lineterminator="\n")
    return path


def save_record(experiment: Experiment, folder: str | Path) -> Path:
    """Write both attention records where `helpers.results.load_records` finds them; return the folder."""
    for side, record in zip(SIDES, (experiment.active, experiment.control), strict=True):
        record.save(Path(folder, "records", f"{side}.safetensors"))
    return Path(folder)


def as_code(experiment: Experiment) -> str:
    """Python that makes the experiment's table again."""
    query, names = experiment.active.query, ["analyse", "load_model", "record_attention"]
    index = token_index(query)
    wanted = f'query="{query if index is None else "all"}"'
    settings = experiment.active.settings
    bos = "" if settings.get("prepend_bos", True) else ", prepend_bos=False"
    bos += f", bos={settings['bos']!r}" if "bos" in settings else ""
    record = f"record_attention(model, side, {wanted}{bos}, progress=False)"
    named = index is None and query != "END"
    imports = f"from helpers import {', '.join(['Prompt'] * named + names)}"
    if index is not None:
        imports += "\nfrom helpers.widgets import at_token"
        record = f"at_token({record}, {index})"
    sides = (_listed(side, named) for side in (experiment.active, experiment.control))
    return _CODE.format(
        imports=imports, active=next(sides), control=next(sides), model=experiment.active.model, record=record
    )


def _listed(record: AttentionRecord, named: bool) -> str:
    """The prompts as list items: texts, or `Prompt` objects where a name is read."""
    return "\n".join(f"    {_literal(p.prompt, named)}," for p in record.prompts)


def _literal(prompt: Prompt, named: bool) -> str:
    return f"Prompt({prompt.text!r}, spans={dict(prompt.spans)!r})" if named else repr(prompt.text)

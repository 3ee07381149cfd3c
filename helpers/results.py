"""An experiment in files: written whole or not at all, and read again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from helpers.attention.record import AttentionRecord
from helpers.experiment import Experiment
from helpers.folders import check_folder, whole_folder
from helpers.plots.figures import all_figures
from helpers.plots.style import RC
from helpers.statistics.ranking import Ranking
from helpers.wording import report

SIDES = ("active", "control")
MARKER = "statistics.json"
FORMAT = "head-experiment/1"


def save_results(
    experiment: Experiment,
    out: str | Path,
    *,
    records: tuple[AttentionRecord, AttentionRecord] | None = None,
    texts: Mapping[str, str] | None = None,
) -> Path:
    """Write table, statistics, report, figures (PNG, SVG) and records into a folder, whole or not at all.

    An earlier results folder of the same name is replaced as a whole.

    Args:
        experiment: what to write.
        out: the folder; ``~`` is the home folder.
        records: records to keep instead of the experiment's own, e.g. those of all positions.
        texts: further text files, name -> content.

    Raises:
        ValueError: if ``out`` exists and is not a results folder of ours, or another process is writing to it.
        OSError: one sentence, if it can't be written; what was there is as before.
    """
    check_out(out)
    with whole_folder(out) as new:
        _write(experiment, new, records or (experiment.active, experiment.control))
        for name, text in (texts or {}).items():
            (new / name).write_text(text, encoding="utf-8")
    return Path(os.path.expanduser(out))


def check_out(out: str | Path) -> None:
    """Refuse an output folder that holds something else than earlier results."""
    check_folder(out, MARKER, FORMAT)


def load_records(folder: str | Path) -> tuple[AttentionRecord, AttentionRecord]:
    """The two records of a results folder, as they were saved.

    Raises:
        FileNotFoundError, ValueError: if there are none, or they are no records.
    """
    place = os.path.expanduser(folder)
    if not os.path.isdir(place):
        raise FileNotFoundError(f"path: no attention record at {str(folder)!r}")
    active, control = (AttentionRecord.load(Path(place, "records", f"{name}.safetensors")) for name in SIDES)
    return active, control


def _write(experiment: Experiment, folder: Path, records: tuple[AttentionRecord, AttentionRecord]) -> None:
    (folder / "figures").mkdir()
    experiment.table.to_csv(folder / "heads.csv", index=False, float_format="%.6g", lineterminator="\n")
    (folder / "report.txt").write_text(report(experiment), encoding="utf-8")
    (folder / MARKER).write_text(json.dumps(_statistics(experiment), indent=1) + "\n")
    for name, record in zip(SIDES, records, strict=True):
        record.save(folder / "records" / f"{name}.safetensors", compact=True)
    with rc_context(RC):  # type: ignore[arg-type]
        for name, figure in all_figures(experiment).items():
            _save_figure(figure, folder / "figures" / name)


def _save_figure(figure: Figure, path: Path) -> None:
    """PNG and SVG with one layout and one drawing each (`savefig` draws twice, which is most of the time of a run)."""
    figure.set_dpi(RC["savefig.dpi"])
    FigureCanvasAgg(figure).print_png(f"{path}.png")
    figure.set_layout_engine("none")  # as it was laid out for the PNG
    FigureCanvasSVG(figure).print_svg(f"{path}.svg", metadata={"Date": None})


def _statistics(experiment: Experiment) -> dict:
    return {
        "format": FORMAT,
        "model": experiment.active.model,
        "query": experiment.active.query,
        "settings": experiment.active.settings,
        "design": experiment.design,
        "prompts": {"active": len(experiment.active.prompts), "control": len(experiment.control.prompts)},
        "circuit": experiment.circuit and {"name": experiment.circuit.name, "source": experiment.circuit.source},
        "rankings": _as_dict(experiment.rankings),
        "other_rankings": {f"{t:.0%}": _as_dict(rankings) for t, rankings in experiment.other_rankings.items()},
        "correlations": _without_nan(experiment.correlations.to_dict()),
        "notes": experiment.notes,
    }


def _as_dict(rankings: Mapping[str, Ranking]) -> dict[str, dict]:
    return {score: _without_nan(asdict(r)) for score, r in rankings.items()}


def _without_nan(numbers: dict[str, float]) -> dict[str, float | None]:
    """JSON has no NaN."""
    return {name: None if np.isnan(value) else value for name, value in numbers.items()}

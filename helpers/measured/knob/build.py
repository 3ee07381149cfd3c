"""``make measure-knob MODEL=smollm2``: the measurements of KNOB.md, and the verdicts.

    python -m helpers.measured.knob.build smollm2 [--steps lengths loss response slopes turned curvature points verdicts]

Every step writes its own files. What is finished of any of them (a stretch, a head) is kept until all are done, so that a run
that was killed goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from helpers.folders import kept_in
from helpers.knob.lengths import kl_at_lengths
from helpers.measured.build import FOLDER
from helpers.measured.knob.answers import points, response, slopes, turned
from helpers.measured.knob.loss import curvature, loss
from helpers.measured.knob.shipped import KINDS, LENGTHS, MeasuredKnob
from helpers.measured.knob.tables import length_table
from helpers.measured.knob.text import long_stretches, shuffled
from helpers.measured.knob.verdicts import judge_tables
from helpers.measured.knob.work import Work
from helpers.models.load import load_model
from helpers.models.model import LanguageModel


def lengths(work: Work) -> None:
    """Section 4: KL and its parts at nine lengths of each long stretch, as it is and shuffled."""
    long, found = long_stretches(work.model.tokenizer), []
    for k, stretch in enumerate(long):
        for kind, text in zip(KINDS, (stretch, shuffled(stretch, seed=k)), strict=True):
            found.append(work.kept.get(f"lengths-{k}-{kind}", partial(_long_rows, work.model, text.ids)))
    whole = np.stack(found).astype(np.float32).reshape(len(long), len(KINDS), *found[0].shape)
    parts, weight = (np.ascontiguousarray(x) for x in (np.moveaxis(whole[:, :, :3], 2, -1), whole[:, :, 3]))
    save_file({"parts": parts, "weight": weight}, work.out / "lengths.safetensors")
    work.write("lengths", length_table(parts, weight))


def _long_rows(model: LanguageModel, ids: tuple[int, ...]) -> np.ndarray:
    rows = kl_at_lengths(model, torch.tensor(ids), LENGTHS)
    return np.stack([rows.kl, rows.sink, rows.rest, rows.weight])


def judge(work: Work) -> None:
    """Holds, fails or undecided, from the files that the other steps wrote."""
    work.write("verdicts", judge_tables(MeasuredKnob(work.out)))


STEPS: dict[str, Callable[[Work], None]] = {
    "response": response,
    "slopes": slopes,
    "loss": loss,
    "lengths": lengths,
    "turned": turned,
    "curvature": curvature,
    "points": points,
    "verdicts": judge,
}
#: What the demo model's context of 64 tokens leaves out, and what is computed live on it.
NOT_ON_THE_DEMO = ("lengths", "points")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="short name of the model, which is also its folder")
    parser.add_argument("--steps", nargs="+", choices=STEPS, help="default: all that the model allows")
    parser.add_argument("--out", type=Path, help="default: the folder of the shipped measurements")
    args = parser.parse_args()
    out = args.out or FOLDER / args.model / "knob"
    model = load_model(args.model)
    with kept_in(out.with_name(f"{out.name}.unfinished"), f"knob/{model.identity}") as kept:
        for name in args.steps or [name for name in STEPS if args.model != "demo" or name not in NOT_ON_THE_DEMO]:
            print(name, flush=True)
            STEPS[name](Work(model, out, kept))


if __name__ == "__main__":
    main()

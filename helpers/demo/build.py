"""``make demo-model``: train the three seeds, examine them, find their causal heads and paths, write the model card.

    python -m helpers.demo.build [--seeds 0 1 2]

Resumable: a training that was stopped goes on from its last checkpoint. The shipped model is seed 0, whatever the
diagnostics say.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd

from helpers.demo import card
from helpers.demo.acceptance import examine
from helpers.demo.train import save, train
from helpers.models.load import DEMO_FOLDER, load_model
from helpers.models.model import LanguageModel
from helpers.patching.circuits import find_circuit
from helpers.patching.paths import edge_effects, patch_paths
from helpers.prompts.ioi import minimal_pairs

SEEDS = (0, 1, 2)
PATCHING_PAIRS = 100
PATH_PAIRS = 50


def find_causal_heads(model: LanguageModel, *, n: int = PATCHING_PAIRS, progress: bool = True) -> pd.DataFrame:
    """The table of `helpers.patching.circuits.find_circuit` on ``n`` minimal pairs of IOI; acts_at is NaN but for causal heads."""
    table = find_circuit(model, minimal_pairs(n), task="ioi", progress=progress).table
    return table.assign(acts_at=table.acts_at.where(table.causal))


def find_causal_paths(model: LanguageModel, *, n: int = PATH_PAIRS, progress: bool = True) -> pd.DataFrame:
    """Patch the path between every two heads on ``n`` minimal pairs (see `helpers.patching.paths.edge_effects`)."""
    return edge_effects(patch_paths(model, *minimal_pairs(n), progress=progress))


def build(seed: int, work: Path, folder: Path = DEMO_FOLDER) -> None:
    """Train (or finish training) one seed and write its folder."""
    out = folder / f"seed-{seed}"
    save(train(seed, work / f"seed-{seed}.pt"), out)
    describe(out)


def describe(out: Path) -> None:
    """Examine a trained model and write its examination and its tables of heads and of paths beside the weights."""
    model = load_model(str(out), device="cpu")
    (out / "examination.json").write_text(json.dumps(examine(model), indent=1) + "\n")
    for name, table in (("causal_heads", find_causal_heads(model)), ("edges", find_causal_paths(model))):
        table.to_csv(out / f"{name}.csv", index=False, float_format="%.5f", lineterminator="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--work", type=Path, default=Path("build/demo-model"), help="folder of the checkpoints")
    args = parser.parse_args()
    for seed in args.seeds:
        build(seed, args.work)
    card.write(DEMO_FOLDER)


if __name__ == "__main__":
    main()

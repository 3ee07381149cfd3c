"""Section 3 of KNOB.md: the loss of language modelling as the knob of a head is turned."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import save_file
from torch import Tensor

from helpers.folders import Kept
from helpers.heads import Head
from helpers.knob.directions import random_ratios
from helpers.knob.hooks import TemperedLayer, keys_seen
from helpers.knob.slopes import LossSlopes, loss_slopes
from helpers.measured.knob.shipped import MeasuredKnob
from helpers.measured.knob.tables import curvature_heads, curvature_table, loss_table, null_table
from helpers.measured.knob.text import BEGINNINGS, ids_of
from helpers.measured.knob.work import Work
from helpers.models.forward import token_losses
from helpers.models.model import LanguageModel

CURVATURE_BETAS = (0.5, 0.8, 1.0, 1.25, 2.0)
NULL_DRAWS = 1000


def loss(work: Work) -> None:
    """Section 3: slopes of the loss and what random directions would give, in the model and in one with random weights."""
    short, tables, drawn = work.short(), {}, {}
    columns = ["stretch", "text", "start"]
    stretches = pd.DataFrame([(i, one.text, one.start) for i, one in enumerate(short)], columns=columns)
    for prefix, model in (("", work.model), ("random_", random_twin(work.model))):
        found = _loss_slopes(work.kept, prefix, model, ids_of(short))
        stretches[f"{prefix}loss"] = found.loss
        tables[prefix] = loss_table(found.slope, found.turn)
        drawn[prefix] = work.kept.get(f"{prefix}null", partial(random_ratios, found.turn, n_draws=NULL_DRAWS))
        if not prefix:
            slope = found.slope.astype(np.float32)
            save_file({"slope": slope}, work.out / "slopes_of_stretches.safetensors")
    work.write("stretches", stretches)
    work.write("loss", tables[""])
    work.write("random", tables["random_"])
    work.write("null", null_table(drawn))


def _loss_slopes(kept: Kept, prefix: str, model: LanguageModel, ids: Tensor) -> LossSlopes:
    """`loss_slopes`, a stretch at a time."""
    rows = [kept.get(f"{prefix}loss-{k}", partial(_packed, model, ids[k : k + 1])) for k in range(len(ids))]
    heads, d = (model.n_layers, model.n_heads), model.d_head
    loss, slope, turn = np.split(np.stack(rows), [1, 1 + heads[0] * heads[1]], axis=1)
    return LossSlopes(loss[:, 0], slope.reshape(-1, *heads), turn.mean(0).reshape(*heads, d, d))


def _packed(model: LanguageModel, ids: Tensor) -> np.ndarray:
    found = loss_slopes(model, ids)
    return np.concatenate([found.loss, found.slope.ravel(), found.turn.ravel()])


def random_twin(model: LanguageModel, seed: int = 0) -> LanguageModel:
    """A model of the same configuration with the random weights that training would begin with."""
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        hf = AutoModelForCausalLM.from_config(model.hf.config, dtype=model.dtype)
    return LanguageModel(hf.to(model.device), model.tokenizer, f"{model.name}, random weights")


def curvature(work: Work) -> None:
    """Section 3: the loss at several betas of twelve heads, on the first short stretch of each long one."""
    knob, short = MeasuredKnob(work.out), work.short()
    every = 1 if work.model.name == "demo" else len(BEGINNINGS)
    ids, heads = ids_of(short[::every][:8]), curvature_heads(knob.loss)
    found = [
        work.kept.get(f"curvature-{head}", partial(tempered_losses, work.model, ids, head, CURVATURE_BETAS))
        for head, _ in heads
    ]
    work.write("curvature", curvature_table(heads, CURVATURE_BETAS, np.stack(found)))


def tempered_losses(model: LanguageModel, ids: Tensor, head: Head, betas: tuple[float, ...]) -> np.ndarray:
    """Mean loss of each stretch with one head turned at every token, ``(beta, stretch)``."""
    ids = ids.to(model.device)
    visible, found = keys_seen(model, ids), np.zeros((len(betas), len(ids)))
    for i, beta in enumerate(betas):
        for k, one in enumerate(ids):
            settings = torch.ones(1, model.n_heads, dtype=model.dtype, device=ids.device)
            settings[:, head.head] = beta
            hooks = TemperedLayer(model, head.layer, settings, visible).hooks
            with torch.no_grad():
                found[i, k] = token_losses(model, one[None], hooks).double().mean()
    return found

"""Every architecture: rows, patching, attribution and direct attribution are what plain PyTorch says, or refused in a sentence.

The table of the outcomes is helpers/models/ARCHITECTURES.md; ``python tests/test_matrix.py`` writes it anew.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import transformers
from architectures import ALL, outputs_of_heads, patched_difference, projections, tempered_logits
from models import random_model

from helpers import (
    ModelUnavailable,
    attribute_heads,
    load_model,
    minimal_pairs,
    patch_heads,
    record_attention,
    record_outputs,
    run_tempered,
)
from helpers.demo.train import build_tokenizer

TABLE = Path(__file__).parents[1] / "helpers" / "models" / "ARCHITECTURES.md"
HEAD = """# Architectures

Tiny random models (two layers, four heads) against plain transformers and PyTorch hooks, in float32; made and checked by
`tests/test_matrix.py`.

- *rows*: attention rows of every query against `output_attentions`; the number is the largest difference allowed.
- *patching*: denoising each head against a hook on the output projection, relative to the largest logit difference.
- *attribution*: attribution patching against autograd, relative to the largest attribution.
- *tempering*: logits with the scores of a head multiplied by 0.25 and by 16, against the same in the softmax of the model's own
  attention, relative to the largest logit.
- *direct*: direct logit attribution; its parts add up to the logit difference, which every run checks.

Anything else is the sentence with which the model, or that use of it, is refused. Any other architecture that transformers has is
tried out when it is loaded, in the same ways, on a short prompt.

| architecture | rows | patching | attribution | tempering | direct |
| --- | --- | --- | --- | --- | --- |
"""

#: One of each way in which attention is written: run by `make quick`; all others are slow.
FAST = (
    "gpt2", "llama", "gemma2", "mistral", "qwen3", "gpt_oss", "llama4_text", "bloom", "gpt_neo", "falcon, grouped keys",
    "deepseek_v3", "gpt2, unscaled", "jamba",
)  # fmt: skip

CLEAN, CORRUPT = minimal_pairs(3, seed=0)


class Row(NamedTuple):
    """Outcome of each use: the tolerance within which it is right, or the sentence of its refusal."""

    rows: str
    patching: str = ""
    attribution: str = ""
    tempering: str = ""
    direct: str = ""


def outcome(name: str, folder: Path, words: Any) -> Row:
    """Make the model, load it, and compare every use with its reference.

    Raises:
        AssertionError: where a number differs from the reference.
    """
    kind, shape = ALL[name]
    special = {"vocab_size": len(words), "bos_token_id": words.bos_token_id, "eos_token_id": 0, "pad_token_id": 1}
    inner = shape.get("text_config")
    config = transformers.CONFIG_MAPPING[kind](**(shape | ({"text_config": inner | special} if inner else special)))
    random_model(config, attn_implementation="eager").save_pretrained(folder)
    words.save_pretrained(folder)

    def tried(use: Callable[[], str]) -> str:
        try:
            return use()
        except (ModelUnavailable, ValueError) as error:
            said = str(error).replace(str(folder), name)
            assert "\n" not in said
            return said

    try:
        model = load_model(str(folder), device="cpu")
    except ModelUnavailable as error:
        return Row(str(error).replace(str(folder), name))
    hf = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    row = Row(
        tried(lambda: _rows(model, hf)),
        tried(lambda: _patching(model, hf)),
        tried(lambda: _attribution(model, hf)),
        tried(lambda: _tempering(model, hf)),
        tried(lambda: record_outputs(model, CLEAN, progress=False) and "adds up"),
    )
    return Row(*row[:2], *("as patching" if said == row.patching and " " in said else said for said in row[2:]))


def _ids(model: Any, prompts: Any) -> torch.Tensor:
    return torch.tensor([p.ids for p in record_attention(model, prompts, progress=False).prompts])


def _rows(model: Any, hf: Any) -> str:
    record = record_attention(model, CLEAN, query="all", progress=False)
    with torch.no_grad():
        said = hf(torch.tensor([p.ids for p in record.prompts]), output_attentions=True, use_cache=False).attentions
    expected = torch.stack(said, 1)
    if model.has_sinks:
        expected = expected / expected.sum(-1, keepdim=True)
    torch.testing.assert_close(record.rows, expected, rtol=0, atol=2e-6)
    assert expected.std(2).max() > 0.002, "heads are alike: equality would say nothing"
    one = record_attention(model, CLEAN, progress=False)
    torch.testing.assert_close(one.rows, expected[..., -1, :], rtol=0, atol=2e-6)
    assert not one.rows[~one.visible().expand_as(one.rows)].any()
    return "2e-6"


def _answers(model: Any) -> list[torch.Tensor]:
    find = model.tokenizer.convert_tokens_to_ids
    return [
        torch.tensor([find(word) for word in side]) for side in ([p.answer for p in CLEAN], [p.foil for p in CLEAN])
    ]


def _patching(model: Any, hf: Any) -> str:
    run = patch_heads(model, CLEAN, CORRUPT, progress=False)
    clean, corrupt = _ids(model, CLEAN), _ids(model, CORRUPT)
    source, (right, wrong) = outputs_of_heads(hf, clean), _answers(model)
    expected = np.array(
        [
            [
                patched_difference(hf, corrupt, source, i, h, model.n_heads, right, wrong).numpy()
                for h in range(model.n_heads)
            ]
            for i in range(model.n_layers)
        ]
    )
    largest = np.abs(expected).max()
    np.testing.assert_allclose(run.denoised, expected, rtol=0, atol=2e-5 * largest)
    assert np.abs(run.denoised - run.corrupt).max() > 2e-4 * largest, "nothing moved: equality would say nothing"
    return "2e-5"


def _attribution(model: Any, hf: Any) -> str:
    found = attribute_heads(model, CLEAN, CORRUPT, progress=False)
    clean, corrupt, (right, wrong) = _ids(model, CLEAN), _ids(model, CORRUPT), _answers(model)
    clean_z, corrupt_z = outputs_of_heads(hf, clean), outputs_of_heads(hf, corrupt)
    nudges = [torch.zeros_like(z, requires_grad=True) for z in corrupt_z]
    handles = [
        p.register_forward_pre_hook(lambda module, args, nudge=nudge: (args[0] + nudge, *args[1:]))
        for p, nudge in zip(projections(hf), nudges, strict=True)
    ]
    logits = hf(corrupt, use_cache=False).logits[:, -1]
    for handle in handles:
        handle.remove()
    difference = logits.gather(1, right[:, None]) - logits.gather(1, wrong[:, None])
    slopes = torch.autograd.grad(difference.sum(), nudges)
    moved = [s * (a - b) for s, a, b in zip(slopes, clean_z, corrupt_z, strict=True)]
    expected = torch.stack([m.reshape(*corrupt.shape, model.n_heads, -1).sum((1, 3)).T for m in moved]).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    return "1e-4"


def _tempering(model: Any, hf: Any) -> str:
    ids, betas, heads = _ids(model, CLEAN), (0.25, 16.0), ((0, 1), (1, 2))
    for head in heads:
        run = run_tempered(model, CLEAN, {head: betas}, progress=False)
        expected = torch.stack([tempered_logits(hf, ids, *head, beta) for beta in betas])
        largest = expected.abs().max()
        torch.testing.assert_close(run.logits, expected, rtol=0, atol=float(2e-5 * largest))
        assert (run.logits - run.plain).abs().max() > 2e-4 * largest, "nothing moved: equality would say nothing"
    return "2e-5"


def line(name: str, row: Row) -> str:
    """A row of the table."""
    return "| " + " | ".join([name, *row]) + " |"


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in ALL])
def test_equal_or_refused_in_a_sentence(name: str, words: Any, tmp_path: Path) -> None:
    """What is measured is plain PyTorch's, what is refused is refused as the table says; nothing ends in a traceback."""
    expected = line(name, outcome(name, tmp_path, words))
    lines = [said for said in TABLE.read_text("utf-8").splitlines() if said.startswith(f"| {name} |")]
    assert lines == [expected]


def test_the_table_is_whole() -> None:
    """A row for every architecture, at least 45 of them, and no other."""
    rows = TABLE.read_text("utf-8").removeprefix(HEAD).splitlines()
    assert [said.split(" | ")[0].removeprefix("| ") for said in rows] == sorted(ALL)
    assert len(ALL) >= 45


if __name__ == "__main__":
    words, lines = build_tokenizer(), {}
    for name in sys.argv[1:] or sorted(ALL):
        with tempfile.TemporaryDirectory() as folder:
            lines[name] = line(name, outcome(name, Path(folder), words))
        print(lines[name], flush=True)
    if not sys.argv[1:]:
        TABLE.write_text(HEAD + "".join(f"{said}\n" for said in lines.values()), "utf-8")

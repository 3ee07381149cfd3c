"""Training the demo model: pure batches, resuming bit by bit, files that load; and the acceptance rule."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers import ioi_prompts, load_model, record_attention
from helpers.demo import acceptance, train
from helpers.demo.corpus import BOS, vocabulary

pytestmark = pytest.mark.slow

# Batches


def test_batch_is_a_pure_function_of_seed_and_step() -> None:
    """The same (seed, step) gives the same batch whatever was drawn before; another seed or step another batch."""
    first = train.batch(0, 3)
    train.batch(1, 5)
    random.seed(0)
    torch.manual_seed(0)
    again = train.batch(0, 3)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    for other in (train.batch(0, 4), train.batch(1, 3)):
        assert first[0].shape != other[0].shape or not torch.equal(first[0], other[0])
    state = random.getstate()
    train.batch(0, 0)
    assert random.getstate() == state


def test_batches_hold_documents() -> None:
    """64 rows of BOS and words; labels are the tokens themselves, and -100 where a row is padded; at most 64 tokens."""
    for step in range(12):
        tokens, labels = train.batch(0, step)
        assert tokens.shape == labels.shape
        assert tokens.shape[0] == train.BATCH
        assert tokens.shape[1] <= train.N_CTX
        assert (tokens[:, 0] == vocabulary().index(BOS)).all()
        assert not (tokens == vocabulary().index("<unk>")).any()
        scored = labels != -100
        assert torch.equal(labels[scored], tokens[scored])
        assert torch.equal(scored, scored.cummin(dim=1).values), "padding only at the end"
        assert scored.any(dim=0).all(), "no column without a word"
        assert not (tokens[:, 1:][scored[:, 1:]] == 0).any()
    assert any((train.batch(0, step)[1] == -100).any() for step in range(12))


def test_learning_rate() -> None:
    """Linear from PEAK/WARMUP to PEAK, then half a cosine: half of PEAK in the middle, 0 at the end, never rising."""
    rates = [train.learning_rate(step) for step in range(train.STEPS + 1)]
    assert rates[0] == pytest.approx(train.PEAK_LR / train.WARMUP)
    assert max(rates) == rates[train.WARMUP] == pytest.approx(train.PEAK_LR)
    assert rates[(train.WARMUP + train.STEPS) // 2] == pytest.approx(train.PEAK_LR / 2)
    assert rates[-1] == pytest.approx(0, abs=1e-12)
    assert all(a >= b for a, b in zip(rates[train.WARMUP :], rates[train.WARMUP + 1 :], strict=False))


# The model and its training


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six steps of four documents, a checkpoint after every second."""
    for name, value in {"STEPS": 6, "BATCH": 4, "WARMUP": 2, "CHECKPOINT_EVERY": 2}.items():
        monkeypatch.setattr(train, name, value)


def weights(model: Any) -> dict[str, Tensor]:
    """A copy of all weights."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    """Bit by bit."""
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_model_is_a_function_of_its_seed() -> None:
    """The same seed gives the same weights, another seed others; 6 x 8 heads, no dropout."""
    assert same(weights(train.build_model(0)), weights(train.build_model(0)))
    assert not same(weights(train.build_model(0)), weights(train.build_model(1)))
    config = train.build_model(0).config
    assert (config.n_layer, config.n_head, config.vocab_size) == (6, 8, len(vocabulary()))
    assert config.resid_pdrop == config.embd_pdrop == config.attn_pdrop == 0


def test_training_learns(short: None, tmp_path: Path) -> None:
    """Six steps lower the loss on what was seen; evaluation mode at the end."""
    model = train.train(0, tmp_path / "a.pt", steps=6, device="cpu")
    tokens, labels = train.batch(0, 5)
    with torch.no_grad():
        before = train.build_model(0).eval()(input_ids=tokens, labels=labels).loss
        after = model(input_ids=tokens, labels=labels).loss
    assert after < before
    assert not model.training


@pytest.mark.parametrize("stopped_after", [2, 3, 5])
def test_resuming_is_bit_identical(stopped_after: int, short: None, tmp_path: Path) -> None:
    """Stopped after 2, 3 or 5 of 6 steps and started again: the weights of an uninterrupted run, bit by bit."""
    whole = weights(train.train(0, tmp_path / "whole.pt", steps=6, device="cpu"))
    checkpoint = tmp_path / "part.pt"
    train.train(0, checkpoint, steps=stopped_after, device="cpu")
    saved = torch.load(checkpoint, weights_only=True)
    assert saved["step"] == stopped_after // 2 * 2
    assert not same(saved["model"], whole)
    assert same(weights(train.train(0, checkpoint, steps=6, device="cpu")), whole)


def test_resuming_goes_on_from_the_checkpoint(short: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished part is not trained again: only the remaining steps draw batches."""
    train.train(0, tmp_path / "a.pt", steps=4, device="cpu")
    drawn: list[int] = []
    batch = train.batch

    def spy(seed: int, step: int) -> tuple[Tensor, Tensor]:
        drawn.append(step)
        return batch(seed, step)

    monkeypatch.setattr(train, "batch", spy)
    train.train(0, tmp_path / "a.pt", steps=6, device="cpu")
    assert drawn == [4, 5]
    train.train(0, tmp_path / "a.pt", steps=6, device="cpu")
    assert drawn == [4, 5]


def test_checkpoint_is_whole_or_the_old_one(short: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails half way leaves the checkpoint before it, from which training goes on."""
    checkpoint = tmp_path / "a.pt"
    train.train(0, checkpoint, steps=2, device="cpu")

    def fail(state: Any, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", fail)
        with pytest.raises(OSError, match="No space left"):
            train.train(0, checkpoint, steps=6, device="cpu")
    assert torch.load(checkpoint, weights_only=True)["step"] == 2
    whole = weights(train.train(0, tmp_path / "whole.pt", steps=6, device="cpu"))
    assert same(weights(train.train(0, checkpoint, steps=6, device="cpu")), whole)


def test_a_checkpoint_of_another_seed_is_refused(short: None, tmp_path: Path) -> None:
    """Going on from another seed's checkpoint would give a model that no seed gives."""
    train.train(0, tmp_path / "a.pt", steps=2, device="cpu")
    with pytest.raises(ValueError, match="seed"):
        train.train(1, tmp_path / "a.pt", steps=6, device="cpu")


def test_saved_model_loads(tmp_path: Path) -> None:
    """Weights in float16 safetensors, computed in float32; tokenizer and name included; no pickle."""
    exact = weights(train.build_model(0))
    train.save(train.build_model(0), tmp_path / "seed-0")
    names = {f.name for f in (tmp_path / "seed-0").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]
    assert (tmp_path / "seed-0" / "model.safetensors").stat().st_size < 2.2 * sum(t.numel() for t in exact.values())
    model = load_model(str(tmp_path / "seed-0"), device="cpu")
    wte = model.original_model.get_input_embeddings().weight
    assert wte.dtype == torch.float32
    assert torch.equal(wte.cpu(), exact["transformer.wte.weight"].half().float())
    record = record_attention(model, ioi_prompts(2), progress=False)
    assert record.rows.shape == (2, 6, 8, 15)
    assert record.prompts[0].tokens[0] == BOS


# The acceptance rule


def verdict(abba: float, baba: float, share: float) -> bool:
    """The rule on made-up results, with a fair coin between 0.46 and 0.54."""
    ioi = {"ABBA": {"accuracy": abba}, "BABA": {"accuracy": baba}}
    return acceptance.is_accepted({"ioi": ioi, "abc": {"share_of_a": share, "fair_coin": [0.46, 0.54]}})


@pytest.mark.parametrize(
    ("abba", "baba", "share", "accepted"),
    [
        (1.0, 1.0, 0.5, True), (0.99, 0.99, 0.46, True), (0.989, 1.0, 0.5, False), (1.0, 0.989, 0.5, False),
        (1.0, 1.0, 0.459, False), (1.0, 1.0, 0.541, False), (1.0, 1.0, 0.54, True),
    ],
)  # fmt: skip
def test_acceptance_rule(abba: float, baba: float, share: float, accepted: bool) -> None:
    """99 % for each template, and no preference beyond a fair coin's; both ends of each bound."""
    assert verdict(abba, baba, share) is accepted


def test_fair_coin_interval() -> None:
    """1000 throws: 99 % of fair coins give 459 to 541 heads (binomial quantiles at 0.5 % and 99.5 %)."""
    from math import comb

    said = acceptance._abc(acceptance.Readout(*(torch.full((1000,), 0.25, dtype=torch.float64) for _ in range(4))))
    low, high = (round(1000 * x) for x in said["fair_coin"])
    below = sum(comb(1000, k) for k in range(low)) / 2**1000
    assert below <= 0.005 < below + comb(1000, low) / 2**1000
    assert high == 1000 - low
    assert said["share_of_a"] == pytest.approx(0.5)


def test_examination_of_an_untrained_model(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model is not accepted, and every kind with a determined word has its accuracy."""
    monkeypatch.setattr(acceptance, "PER_KIND", 20)
    result = acceptance.examine(tiny)
    assert result["accepted"] is False
    assert set(result["kinds"]) == {"repeated_list", "ownership", "whereabouts", "counting", "pronoun", "fact"}
    assert all(0 <= accuracy <= 1 for accuracy in result["kinds"].values())
    assert result["ioi"]["ABBA"]["prompts"] == len(acceptance.held_out_ioi("ABBA"))

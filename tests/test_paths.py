"""Path patching: a slow reference by transformers alone, identities, the causal rule, and the tables that ship."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, GPT2LMHeadModel

from helpers import edge_effects, head_effects, load_model, minimal_pairs, patch_heads, patch_paths
from helpers.demo import build
from helpers.patching.heads import PatchingRun
from helpers.patching.paths import EDGE_THRESHOLD, PathRun
from helpers.prompts.prompt import Prompt
from helpers.reference.demo import DEMO_SEEDS, causal_edges, causal_heads

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pairs() -> tuple[list[Prompt], list[Prompt]]:
    """Five minimal pairs."""
    return minimal_pairs(5)


@pytest.fixture(scope="module")
def run(tiny: Any, pairs: Any) -> PathRun:
    """Every path of the tiny model (3 layers x 4 heads) on those pairs."""
    return patch_paths(tiny, *pairs, progress=False)


# Against transformers


class ByHand:
    """One prompt at a time through the tiny model, with slices of each c_proj's input read and set."""

    def __init__(self, folder: Path, prompt: Prompt) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = GPT2LMHeadModel.from_pretrained(folder, attn_implementation="eager").eval()
        self.words = [self.tokenizer.convert_tokens_to_ids(word) for word in (prompt.answer, prompt.foil)]

    def run(
        self, prompt: Prompt, fixed: dict[tuple[int, int], torch.Tensor] | None = None
    ) -> tuple[float, dict[tuple[int, int], torch.Tensor]]:
        """Logit difference, and each head's z before it was set to what ``fixed`` says."""
        computed: dict[tuple[int, int], torch.Tensor] = {}

        def step(layer: int, z: torch.Tensor) -> tuple[torch.Tensor]:
            z = z.clone()
            for head in range(4):
                part = slice(8 * head, 8 * head + 8)
                computed[layer, head] = z[0, :, part].clone()
                if (layer, head) in (fixed or {}):
                    z[0, :, part] = fixed[layer, head]
            return (z,)

        handles = [
            block.attn.c_proj.register_forward_pre_hook(lambda module, args, layer=layer: step(layer, args[0]))
            for layer, block in enumerate(self.model.transformer.h)
        ]
        with torch.no_grad():
            ids = torch.tensor([[0, *self.tokenizer(prompt.text, add_special_tokens=False)["input_ids"]]])
            logits = self.model(ids).logits[0, -1]
        for handle in handles:
            handle.remove()
        return (logits[self.words[0]] - logits[self.words[1]]).item(), computed


@pytest.mark.parametrize(
    ("sender", "receiver"), [((0, 0), (1, 2)), ((0, 3), (2, 1)), ((1, 1), (2, 0)), ((1, 2), (2, 3))]
)
def test_equals_a_slow_reference(
    sender: tuple[int, int], receiver: tuple[int, int], tiny_folder: Path, pairs: Any, run: PathRun
) -> None:
    """Hold every head at clean but the sender; set the receiver alone to what it then computes; pair by pair."""
    for pair, (clean, corrupt) in enumerate(zip(*pairs, strict=True)):
        hand = ByHand(tiny_folder, clean)
        plain, clean_z = hand.run(clean)
        spoilt, corrupt_z = hand.run(corrupt)
        _, heard = hand.run(clean, clean_z | {sender: corrupt_z[sender]})
        patched, _ = hand.run(clean, {receiver: heard[receiver]})
        assert run.clean[pair] == pytest.approx(plain, abs=1e-4)
        assert run.corrupt[pair] == pytest.approx(spoilt, abs=1e-4)
        assert run.patched[*sender, *receiver, pair] == pytest.approx(patched, abs=1e-4)
    assert np.abs(run.patched[*sender, *receiver] - run.clean).max() > 1e-3


def test_no_third_head_in_between(tiny_folder: Path, pairs: Any, run: PathRun) -> None:
    """The path from 0.0 to 2.1 is not what 2.1 computes when middle heads may pass the corruption on."""
    clean, corrupt = pairs[0][0], pairs[1][0]
    hand = ByHand(tiny_folder, clean)
    _, corrupt_z = hand.run(corrupt)
    _, heard = hand.run(clean, {(0, 0): corrupt_z[0, 0]})
    through_all, _ = hand.run(clean, {(2, 1): heard[2, 1]})
    assert abs(run.patched[0, 0, 2, 1, 0] - through_all) > 1e-3


# Identities


def test_only_later_layers_receive(run: PathRun) -> None:
    """Numbers where the sender's layer is earlier, NaN elsewhere: the last layer sends to no head."""
    assert run.patched.shape == (3, 4, 3, 4, 5)
    for sender in range(3):
        for receiver in range(3):
            assert (np.isfinite(run.patched[sender, :, receiver]) == (sender < receiver)).all()


def test_a_sender_that_does_not_change_has_no_effect(tiny_folder: Path, pairs: Any, tmp_path: Path, words: Any) -> None:
    """A head whose values are 0 puts out z = 0 on both sides: every path from it leaves the clean run as it is."""
    model = GPT2LMHeadModel.from_pretrained(tiny_folder)
    with torch.no_grad():
        for parameter in (model.transformer.h[0].attn.c_attn.weight, model.transformer.h[0].attn.c_attn.bias):
            parameter[..., 64 + 16 : 64 + 24] = 0  # value columns of head 2
    model.save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    run = patch_paths(load_model(str(tmp_path), device="cpu"), *pairs, senders=[(0, 2), (0, 1)], progress=False)
    np.testing.assert_allclose(run.patched[0, 2, 1:], np.broadcast_to(run.clean, (2, 4, 5)), atol=1e-4)
    assert np.abs(run.patched[0, 1, 1:] - run.clean).max() > 1e-2


def test_equal_sides_move_nothing(tiny: Any, pairs: Any) -> None:
    """corrupt = clean: every patched run is the clean run, and there is no gap to be a share of."""
    run = patch_paths(tiny, pairs[0], pairs[0], progress=False)
    np.testing.assert_allclose(run.patched[0, :, 1:], np.broadcast_to(run.clean, (4, 2, 4, 5)), atol=1e-4)
    with pytest.raises(ValueError, match=r"^run: expected .* got a mean gap of 0$"):
        edge_effects(run)
    heads = patch_heads(tiny, pairs[0], pairs[0], progress=False)
    with pytest.raises(ValueError, match=r"^run: expected .* got a mean gap of 0$"):
        head_effects(heads)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 7, 100])
def test_batches_do_not_matter(batch_size: int, tiny: Any, pairs: Any, run: PathRun) -> None:
    """Pairs apart or together, receivers of a layer apart or together: the same numbers."""
    again = patch_paths(tiny, *pairs, senders=[(0, 1), (1, 3)], batch_size=batch_size, progress=False)
    for layer, head in ((0, 1), (1, 3)):
        np.testing.assert_allclose(again.patched[layer, head], run.patched[layer, head], atol=1e-4)
    np.testing.assert_allclose(again.clean, run.clean, atol=1e-4)


def test_senders_restrict_the_table(tiny: Any, pairs: Any) -> None:
    """Rows of the senders asked for only; a sender of the last layer alone leaves no path."""
    table = edge_effects(patch_paths(tiny, *pairs, senders=[(1, 3)], progress=False), n_resamples=20)
    assert table[["layer_1", "head_1", "layer_2", "head_2"]].to_numpy().tolist() == [[1, 3, 2, h] for h in range(4)]
    last = patch_paths(tiny, *pairs, senders=[(2, 0)], progress=False)
    with pytest.raises(ValueError, match="run: expected at least one patched path, got none"):
        edge_effects(last)


def test_leaves_the_model_as_it_was(tiny: Any, pairs: Any) -> None:
    """No hooks stay: logits are the same before and after."""
    ids = torch.tensor([[0, 5, 6, 7]])
    with torch.no_grad():
        before = tiny(ids)
        patch_paths(tiny, *pairs, senders=[(0, 0)], progress=False)
        assert torch.equal(tiny(ids), before)


def test_refusals(tiny: Any, pairs: Any) -> None:
    """Empty batches, heads that the model lacks, sides that do not pair."""
    with pytest.raises(ValueError, match="batch_size: expected at least 1"):
        patch_paths(tiny, *pairs, batch_size=0)
    for sender in ((3, 0), (0, 4), (-1, 0)):
        with pytest.raises(ValueError, match=r"^senders: expected heads of 3 layers x 4 heads, got \("):
            patch_paths(tiny, *pairs, senders=[sender])
    with pytest.raises(ValueError, match="corrupt: expected one prompt for each clean one"):
        patch_paths(tiny, pairs[0], pairs[1][:-1])


# Effects and the causal rule


def made_up(effects: list[float], *, noise: float = 0.0, pairs: int = 40) -> PathRun:
    """A run of 2 layers in which path 0.0 -> 1.r moves the given share of a gap of about 4."""
    rng = np.random.default_rng(0)
    corrupt = rng.normal(-1, 0.3, pairs)
    clean = corrupt + rng.normal(4, 0.3, pairs)
    wobble = noise * rng.normal(size=(len(effects), pairs))
    moved = np.array(effects)[:, None] * (clean - corrupt).mean() + wobble - wobble.mean(-1, keepdims=True)
    patched = np.full((2, len(effects), 2, len(effects), pairs), np.nan)
    patched[0, 0, 1] = clean - moved
    return PathRun(clean, corrupt, patched)


def test_effects_are_shares_of_the_gap() -> None:
    """Known shares come back in reading order with intervals around them; paths not patched have no row."""
    table = edge_effects(made_up([0.3, -0.2, 0.0], noise=0.1))
    assert list(table.columns) == ["layer_1", "head_1", "layer_2", "head_2", "effect", "low", "high", "causal"]
    assert list(table.head_2) == [0, 1, 2]
    np.testing.assert_allclose(table.effect, [0.3, -0.2, 0.0], atol=1e-12)
    assert (table.low < table.effect).all()
    assert (table.effect < table.high).all()
    assert list(table.causal) == [True, True, False]


@pytest.mark.parametrize("sign", [1, -1])
def test_causal_rule_at_its_boundary(sign: int) -> None:
    """|effect| just above 1 % with an interval without 0 is causal, just below is not; a noisy one never is."""
    assert EDGE_THRESHOLD == 0.01
    table = edge_effects(made_up([sign * 0.0101, sign * 0.0099, sign * 0.01]), n_resamples=200)
    assert list(table.causal)[:2] == [True, False]
    noisy = edge_effects(made_up([sign * 0.3], noise=24.0), n_resamples=500)
    assert noisy.low[0] < 0 < noisy.high[0]
    assert not noisy.causal[0]


def test_intervals_are_those_of_heads() -> None:
    """The same numbers as noised heads and as patched paths have the same intervals."""
    run = made_up([0.4, 0.1], noise=1.0)
    noised = run.patched[0, 0, 1][None]
    heads = head_effects(PatchingRun(run.clean, run.corrupt, noised, noised))
    edges = edge_effects(run)
    np.testing.assert_array_equal(edges[["low", "high"]], heads[["noising_low", "noising_high"]])


# The tables that ship


@pytest.mark.parametrize("name", DEMO_SEEDS)
def test_shipped_tables_have_every_path(name: str) -> None:
    """960 paths between 6 layers of 8 heads, each once, with the rule's verdict; some are causal, most are not."""
    table, heads = causal_edges(name), causal_heads(name)
    n_layers, n_heads = heads.layer.max() + 1, heads["head"].max() + 1
    assert len(table) == n_layers * (n_layers - 1) // 2 * n_heads**2 == 960
    assert (table.layer_1 < table.layer_2).all()
    assert not table.duplicated(["layer_1", "head_1", "layer_2", "head_2"]).any()
    assert not table.isna().any(axis=None)
    rule = (table.effect.abs() > EDGE_THRESHOLD) & ((table.low > 0) | (table.high < 0))
    assert (rule == table.causal).all()
    assert 0 < table.causal.sum() < 100


def test_shipped_table_is_recomputed() -> None:
    """Paths from four heads of the demo model, patched again: effects and intervals to 1e-3, the same causal ones."""
    run = patch_paths(
        load_model("demo", device="cpu"),
        *minimal_pairs(build.PATH_PAIRS),
        senders=[(0, 3), (2, 2), (4, 0), (4, 4)],
        progress=False,
    )
    key, numbers = ["layer_1", "head_1", "layer_2", "head_2"], ["effect", "low", "high"]
    again, shipped = edge_effects(run), causal_edges("demo").set_index(key)
    shipped = shipped.loc[[tuple(row) for row in again[key].to_numpy()]]
    np.testing.assert_allclose(again[numbers], shipped[numbers], atol=1e-3)
    assert list(again.causal) == list(shipped.causal)
    assert again.causal.any()


def test_describe_writes_all_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An examination, the heads and the paths, beside the weights; numbers with five digits."""
    paths = edge_effects(made_up([1 / 3]), n_resamples=20)
    monkeypatch.setattr(build, "load_model", lambda *args, **kwargs: None)
    monkeypatch.setattr(build, "examine", lambda model: {"accepted": True})
    monkeypatch.setattr(build, "find_causal_heads", lambda model: causal_heads("demo"))
    monkeypatch.setattr(build, "find_causal_paths", lambda model: paths)
    build.describe(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"examination.json", "causal_heads.csv", "edges.csv"}
    header, row = (tmp_path / "edges.csv").read_text().splitlines()
    assert header == "layer_1,head_1,layer_2,head_2,effect,low,high,causal"
    effect, low, high = paths.loc[0, ["effect", "low", "high"]]
    assert row == f"0,0,1,0,{effect:.5f},{low:.5f},{high:.5f},True"

"""`find_circuit`: the patching table by `patch_heads`, screening and positions by hand, refusals, and runs that were stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from helpers import attribute_heads, head_effects, load_model, minimal_pairs, patch_heads
from helpers.models.fingerprint import fingerprint
from helpers.patching import circuits
from helpers.patching.circuits import SCREEN, find_circuit, fit_to_model, task_accuracy
from helpers.patching.heads import StoredPairs
from helpers.prompts.fit import VARIANTS
from helpers.prompts.prompt import Prompt
from helpers.prompts.tasks import repeated_lists
from helpers.reference.measured import MeasuredCircuit
from helpers.statistics.effects import THRESHOLD

pytestmark = pytest.mark.slow

Pairs = tuple[list[Prompt], list[Prompt]]


@pytest.fixture(scope="module")
def demo() -> Any:
    """The demo model."""
    return load_model("demo", device="cpu")


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    """Ten minimal pairs of IOI."""
    return minimal_pairs(10, seed=4)


@pytest.fixture(scope="module")
def full(demo: Any, pairs: Pairs) -> MeasuredCircuit:
    """Every head of the demo model on those pairs."""
    return find_circuit(demo, pairs, task="ioi", left_out=["one sentence"], progress=False)


def by_hand(model: Any, pairs: Pairs, **options: Any) -> pd.DataFrame:
    """Effects of the same pairs by the public functions."""
    return head_effects(patch_heads(model, *pairs, progress=False, **options))


# The table


def test_table_is_the_one_of_patch_heads(demo: Any, pairs: Pairs, full: MeasuredCircuit) -> None:
    """Effects, intervals and the causal column are head_effects(patch_heads(...)), number by number."""
    expected = by_hand(demo, pairs)
    pd.testing.assert_frame_equal(full.table[list(expected)], expected, check_exact=True)
    assert expected.causal.sum() > 3
    assert (full.table.acts_at != "").tolist() == expected.causal.tolist()


def test_any_model_of_any_quality(tiny: Any, pairs: Pairs) -> None:
    """A random model has effects too, if no accuracy is asked of it; a negative gap is turned by exchanging the sides."""
    run = patch_heads(tiny, *pairs, heads=[], progress=False)
    sides = pairs if (run.clean - run.corrupt).mean() > 0 else (pairs[1], pairs[0])
    expected = by_hand(tiny, sides)
    found = find_circuit(tiny, sides, min_accuracy=0, progress=False)
    pd.testing.assert_frame_equal(found.table[list(expected)], expected, check_exact=True)
    assert found.shape == (3, 4)


def test_what_is_said_about_it(demo: Any, pairs: Pairs, full: MeasuredCircuit) -> None:
    """Model, weights, task, accuracies, gap and prompts are those of the unpatched runs."""
    run = patch_heads(demo, *pairs, heads=[], progress=False)
    about = full.about
    assert (about["model"], about["weights"], about["task"]) == ("demo", fingerprint(demo), "ioi")
    assert (about["pairs"], about["tokens"], about["heads_patched"]) == (10, 15, 48)
    assert (about["accuracy"], about["top_1"]) == task_accuracy(demo, pairs)
    assert about["accuracy"] == (run.clean > 0).mean()
    assert about["gap"] == about["clean"] - about["corrupt"] == pytest.approx((run.clean - run.corrupt).mean())
    assert about["settings"] == {"dtype": "float32", "prepend_bos": True}
    assert about["left_out"] == ["one sentence"]
    assert about["screened_above"] is None
    assert [p["clean"] for p in about["prompts"]] == [p.text for p in pairs[0]]


def test_positions_by_patching_them_alone(demo: Any, pairs: Pairs, full: MeasuredCircuit) -> None:
    """acts_at = the position with the largest share of the effect, if patching it alone (patch_heads) has half of it."""
    assert set(full.table.acts_at[full.table.causal]) == {"S2", "END"}
    whole = full.table.set_index(["layer", "head"])
    alone = {at: by_hand(demo, pairs, position=at).set_index(["layer", "head"]) for at in ("S2", "S1+1", "END")}
    for head, row in whole[whole.causal].iterrows():
        way = (
            "denoising" if abs(row.denoising) > THRESHOLD and row.denoising_low * row.denoising_high > 0 else "noising"
        )
        shares = {at: table.loc[head, way] / row[way] for at, table in alone.items()}
        best = max(shares, key=shares.__getitem__)
        assert row.acts_at == (best if shares[best] >= 0.5 else "in between")


def test_a_head_that_acts_nowhere_alone(demo: Any, pairs: Pairs, full: MeasuredCircuit, monkeypatch: Any) -> None:
    """Where every position alone has less than half of the effect, the head acts "in between"."""
    original = StoredPairs._patch

    def weaker(self: Any, runs: Any, layer: int, heads: Any, at: Any) -> np.ndarray:
        found = original(self, runs, layer, heads, at)
        unpatched = self.corrupt if runs[0][1] is self._batches[0][2] else self.clean
        return found if at is None else unpatched + 0.4 * (found - unpatched)

    monkeypatch.setattr(StoredPairs, "_patch", weaker)
    table = find_circuit(demo, pairs, progress=False).table
    assert set(table.acts_at[table.causal]) == {"in between"}
    assert table.causal.equals(full.table.causal)


# Screening


def test_screen_by_hand(demo: Any, pairs: Pairs, full: MeasuredCircuit) -> None:
    """Patched are the heads whose attribution, at either run, is above the bound; their effects are those of the full table."""
    found = find_circuit(demo, pairs, task="ioi", screen=SCREEN, progress=False)
    run = patch_heads(demo, *pairs, heads=[], progress=False)
    gap = (run.clean - run.corrupt).mean()
    estimates = [
        attribute_heads(demo, *pairs, at=at, progress=False).mean(-1).ravel() / gap for at in ("corrupt", "clean")
    ]  # type: ignore[arg-type]
    wanted = np.maximum(*np.abs(estimates)) > SCREEN
    assert 3 < wanted.sum() < 40
    assert found.about["heads_patched"] == wanted.sum()
    assert (~found.table.denoising.isna()).tolist() == wanted.tolist()
    for column in ("denoising", "noising"):
        np.testing.assert_allclose(found.table[column][wanted], full.table[column][wanted], atol=1e-5)
    for column, estimate in zip(("attribution_denoising", "attribution_noising"), estimates, strict=True):
        np.testing.assert_allclose(found.table[column], estimate, atol=1e-5)
    lost = full.table.causal & ~found.table.causal
    assert np.flatnonzero(lost).tolist() == np.flatnonzero(full.table.causal & ~wanted).tolist()


def test_a_screen_that_nothing_passes(demo: Any, pairs: Pairs) -> None:
    """No head is patched, none is causal, and the whole table is there."""
    found = find_circuit(demo, pairs, screen=1e6, progress=False)
    assert found.about["heads_patched"] == 0
    assert found.table.denoising.isna().all()
    assert not found.table.causal.any()
    assert found.circuit().heads == ()
    assert found.shape == (6, 8)


# Refusals, before anything is patched


@pytest.fixture
def no_patching(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any patched run is an error."""

    def fail(*args: Any) -> None:
        raise AssertionError("patched")

    monkeypatch.setattr(StoredPairs, "_patch", fail)


def test_refuses_a_model_that_does_not_do_the_task(demo: Any, pairs: Pairs, no_patching: None, tmp_path: Path) -> None:
    """With answer and foil exchanged the demo model is wrong: its accuracy in one sentence, and nothing is written."""
    wrong = [replace(p, answer=p.foil, foil=p.answer) for p in pairs[0]]
    words = (
        r"task 'ioi': expected a model that prefers the answer .* in at least 90% of the clean prompts, got 0% of 10; "
    )
    with pytest.raises(ValueError, match=words + "nothing was patched"):
        find_circuit(demo, (wrong, pairs[1]), task="ioi", work=tmp_path / "work", progress=False)
    assert not list(tmp_path.iterdir())


def test_refuses_sides_without_a_gap(demo: Any, pairs: Pairs, no_patching: None) -> None:
    """corrupt = clean: a gap of 0 has no shares."""
    with pytest.raises(
        ValueError, match="expected clean prompts with a larger mean readout than corrupt ones, got a gap of 0"
    ):
        find_circuit(demo, (pairs[0], pairs[0]), progress=False)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"min_accuracy": 90}, "min_accuracy: expected a share from 0 to 1, got 90"),
     ({"min_accuracy": float("nan")}, "min_accuracy: expected a share from 0 to 1, got nan"),
     ({"batch_size": 0}, "batch_size: expected at least 1")],
)  # fmt: skip
def test_refuses_options(options: dict[str, Any], words: str, demo: Any, pairs: Pairs, no_patching: None) -> None:
    """Options out of their range."""
    with pytest.raises(ValueError, match=words):
        find_circuit(demo, pairs, progress=False, **options)


def test_refuses_one_pair(demo: Any, pairs: Pairs, no_patching: None) -> None:
    """An interval over one pair would be a point, and every head that does anything causal."""
    with pytest.raises(ValueError, match="pairs: expected at least 2, for intervals over pairs, got 1"):
        find_circuit(demo, (pairs[0][:1], pairs[1][:1]), progress=False)


# Runs that were stopped


def stop_at(monkeypatch: pytest.MonkeyPatch, name: str, call: int, error: type[BaseException]) -> list[int]:
    """Let the n-th call of a method of `StoredPairs` fail; the layers of all calls."""
    original, layers = getattr(StoredPairs, name), []

    def count(self: Any, layer: int, *args: Any) -> np.ndarray:
        layers.append(layer)
        if len(layers) == call:
            raise error("stopped")
        return original(self, layer, *args)

    monkeypatch.setattr(StoredPairs, name, count)
    return layers


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("screen", [None, SCREEN])
def test_goes_on_where_it_stopped(
    error: type[BaseException], screen: float | None, demo: Any, pairs: Pairs, full: MeasuredCircuit, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Stopped inside the third layer: the second run patches from there on, and its table is that of an unbroken run."""
    work = tmp_path / "out.unfinished"
    options: dict[str, Any] = {"task": "ioi", "screen": screen, "progress": False}
    unbroken = find_circuit(demo, pairs, **options)
    with monkeypatch.context() as patched:
        stop_at(patched, "noise", 3, error)
        with pytest.raises(error):
            find_circuit(demo, pairs, work=work, **options)
    layers = [f"layer-{layer:03}.npy" for layer in unbroken.table.dropna().layer.unique()]
    assert sorted(f.name for f in work.glob("layer-*.npy")) == layers[:2]
    again = stop_at(monkeypatch, "denoise", 10**6, error)
    resumed = find_circuit(demo, pairs, work=work, **options)
    assert again[0] == int(layers[2][6:9])
    pd.testing.assert_frame_equal(resumed.table, unbroken.table, check_exact=True)
    assert resumed.about == unbroken.about
    assert not work.exists()


def test_stopped_at_the_positions(
    demo: Any, pairs: Pairs, full: MeasuredCircuit, tmp_path: Path, monkeypatch: Any
) -> None:
    """Stopped after all layers: no head is patched as a whole again, and finished heads keep their positions."""
    work = tmp_path / "work"
    with monkeypatch.context() as patched:
        stop_at(patched, "denoise", 6 + 4, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            find_circuit(demo, pairs, task="ioi", work=work, left_out=["one sentence"], progress=False)
    assert len(list(work.glob("layer-*.npy"))) == 6
    done = len(list(work.glob("positions-*.npy")))
    assert done >= 1
    again = stop_at(monkeypatch, "denoise", 10**6, KeyboardInterrupt)
    resumed = find_circuit(demo, pairs, task="ioi", work=work, left_out=["one sentence"], progress=False)
    pd.testing.assert_frame_equal(resumed.table, full.table, check_exact=True)
    assert len(again) <= 2 * (full.table.causal.sum() - done)


def test_refuses_what_another_measurement_left(
    demo: Any, pairs: Pairs, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other prompts, weights, screening, or a folder of something else: one sentence, and the folder stays as it was."""
    work = tmp_path / "work"
    with monkeypatch.context() as patched:
        stop_at(patched, "noise", 2, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            find_circuit(demo, pairs, work=work, progress=False)
    before = {f.name: f.read_bytes() for f in work.iterdir()}
    other = minimal_pairs(10, seed=5)
    with pytest.raises(
        ValueError, match="work: expected a new folder or what an earlier run of the same measurement left"
    ):
        find_circuit(demo, other, work=work, progress=False)
    with pytest.raises(ValueError, match="work: expected"):
        find_circuit(demo, pairs, work=work, screen=SCREEN, progress=False)
    with pytest.raises(ValueError, match="work: expected"):
        find_circuit(load_model("demo-seed-1", device="cpu"), pairs, work=work, progress=False)
    assert {f.name: f.read_bytes() for f in work.iterdir()} == before


# Tasks that suit a model


def test_accuracy_by_hand(demo: Any, pairs: Pairs) -> None:
    """Shares of prompts with logit(answer) > logit(foil), and with the answer on top, from plain passes, one at a time."""
    above, top = [], []
    for prompt in pairs[0]:
        ids = demo.tokenizer(prompt.text, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = demo(torch.tensor([[demo.tokenizer.bos_token_id, *ids]]))[0, -1]
        answer, foil = (demo.tokenizer.convert_tokens_to_ids(word) for word in (prompt.answer, prompt.foil))
        above.append(float(logits[answer] > logits[foil]))
        top.append(float(logits.argmax() == answer))
    assert task_accuracy(demo, pairs, batch_size=3) == (np.mean(above), np.mean(top))


def test_first_form_that_the_model_can_do(demo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of the task's forms with the answer on top often enough; the best of them, by accuracy, if there is none."""
    said = {9: (0.5, 0.2), 12: (0.95, 0.5), 20: (1.0, 0.93)}
    forms = tuple({"length": length - 3} for length in said)
    monkeypatch.setitem(VARIANTS, "repeated", forms)
    monkeypatch.setattr(circuits, "fit_task", lambda task, tokenizer, n, seed, length: replace_length(n, seed, length))
    monkeypatch.setattr(circuits, "task_accuracy", lambda model, sides: said[len(sides[0][0].text.split())])
    assert len(fit_to_model(demo, "repeated", 4).clean[0].text.split()) == 20
    said[20] = (0.9, 0.5)
    assert len(fit_to_model(demo, "repeated", 4).clean[0].text.split()) == 12


def replace_length(n: int, seed: int, length: int) -> Any:
    """A fitted task of lists of one length."""
    from helpers.prompts.fit import FittedTask

    clean, corrupt = repeated_lists(n, length=length, seed=seed)
    return FittedTask("repeated", clean, corrupt, length, ())

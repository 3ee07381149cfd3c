"""Roles by behaviour: a model with six roles set by hand, random models with none, plain loops by transformers."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from models import random_model
from scipy.stats import binom
from test_architectures import ARCHITECTURES, LLAMA_LIKE
from torch import Tensor

from helpers import edge_effects, load_model, patch_paths
from helpers.contents import copying as copying_module
from helpers.contents.behaviour import Behaviour, on_prompts, on_random_tokens, ordinary_ids, random_sequences
from helpers.contents.copying import copying
from helpers.contents.roles import (
    ATTENTION,
    COPYING,
    NO_ROLE,
    RULES,
    assign_roles,
    circuit_roles,
    head_roles,
    inhibition,
)
from helpers.models.load import _is_cached
from helpers.patching.pairs import MinimalPairs
from helpers.patching.paths import EDGE_THRESHOLD
from helpers.prompts.ioi import FRAMES
from helpers.prompts.prompt import Prompt
from helpers.prompts.tasks import ioi_pairs
from helpers.reference.circuits import IOI_POST, Circuit, parse_heads

pytestmark = pytest.mark.slow

Pairs = tuple[list[Prompt], list[Prompt]]

GROUPED = transformers.LlamaConfig, LLAMA_LIKE
NORM_AFTER = (
    transformers.Gemma2Config,
    LLAMA_LIKE | {"head_dim": 8, "sliding_window": 64, "initializer_range": 0.3},
)
MODELS = {name: (kind.config, kind.shape) for name, kind in ARCHITECTURES.items()} | {"gemma2": NORM_AFTER}


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    """Sixteen IOI pairs of one frame, so that names stand at 2, 4 and 10, and END at 14."""
    return ioi_pairs(16, frames=FRAMES[:1])


@pytest.fixture(scope="module")
def folder_of(words: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a random tiny model of each architecture, made when first asked for."""
    root = tmp_path_factory.mktemp("roles")

    @cache
    def make(name: str) -> Path:
        kind, shape = MODELS[name]
        config = kind(vocab_size=len(words), bos_token_id=words.bos_token_id, eos_token_id=0, **shape)
        random_model(config, seed=1).save_pretrained(root / name)
        words.save_pretrained(root / name)
        return root / name

    return make


@pytest.fixture(scope="module")
def loaded(folder_of: Callable[[str], Path]) -> Callable[[str], Any]:
    """`load_model` of it, once each, with the demo tokenizer (its files are read as another one for Qwen 2)."""

    @cache
    def load(name: str) -> Any:
        model = load_model(str(folder_of(name)), device="cpu")
        model._tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder_of(name))
        return model

    return load


def by_transformers(folder: Path) -> Any:
    """The same weights without TransformerLens."""
    return transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()


# A model whose roles are known, as they were put in by hand


T, P, R, U = (slice(32 * i, 32 * i + 32) for i in range(4))  # token, place, token before, token to inhibit
LOW, HIGH = slice(0, 32), slice(32, 64)  # halves of a head's 64 dimensions
IO_OR_S1, S2, END = (2, 4), 10, 14

BUILT = {
    (0, 0): "Previous Token", (0, 1): "Duplicate Token", (1, 0): "Induction",
    (1, 1): "S-Inhibition", (2, 0): "Name Mover", (2, 1): "Negative Name Mover",
}  # fmt: skip


class ByHand:
    """A GPT-2 of 3 layers x 2 heads without MLPs, in whose residual stream each kind of content has 32 dimensions."""

    def __init__(self, tokenizer: Any) -> None:
        torch.manual_seed(0)
        config = transformers.GPT2Config(
            vocab_size=len(tokenizer), n_layer=3, n_head=2, n_embd=128, n_positions=32,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.bos_token_id,
        )  # fmt: skip
        self.tokenizer, self.model = tokenizer, transformers.GPT2LMHeadModel(config)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(False).fill_(1.0 if "ln_" in name and name.endswith("weight") else 0.0)
        codes = torch.randn(len(tokenizer), 32)
        codes -= codes.mean(1, keepdim=True)
        self.model.transformer.wte.weight[:, T] = codes / codes.norm(dim=1, keepdim=True)
        self.model.transformer.wpe.weight[:, P] = torch.eye(32)

    def head(self, layer: int, head: int, *, q: Any = (), k: Any = (), v: Any = (), o: Any = ()) -> None:
        """Set blocks of a head's maps: (from, to, matrix) each; q, k and v read the stream, o writes it."""
        attention = self.model.transformer.h[layer].attn
        for part, blocks in enumerate((q, k, v)):
            weight = attention.c_attn.weight[:, 128 * part + 64 * head :][:, :64]
            for source, target, matrix in blocks:
                weight[source, target] = matrix
        for source, target, matrix in o:
            attention.c_proj.weight[64 * head : 64 * head + 64][source, target] = matrix

    def save(self, folder: Path) -> Path:
        """The model as a Hugging Face folder."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        return folder


def places(*moves: tuple[int, int], by: float) -> Tensor:
    """A map of places: from the first of each pair to the second."""
    matrix = torch.zeros(32, 32)
    for start, end in moves:
        matrix[start, end] = by
    return matrix


def six_roles(tokenizer: Any, *, inhibited: float = 2.0) -> ByHand:
    """A model in which each head has one role; the movers look away from S1 by as much as ``inhibited``."""
    one, built = torch.eye(32), ByHand(tokenizer)
    before = places(*((t, t - 1) for t in range(1, 32)), by=2.0)
    built.head(0, 0, q=[(P, LOW, before)], k=[(P, LOW, one)], v=[(T, LOW, one)], o=[(LOW, R, one / 8)])
    built.head(0, 1, q=[(T, LOW, 10 * one), (P, HIGH, -10 * one)], k=[(T, LOW, one), (P, HIGH, one)])
    built.head(1, 0, q=[(T, LOW, 10 * one)], k=[(R, LOW, one)])
    to_s2 = places((END, S2), by=4.0)
    built.head(1, 1, q=[(P, LOW, to_s2)], k=[(P, LOW, one)], v=[(T, LOW, one)], o=[(LOW, U, one / 6.5)])
    to_names = places(*((END, at) for at in IO_OR_S1), by=4.0)
    for head, sign in ((0, 1.0), (1, -0.25)):
        built.head(
            2, head, q=[(P, HIGH, to_names), (U, LOW, -inhibited * one)], k=[(T, LOW, one), (P, HIGH, one)],
            v=[(T, LOW, one)], o=[(LOW, T, sign * one / 2)],
        )  # fmt: skip
    return built


@pytest.fixture(scope="module")
def built(words: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The model with all six roles, loaded."""
    return load_model(str(six_roles(words).save(tmp_path_factory.mktemp("built") / "six")), device="cpu")


@pytest.fixture(scope="module")
def table(built: Any, pairs: Pairs) -> pd.DataFrame:
    """Its roles, as found."""
    return head_roles(built, pairs, progress=False)


def test_each_head_has_the_role_that_it_was_built_with(table: pd.DataFrame) -> None:
    """Six heads, six roles, each found at its head and nowhere else."""
    assert dict(zip(zip(table.layer, table["head"], strict=True), table.role, strict=True)) == BUILT


def test_scores_of_the_built_heads(table: pd.DataFrame) -> None:
    """Built attention is near 1, elsewhere near 0; copying is exactly 1 for the mover and its negative, else 0."""
    by_role = table.set_index("role")
    for role, score in (
        ("Previous Token", "previous_token"), ("Duplicate Token", "duplicate_token"), ("Induction", "induction"),
    ):  # fmt: skip
        assert by_role[score].idxmax() == role
        assert by_role[score].max() > 0.9
        assert by_role[score].drop(role).max() < 0.2
    assert by_role.to_s2["S-Inhibition"] > 0.99
    assert by_role.to_io[["Name Mover", "Negative Name Mover"]].min() > 0.9
    assert by_role.copying.to_dict() == {role: float(role == "Name Mover") for role in BUILT.values()}
    assert by_role.negative_copying.to_dict() == {role: float(role == "Negative Name Mover") for role in BUILT.values()}


def test_a_head_that_looks_at_both_names_alike_moves_no_name(words: Any, pairs: Pairs, tmp_path: Path) -> None:
    """Without inhibition END looks at IO and S1 alike: attention * copying is above its threshold, S1's null is not."""
    model = load_model(str(six_roles(words, inhibited=0.0).save(tmp_path / "blind")), device="cpu")
    mover = head_roles(model, pairs, progress=False).query("layer == 2 and head == 0").iloc[0]
    assert mover.to_io == pytest.approx(0.5, abs=0.01)
    assert mover.name_mover > ATTENTION * COPYING
    assert mover.to_io_null >= mover.to_io - 0.01
    assert mover.role == ""


def test_inhibition_is_the_sum_of_the_paths_to_movers(built: Any, pairs: Pairs, table: pd.DataFrame) -> None:
    """The effect = the sum of edge effects to the movers, its interval lies around it; others have none."""
    found = table[table.s_inhibition.notna()]
    assert list(found.role) == ["S-Inhibition"]
    movers = [(2, 0), (2, 1)]
    edges = edge_effects(patch_paths(built, *pairs, senders=[(1, 1)], receivers=movers, progress=False))
    assert found.s_inhibition.item() == pytest.approx(edges.effect[0], abs=1e-9)
    both = inhibition(built, pairs, [(1, 1), (2, 0)], movers, progress=False)
    assert both.s_inhibition.item() == pytest.approx(edges.effect.sum(), abs=1e-9)
    assert both.s_inhibition_low.item() < both.s_inhibition.item() < both.s_inhibition_high.item()
    assert found.s_inhibition_low.item() > EDGE_THRESHOLD


@pytest.mark.parametrize(("candidates", "movers"), [([], [(2, 0)]), ([(1, 1)], []), ([(2, 1)], [(2, 0)])])
def test_no_path_no_effect(built: Any, pairs: Pairs, candidates: list, movers: list) -> None:
    """Without candidates, without movers, or with movers in no later layer there is no row, and nothing is run."""
    found = inhibition(built, pairs, candidates, movers, progress=False)
    assert list(found.columns) == ["layer", "head", "s_inhibition", "s_inhibition_low", "s_inhibition_high"]
    assert found.empty


# Random weights


@pytest.mark.parametrize("name", MODELS)
def test_random_weights_have_no_role_and_stay_as_they_were(
    name: str, loaded: Callable[[str], Any], pairs: Pairs
) -> None:
    """Any architecture: no role, scores and nulls between 0 and 1, the same table again, the model as it was before."""
    model = loaded(name)
    ids = torch.arange(2, 16)[None]
    before, hooks = model(ids), hooks_of(model)
    table = head_roles(model, pairs, progress=False)
    assert (table.role == "").all()
    scores = table.drop(columns=["layer", "head", "role", "s_inhibition", "s_inhibition_low", "s_inhibition_high"])
    assert scores.to_numpy().min() >= 0
    assert scores.to_numpy().max() <= 1
    assert torch.equal(model(ids), before)
    assert hooks_of(model) == hooks
    pd.testing.assert_frame_equal(head_roles(model, pairs, progress=False), table)


def hooks_of(model: Any) -> dict[str, int]:
    """How many hooks there are at each point; some architectures have some that stay."""
    return {name: len(point.fwd_hooks) for name, point in model.hook_dict.items()}


# Against plain loops by transformers alone


@pytest.mark.parametrize("first", [0, None], ids=["bos", "no bos"])
@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "llama", "mistral"])
def test_attention_scores_equal_plain_loops(
    name: str, first: int | None, loaded: Callable[[str], Any], folder_of: Callable[[str], Path], words: Any
) -> None:
    """Weight by weight of output_attentions: to t - 1, t - P, t - P + 1 for t in the second half, and their nulls."""
    period, n = 6, 3
    found = on_random_tokens(loaded(name), first=first, period=period, n=n, batch_size=2, progress=False)
    repeated, shuffled = (
        attentions(by_transformers(folder_of(name)), side)
        for side in random_sequences(words, first=first, period=period, n=n)
    )

    def to(rows: np.ndarray, sequence: int, layer: int, head: int, distance: int) -> float:
        last = rows.shape[-1]
        return float(np.mean([rows[sequence, layer, head, t, t - distance] for t in range(last - period, last)]))

    for where in np.ndindex(n, 2, 4):
        assert found["previous_token"].samples[where] == pytest.approx(to(shuffled, *where, 1), abs=1e-6)
        assert found["duplicate_token"].samples[where] == pytest.approx(to(repeated, *where, period), abs=1e-6)
        assert found["duplicate_token"].null[where] == pytest.approx(to(shuffled, *where, period), abs=1e-6)
        assert found["induction"].samples[where] == pytest.approx(to(repeated, *where, period - 1), abs=1e-6)
        assert found["induction"].null[where] == pytest.approx(to(shuffled, *where, period - 1), abs=1e-6)
    others = sorted(to(shuffled, i, 1, 2, distance) for i in range(n) for distance in range(2, period + 1))
    np.testing.assert_allclose(np.sort(found["previous_token"].null[:, 1, 2]), others, atol=1e-6)
    if name == "mistral":
        assert not found["induction"].score.any(), "five places back lie outside a window of five"
    assert np.ptp(found["previous_token"].score) > 0.01


def attentions(model: Any, ids: np.ndarray) -> np.ndarray:
    """output_attentions, ``(sequence, layer, head, query, key)``."""
    with torch.no_grad():
        return torch.stack(model(torch.tensor(ids), output_attentions=True).attentions, 1).double().numpy()


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_attention_to_names_equals_a_plain_loop(
    name: str, loaded: Callable[[str], Any], folder_of: Callable[[str], Path], pairs: Pairs
) -> None:
    """END's weight on S2 prompt by prompt; the null holds END's other weights, which make up the rest of 1."""
    given = MinimalPairs(loaded(name), *pairs)
    found = on_prompts(loaded(name), given.clean, {"to_s2": given.at("S2")}, batch_size=7)["to_s2"]
    rows = attentions(by_transformers(folder_of(name)), given.clean.numpy())
    np.testing.assert_allclose(found.samples, rows[..., END, S2], atol=1e-6)
    assert found.null.shape == (16 * 14, 2, 4)
    np.testing.assert_allclose(found.null.sum(0), 16 - found.samples.sum(0), atol=1e-5)


def plain_values(model: Any, name: str, layer: int, x: Tensor) -> Tensor:
    """A layer's values of one stream vector, a row a head; in Llama and Gemma two heads share each."""
    if name == "gpt2":
        block = model.transformer.h[layer]
        return block.attn.c_attn(block.ln_1(x))[64:].view(4, 8)
    block = model.model.layers[layer]
    return block.self_attn.v_proj(block.input_layernorm(x)).view(2, 8)[[0, 0, 1, 1]]


def plain_answers(model: Any, name: str, layer: int, head: int, v: Tensor, sign: int) -> Tensor:
    """Logits of what one head writes."""
    if name == "gpt2":
        write = v @ model.transformer.h[layer].attn.c_proj.weight[8 * head : 8 * head + 8]
        return model.lm_head(model.transformer.ln_f(sign * write))
    block = model.model.layers[layer]
    write = block.self_attn.o_proj.weight[:, 8 * head : 8 * head + 8] @ v
    if name == "gemma2":
        write = block.post_attention_layernorm(write)
    return model.lm_head(model.model.norm(sign * write))


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])
def test_copying_equals_a_plain_loop(
    name: str, loaded: Callable[[str], Any], folder_of: Callable[[str], Path], pairs: Pairs, monkeypatch: Any
) -> None:
    """Head by head by transformers' modules, with grouped queries and a norm after attention; top 100 of 301."""
    monkeypatch.setattr(copying_module, "TOP", 100)
    given = MinimalPairs(loaded(name), *pairs)
    found = copying(loaded(name), given.clean, given.at("IO"), progress=False)
    model = by_transformers(folder_of(name))
    with torch.no_grad():
        streams = model(given.clean, output_hidden_states=True).hidden_states
        for pair, at in enumerate(given.at("IO").tolist()):
            own = int(given.clean[pair, at])
            for layer, head in np.ndindex(2, 4):
                v = plain_values(model, name, layer, streams[min(layer, 1)][pair, at])[head]
                for kind, sign in (("copying", 1), ("negative_copying", -1)):
                    logits = plain_answers(model, name, layer, head, v, sign)
                    is_top = own in sorted(range(301), key=lambda i, logits=logits: -float(logits[i]))[:100]
                    assert found[kind].samples[pair, layer, head] == is_top
    assert 0 < found["copying"].samples.mean() < 1


def test_null_of_copying_is_the_other_names(built: Any, pairs: Pairs) -> None:
    """One entry for each prompt and each name but its own; a head that copies its own name alone has a null near 0."""
    given = MinimalPairs(built, *pairs)
    found = copying(built, given.clean, given.at("IO"), progress=False)["copying"]
    names = {p.answer for p in pairs[0]}
    assert found.null.shape == (16 * (len(names) - 1), 3, 2)
    assert found.samples[:, 2, 0].all()
    assert found.null[:, 2, 0].mean() < 0.3


# Parts


def test_random_sequences(words: Any) -> None:
    """Both sides share BOS and first half; one repeats it, the other goes on with new tokens; no special tokens."""
    repeated, shuffled = random_sequences(words, first=0, period=20, n=5, seed=3)
    assert repeated.shape == shuffled.shape == (5, 41)
    assert (repeated[:, 1:21] == repeated[:, 21:]).all()
    assert (repeated[:, :21] == shuffled[:, :21]).all()
    assert all(len(set(row)) == 41 for row in shuffled)
    assert (repeated[:, 0] == 0).all()
    assert repeated[:, 1:].min() > 1, "ids 0 and 1 are special"
    again, _ = random_sequences(words, first=0, period=20, n=5, seed=3)
    other, _ = random_sequences(words, first=None, period=20, n=5, seed=4)
    assert (again == repeated).all()
    assert other.shape == (5, 40)
    assert not (other == repeated[:, 1:]).all()


def test_ordinary_ids(gpt2_tokenizer: Any, words: Any) -> None:
    """The vocabulary but for its special tokens."""
    assert set(range(50257)) - set(ordinary_ids(gpt2_tokenizer)) == {50256}
    assert set(range(len(words))) - set(ordinary_ids(words)) == {0, 1}


def test_bar_is_the_quantile_of_a_mean() -> None:
    """A constant null is its own bar; with a share of ones the bar is the binomial quantile over n."""
    constant = Behaviour(np.zeros((4, 1, 2)), np.full((7, 1, 2), 0.25))
    np.testing.assert_allclose(constant.bar(), 0.25)
    null = np.zeros((1000, 1, 1))
    null[:300] = 1
    found = Behaviour(np.zeros((50, 1, 1)), null).bar(level=0.9, n_resamples=20_000).item()
    assert found == pytest.approx(binom.ppf(0.9, 50, 0.3) / 50)


def made_up(**scores: float) -> pd.DataFrame:
    """A head with the given scores, all others 0, nulls of 0.1."""
    names = ("previous_token", "duplicate_token", "induction", "to_io", "to_s2", "copying", "negative_copying")
    plain = dict.fromkeys(names, 0.0) | {f"{name}_null": 0.1 for name in names}
    plain |= {"s_inhibition": np.nan, "s_inhibition_low": np.nan}
    table = pd.DataFrame([plain | scores])
    return table.assign(name_mover=table.to_io * table.copying, negative_mover=table.to_io * table.negative_copying)


@pytest.mark.parametrize("nulls", ["low", "high"])
@pytest.mark.parametrize(
    ("role", "scores"),
    [
        ("Previous Token", {"previous_token": 0.41}),
        ("Duplicate Token", {"duplicate_token": 0.41}),
        ("Induction", {"induction": 0.41}),
        ("Name Mover", {"to_io": 0.5, "copying": 0.41}),
        ("Negative Name Mover", {"to_io": 0.41, "negative_copying": 0.5}),
    ],
)
def test_both_threshold_and_null_must_be_exceeded(role: str, scores: dict[str, float], nulls: str) -> None:
    """Just above the threshold gives the role, just below none; nor does a score no higher than its null."""
    assert (ATTENTION, COPYING) == (0.4, 0.5)
    if nulls == "low":
        assert list(assign_roles(made_up(**scores))) == [role]
        assert list(assign_roles(made_up(**{name: 0.97 * score for name, score in scores.items()}))) == [""]
    else:
        for name, score in scores.items():
            assert list(assign_roles(made_up(**scores, **{f"{name}_null": score}))) == [""]


def test_s_inhibition_needs_attention_and_effect() -> None:
    """Attention to S2 above threshold and null, an effect above 1 % and an interval above 0: all four, or no role."""
    passes = {"to_s2": 0.41, "s_inhibition": 0.011, "s_inhibition_low": 0.001}
    assert list(assign_roles(made_up(**passes))) == ["S-Inhibition"]
    fails = ({"to_s2": 0.39}, {"to_s2_null": 0.41}, {"s_inhibition": 0.009}, {"s_inhibition_low": -0.001})
    for change in (*fails, {"s_inhibition": -0.3, "s_inhibition_low": -0.4}, {"s_inhibition": np.nan}):
        assert list(assign_roles(made_up(**passes | change))) == [""]


def test_circuit_roles() -> None:
    """Each head under its first role in the order of the rules, those without one last; it makes a `Circuit`."""
    table = pd.DataFrame(
        {
            "layer": [0, 0, 1, 1],
            "head": [0, 1, 0, 1],
            "role": ["Previous Token", "", "Name Mover, Induction", "Induction"],
        }
    )
    roles = circuit_roles(table, [(1, 1), (0, 1), (1, 0)])
    assert roles == {"Name Mover": ((1, 0),), "Induction": ((1, 1),), NO_ROLE: ((0, 1),)}
    assert list(roles) == ["Name Mover", "Induction", NO_ROLE]
    circuit = Circuit("toy", 2, 2, roles, "made up")
    assert circuit.role(0, 0) == "other"
    assert circuit_roles(table, circuit) == roles
    assert list(RULES) == [role for role in IOI_POST.roles if role != "Backup Name Mover"]


# Options and refusals


def test_without_bos(loaded: Callable[[str], Any], pairs: Pairs) -> None:
    """A tokenizer without BOS is refused by a sentence that names the way out, which gives other scores."""
    model = loaded("llama")
    had = model.tokenizer.bos_token
    model.tokenizer.bos_token = None
    try:
        with pytest.raises(ValueError, match=r"^prepend_bos: this tokenizer has no BOS token; pass prepend_bos=False$"):
            head_roles(model, pairs, progress=False)
        without = head_roles(model, pairs, prepend_bos=False, progress=False)
    finally:
        model.tokenizer.bos_token = had
    plain = head_roles(model, pairs, progress=False)
    same = head_roles(model, pairs, bos=had, progress=False)
    pd.testing.assert_frame_equal(plain, same)
    for score in ("induction", "to_io"):
        assert not np.allclose(without[score], plain[score])


def test_pairs_of_its_own(built: Any) -> None:
    """Without pairs the prompts are those that fit the tokenizer: the same as giving them."""
    from helpers.prompts.fit import fit_task

    fitted = fit_task("ioi", built.tokenizer, 4)
    given = head_roles(built, (fitted.clean, fitted.corrupt), n_sequences=2, progress=False)
    pd.testing.assert_frame_equal(head_roles(built, n=4, n_sequences=2, progress=False), given)


@pytest.mark.parametrize("period", [2, 16])
def test_period_must_fit(period: int, built: Any, pairs: Pairs) -> None:
    """Below 3 there is no other distance, above (context - BOS) / 2 no room; both say what is possible."""
    with pytest.raises(ValueError, match=rf"^period: expected 3 to 15 tokens .*, got {period}$"):
        head_roles(built, pairs, period=period, progress=False)


def test_no_sequences(built: Any) -> None:
    """Nothing to look at is refused."""
    with pytest.raises(ValueError, match=r"^n, batch_size: expected at least 1 sequence, got 0 and 16$"):
        on_random_tokens(built, n=0, progress=False)


def test_unusable_pairs(built: Any, pairs: Pairs) -> None:
    """Prompts of one name have no null of copying; prompts that name no S2 can't be asked for it."""
    clean, corrupt = pairs
    with pytest.raises(ValueError, match=r"^pairs: expected at least 2 different names at IO, got 1$"):
        head_roles(built, (clean[:1], corrupt[:1]), progress=False)
    bare = [Prompt(p.text, spans={"IO": p.spans["IO"]}, answer=p.answer, foil=p.foil) for p in clean]
    with pytest.raises(ValueError, match=r"^position: expected one of BOS, IO, END, got 'S1'$"):
        head_roles(built, (bare, corrupt), progress=False)


def test_heads_that_the_table_lacks(table: pd.DataFrame) -> None:
    """A circuit of another model is refused."""
    with pytest.raises(ValueError, match=r"^causal: expected heads of 3 layers x 2 heads, got \(9, 6\)$"):
        circuit_roles(table, [(9, 6)])


# GPT-2 small itself, where it is


def test_published_roles_of_gpt2_small() -> None:
    """The clearest heads of each class that Wang et al. and Olsson et al. name have that role."""
    if not _is_cached("gpt2"):
        pytest.skip("GPT-2 small is not in the Hugging Face cache, and tests download nothing")
    table = head_roles(load_model("gpt2-small", device="cpu"), progress=False)
    found = circuit_roles(table, IOI_POST)
    assert {*parse_heads("9.9 9.6 10.0")} <= {*found["Name Mover"]}
    assert {*parse_heads("10.7")} <= {*found["Negative Name Mover"]}
    assert {*parse_heads("5.5 6.9")} <= {*found["Induction"]}
    assert {*parse_heads("4.11")} <= {*found["Previous Token"]}
    assert {*found["S-Inhibition"]} <= {*IOI_POST.roles["S-Inhibition"]}

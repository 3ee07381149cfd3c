"""From a model to rows: equal to transformers' own attentions, batched or not, at any position, and nothing left behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from models import save_gpt2, save_tiny_gpt2
from torch import Tensor
from transformers import GPT2LMHeadModel

from helpers import abc_prompts, ioi_prompts, load_model, record_attention
from helpers.prompts.prompt import Prompt

pytestmark = pytest.mark.slow

MIXED = ["Mary saw John", "When Mary and John went to the store", "Kate saw Mary", "John", "Tom and Mary saw John"]


def attentions(model: Any, ids: tuple[int, ...]) -> Tensor:
    """``(layer, head, query, key)`` of one prompt, from transformers alone."""
    with torch.no_grad():
        return torch.cat(model(torch.tensor([ids]), output_attentions=True).attentions)


def hooks_of(model: Any) -> int:
    """Number of forward hooks and pre-hooks on all of a model's modules."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.fixture(scope="module")
def hf_tiny(tiny_folder: Path) -> Any:
    """The tiny model by transformers alone."""
    return GPT2LMHeadModel.from_pretrained(tiny_folder, attn_implementation="eager").eval()


@pytest.fixture(autouse=True)
def no_hooks_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test of this file the session's models have the hooks they had before."""
    models = [request.getfixturevalue(name) for name in ("tiny", "gpt2_like") if name in request.fixturenames]
    for model in models:
        with torch.no_grad():
            model(torch.tensor([[0, 1]]))  # TransformerLens sets up some hooks of its own at the first pass
    before = [hooks_of(model) for model in models]
    yield
    assert [hooks_of(model) for model in models] == before


# A model with GPT-2 small's heads and vocabulary


@pytest.fixture(scope="module")
def gpt2_like_folder(gpt2_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 layers x 12 heads and GPT-2's tokenizer, random, an eighth as wide; softer rows than `narrow_gpt2` has, so that rounding stays small."""
    folder = tmp_path_factory.mktemp("models") / "gpt2-like"
    return save_gpt2(folder, gpt2_tokenizer, initializer_range=0.08, n_embd=96)


@pytest.fixture(scope="module")
def gpt2_like(gpt2_like_folder: Path) -> Any:
    """That model, loaded."""
    return load_model(str(gpt2_like_folder), device="cpu")


@pytest.fixture(scope="module")
def hf_gpt2_like(gpt2_like_folder: Path) -> Any:
    """The same weights loaded by transformers alone, in eager attention."""
    return GPT2LMHeadModel.from_pretrained(gpt2_like_folder, attn_implementation="eager").eval()


@pytest.fixture(scope="module")
def published(gpt2_like: Any) -> Any:
    """The post's 50 + 50 prompts through a model with GPT-2 small's heads and vocabulary."""
    return record_attention(gpt2_like, [*ioi_prompts(), *abc_prompts()], progress=False)


def test_published_prompts_give_rows_over_fifteen_keys(published: Any) -> None:
    """100 prompts x 12 layers x 12 heads x 15 keys, float32; every row is a distribution, to 1e-6."""
    assert published.rows.shape == (100, 12, 12, 15)
    assert published.rows.dtype == torch.float32
    assert {len(prompt) for prompt in published.prompts} == {15}
    assert (published.rows >= 0).all()
    torch.testing.assert_close(published.rows.sum(-1), torch.ones(100, 12, 12), rtol=0, atol=1e-6)
    assert published.visible().all()


def test_published_rows_equal_output_attentions(published: Any, hf_gpt2_like: Any) -> None:
    """Prompt by prompt, rows = transformers' output_attentions at the last query, to 1e-6; rows are not all alike."""
    for i in (0, 31, 49, 50, 99):
        expected = attentions(hf_gpt2_like, published.prompts[i].ids)[:, :, -1]
        torch.testing.assert_close(published.rows[i], expected, rtol=0, atol=1e-6)
    assert published.rows.std(0).max() > 0.01


def test_all_rows_of_the_large_model(gpt2_like: Any, hf_gpt2_like: Any) -> None:
    """query="all": the whole lower triangle equals output_attentions, for prompts of three lengths."""
    record = record_attention(gpt2_like, MIXED[:4], query="all", progress=False)
    longest = max(map(len, record.prompts))
    assert record.rows.shape == (4, 12, 12, longest, longest)
    for prompt, rows in zip(record.prompts, record.rows, strict=True):
        n = len(prompt)
        torch.testing.assert_close(rows[:, :, :n, :n], attentions(hf_gpt2_like, prompt.ids), rtol=0, atol=1e-6)


# Lengths and batches


@pytest.mark.parametrize("query", ["END", "all"])
@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_batches_equal_one_by_one(query: str, batch_size: int, tiny: Any, hf_tiny: Any) -> None:
    """Prompts of four lengths, in any batches and order: each prompt's rows are those it has alone; the rest is 0."""
    record = record_attention(tiny, MIXED, query=query, batch_size=batch_size, progress=False)
    assert [prompt.prompt.text for prompt in record.prompts] == MIXED
    for prompt, rows in zip(record.prompts, record.rows, strict=True):
        n, expected = len(prompt), attentions(hf_tiny, prompt.ids)
        if query == "END":
            torch.testing.assert_close(rows[..., :n], expected[:, :, -1], rtol=0, atol=1e-6)
        else:
            torch.testing.assert_close(rows[:, :, :n, :n], expected, rtol=0, atol=1e-6)
            assert not rows[:, :, n:].any()
        assert not rows[..., n:].any()


def test_named_position_equals_that_row_of_all(tiny: Any) -> None:
    """query="S2" (where S2 differs between prompts) equals query="all" and then .at("S2")."""
    frames = [
        "When {X} and {Y} went to the park, {GIVER} gave a ball to",
        "{GIVER} gave {X} and {Y} a ball and went to",
    ]
    prompts = [*ioi_prompts(3, frames=frames[:1]), *ioi_prompts(3, frames=frames[1:])]
    everything = record_attention(tiny, prompts, query="all", progress=False)
    assert len({prompt.position("S2") for prompt in everything.prompts}) == 2
    for name in ("S2", "S1", "S1+1", "END", "BOS"):
        one = record_attention(tiny, prompts, query=name, progress=False)
        assert one.query == name
        torch.testing.assert_close(one.rows, everything.at(name).rows, rtol=0, atol=1e-6)
        torch.testing.assert_close(one.rows.sum(-1), torch.ones(one.rows.shape[:-1]), rtol=0, atol=1e-6)
        assert not (one.rows * ~one.visible()).any()


def test_without_bos(tiny: Any, hf_tiny: Any) -> None:
    """prepend_bos=False: the model sees the text alone."""
    record = record_attention(tiny, ["Mary saw John"], prepend_bos=False, progress=False)
    assert record.prompts[0].tokens == ("Mary", "saw", "John")
    assert record.settings == {"dtype": "float32", "prepend_bos": False}
    torch.testing.assert_close(record.rows[0], attentions(hf_tiny, record.prompts[0].ids)[:, :, -1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("by_id", [False, True])
def test_another_bos(by_id: bool, tiny: Any, hf_tiny: Any) -> None:
    """Rows are those of the text after the token that was asked for, and the settings name it."""
    index = tiny.tokenizer.convert_tokens_to_ids("Mary")
    record = record_attention(tiny, ["Kate saw John"], bos=index if by_id else "Mary", progress=False)
    (prompt,) = record.prompts
    assert (prompt.ids[0], len(prompt)) == (index, 4)
    torch.testing.assert_close(record.rows[0], attentions(hf_tiny, prompt.ids)[:, :, -1], rtol=0, atol=1e-6)
    assert record.settings == {"dtype": "float32", "prepend_bos": True, "bos": "Mary"}


def test_the_own_bos_by_name_is_no_other_setting(tiny: Any) -> None:
    """Asking for the BOS that is used anyway makes the same record as not asking."""
    plain, named = (record_attention(tiny, ["John"], bos=b, progress=False) for b in (None, tiny.tokenizer.bos_token))
    assert torch.equal(plain.rows, named.rows)
    assert plain.settings == named.settings == {"dtype": "float32", "prepend_bos": True}


def test_record_says_where_it_is_from(tiny: Any, tiny_folder: Path) -> None:
    """Model name as it was given to load_model; dtype; no windows in GPT-2; no readout unless asked."""
    record = record_attention(tiny, MIXED, progress=False)
    assert (record.model, record.query, record.windows) == (str(tiny_folder), "END", (0, 0, 0))
    assert record.settings == {"dtype": "float32", "prepend_bos": True}
    assert record.readout is None


def test_progress_bar_counts_prompts_and_can_be_off(tiny: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A bar of 5 prompts on stderr; progress=False prints nothing; the rows don't depend on it."""
    quiet = record_attention(tiny, MIXED, progress=False)
    assert capsys.readouterr() == ("", "")
    assert torch.equal(record_attention(tiny, MIXED).rows, quiet.rows)
    assert "/5 [" in capsys.readouterr().err


# Local attention


def test_windows_of_local_attention(words: Any, tmp_path: Path) -> None:
    """GPT-Neo, layers global and local with window 4: windows (0, 4), and all weight lies on keys that are visible."""
    from transformers import GPTNeoConfig, GPTNeoForCausalLM

    torch.manual_seed(0)
    config = GPTNeoConfig(
        vocab_size=len(words), max_position_embeddings=64, hidden_size=32, num_layers=2, num_heads=4, window_size=4,
        attention_types=[[["global", "local"], 1]], intermediate_size=64, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    GPTNeoForCausalLM(config).save_pretrained(tmp_path / "neo")
    words.save_pretrained(tmp_path / "neo")
    record = record_attention(load_model(str(tmp_path / "neo"), device="cpu"), MIXED, query="all", progress=False)
    assert record.windows == (0, 4)
    visible = record.visible().expand(record.rows.shape)
    torch.testing.assert_close(record.rows * visible, record.rows, rtol=0, atol=1e-6)
    sums, exists = record.rows.sum(-1), visible.any(-1)
    torch.testing.assert_close(sums, exists.float(), rtol=0, atol=1e-5)
    assert (record.rows[visible] > 0).all()


# The readout


def test_readout_equals_the_logits(tiny: Any, hf_tiny: Any) -> None:
    """Logit difference, both probabilities and top-1 of answer and foil from transformers' logits at END."""
    prompts = [*ioi_prompts(20), *abc_prompts(5), Prompt("Mary saw", answer="John"), Prompt("Mary saw John and")]
    record = record_attention(tiny, prompts, readout=True, batch_size=7, progress=False)
    said = record.readout
    for i, prompt in enumerate(record.prompts):
        with torch.no_grad():
            logits = hf_tiny(torch.tensor([prompt.ids])).logits[0, -1].double()
        p = logits.softmax(-1)
        ids = [
            None if w is None else tiny.tokenizer.convert_tokens_to_ids(w)
            for w in (prompt.prompt.answer, prompt.prompt.foil)
        ]
        a, f = ids
        expected = {
            "logit_difference": logits[a] - logits[f] if None not in ids else None,
            "p_answer": None if a is None else p[a],
            "p_foil": None if f is None else p[f],
            "correct": None if a is None else float(p.argmax() == a),
        }
        for name, value in expected.items():
            got = getattr(said, name)[i].item()
            assert got == pytest.approx(float("nan") if value is None else float(value), abs=1e-4, nan_ok=True), name


def test_correct_is_top_one(tiny: Any, hf_tiny: Any) -> None:
    """A prompt whose answer is made the model's own favourite word is correct, and with any other it is not."""
    text = "Mary saw John and"
    ids = record_attention(tiny, [text], progress=False).prompts[0].ids
    with torch.no_grad():
        best = hf_tiny(torch.tensor([ids])).logits[0, -1].argmax().item()
    favourite = tiny.tokenizer.convert_ids_to_tokens(best)
    other = "Mary" if favourite != "Mary" else "John"
    said = record_attention(
        tiny, [Prompt(text, answer=favourite), Prompt(text, answer=other)], readout=True, progress=False
    ).readout
    assert said.correct.tolist() == [1.0, 0.0]


def test_readout_uses_the_words_with_their_space(gpt2_like: Any, hf_gpt2_like: Any, gpt2_tokenizer: Any) -> None:
    """In GPT-2's vocabulary the answer is the token " Mary", not "Mary"."""
    (prompt,) = ioi_prompts(1)
    record = record_attention(gpt2_like, [prompt], readout=True, progress=False)
    (answer,), (foil,) = (gpt2_tokenizer(f" {w}")["input_ids"] for w in (prompt.answer, prompt.foil))
    with torch.no_grad():
        logits = hf_gpt2_like(torch.tensor([record.prompts[0].ids])).logits[0, -1].double()
    assert record.readout.logit_difference.item() == pytest.approx((logits[answer] - logits[foil]).item(), abs=1e-4)
    torch.testing.assert_close(record.rows, record_attention(gpt2_like, [prompt], progress=False).rows)


# How much is computed


@pytest.fixture
def unembeddings(tiny: Any) -> Iterator[list[tuple[int, ...]]]:
    """Shapes of what goes into the unembedding, one entry a forward pass."""
    shapes: list[tuple[int, ...]] = []
    handle = tiny.original_model.lm_head.register_forward_pre_hook(lambda m, args: shapes.append(tuple(args[0].shape)))
    yield shapes
    handle.remove()


@pytest.fixture
def passes(tiny: Any) -> Iterator[list[int]]:
    """Number of prompts of each forward pass that began."""
    sizes: list[int] = []
    handle = tiny.original_model.transformer.wte.register_forward_hook(lambda m, args, out: sizes.append(len(args[0])))
    yield sizes
    handle.remove()


def test_stops_before_the_logits(tiny: Any, passes: list[int], unembeddings: list[Any]) -> None:
    """Without a readout no logits are computed; with one, only those of the last position."""
    record_attention(tiny, ioi_prompts(6), batch_size=4, progress=False)
    assert (passes, unembeddings) == ([4, 2], [])
    record_attention(tiny, ioi_prompts(6), batch_size=4, readout=True, progress=False)
    assert passes == [4, 2, 4, 2]
    assert [shape[:2] for shape in unembeddings] == [(4, 1), (2, 1)]


REFUSED: dict[str, tuple[list[Any], dict[str, Any], str]] = {
    "unknown query": (ioi_prompts(2), {"query": "S3"}, r"query: prompt 1 has the positions BOS, .*END, got 'S3'"),
    "query that one prompt lacks": ([*ioi_prompts(2), *abc_prompts(1)], {"query": "S2"}, r"query: prompt 3 has the positions BOS, A, B, C, END, got 'S2'"),
    "query of a bare text": (["Mary saw"], {"query": "IO"}, r"query: prompt 1 has the positions BOS, END, got 'IO'"),
    "unknown word": ([*ioi_prompts(2), "When Zebulon went"], {}, "prompt 3: the word 'Zebulon'"),
    "too long": (["Mary " * 64], {}, "prompt 1: expected at most 64 tokens"),
    "no prompts": ([], {}, "prompts: expected at least one prompt"),
    "empty batches": (ioi_prompts(2), {"batch_size": 0}, "batch_size: expected"),
    "negative batches": (ioi_prompts(2), {"batch_size": -1}, "batch_size: expected"),
    "past the end": ([Prompt("Mary saw John", spans={"S1": (9, 13)})], {"query": "S1+1"}, r"query: prompt 1 has the positions"),
}  # fmt: skip


@pytest.mark.parametrize(("prompts", "options", "sentence"), REFUSED.values(), ids=REFUSED)
def test_refuses_before_any_forward_pass(
    prompts: list[Any], options: dict[str, Any], sentence: str, tiny: Any, passes: list[int]
) -> None:
    """Unusable prompts and positions are refused by one sentence, and nothing was computed."""
    with pytest.raises(ValueError, match=sentence):
        record_attention(tiny, prompts, progress=False, **options)
    assert passes == []


# Nothing is left behind


@pytest.mark.parametrize("readout", [False, True])
def test_no_hooks_and_no_change_after_a_call(readout: bool, tiny: Any) -> None:
    """After a call the model has the hooks it had, and gives the same logits."""
    before, ids = hooks_of(tiny), torch.tensor([[0, 5, 6, 7]])
    with torch.no_grad():
        logits = tiny(ids)
        record_attention(tiny, MIXED, readout=readout, progress=False)
        assert hooks_of(tiny) == before
        assert torch.equal(tiny(ids), logits)


@pytest.mark.parametrize("make", [KeyboardInterrupt, RuntimeError])
def test_no_hooks_after_an_error(make: Callable[[str], BaseException], tiny: Any) -> None:
    """An error inside the forward pass (out of memory, Ctrl-C) passes through and leaves no hook; the next call works."""
    before = hooks_of(tiny)
    expected = record_attention(tiny, MIXED, progress=False).rows

    def fail(*args: Any) -> None:
        raise make("stopped inside the model")

    handle = tiny.original_model.transformer.h[1].mlp.register_forward_pre_hook(fail)
    try:
        with pytest.raises(make, match="stopped inside the model"):
            record_attention(tiny, MIXED, progress=False)
    finally:
        handle.remove()
    assert hooks_of(tiny) == before
    assert torch.equal(record_attention(tiny, MIXED, progress=False).rows, expected)


def test_rows_carry_no_gradient(tiny: Any) -> None:
    """Rows and answers are plain tensors on the CPU."""
    record = record_attention(tiny, ioi_prompts(2), readout=True, progress=False)
    for tensor in (record.rows, *vars(record.readout).values()):
        assert not tensor.requires_grad
        assert tensor.device.type == "cpu"


# Half precision


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 5e-3), ("bfloat16", 5e-2)])
def test_half_precision(dtype: str, tolerance: float, tiny_folder: Path, tiny: Any) -> None:
    """Rows are near the float32 model's, but not equal, and can be diagnosed as they are."""
    from helpers import diagnose

    model = load_model(str(tiny_folder), device="cpu", dtype=dtype)
    record = record_attention(model, ioi_prompts(5), readout=True, progress=False)
    exact = record_attention(tiny, ioi_prompts(5), progress=False)
    assert record.settings["dtype"] == dtype
    assert not torch.equal(record.rows.float(), exact.rows)
    torch.testing.assert_close(record.rows.float(), exact.rows, rtol=0, atol=tolerance)
    assert record.readout.p_answer.dtype == torch.float64
    assert abs(diagnose(record).kl - diagnose(exact).kl).max() < tolerance


def test_other_seed_gives_other_rows(tiny: Any, tmp_path: Path) -> None:
    """Rows come from the weights: another random model has others (so the comparisons above could fail)."""
    other = load_model(str(save_tiny_gpt2(tmp_path / "other", seed=1)), device="cpu")
    rows = [record_attention(model, ["Mary saw John"], progress=False).rows for model in (tiny, other)]
    assert (rows[0] - rows[1]).abs().max() > 0.01

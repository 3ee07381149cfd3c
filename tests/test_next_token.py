"""The token that is read where an answer would follow: glue and words of several tokens, for everything that reads logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_outputs
import torch
from models import save_gpt2
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from helpers import attribute_heads, load_model, patch_heads, record_attention, record_outputs
from helpers.prompts.answers import readout_ids
from helpers.prompts.prompt import Prompt

#: "Ġ" is a blank. Letters are tokens, and so are a blank with x or with z: " xy" is "Ġx", "y", and "xy" is "x", "y".
LETTERS = "abcdefghijklmnopqrstuvwxyz.Ġ"
TEXT, OTHER = "ab cd", "ab ce"
#: what stands between text and answer -> first tokens of the answer xy and the foil zw.
FIRST = {" ": ("Ġx", "Ġz"), "": ("x", "z"), ".": (".", ".")}
GLUES = [" ", ""]


@pytest.fixture(scope="module")
def letters() -> Any:
    """A byte-level BPE tokenizer with two merges."""
    vocabulary = {token: i for i, token in enumerate(["<bos>", *LETTERS, "Ġx", "Ġz"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("Ġ", "x"), ("Ġ", "z")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>")


@pytest.fixture(scope="module")
def folder(letters: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random GPT-2 of 2 layers x 4 heads of 8 dimensions with that tokenizer."""
    shape = {"n_layer": 2, "n_head": 4, "n_embd": 32, "n_positions": 32, "vocab_size": len(letters)}
    return save_gpt2(tmp_path_factory.mktemp("models") / "letters", letters, initializer_range=0.2, **shape)


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return load_model(str(folder), device="cpu")


@pytest.fixture(scope="module")
def hf(folder: Path) -> Any:
    """The same model by transformers alone, in float64."""
    return GPT2LMHeadModel.from_pretrained(folder, attn_implementation="eager").double().eval()


def prompt(glue: str, text: str = TEXT) -> Prompt:
    return Prompt(text, answer="xy", foil="zw", glue=glue)


def ids_of(tokenizer: Any, text: str) -> torch.Tensor:
    return torch.tensor([[0, *tokenizer(text, add_special_tokens=False)["input_ids"]]])


def difference(tokenizer: Any, hf: Any, text: str, glue: str) -> float:
    """logit(first token of the answer) - logit(first token of the foil) after a text, by transformers alone."""
    right, wrong = tokenizer.convert_tokens_to_ids(FIRST[glue])
    with torch.no_grad():
        logits = hf(ids_of(tokenizer, text)).logits[0, -1]
    return float(logits[right] - logits[wrong])


@pytest.mark.parametrize("glue", GLUES)
def test_first_token_after_the_glue(glue: str, letters: Any) -> None:
    """Of " xy" it is "Ġx", not the last one nor that of "xy" alone; likewise for answers that are sets."""
    right, wrong = letters.convert_tokens_to_ids(FIRST[glue])
    assert letters.tokenize(f"{TEXT}{glue}xy")[-2:] == [FIRST[glue][0], "y"]
    assert readout_ids(letters, prompt(glue)) == ((right,), (wrong,))
    sets = Prompt(TEXT, answers=("xy", "xa", "q"), foils=("zw",), glue=glue)
    expected = letters.convert_tokens_to_ids([FIRST[glue][0], glue.replace(" ", "Ġ") or "q"])
    assert readout_ids(letters, sets) == (tuple(expected), (wrong,))


def test_glue_that_both_share(letters: Any) -> None:
    """After a full stop both words begin with it: there is nothing to tell apart."""
    with pytest.raises(ValueError, match=r"^foil: expected another first token than the answer's, got 'zw' \('xy'\)$"):
        readout_ids(letters, prompt("."))


@pytest.mark.parametrize("glue", GLUES)
def test_readout(glue: str, model: Any, hf: Any, letters: Any) -> None:
    """The logit difference and both probabilities are those of these tokens."""
    said = record_attention(model, [prompt(glue)], readout=True, progress=False).readout
    assert said.logit_difference.item() == pytest.approx(difference(letters, hf, TEXT, glue), abs=1e-4)
    with torch.no_grad():
        p = hf(ids_of(letters, TEXT)).logits[0, -1].softmax(-1)
    found = [said.p_answer.item(), said.p_foil.item()]
    assert found == pytest.approx(p[letters.convert_tokens_to_ids(FIRST[glue])].tolist(), abs=1e-5)


@pytest.mark.parametrize("glue", GLUES)
def test_direct_attribution(glue: str, model: Any, hf: Any, letters: Any) -> None:
    """Writes read by hand towards the unembeddings of these tokens."""
    parts = test_outputs.parts_of("gpt2", hf, ids_of(letters, TEXT))
    right, wrong = letters.convert_tokens_to_ids(FIRST[glue])
    expected = test_outputs.read(parts, parts.writes, parts.unembedding[right] - parts.unembedding[wrong])
    found = record_outputs(model, [prompt(glue)], progress=False).attribution[0]
    np.testing.assert_allclose(found, expected.detach(), atol=1e-5)
    assert np.abs(found).max() > 0.01


@pytest.mark.parametrize("glue", GLUES)
def test_patching_reads_these_tokens(glue: str, model: Any, hf: Any, letters: Any) -> None:
    """Unpatched readouts are these logit differences; the gradient of attribution patching is that of their sum."""
    run = patch_heads(model, [prompt(glue)], [prompt(glue, OTHER)], progress=False)
    assert run.clean.item() == pytest.approx(difference(letters, hf, TEXT, glue), abs=1e-4)
    assert run.corrupt.item() == pytest.approx(difference(letters, hf, OTHER, glue), abs=1e-4)
    estimate = attribute_heads(model, [prompt(glue)], [prompt(glue, OTHER)], progress=False)
    last = run.denoised[-1, :, 0] - run.corrupt
    assert np.corrcoef(estimate[-1, :, 0], last)[0, 1] > 0.9


def test_a_word_with_its_blank_is_the_word(letters: Any) -> None:
    """ " xy" after a blank is "xy": the same ids, for answers and foils; two blanks are refused."""
    plain, blank = (Prompt(TEXT, answer=f"{b}xy", foil=f"{b}zw") for b in ("", " "))
    assert readout_ids(letters, blank) == readout_ids(letters, plain)
    with pytest.raises(ValueError, match=r"^answer: expected a word without a blank before it"):
        readout_ids(letters, Prompt(TEXT, answer="  xy", foil="zw"))


@pytest.mark.parametrize("scheme", ["always", "first", "never"])
def test_a_tokenizer_that_prepends_a_blank(scheme: str, tmp_path: Path) -> None:
    """SentencePiece's way: the id is that of the word after a blank, in its place; every readout is transformers' own."""
    words = ["When", "Mary", "and", "John", "went", ",", "gave", "a", "ball", "to"]
    vocabulary = {token: i for i, token in enumerate(["<s>", "<unk>", *(f"▁{w}" for w in words), *words])}
    inside = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inside.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    inside.decoder = decoders.Metaspace(prepend_scheme=scheme)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inside, bos_token="<s>", unk_token="<unk>")
    text = "When Mary and John went , John gave a ball to"
    prompt = Prompt(text, answer="Mary", foil="John")
    assert readout_ids(tokenizer, prompt) == ((vocabulary["▁Mary"],), (vocabulary["▁John"],))
    shape = {"n_layer": 2, "n_head": 4, "n_embd": 32, "n_positions": 32, "vocab_size": len(vocabulary)}
    folder = save_gpt2(tmp_path, tokenizer, initializer_range=0.2, **shape)
    record = record_attention(load_model(str(folder), device="cpu"), [prompt], readout=True, progress=False)
    hf = GPT2LMHeadModel.from_pretrained(folder).eval()
    with torch.no_grad():
        logits = hf(torch.tensor([record.prompts[0].ids])).logits[0, -1]
    expected = logits[vocabulary["▁Mary"]] - logits[vocabulary["▁John"]]
    assert abs(expected) > 1e-3
    assert record.readout is not None
    assert float(record.readout.logit_difference[0]) == pytest.approx(float(expected), abs=1e-5)

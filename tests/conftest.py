"""What every test shares: checked annotations, reproducible hypothesis examples and the folder of reference data."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
from hypothesis import settings

# Annotations, the shapes in them too, are checked at every call that a test or doctest makes, in each worker: this file
# is imported before anything of `helpers` is. Checked are the modules that speak of shapes; checking all would make the
# suite half as slow again, most of it for prompts. An int serves as a float. Of a list the first item is checked, where
# beartype would draw one, and so change the state of `random`. A name that is imported for type checkers alone
# (TransformerBridge) means nothing at run time, and jaxtyping reads an annotation with such a name in it as Any: that
# argument is not checked, all others are. JAXTYPING_DISABLE=1, jaxtyping's own variable, runs the suite unchecked.
ROOT = Path(__file__).parents[1]
SHAPED = [file for file in ROOT.glob("helpers/**/*.py") if "from jaxtyping import" in file.read_text("utf-8")]
jaxtyping.install_import_hook(
    [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in SHAPED],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True, is_random=False))",
)

# Timing on a shared machine says nothing about the code, and a failure must be the same on every machine.
settings.register_profile("repository", deadline=None, derandomize=True)
settings.load_profile("repository")


@pytest.fixture(autouse=True)
def _bad_types_reach_refusals(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tests of refusals give a function what its annotations forbid, to read its own sentence: they run unchecked."""
    checked = not jaxtyping.config.jaxtyping_disable
    if checked and "refus" in request.node.name.split("[")[0]:
        jaxtyping.config.update("jaxtyping_disable", True)
    yield
    if checked:
        jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder ``../shared`` beside the repository: published tables and cached GPT-2 attention."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"the reference data is not in the repository, and {folder} is absent")
    return folder


@pytest.fixture(scope="session")
def packaged() -> set[str]:
    """What a wheel of the package holds beside its modules, by setuptools' own count."""
    from setuptools import Distribution
    from setuptools.config.pyprojecttoml import apply_configuration

    distribution = Distribution()
    apply_configuration(distribution, ROOT / "pyproject.toml")
    distribution.script_name = "setup.py"  # setuptools reads it, and need not exist
    build = distribution.get_command_obj("build_py")
    build.ensure_finalized()
    return {file for package, _, _, files in build.data_files if package == "helpers" for file in files}


# Models are built once a session. What is heavy to import is imported by the fixture that needs it.


@pytest.fixture(scope="session")
def gpt2_tokenizer(shared: Path) -> Any:
    """GPT-2's own tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(shared / "gpt2_tokenizer")


@pytest.fixture(scope="session")
def words() -> Any:
    """The demo model's word-level tokenizer."""
    from helpers.demo.train import build_tokenizer

    return build_tokenizer()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random GPT-2 of 3 layers x 4 heads with the word-level tokenizer, as a Hugging Face folder."""
    from models import save_tiny_gpt2

    return save_tiny_gpt2(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> Any:
    """The tiny model, loaded."""
    from helpers import load_model

    return load_model(str(tiny_folder), device="cpu")


@pytest.fixture(scope="session")
def narrow_gpt2_folder(gpt2_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many heads as GPT-2 small (12 layers x 12) and its tokenizer, in a random model an eighth as wide: a tenth of the time."""
    from models import save_gpt2

    return save_gpt2(
        tmp_path_factory.mktemp("models") / "narrow-gpt2", gpt2_tokenizer, initializer_range=0.2, n_embd=96
    )


@pytest.fixture(scope="session")
def narrow_gpt2(narrow_gpt2_folder: Path) -> Any:
    """That model, loaded."""
    from helpers import load_model

    return load_model(str(narrow_gpt2_folder), device="cpu")


@pytest.fixture(scope="session")
def smollm2() -> Any:
    """SmolLM2-135M-Instruct, from the user's own cache: the first session that needs it converts it, once."""
    from helpers import ModelUnavailable, load_model

    try:
        return load_model("smollm2", device="cpu")
    except ModelUnavailable as error:
        pytest.skip(str(error))


# An experiment without a model: synthetic records in which the circuit's heads, and no others, sharpen.


@pytest.fixture(scope="session")
def planted() -> Any:
    """The synthetic experiment with its circuit known."""
    from models import CIRCUIT, toy_side

    from helpers import analyse

    return analyse(toy_side(seed=1, sharpen=CIRCUIT.heads), toy_side(seed=2), CIRCUIT)


@pytest.fixture(scope="session")
def uncharted(planted: Any) -> Any:
    """The same records with no circuit known."""
    from helpers import analyse

    return analyse(planted.active, planted.control)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with nothing slow in them last, each in one piece, so that workers which take file after file end together."""
    marks = ("slow", "browser")
    slow = {item.path for item in items if item.path.suffix == ".ipynb" or any(map(item.get_closest_marker, marks))}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """What was imported stays to the end, so the collector of garbage need not go through it again and again."""
    gc.collect()
    gc.freeze()

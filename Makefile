# One command a habit; CI calls the same ones. Needs Python >= 3.10 and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt

TRAIN_ARGS ?=
PROMPT ?= def main(
FUZZ_SECONDS ?= 600
# for two cores: an eighth of the time a test waits for another process or a clock
WORKERS ?= 3
HYDRA ?=
SERIAL = $(shell grep -rl --include='*.py' mark.serial tests)

.DEFAULT_GOAL := help
.PHONY: help demo test nightly faults lint format bench audit fuzz lock clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.base  ## install, train a small model for a minute, let it write
	@echo '$$ slm-train experiment=speedrun_stdlib $(TRAIN_ARGS)'
	@run=$$($(BIN)/slm-train experiment=speedrun_stdlib $(TRAIN_ARGS)) && \
	echo && echo '$$ slm-generate run='"$$run"' prompt="$(PROMPT)" generation.temperature=0.7' && printf '%s' '$(PROMPT)' && \
	$(BIN)/slm-generate run="$$run" prompt='$(PROMPT)' generation.temperature=0.7 generation.seed=1 && echo

test: $(VENV)/.dev $(HYDRA:%=hydra-%)  ## install what the tests need, run them (HYDRA=1.4.0rc3: with another Hydra)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not serial and not nightly"
	$(BIN)/python -m pytest -m "serial and not nightly" $(SERIAL)

nightly: $(VENV)/.all  ## what takes longer than a coffee: kills, hostile files, fuzzing's finds, TensorFlow, W&B, sweepers, notebook
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not serial" --ignore=tests/faults
	$(BIN)/python -m pytest -m serial $(SERIAL)
	SLM_FAULTS=long $(BIN)/python -m pytest -m "" tests/faults

hydra-%: $(VENV)/.dev
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --pre hydra-core==$*

faults: $(VENV)/.dev  ## kill runs a hundred times, damage files, fill disks (ten minutes; make test does less of it)
	SLM_FAULTS=long $(BIN)/python -m pytest -m "" tests/faults

lint: $(VENV)/.dev  ## style and types: ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev  ## let ruff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev  ## measure the framework's cost beside a bare PyTorch loop
	$(BIN)/python benchmarks/train_overhead.py

audit: $(VENV)/.dev  ## known holes of all dependencies, by PyPI's database (needs the network; no part of CI)
	@$(PIP) -e '.[audit]'
	@$(BIN)/python scripts/audit.py

fuzz: $(VENV)/.dev  ## fuzz whatever reads files of others, FUZZ_SECONDS (600) each
	@$(PIP) -e '.[fuzz]'
	@for target in $$($(BIN)/python tests/fuzz/run.py); do $(BIN)/python tests/fuzz/run.py $$target $(FUZZ_SECONDS) || exit 1; done

lock:  ## pin every dependency anew, those of the base install with hashes (needs uv and the network)
	@for kind in constraints.txt requirements.lock; do head -2 $$kind > $(VENV)/$$kind; done
	uv pip compile pyproject.toml --universal --python-version 3.10 --no-annotate --no-header --all-extras \
	  | grep -v '^pip==' >> $(VENV)/constraints.txt && mv $(VENV)/constraints.txt constraints.txt
	uv pip compile pyproject.toml --universal --python-version 3.10 --no-annotate --no-header --generate-hashes \
	  -c constraints.txt >> $(VENV)/requirements.lock && mv $(VENV)/requirements.lock requirements.lock

clean:  ## remove the virtual environment and what the tools left
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	{ echo "slm needs Python 3.10 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.base: $(VENV)/bin/python pyproject.toml setup.py constraints.txt
	$(PIP) -e .
	@touch $@

$(VENV)/.dev $(VENV)/.all: $(VENV)/.%: $(VENV)/.base
	$(PIP) -e '.[$*]'
	@touch $@

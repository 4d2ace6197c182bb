# Everything a newcomer needs. `make help` lists it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test unit lint format bench bench-files bench-dataset clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "error: $(PYTHON) is older than 3.10. Name a newer one: make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

install: $(INSTALLED)  ## Make .venv with tensorage and its tools in it

demo: $(INSTALLED)  ## Run a whole subnet here: local chain, 2 validators, 5 miners
	$(BIN)/tensorage devnet demo

test: $(INSTALLED) lint  ## Run the linter, the type checker and every test
	$(BIN)/python -m pytest

unit: $(INSTALLED)  ## Run only the tests that start no process
	$(BIN)/python -m pytest tests/unit tests/property

lint: $(INSTALLED)  ## Check format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(INSTALLED)  ## Put the code in the one format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(INSTALLED)  ## Measure sealing against argon2's C code
	$(BIN)/python scripts/bench_seal.py

bench-files: $(INSTALLED)  ## Measure putting and getting 1 GB on 12 miners against zfec and AES
	$(BIN)/python scripts/bench_files.py

bench-dataset: $(INSTALLED)  ## Measure the dataset market against nginx and sha256sum
	$(BIN)/python scripts/bench_dataset.py

clean:  ## Remove .venv and what the tools cache
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info build

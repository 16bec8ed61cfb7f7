# The environment, the demo and the checks. `make help` lists the targets.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
DARTS  := $(BIN)/darts
# Where the demo puts what it makes, and the seed that it starts from.
DEMO   ?= runs/demo
SEED   ?= 0

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint typecheck bench clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 12

setup: $(VENV)/.done  ## make the environment and install darts in it

# Made anew whenever the dependencies change.
$(VENV)/.done: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

# Two processes of one thread each: shapes this small are not worth sharing out, and threads of
# two processes that wait for one another take ten times as long.
test: setup lint typecheck  ## everything that continuous integration runs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --cov --cov-report=term

lint: setup  ## format, rules, and the direction of imports
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/lint-imports

typecheck: setup  ## types
	$(BIN)/mypy

bench: setup  ## time search and training steps, and evaluation word by word
	$(BIN)/python tests/benchmarks/steps.py
	$(BIN)/python tests/benchmarks/text_evaluation.py

clean:  ## remove the environment, caches and the demo
	rm -rf $(VENV) $(DEMO) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis \
		.coverage dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The demo is also the pattern for a pipeline of one's own: every artifact is a target, made from
# the one before, so that make does again just what has to be done again. Copy these five rules,
# put `--data DIR` for `--data digits`, and leave `--seed` as it is.

GENOTYPE   := $(DEMO)/search/genotype.yaml
CHECKPOINT := $(DEMO)/train/last.safetensors
ACCURACY   := $(DEMO)/train/last-test.json
PICTURE    := $(DEMO)/cell.svg

demo: $(ACCURACY) $(PICTURE)  ## search, derive, train, evaluate and draw on the digits images
	@$(DARTS) viz $(GENOTYPE)
	@echo
	@echo "genotype    $(GENOTYPE)"
	@echo "picture     $(PICTURE)"
	@echo "checkpoint  $(CHECKPOINT)"
	@echo "accuracy    $(ACCURACY)"
	@cat $(ACCURACY)

# Checkpoints are there long before a run is done, so that the targets of runs are files that are
# touched at their end. A run that was stopped goes on where it was.
$(DEMO)/search/done: | setup
	@if [ -e $(@D)/last.safetensors ]; then $(DARTS) search cnn --resume $(@D); \
	else $(DARTS) search cnn --data digits --seed $(SEED) --out $(@D); fi
	@touch $@

$(GENOTYPE): $(DEMO)/search/done
	$(DARTS) derive $(DEMO)/search --output $@

$(DEMO)/train/done: $(GENOTYPE)
	@if [ -e $(@D)/last.safetensors ]; then $(DARTS) train --resume $(@D); \
	else $(DARTS) train --genotype $< --data digits --seed $(SEED) --out $(@D); fi
	@touch $@

$(ACCURACY): $(DEMO)/train/done
	$(DARTS) eval $(DEMO)/train

$(PICTURE): $(GENOTYPE)
	$(DARTS) viz $< --output $@

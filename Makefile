# The environment, the demo and the checks. `make help` lists the targets.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
DARTS  := $(BIN)/darts
# Where the demo puts what it makes, and the seed that it starts from.
DEMO   ?= runs/demo
SEED   ?= 0
# Where the gallery puts its pictures.
GALLERY ?= runs/gallery

.DEFAULT_GOAL := help
.PHONY: help setup demo gallery test coverage torture lint typecheck bench clean

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
# Tests that share what takes long to make run in one of them; the others, in whichever is free.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup

test: setup lint typecheck  ## format, rules, types and tests
	$(PYTEST)

# Apart from `test`, since a test that is traced takes half as long again.
coverage: setup  ## the tests once more, and which lines they run
	$(PYTEST) --cov --cov-report=term

torture: setup  ## kill runs two hundred times, and have many thousands of bad files read
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.torture.kills
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.torture.files
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --hypothesis-profile=torture tests/torture/test_files.py tests/genotype/test_pasted.py

lint: setup  ## format, rules, and the direction of imports
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/lint-imports

typecheck: setup  ## types
	$(BIN)/mypy

bench: setup  ## time steps against plain ones and the machine, the rest of an epoch, --probe, and text
	$(BIN)/python -m tests.benchmarks.steps
	$(BIN)/python -m tests.benchmarks.limits
	$(BIN)/python -m tests.benchmarks.loop
	$(BIN)/python -m tests.benchmarks.probe
	$(BIN)/python -m tests.benchmarks.text_evaluation

clean:  ## remove the environment, caches, the demo and the gallery
	rm -rf $(VENV) $(DEMO) $(GALLERY) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis \
		.coverage dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The demo is also the pattern for a pipeline of one's own: every artifact is a target, made from
# the one before, so that make does again just what has to be done again. Both spaces go by the
# same five rules, in which $* is `cnn` or `rnn`. Copy them, put `--data DIR` for the data, and
# leave `--seed` as it is.

SPACES   := cnn rnn
DATA_cnn := digits
DATA_rnn := pydoc

demo: $(SPACES:%=$(DEMO)/%/measures.txt) $(SPACES:%=$(DEMO)/%/cell.svg)  ## both spaces from search to test, on digits and on Python's help
	@for space in $(SPACES); do \
		$(DARTS) viz $(DEMO)/$$space/genotype.yaml || exit; \
		echo "genotype    $(DEMO)/$$space/genotype.yaml"; \
		echo "picture     $(DEMO)/$$space/cell.svg"; \
		echo "network     $(DEMO)/$$space/train"; \
		echo "measures    $$(grep '^test: ' $(DEMO)/$$space/measures.txt)"; \
		echo; \
	done

# Checkpoints are there long before a run is done, so that the targets of runs are files that are
# touched at their end. A run that was stopped goes on where it was.
$(DEMO)/%/search/done: | setup
	@if [ -e $(@D)/last.safetensors ]; then $(DARTS) search $* --resume $(@D); \
	else $(DARTS) search $* --data $(DATA_$*) --seed $(SEED) --out $(@D); fi
	@touch $@

$(DEMO)/%/genotype.yaml: $(DEMO)/%/search/done
	$(DARTS) derive $(<D) --output $@

$(DEMO)/%/train/done: $(DEMO)/%/genotype.yaml
	@if [ -e $(@D)/last.safetensors ]; then $(DARTS) train --resume $(@D); \
	else $(DARTS) train --genotype $< --data $(DATA_$*) --seed $(SEED) --out $(@D); fi
	@touch $@

# What `darts eval` prints; the same with all digits is in the JSON file that it names.
$(DEMO)/%/measures.txt: $(DEMO)/%/train/done
	$(DARTS) eval $(<D) > $@

$(DEMO)/%/cell.svg: $(DEMO)/%/genotype.yaml
	$(DARTS) viz $< --output $@

# What make would take for scratch files of its own, and remove; and half a file is no target.
.PRECIOUS: $(DEMO)/%/search/done $(DEMO)/%/genotype.yaml $(DEMO)/%/train/done
.DELETE_ON_ERROR:

# Every kind of picture: of the genotypes that come with darts, and of two short searches.
SHIPPED  := $(basename $(notdir $(wildcard genotypes/*.yaml)))
HISTORY  := alphas lines curves signals
GALLERY_RUNS := $(GALLERY)/run-0 $(GALLERY)/run-1

gallery: $(GALLERY_RUNS:%=%/done)  ## all pictures, of the shipped genotypes and of two short searches of digits
	@for name in $(SHIPPED); do for theme in light dark; do for kind in svg png pdf; do \
		$(DARTS) viz $$name --legend --theme $$theme --output $(GALLERY)/$$name-$$theme.$$kind || exit; \
	done; done; done
	@for name in $(SHIPPED); do for kind in dot mmd; do \
		$(DARTS) viz $$name --output $(GALLERY)/$$name.$$kind || exit; \
	done; done
	@for theme in light dark; do \
		$(DARTS) viz darts_v1 darts_v2 --legend --theme $$theme \
			--output $(GALLERY)/comparison-$$theme.png || exit; \
		for what in $(HISTORY); do \
			$(DARTS) viz $(GALLERY)/run-0 --show $$what --theme $$theme \
				--output $(GALLERY)/$$what-$$theme.png || exit; \
		done; \
	done
	@$(DARTS) viz $(GALLERY)/run-0 --output $(GALLERY)/evolution.gif
	@$(DARTS) viz $(GALLERY)/run-0 --output $(GALLERY)/report.html
	@$(DARTS) viz $(GALLERY_RUNS) --output $(GALLERY)/compare.html

$(GALLERY)/run-%/done: | setup
	@if [ -e $(@D)/last.safetensors ]; then $(DARTS) search cnn --resume $(@D); \
	else $(DARTS) search cnn --data digits --epochs 12 --order first --seed $* --out $(@D); fi
	@touch $@

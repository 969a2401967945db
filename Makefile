# Thin: the environment, then the build (Snakemake) or the tests (pytest). `make help` lists all.

PYTHON ?= python3
VENV ?= .venv
SIZE ?= quick
EDITION ?= smollm2-135m-instruct-q4
CORES ?= 2
# Of `make bench`: where it runs, whether its longest job is timed in full, and whether it goes on
# from a run that was stopped.
DEVICE ?= cpu
WHOLE ?=
RESUME ?=
# Of `make test-rerun`: which chapters (all where none is given), and whether with the newest
# versions that the bounds allow instead of the locked ones.
CHAPTERS ?=
NEWEST ?=
# Optional address of a package index with the CPU build of torch, which is much smaller than the
# one with CUDA that pip chooses on Linux.
TORCH_INDEX ?=

PY = $(VENV)/bin/python
BUILD = $(PY) -m th_utils.build
CHOICE = --edition "$(EDITION)" --size "$(SIZE)" --cores $(CORES)
READY = $(VENV)/.ready

# One thread per process: tests and kernels run side by side, and results are then bit-equal.
TEST_ENV = OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1
# Two workers; tests that need the pretrained model share one, and so do the notebooks (conftest.py).
PYTEST = $(TEST_ENV) $(PY) -m pytest -n 2 --dist loadscope
NBVAL = --nbval --nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg notebooks

.DEFAULT_GOAL := help
.PHONY: help book pdf chapter test test-fast test-rerun bench lab refresh record lint release-check clear-cache clean env

help: ## list the targets
	@echo 'Targets (variables: SIZE=$(SIZE) EDITION=$(EDITION) CORES=$(CORES)):'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | \
		while IFS='|' read -r name text; do printf '  %-14s %s\n' "$$name" "$$text"; done

book: $(READY) ## run the chapters and render the book (SIZE=quick|book|full EDITION=name)
	@$(BUILD) book $(CHOICE)

pdf: $(READY) ## print the book to a PDF, which needs Chromium or Chrome
	@$(BUILD) pdf $(CHOICE)

chapter: $(READY) ## run one chapter: make chapter N=03
	@$(BUILD) chapter "$(N)" $(CHOICE)

test: $(READY) ## run all tests, the notebooks among them
	@$(PYTEST) tests th_utils $(NBVAL)

test-fast: $(READY) ## run the quick tests, without the pretrained model and a browser
	@$(PYTEST) -m "not slow and not model and not chromium" tests th_utils

test-rerun: $(READY) ## run each chapter alone from a wheel, in a new environment (CHAPTERS="01 12" NEWEST=1)
	@$(BUILD) rerun $(CHAPTERS) --python "$(PYTHON)" $(if $(NEWEST),--newest) \
		$(if $(TORCH_INDEX),--torch-index "$(TORCH_INDEX)")

bench: $(READY) ## time the kernels beside TransformerLens, a quarter of an hour (DEVICE=cpu|cuda WHOLE=1 RESUME=1)
	@$(PY) -m benchmarks --device "$(DEVICE)" $(if $(WHOLE),--whole) $(if $(RESUME),--resume)

lab: $(READY) ## open JupyterLab on the chapters
	@$(VENV)/bin/jupyter lab notebooks

refresh: $(READY) ## run the chapters on the defaults and bring their outputs into notebooks/
	@$(BUILD) refresh --cores $(CORES)

record: $(READY) ## run the chapters on EDITION and keep the results in data/recorded/
	@$(BUILD) record $(CHOICE)

lint: $(READY) ## check style
	@$(PY) -m ruff check . && $(PY) -m ruff format --check .

release-check: $(READY) ## list what stands against a release
	@$(BUILD) release-check

clear-cache: $(READY) ## remove the converted models and measurements from the user's cache
	@$(BUILD) clear-cache

clean: ## remove everything that was built (not the environment, not the cache)
	rm -rf _build .snakemake .pytest_cache .ruff_cache

env: $(READY) ## make the environment in .venv

# Torch comes first and alone: its size and the choice of index deserve a line of their own. The
# marker `.unfinished` outlives an installation that is killed; the next one then starts afresh.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; say which: make PYTHON=python3.11"; exit 1; }
	@if [ -e $(VENV)/.unfinished ] || [ ! -x $(PY) ]; then \
		echo "making the environment $(VENV)"; $(PYTHON) -m venv --clear $(VENV); fi
	@touch $(VENV)/.unfinished
	$(PY) -m pip install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) \
		$$(grep -E '^torch==' requirements.lock)
	$(PY) -m pip install -r requirements.lock
	$(PY) -m pip install --no-deps --no-build-isolation -e .
	$(PY) -m pip check
	@rm $(VENV)/.unfinished
	@touch $(READY)

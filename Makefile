# Two commands do everything: `make demo` and `make test`; `make help` lists the rest.

# An interpreter whose environment is to be used; without it, one is made in .venv.
PYTHON ?=
# Size of the demo: another config, another folder of toy data, options for its maker.
CONFIG ?= configs/stmixer/stmixer_tiny_1xb8-4x2x1_toy.py
DATA ?= data/toy
WORK_DIR ?= work_dirs/demo
TOY_OPTIONS ?=
CFG_OPTIONS ?=
# More options for pytest, such as PYTEST_OPTIONS='-k head'.
PYTEST_OPTIONS ?=

PY := $(or $(PYTHON),.venv/bin/python)
SET_UP = set -e; for python in $(PYTHON) python3 python3.12 python3.11 python3.10; do \
	  if "$$python" -c '' >/dev/null 2>&1; then \
	    exec "$$python" tools/setup_env.py --python '$(PYTHON)' --extras $(1); \
	  fi; \
	done; \
	echo 'set-up: There is no Python: install Python 3.10 to 3.12, or name one with' \
	  'PYTHON=/path/to/python.' >&2; exit 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint clean clean-env

help: ## say what there is
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 20
	@echo
	@echo '  PYTHON=/path/to/python   use that environment instead of .venv, leave its torch alone'
	@echo '  MAX_JOBS=1               compile mmcv with one job (a job takes 1 GB of memory)'
	@echo '  PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu'
	@echo '                           get the small CPU build of torch'

setup: ## set up .venv, once
	@$(call SET_UP,)

demo: ## make toy videos, train a small STMixer on them, evaluate it, write a video
	@$(call SET_UP,)
	@$(PY) tools/run_demo.py --config '$(CONFIG)' --data '$(DATA)' \
	  --work-dir '$(WORK_DIR)' --toy-options='$(TOY_OPTIONS)' \
	  --cfg-options='$(CFG_OPTIONS)'

test: ## run the tests
	@$(call SET_UP,test)
	@$(PY) -m pytest --cov --cov-report=term $(PYTEST_OPTIONS)

lint: ## check style and formatting
	@$(call SET_UP,lint)
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

clean: ## remove what tests, demo and builds leave behind
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .coverage data/toy work_dirs/demo
	find configs stmixer_mm tests tools -name __pycache__ -prune -exec rm -rf {} +

clean-env: ## remove .venv
	rm -rf .venv .setup

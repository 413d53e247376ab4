# Two commands do everything: `make demo` and `make test`; `make help` lists the rest.

# An interpreter whose environment is to be used; without it, one is made in .venv.
PYTHON ?=
# full: mmcv is compiled; by default only where a GPU and its nvcc are.
MMCV ?=
# onedl: the maintained fork of mmengine and mmdet, in .venv_onedl.
HOSTS ?=
# More options for tools/run_demo.py, such as DEMO_OPTIONS='--clip basketball.mp4'.
DEMO_OPTIONS ?=
# More options for pytest, such as PYTEST_OPTIONS='-k head'.
PYTEST_OPTIONS ?=

PY := $(or $(PYTHON),.venv$(addprefix _,$(HOSTS))/bin/python)
# .venv is made by the first of these that fits.
PYTHONS := $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.10)
FITS = import sys$(if $(PYTHON),,, ensurepip); \
  sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))
SET_UP = for python in $(PYTHONS); do \
	  if "$$python" -c '$(FITS)' >/dev/null 2>&1; then \
	    exec "$$python" tools/setup_env.py $(if $(PYTHON),--here) --extras $(1) \
	      $(if $(MMCV),--mmcv $(MMCV)) $(if $(HOSTS),--hosts $(HOSTS)); \
	  fi; \
	done; \
	echo 'set-up: Python 3.10 to 3.13 is needed, with its module venv, but there is none' \
	  'under the name of $(PYTHONS): install one (Debian and Ubuntu: apt install' \
	  'python3-venv), or name one with PYTHON=/path/to/python.' >&2; exit 1

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-train demo-full test lint docs clean clean-env

help: ## list the commands
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 20
	@echo
	@echo '  PYTHON=/path/to/python   use that environment instead of .venv, leave its torch alone'
	@echo '  MMCV=full                compile mmcv and all its operators, where mmcv-lite would do'
	@echo '  MAX_JOBS=1               compile it with one job (a job takes 1 GB of memory)'
	@echo '  HOSTS=onedl              test on onedl-mmengine and onedl-mmdetection, in .venv_onedl'
	@echo '  PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu'
	@echo '                           get the small CPU build of torch'

setup: ## set up .venv, once
	@$(call SET_UP,)

demo: ## show who does what in a real clip (20 seconds)
	@$(call SET_UP,)
	@$(PY) tools/run_demo.py $(DEMO_OPTIONS)

demo-train: ## train a small STMixer on that clip (4 minutes)
	@$(call SET_UP,)
	@$(PY) tools/run_demo.py --train --work-dir work_dirs/demo_train $(DEMO_OPTIONS)

demo-full: ## train one on toy videos, test it on others (8 minutes)
	@$(call SET_UP,)
	@$(PY) tools/run_demo.py --toy full $(DEMO_OPTIONS)

test: ## run the tests
	@$(call SET_UP,test)
	@$(PY) -m pytest -n logical --maxprocesses 4 --max-worker-restart 0 \
	  --dist loadfile --no-loadscope-reorder --cov --cov-report=term --durations=20 $(PYTEST_OPTIONS)

lint: ## check style and formatting
	@$(call SET_UP,lint)
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

docs: ## build the documentation site in site/
	@$(call SET_UP,docs)
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --quiet

clean: ## remove what tests, demo and builds leave behind
	rm -rf build dist site *.egg-info .pytest_cache .ruff_cache .coverage data/toy work_dirs/demo
	find configs stmixer_mm tests tools -name __pycache__ -prune -exec rm -rf {} +

clean-env: ## remove .venv and .venv_onedl
	rm -rf .venv .venv_onedl .setup

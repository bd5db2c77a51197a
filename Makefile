# Two commands: `make play` opens a world in the browser, `make test` checks everything.
# They need make and Python 3.11 or newer; the rest is installed into .venv beside this file.

# Flags for `reverie play`: make play ARGS="--no-browser --port 8137"
ARGS ?=
# Which Python makes .venv; empty: the first of python3, python3.14 ... python3.11 that is new enough.
PYTHON ?=
# PyTorch for tests and training (playing needs none). On Linux, PyPI's wheel carries CUDA, some gigabytes; for a CPU build:
#   make test TORCH="torch==2.13.0 --extra-index-url https://download.pytorch.org/whl/cpu"
TORCH ?= torch==2.13.0

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check install
export PYTHON

.DEFAULT_GOAL := help
.PHONY: help play test lint format docs web install dev clean clean-all FORCE

help:
	@echo 'make play    a world that answers your keys, in the browser  (ARGS="--no-browser --port 8137")'
	@echo 'make test    lint, types, import contracts and every test'
	@echo 'make lint    the same without the tests'
	@echo 'make format  formats the code and sorts its imports'
	@echo 'make docs    writes docs/cli.md from the command line'
	@echo 'make web     builds the page from web/ (needs Node 20 and npm)'
	@echo 'make clean   removes caches and builds; make clean-all removes .venv too'

# The simulator that the bundled world was learned from has needs of its own.
play: $(VENV)/.installed $(if $(findstring --simulator,$(ARGS)),$(VENV)/.installed-simulator)
	@$(BIN)/reverie play $(ARGS) || [ $$? -eq 130 ]

# pytest is last, so that its summary is what one reads. Two tests at a time, but for those that look at the clock (tests/turns.py).
test: lint
	@CHROMIUM=$$(sh scripts/chromium.sh) && export CHROMIUM && $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed-dev
	$(BIN)/python scripts/cli_page.py
	$(BIN)/python scripts/protocol_types.py

web:
	@command -v npm >/dev/null || { echo 'Building the page needs Node 20 and npm. On Debian or Ubuntu: apt-get install nodejs npm' >&2; exit 1; }
	cd web && npm ci && npm run build

install: $(VENV)/.installed
dev: $(VENV)/.installed-dev

# Stamps: a second run installs nothing, until pyproject.toml changes or .venv had to be made again. The script looks at .venv
# every time, and leaves a working one (and this file's age) as it is.
$(VENV)/pyvenv.cfg: FORCE
	@sh scripts/venv.sh $(VENV)
FORCE:

$(VENV)/.installed: pyproject.toml $(VENV)/pyvenv.cfg
	@echo 'Installing Reverie into $(VENV) (about a minute, once)'
	@$(PIP) --editable .
	@touch $@

$(VENV)/.installed-simulator: pyproject.toml $(VENV)/pyvenv.cfg
	@echo 'Installing the simulator into $(VENV) (about a minute, once)'
	@$(PIP) --editable '.[simulator]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-dev: pyproject.toml $(VENV)/pyvenv.cfg
	@echo 'Installing Reverie, PyTorch and the tools for tests into $(VENV) (a few minutes, once)'
	@$(PIP) $(TORCH)
	@$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.installed $(VENV)/.installed-simulator

clean:
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests benchmarks scripts -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

clean-all: clean
	rm -rf $(VENV)

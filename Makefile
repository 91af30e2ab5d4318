# Everything that a fresh machine needs is Python 3.11 or newer; `make help` lists what there is.
.DEFAULT_GOAL := help
.PHONY: demo test mutants bench lint format clean help .install .install-bench
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH_STAMP := $(VENV)/.bench-installed

# The first Python on the PATH that is new enough; empty where there is none.
PYTHON = $(shell for python in python3.11 python3.12 python3.13 python3.14 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)

demo: $(STAMP) ## watch incidents, alerts and escalations live, on brokers of its own
	@$(BIN)/nabij demo

test: $(STAMP) ## run all tests, several at a time
	@$(BIN)/pytest -n auto --dist worksteal

mutants: $(STAMP) ## change the pure code in small ways, and see that the fast tests notice
	@$(BIN)/python -m tests.mutants

bench: $(BENCH_STAMP) ## a short form of all benchmarks, and the report bench.html
	@$(BIN)/nabij bench all --quick --html bench.html

lint: $(STAMP) ## check style, format, types and import directions
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

format: $(STAMP) ## format the code, and fix what can be fixed
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format .

clean: ## remove the environment and every cache
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis \
		.import_linter_cache .grimp_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# What pip reads of pyproject.toml: all but the settings of tools, such as the layers of modules.
INSTALLED := awk '/^\[/ { skipped = /^\[+tool\.(ruff|mypy|pytest|importlinter)/ } !skipped' pyproject.toml
# A stamp holds that, as it was when it was installed.
IS_FRESH = test "$$($(INSTALLED))" = "$$(cat $@ 2>/dev/null)"

# Installs once; again only after a change of what pip reads, so that later runs need no network.
$(STAMP): pyproject.toml
	@if $(IS_FRESH); then touch $@; else $(MAKE) .install; fi

# Without its stamp an environment is half made (Ctrl-C, no network, a full disk): it is made again.
.install:
	@test -n "$(PYTHON)" || { echo "Nabij needs Python 3.11 or newer, and found none on the PATH" >&2; exit 1; }
	@echo "Installing Nabij into $(VENV), once (about a minute) …"
	@test -e $(STAMP) && test -x $(BIN)/python || { rm -rf $(VENV); $(PYTHON) -m venv $(VENV); } || { rm -rf $(VENV); \
		echo "$(PYTHON) cannot make a virtual environment: install its venv module (Debian: apt-get install python3-venv)" >&2; exit 1; }
	@rm -f $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@$(INSTALLED) >$(STAMP)

# Histograms, plots, and the peers to compare with: only for benchmarks.
$(BENCH_STAMP): $(STAMP)
	@if $(IS_FRESH); then touch $@; else $(MAKE) .install-bench; fi

.install-bench:
	@rm -f $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@$(INSTALLED) >$(STAMP)
	@$(INSTALLED) >$(BENCH_STAMP)

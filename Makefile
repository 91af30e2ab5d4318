# Everything that a fresh machine needs is Python 3.11 or newer; `make help` lists what there is.
.DEFAULT_GOAL := help
.PHONY: demo test mutants bench lint format clean help
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

# Installs once; again only after a change of pyproject.toml, so that later runs need no network.
# Without its stamp an environment is half made (Ctrl-C, no network, a full disk): it is made again.
$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "Nabij needs Python 3.11 or newer, and found none on the PATH" >&2; exit 1; }
	@echo "Installing Nabij into $(VENV), once (about a minute) …"
	@test -e $@ && test -x $(BIN)/python || { rm -rf $(VENV); $(PYTHON) -m venv $(VENV); } || { rm -rf $(VENV); \
		echo "$(PYTHON) cannot make a virtual environment: install its venv module (Debian: apt-get install python3-venv)" >&2; exit 1; }
	@rm -f $@
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

# Histograms, plots, and the peers to compare with: only for benchmarks.
$(BENCH_STAMP): $(STAMP)
	@rm -f $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $(STAMP) $@

# Each target sets up what it needs: a .venv with the locked dependencies, nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Processes for the tests, each with stores of its own.
WORKERS ?= 2
STAMP := $(VENV)/.installed
SOURCES := hexhail location routing matching pricing simulator benchmarks examples tests

.DEFAULT_GOAL := help
.PHONY: help demo up test test-slow lint format stubs stubs-check diagrams lock

help: ## Says what can be made.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(STAMP): requirements-dev.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(STAMP) ## A whole city, live, in the terminal. ARGS="--city manhattan --minutes 3 ..."
	@$(BIN)/hexhail demo $(ARGS)

up: $(STAMP) ## Stores and services, until Ctrl-C. ARGS="--city gridport ..."
	@$(BIN)/hexhail up $(ARGS)

test: $(STAMP) ## All tests but the slow ones, on real stores. ARGS="-k ranking ..."
	$(BIN)/pytest -m "not slow" -n $(WORKERS) --dist loadfile $(ARGS)

test-slow: $(STAMP) ## The tests that take minutes.
	$(BIN)/pytest -m slow $(ARGS)

lint: $(STAMP) ## Style, types, import rules, and the wire's own.
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/diagram.py --check
	cd proto && ../$(BIN)/buf lint . && ../$(BIN)/buf breaking . --against image.json

format: $(STAMP) ## Formats the code.
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

stubs: $(STAMP) ## Regenerates hexhail/api from proto/.
	tools/stubs.sh

stubs-check: $(STAMP) ## Says whether hexhail/api is what proto/ gives.
	tools/stubs.sh --check

diagrams: $(STAMP) ## Draws the states of a ride into docs/architecture.md, from the transition table.
	$(BIN)/python tools/diagram.py

lock: ## Pins the newest versions that pyproject.toml allows.
	tools/lock.sh

# Every path below is relative: the checkout may stand in a folder with a space in its name.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

# Any Python from 3.11 on; the environment is made from it.
PYTHON ?= python3
# Processes that share the tests, and more arguments for pytest: make test ARGS='-k undo -x'
ARGS ?=

ENSURE := $(PYTHON) tools/ensure.py
VENV := .venv/bin/python
TYPED := $(wildcard failback workflows activities starter worker.py demo benchmarks containers tools tests)

PROCESSES ?= 3

.PHONY: help setup venv demo test bench soak lint format lock clean

help: ## Show this.
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | while IFS= read -r line; do \
	  printf '  make %-8s %s\n' "$${line%%:*}" "$${line#*## }"; done

setup: ## Prepare everything: environment, nbdkit, Temporal server, practice site (first time 5-10 minutes).
	@$(ENSURE) all

venv: ## Prepare the Python environment only.
	@$(ENSURE) venv

# DEMO and KEEP reach the demo as environment variables, as every variable given to make does.
demo: setup ## Fail a practice site back, with everything on this machine (DEMO=..., KEEP=1).
	@$(VENV) -m demo

# Three processes on two cores: most tests wait, for heartbeats and for processes that start. PROCESSES=0 runs all in one.
test: setup ## Run the tests (ARGS='...' for pytest).
	@$(VENV) -m pytest -n $(PROCESSES) $(ARGS)

# Variables given to make reach the tests as environment variables; -s shows seeds as they come.
# The seeds of the simulation run also when a proof before them has failed; it still ends red then.
soak: setup ## Run the long proofs, two hours (MATRIX_ROUNDS=3, SEEDS=20000, SOAK_MINUTES=10, KILLS=... per method, SEED=...).
	@failed=0; \
	$(VENV) -m pytest -m soak -s $(ARGS) || failed=$$?; \
	SEEDS=$${SEEDS:-20000} $(VENV) -m pytest -n 2 --timeout 0 tests/simulation || failed=$$?; \
	exit $$failed

bench: setup ## Measure the data path beside nbdcopy, qemu-img and rsync (10-15 minutes, 13 GiB; BENCH='--only WORD').
	@$(VENV) -m benchmarks $(BENCH)

lint: venv ## Check style and types of the Python code and of the practice site's Go code.
	@$(VENV) -m ruff check .
	@$(VENV) -m ruff format --check .
	@$(VENV) -m mypy --strict $(TYPED)
	@for module in lab tests/contract/referee; do (cd "$$module" && go vet ./...); done
	@unformatted="$$(gofmt -l lab tests)"; if [ -n "$$unformatted" ]; then \
	  printf 'not formatted by gofmt:\n%s\n' "$$unformatted" >&2; exit 1; fi

format: venv ## Put the code into shape: what `make lint` would complain about and can be mended.
	@$(VENV) -m ruff check --fix .
	@$(VENV) -m ruff format .
	@gofmt -w lab tests

lock: venv ## Resolve the dependencies anew (UPGRADE=1 for newer releases); needs the network.
	@$(VENV) tools/lock.py

clean: ## Remove what these targets leave in the checkout; the cache of built programs stays.
	@rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .demo build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

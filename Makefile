# `make` alone prints what there is. Everything runs in .venv, made from requirements.lock; nothing is installed elsewhere
# except, on Debian as root, the system packages that deploy/local/need.sh finds missing.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
STOCK ?= ample
BIN := .venv/bin
STAMP := .venv/.installed
LOCAL := $(BIN)/python -m deploy.local
BENCH = $(if $(QUICK),--quick) $(if $(SEED),--seed $(SEED)) $(if $(MILLION),--million)
export PYTHONDONTWRITEBYTECODE ?=

.PHONY: help demo replay faults bench test test-flows test-long check lint fix up down status logs clean topics flows contracts lock env

help: ## print this
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):[^#]*## (.*)/\1\t\2/' | awk -F'\t' '{printf "  make %-11s %s\n", $$1, $$2}'

demo: up ## start the stack, let customers order, show what happens (PLANT=I1: break an invariant, see it caught)
	@$(BIN)/python -m bench.demo $(if $(PLANT),--plant $(PLANT))

replay: ## send past orders from files through the stack: make replay DATA=file-or-folder [STOCK=scarce]
	@test -n "$(DATA)" || { echo "Say which: make replay DATA=path/to/orders.csv (or a folder of them)" >&2; exit 2; }
	@$(MAKE) up
	@$(BIN)/python -m bench.replay "$(DATA)" --stock $(STOCK)

faults: env ## harm the platform in every way, hold it to its invariants; goes on where it was stopped (FAULT=kill-kafka SEED=2: one)
	@$(BIN)/python -m bench.faults $(if $(FAULT),--fault $(FAULT)) $(if $(SEED),--seed $(SEED))

bench: env ## measure it, held against its goals (make bench-throughput: one benchmark; QUICK=1: a few seconds each)
	@$(BIN)/python -m bench.perf $(BENCH)

bench-%: env
	@$(BIN)/python -m bench.perf $* $(BENCH)

up: env ## start Kafka, Postgres and all services, or find them running
	@$(LOCAL) up

down: ## stop everything; the data stay
	@if test -e $(STAMP); then $(LOCAL) down; fi

status: env ## show each process: health, restarts, address
	@$(LOCAL) status

logs: env ## follow the logs of all processes (NAME=order: of one)
	@$(LOCAL) logs --follow $(NAME)

clean: ## stop everything, remove all local data, keep .venv
	@if test -e $(STAMP); then $(LOCAL) clean; fi

test: env ## run all tests but the long ones (starts a stack of its own in .local/test)
	@$(BIN)/pytest

test-flows: env ## run only the tests of whole flows, on real Kafka and Postgres
	@$(BIN)/pytest tests/flows

test-long: env ## run the long tests: faults and load, some minutes
	@$(BIN)/pytest -m long

check: lint ## lint, and the unit tests: before every commit
	@$(BIN)/pytest -q tests/unit tests/contracts

lint: env ## format, lint, types, imports, contracts
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@mkdir -p .local; $(BIN)/lint-imports --no-cache > .local/lint-imports.txt || { cat .local/lint-imports.txt; exit 1; }
	@$(BIN)/pyright
	@$(BIN)/python -m shared.contracts check

fix: env ## format, and repair what the linter can repair
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --fix .

topics: up ## create the topics that a running stack does not have yet
	@eval "$$($(LOCAL) env order)" && $(BIN)/python -m shared.admin topics

flows: env ## draw topics and handlers anew, in README.md and docs/flows.md
	@$(BIN)/python -m shared.contracts flows

contracts: env ## write contracts/ anew from events and routes
	@$(BIN)/python -m shared.contracts write

lock: env ## resolve requirements.lock anew from pyproject.toml
	@$(BIN)/uv pip compile pyproject.toml --quiet --upgrade --generate-hashes --universal --python-version 3.11 \
	  --all-extras --no-emit-index-url --no-emit-find-links --no-header --output-file requirements.lock

env: $(STAMP) ## make .venv from requirements.lock, and check for Java and Maven

$(STAMP): requirements.lock deploy/local/need.sh
	@deploy/local/need.sh $(PYTHON)
	@echo "installing requirements.lock into .venv"
	@$(PYTHON) -m venv .venv
	@# uv is the faster installer; where it has no wheel, pip installs the same files.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv || true
	@if test -x $(BIN)/uv; then \
	  $(BIN)/uv pip sync --quiet --allow-empty-requirements --python $(BIN)/python --require-hashes requirements.lock \
	    && $(BIN)/python -m ensurepip > /dev/null && $(BIN)/python -m pip install --quiet --disable-pip-version-check uv; \
	else \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock; \
	fi
	@mkdir -p .local && touch $@

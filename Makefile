# Everything one does with gpuyard from a checkout. `make` alone shows the menu.
# Needs Python 3.11 or newer and make; packages come from wherever pip is set up to look.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
CLIENTS := .venv-clients
CLIENTS_STAMP := $(CLIENTS)/.installed
OLD_CLIENTS := .venv-clients-old
OLD_CLIENTS_STAMP := $(OLD_CLIENTS)/.installed
RUN_STAMP := $(VENV)/.run-installed
DEV_STAMP := $(VENV)/.dev-installed
# What enforces slices is C: without a compiler everything else works, and slices are booked but not enforced.
NATIVE := $(BIN)/python -c 'from gpuyard.slicing.building import built; built()' 2>/dev/null || echo "slices are not enforced here: no C compiler (apt-get install gcc libc6-dev)"
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast check format bench docs lock clients shapes wheel gpu-check clean

help: ## Show this menu
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

demo: $(RUN_STAMP) ## See a whole yard at work (ARGS="--once --json" runs it unattended)
	@$(BIN)/gpuyard demo $(ARGS)

# Where clients are to be tested (CI) they are installed before the tests that need them.
test: $(DEV_STAMP) $(if $(filter true,$(CI)),$(CLIENTS_STAMP) $(OLD_CLIENTS_STAMP)) ## Run every test, the fast ones first (ARGS="-k name" for some)
	$(BIN)/python -m pytest -n 2 -m "not slow" $(ARGS)
	$(BIN)/python -m pytest -n 2 -m "slow" $(ARGS)

test-fast: $(DEV_STAMP) ## Run the fast tests only
	$(BIN)/python -m pytest -n 2 -m "not slow" $(ARGS)

check: $(DEV_STAMP) ## Lint, types, import rules, dependencies, generated docs
	$(BIN)/ruff check src tests bench docs
	$(BIN)/ruff format --check src tests bench docs
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/deptry src
	$(BIN)/python docs/generate.py --check

format: $(DEV_STAMP) ## Format the code and mend what can be mended by itself
	$(BIN)/ruff check --fix src tests bench docs
	$(BIN)/ruff format src tests bench docs

bench: $(DEV_STAMP) ## Measure against goals and peers (ARGS="start server launches --json")
	@$(BIN)/python -m bench $(ARGS)

docs: $(DEV_STAMP) ## Write the generated reference pages anew
	$(BIN)/python docs/generate.py

lock: $(DEV_STAMP) ## Resolve the dependencies anew into requirements/
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --extra demo --group build pyproject.toml -o requirements/run.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --all-extras --group dev pyproject.toml -o requirements/dev.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --group pyproject.toml:clients -o requirements/clients.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --group pyproject.toml:clients-old -o requirements/clients-old.txt

clients: $(CLIENTS_STAMP) $(OLD_CLIENTS_STAMP) ## Install real clients of EC2 and ECS, for the tests that `make test` skips without them

shapes: $(CLIENTS_STAMP) ## Write the table of EC2's shapes anew from botocore's model
	$(CLIENTS)/bin/python tools/ec2_shapes.py

wheel: $(DEV_STAMP) ## Build the wheels and check them (downloads a compiler of 100 MB)
	$(BIN)/pip wheel -q --no-deps -w dist .
	GPUYARD_WHEEL_MACHINE=aarch64 $(BIN)/pip wheel -q --no-deps -w dist .
	$(BIN)/python -m pytest -n 0 tests/packaging

gpu-check: $(DEV_STAMP) ## On a machine with an NVIDIA card: what only it can answer, in 8 minutes (ARGS="--out DIR")
	$(BIN)/gpuyard doctor
	$(BIN)/python -m pytest tests/gpu -m gpu
	$(BIN)/python tests/gpu/check.py $(ARGS)

clean: ## Delete what the targets above made
	rm -rf $(VENV) $(CLIENTS) $(OLD_CLIENTS) .pytest_cache .ruff_cache .hypothesis .import_linter_cache dist

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "gpuyard needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + ": set PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

# The lock files hold hashes: nothing is installed that was not locked, whatever index it comes from.
$(RUN_STAMP): requirements/run.txt pyproject.toml | $(BIN)/python
	@test -e $(DEV_STAMP) -a $(DEV_STAMP) -nt pyproject.toml || $(BIN)/pip install -q --require-hashes -r requirements/run.txt
	@$(BIN)/pip install -q --no-deps --no-build-isolation -e .
	@$(NATIVE)
	@touch $@

$(DEV_STAMP): requirements/dev.txt pyproject.toml | $(BIN)/python
	$(BIN)/pip install -q --require-hashes -r requirements/dev.txt
	$(BIN)/pip install -q --no-deps --no-build-isolation -e .
	@$(NATIVE)
	@touch $@ $(RUN_STAMP)

$(OLD_CLIENTS_STAMP): requirements/clients-old.txt
	$(PYTHON) -m venv $(OLD_CLIENTS)
	$(OLD_CLIENTS)/bin/pip install -q --require-hashes -r $<
	@touch $@

$(CLIENTS_STAMP): requirements/clients.txt
	$(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/pip install -q --require-hashes -r $<
	@touch $@

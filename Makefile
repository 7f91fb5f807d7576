# One word per chore, the same here and in CI. Needs make and Python 3.11 or newer with its venv module; every
# target makes the virtual environment it needs by itself.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
APART := tests/unit tests/golden tests/simulation tests/property
TOGETHER := tests/integration tests/e2e
# Where more arguments for pytest go: make test ARGS="-k stream -x"
ARGS ?=

# What makes an installation stale: its description, its build hook, and the sources of compiled objects.
SOURCES := pyproject.toml $(wildcard hatch_build.py) $(shell find bpf -name '*.[ch]' 2>/dev/null)
RUN_STAMP := $(VENV)/.retia-run
DEV_STAMP := $(VENV)/.retia-dev

.PHONY: help demo demo-check test test-long check format bench golden docs clean packages

help:
	@echo "make demo        the sample shop in a mesh, with a live status; Ctrl-C ends it and leaves nothing"
	@echo "make demo-check  the guided tour with no person; exit status 0 or 1"
	@echo "make test        all tests but the long ones (as root also those of capture and of several hosts)"
	@echo "make test-long   soak, long fuzzing"
	@echo "make check       lint, format, types, import layers, documents"
	@echo "make format      rewrite the sources in the project's format"
	@echo "make bench       measure, and write bench-results/ (JSON)"
	@echo "make golden      rewrite the golden files; read the diff as code"
	@echo "make docs        rewrite the generated pages of the reference, then check the documents"
	@echo "make clean       remove the virtual environment and everything generated"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Retia needs Python 3.11 or newer; '$(PYTHON)' is older: say 'make PYTHON=python3.12 ...'" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || \
	  { echo "Python's venv module is missing; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(RUN_STAMP): $(BIN)/python $(SOURCES)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(DEV_STAMP): $(BIN)/python $(SOURCES)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(RUN_STAMP)

demo: $(RUN_STAMP)
	@$(BIN)/retia demo

demo-check: $(RUN_STAMP)
	@$(BIN)/retia demo --check

# Debian packages that some tests use as real peers; only as root, only where apt-get is, only if missing.
packages:
	@scripts/test-packages

# Tests that touch nothing but their own folder run side by side; those that take a mesh index of the host, or
# time something, one after another.
test: $(DEV_STAMP) packages
ifeq ($(strip $(ARGS)),)
	@apart=0; $(PYTEST) -m "not long" --numprocesses auto --dist worksteal $(APART) || apart=$$?; \
	  $(PYTEST) -m "not long" $(TOGETHER) && exit $$apart
else
	$(PYTEST) -m "not long" $(ARGS)
endif

test-long: $(DEV_STAMP) packages
	$(PYTEST) -m long --timeout 3600 $(ARGS)

check: $(DEV_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/check_docs.py
	$(BIN)/python scripts/check_files.py
	$(BIN)/python -m tests.simulation.coverage --check

format: $(DEV_STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(DEV_STAMP) packages
	$(BIN)/python -m tests.bench $(ARGS)

golden: $(DEV_STAMP)
	RETIA_UPDATE_GOLDEN=1 $(PYTEST) tests/golden $(ARGS)

docs: $(DEV_STAMP)
	$(BIN)/python scripts/make_docs.py
	$(BIN)/python -m tests.simulation.coverage --write
	$(BIN)/python scripts/check_docs.py

clean:
	rm -rf $(VENV) build dist bench-results .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

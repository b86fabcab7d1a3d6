# Each target sets up what it needs. The two that matter: `make demo` and `make test`.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# three test processes, each with a Prefect server and places of its own; PYTEST_OPTIONS=... for others
PYTEST_OPTIONS ?= -n 3 --dist loadfile
SHELL := /bin/bash

.PHONY: demo test bench lint install system clean

demo: install  ## a routine at work on two small repositories, with its page in the Prefect UI
	@$(BIN)/python demo/run.py

test: install-dev  ## everything: style, types, all tests
	@$(BIN)/ruff check
	@$(BIN)/mypy
	@$(BIN)/python -m pytest $(PYTEST_OPTIONS)

bench: install-dev  ## the numbers, beside a bare loop over the SDK
	@$(BIN)/python bench/run.py

lint: install-dev
	@$(BIN)/ruff check && $(BIN)/mypy

install: system $(VENV)/installed
install-dev: system-dev $(VENV)/installed-dev

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed; name it: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(BIN)/python pyproject.toml
	@echo "Installing into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements-dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

# What pip cannot bring. As root it is installed; otherwise the command is named.
system:
	@command -v bwrap >/dev/null || ./demo/system.sh bubblewrap
system-dev: system
	@command -v chromium >/dev/null || ./demo/system.sh chromium
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || ./demo/system.sh postgresql
	@command -v prometheus >/dev/null || ./demo/system.sh prometheus
	@command -v redis-server >/dev/null || ./demo/system.sh redis-server
	@command -v prometheus-alertmanager >/dev/null || ./demo/system.sh prometheus-alertmanager

clean:
	rm -rf $(VENV) .demo build dist src/*.egg-info

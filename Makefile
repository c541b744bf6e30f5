# The two commands of the README, each from a bare checkout on a fresh machine, and what CI adds.
VENV ?= .venv
BIN := $(VENV)/bin
GPU ?= auto
ARGS ?=
# tests run side by side by file: most of them wait for a container or a child process
WORKERS ?= 2

# a container engine for what runs generated programs: the one that is there, else a private one for the run
ENGINE := PYTHON=$(BIN)/python .ci/engine

.PHONY: suites test lint types wheel clean

suites: $(VENV)/.ready
	$(ENGINE) run $(BIN)/python -m pytest suites/ --gpu=$(GPU) $(ARGS)

test: $(VENV)/.ready
	$(ENGINE) run $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.ready
	$(BIN)/mypy

# the built wheel, alone in a clean environment: what an installed user gets
wheel: $(VENV)/.ready
	PYTHON=$(BIN)/python sh .ci/try_wheel

$(VENV)/.ready: pyproject.toml constraints-dev.txt .ci/setup
	sh .ci/setup $(VENV)
	touch $@

clean:
	$(ENGINE) stop
	rm -rf .engine $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache

# The two commands of the README, each from a bare checkout on a fresh machine, and what CI adds.
VENV ?= .venv
BIN := $(VENV)/bin
GPU ?= auto
ARGS ?=

.PHONY: suites test lint types wheel clean

suites: $(VENV)/.ready
	$(BIN)/python -m pytest suites/ --gpu=$(GPU) $(ARGS)

test: $(VENV)/.ready
	$(BIN)/python -m pytest $(ARGS)

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
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache

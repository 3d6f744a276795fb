# Two commands set everything up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
DEMO_MODEL ?= demo-model
BIN := $(VENV)/bin
SOURCES := multilabel tests examples

.PHONY: demo test test-slow test-all lint bench clean

# The main job on the sample data, offline, then three pictures.
demo: $(VENV)/.installed
	$(BIN)/multilabel fit --labels data/labels.txt --backbone cnn \
		--names long_sleeves,stripes,buttons,heart --out $(DEMO_MODEL)
	$(BIN)/multilabel infer --model $(DEMO_MODEL) $(addprefix data/images/garment_,000.jpg 001.jpg 002.jpg)

# Lint, types and the quick tests; under 10 minutes on 2 cores.
test: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow

test-all: test test-slow

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

# Speed, as ratios within one run; printed, never asserted.
bench: $(VENV)/.installed-dev
	for script in tests/benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done

clean:
	rm -rf $(VENV) $(DEMO_MODEL) build *.egg-info

$(VENV)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

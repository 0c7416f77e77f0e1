# make setup   a virtual environment in .venv with everything
# make demo    fabricate slides, fine-tune, label, and compare with the truth
# make test    all tests that need no GPU
# make check   what CI runs: format, lint, types, import rule, tests
# make bench   what labelling a slide costs, in parts and as a whole, beside a plain script; 20 minutes
# make bench-peers  the same of WSInfer and TIAToolbox, in environments of their own
# make bench-train  training beside a plain torchrun script
# make bench-volumes  what both networks for volumes reach on fabricated studies; an hour
# make chaos   label runs whose workers, node and driver are killed, on twelve schedules
# make bench-cpu  what runs a network fastest on a CPU
# make check-gpu  train and label on a GPU, compare with the CPU, and print tiles per second

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: setup demo test check lint bench bench-cpu bench-peers bench-train bench-volumes chaos check-gpu

setup: $(VENV)/installed

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

demo: setup
	rm -rf demo-output
	$(BIN)/python -m histo.demo --out demo-output

test: setup
	$(BIN)/python -m pytest -q

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test

bench: setup
	$(BIN)/python benchmarks/speed.py

bench-peers: setup
	$(BIN)/python benchmarks/peers/run.py

bench-volumes: setup
	$(BIN)/python benchmarks/volumes.py

bench-train: setup
	$(BIN)/python benchmarks/train.py

bench-cpu: setup
	$(BIN)/python benchmarks/runtimes.py

chaos: setup
	$(BIN)/python -m pytest -q -s -m 'chaos or not chaos' tests/chaos

check-gpu: setup
	$(BIN)/python -m pytest -q -m gpu
	$(BIN)/python benchmarks/gpu.py

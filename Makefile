# make setup   a virtual environment in .venv with everything, in the versions of constraints.txt
# make demo    fabricate slides, fine-tune, label, and compare with the truth
# make picture  docs/demo.png anew, from the pictures of `make demo`
# make reference  docs/reference/*.md and the map of docs/architecture.md anew, from the code
# make notebook  run docs/python.ipynb, and keep what it shows
# make quick   the tests that start no Ray and are not slow; three minutes on 2 cores
# make test    all tests that need no GPU
# make test-together, test-alone  its two parts: tests that run beside others, and those that do not
# make lint    format, lint, types, import rule
# make check   what CI runs: all of these checks
# make check-lowest  the tests in an environment with the lowest versions that pyproject.toml admits
# make constraints  write constraints.txt anew from the newest versions
# make bench   what labelling a slide costs, in parts and as a whole, beside a plain script; 20 minutes on 2 cores
# make bench-peers  the same of WSInfer and TIAToolbox, which it downloads, in environments of their own
# make bench-train  training beside a plain torchrun script
# make bench-volumes  what both networks for volumes reach on fabricated studies; an hour on 2 cores
# make chaos   label runs whose workers, node and driver are killed, on twelve schedules, and others too long for every day
# make bench-cpu  what runs a network fastest on a CPU
# make check-gpu  train and label on a GPU, compare with the CPU, and print tiles per second

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SIDE_BY_SIDE ?= 3
export PYTHONDONTWRITEBYTECODE :=
PYTEST := $(BIN)/python -m pytest -q

.PHONY: setup demo quick test test-together test-alone check check-lowest constraints lint bench bench-cpu bench-peers \
	bench-train bench-volumes chaos check-gpu picture reference notebook

setup: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup
	rm -rf demo-output
	$(BIN)/histo demo --out demo-output

picture: demo
	$(BIN)/python -c "from PIL import Image; \
	picture = Image.open('demo-output/labels/pictures/demo_2.tif.png').convert('RGB'); \
	picture.thumbnail((1000, 1000), Image.Resampling.LANCZOS); \
	picture.quantize(128, dither=Image.Dither.NONE).save('docs/demo.png', optimize=True)"

reference: setup
	$(BIN)/python docs/reference/generate.py

notebook: setup
	$(BIN)/python docs/reference/notebook.py

quick: setup
	$(PYTEST) -n logical -m 'not ray and not slow and not alone and not gpu and not chaos'

test: test-together test-alone

test-together: setup
	$(PYTEST) -n $(SIDE_BY_SIDE) --durations=25 -m 'not alone and not gpu and not chaos'

test-alone: setup
	$(PYTEST) --durations=25 -m 'alone and not gpu and not chaos'

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test

check-lowest:
	$(PYTHON) -m venv $(VENV)-lowest
	$(PYTHON) .ci/lowest.py > $(VENV)-lowest/constraints.txt
	$(VENV)-lowest/bin/pip install --quiet --constraint $(VENV)-lowest/constraints.txt --editable '.[dev]'
	$(VENV)-lowest/bin/python -m pytest -q -n $(SIDE_BY_SIDE) -W default -m 'not alone and not gpu and not chaos'

constraints:
	$(PYTHON) -m venv --upgrade-deps $(VENV)-newest
	$(VENV)-newest/bin/pip install --quiet --upgrade setuptools --editable '.[dev]'
	(head -n 1 constraints.txt; $(VENV)-newest/bin/pip freeze --all --exclude-editable | sort --ignore-case) > $(VENV)-newest/constraints.txt
	mv $(VENV)-newest/constraints.txt constraints.txt

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
	$(BIN)/python -m pytest -q -s -m 'chaos or not chaos' tests/chaos tests/pipelines/test_label_faults.py tests/pipelines/test_graph.py

check-gpu: setup
	$(BIN)/python -m pytest -q -m gpu
	$(BIN)/python benchmarks/gpu.py

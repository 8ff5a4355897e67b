# Two commands on a fresh machine: `make report` and `make test`. Each sets up .venv first; a second call sets up nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: report test test-fast wheel-test lab mini mini-dit controls mini-weak mini-circular detector mini-clip calibrations bench lint setup

report: setup ## run the notebooks on the embedded model into build/report/index.html
	$(BIN)/python -m entropy_lib run --profile mini

test: setup ## all tests, in two processes; the longest files begin first
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

test-fast: setup ## the tests that take no more than a second or two each
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow and not gpu"

wheel-test: setup ## build the wheel and use it in a fresh environment, outside the checkout
	.ci/wheel

lab: setup ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks

mini: setup ## train the embedded model again (two and a half hours on two cores, 2 GB of memory); resumes where it stopped
	$(BIN)/python -m training.mini --parts
	$(BIN)/python -m training.mini
	$(BIN)/python -m training.quality

mini-dit: setup ## train the embedded transformer and its twin (two and a half hours each on one core); resumes where it stopped
	OMP_NUM_THREADS=1 $(BIN)/python -m training.mini_dit
	OMP_NUM_THREADS=1 $(BIN)/python -m training.mini_dit --recipe mini-dit-uniform
	$(BIN)/python -m training.gate

controls: mini-weak mini-circular ## train the two controls of mini again (eighty minutes each on one core); `make -j2 controls` does both at once

mini-weak mini-circular: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m training.mini --recipe $@
	$(BIN)/python -m training.quality --model $@

detector: setup ## train the detector again (three quarters of an hour); resumes where it stopped
	$(BIN)/python -m training.detection
	$(BIN)/python -m training.acceptance

mini-clip: setup ## train the CLIP of the metric tables again (a quarter of an hour); resumes where it stopped
	$(BIN)/python -m training.clip
	$(BIN)/python -m training.retrieval

calibrations: setup ## measure what rules and interventions need to know of the embedded models (forty minutes)
	$(BIN)/python -m training.calibrations

bench: setup ## measure time and memory as ratios, and write benchmarks/RESULTS.md (an hour)
	$(BIN)/python -m benchmarks.run

lint: setup ## style of code and notebooks, and types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/nbstripout --verify notebooks/*.ipynb notebooks/solutions/*.ipynb
	$(BIN)/basedpyright --threads 2

setup: $(READY)

$(READY): pyproject.toml constraints.txt setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(READY)

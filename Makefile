# `make demo` runs the main job, `make sweep-demo` a sweep, `make test` the tests, `make docs` builds the site. All make the environment first.
PYTHON ?= python3.11
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: env demo sweep-demo test fast test-cluster chaos docs triton lint

env: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip -c constraints.txt
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

demo: env
	$(BIN)/python jobs/full_pipeline.py --config configs/demo.yaml

sweep-demo: env
	$(BIN)/python jobs/sweep.py --config configs/sweep_demo.yaml

test: env
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

fast: env  # the tests that need no Ray
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not slow" --numprocesses 2

test-cluster: env  # several hosts on this machine, and two of them cut off: needs root and iproute2, else it skips and says why
	OMP_NUM_THREADS=1 $(BIN)/pytest --confcutdir tests/cluster tests/cluster

chaos: env  # kills at random in every kind of stage
	$(BIN)/python benchmarks/chaos.py

docs: env  # into build/site; `mkdocs serve` shows it
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The GPU kernels on a CPU, by Triton's interpreter: in an environment of its own, for it fails with NumPy 2.4, and demo and test need no Triton.
triton: .venv-triton/.installed
	PYTHONPATH=. .venv-triton/bin/python tests/losses/compile_kernels.py
	TRITON_INTERPRET=1 OMP_NUM_THREADS=1 .venv-triton/bin/python -m pytest --confcutdir tests/losses tests/losses/test_triton_rows.py
	TRITON_INTERPRET=1 OMP_NUM_THREADS=1 .venv-triton/bin/python -m pytest --noconftest tests/decoding/test_step_kernels.py

.venv-triton/.installed: requirements-triton.txt
	$(PYTHON) -m venv .venv-triton
	.venv-triton/bin/pip install --quiet --upgrade pip
	.venv-triton/bin/pip install --quiet -r requirements-triton.txt
	touch $@

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# One command locally is the same command in CI. `make env` runs by itself when pyproject.toml or constraints.txt change.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp-env

.PHONY: env demo test test-fast lint format bench clean

# Bytecode, as an installed wheel has it: reading sources doubles the time of `implicitdsl check`.
env: $(STAMP)
	@$(BIN)/python -m compileall -q implicitdsl

# torch comes first and alone, so that pip takes the build that suits the machine (CPU or CUDA) before anything asks for it.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet -c constraints.txt hatchling editables
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-build-isolation -e '.[test,lint,examples]'
	touch $@

demo: env
	$(BIN)/implicitdsl check examples
	$(BIN)/implicitdsl explain examples/digits/deq.imp
	$(BIN)/python examples/digits/train.py

test: env
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

# Without the slow ones: compilation by inductor, several processes, training over three seeds, building a wheel.
test-fast: env
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow"

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: env
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Peers have an environment of their own; the package is used from the working tree.
BENCH := .venv-bench
bench:
	test -x $(BENCH)/bin/python || $(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet -c constraints.txt torch==2.13.0 hatchling editables
	$(BENCH)/bin/python -m pip install --quiet -c constraints.txt --no-build-isolation -e . -r benchmarks/requirements.txt
	$(BENCH)/bin/python -m pip install --quiet --no-deps --no-build-isolation qpth==0.0.18
	OMP_NUM_THREADS=1 $(BENCH)/bin/python -m benchmarks.compiler
	OMP_NUM_THREADS=1 $(BENCH)/bin/python -m benchmarks.equilibrium --save out/bench.md
	OMP_NUM_THREADS=1 $(BENCH)/bin/python -m benchmarks.ode --save out/bench_ode.md
	OMP_NUM_THREADS=1 $(BENCH)/bin/python -m benchmarks.argmin --save out/bench_argmin.md

clean:
	rm -rf build dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find implicitdsl tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# Two commands: `make run` executes the course, `make test` checks everything. `make help` lists the rest.
# Paths are relative and tools are called as `python -m ...`, so a space in the folder's name does no harm.

PYTHON ?= python3
PY := .venv/bin/python
# Every cell must run; cells that begin with "# NBVAL_CHECK_OUTPUT" must print what the committed notebook shows.
NBVAL := --nbval-lax --nbval-current-env --nbval-cell-timeout=300 --nbval-kernel-startup-timeout=120

.PHONY: help setup run lab test bench format lock clean

help:            ## list the targets
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*##/\t/'

setup:           ## make .venv from requirements.lock (does nothing when it is there)
	@command -v "$(PYTHON)" > /dev/null || { echo "elf needs Python 3.11 or newer; no $(PYTHON) was found" >&2; exit 2; }
	@"$(PYTHON)" tools/bootstrap.py

run: setup       ## execute every notebook in order; copies and HTML go to build/
	@$(PY) -m elf run

lab: setup       ## open the course in JupyterLab
	@$(PY) -m elf lab

test: export OMP_NUM_THREADS := 1
test: setup      ## lint, types, unit tests, and every notebook at smoke scale
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m pytest -q -n 2 tests
	ELF_SCALE=smoke $(PY) -m pytest -q -n 2 --dist loadfile $(NBVAL) notebooks

bench: setup     ## measure speed and memory: benchmarks/bench.json and bench.png
	$(PY) -m benchmarks

format: setup    ## rewrite the code as the linter wants it
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

lock: setup      ## write requirements.lock anew (needs uv)
	$(PY) tools/lock.py

clean:           ## remove everything that make made
	rm -rf .venv build

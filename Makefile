# Two commands: `make run` executes the course, `make test` checks everything. `make help` lists the rest.
# Paths are relative and tools are called as `python -m ...`, so a space in the folder's name does no harm.

PYTHON ?= python3
PY := .venv/bin/python
RUNS ?= 20
SLOWED ?= 4
# Every cell must run; cells tagged nbval-check-output must print what the committed notebook shows.
NBVAL := --nbval-lax --nbval-current-env --nbval-cell-timeout=300 --nbval-kernel-startup-timeout=120

.PHONY: help setup run lab book pdf test bench fuzz e2e format lock clean

help:            ## list the targets
	@grep -E '^[a-z0-9]+:.*##' Makefile | sed 's/:.*##/\t/'

setup:           ## make .venv from requirements.lock (does nothing when it is there)
	@command -v "$(PYTHON)" > /dev/null || { echo "elf needs Python 3.11 or newer; no $(PYTHON) was found" >&2; exit 2; }
	@exec "$(PYTHON)" tools/bootstrap.py

run: setup       ## execute every notebook; copies and HTML go to build/
	@$(PY) -m elf run

lab: setup       ## open the course in JupyterLab
	@$(PY) -m elf lab

book: setup      ## build the course as a web site in build/book; works offline once npm has fetched three libraries
	@$(PY) -m tools.book

pdf: book        ## print every notebook of the site to build/pdf (needs Chromium)
	@$(PY) -m tools.book.pdf

test: export OMP_NUM_THREADS := 1
test: setup      ## lint, types, unit tests, the site in a real browser, and every notebook at smoke scale
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m pytest -q -n 2 tests --ignore=tests/book --ignore=tests/lab
	$(PY) -m pytest -q tests/book tests/lab
	ELF_SCALE=smoke $(PY) -m pytest -q -n 2 --dist loadfile $(NBVAL) notebooks

fuzz: export ELF_FUZZ := 1
fuzz: export OMP_NUM_THREADS := 1
fuzz: setup      ## throw hundreds of thousands of odd inputs at everything that takes any (minutes; not part of make test)
	$(PY) -m pytest -q -n 2 -m fuzz tests

bench: setup     ## measure speed and memory: benchmarks/bench.json and bench.png
	$(PY) -m benchmarks

e2e: setup       ## the site and JupyterLab in a real browser SLOWED times slower (4), RUNS times over (20)
	$(PY) tools/repeat.py $(RUNS) $(SLOWED)

format: setup    ## rewrite the code as the linter wants it
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

lock: setup      ## write requirements.lock anew (needs uv)
	$(PY) tools/lock.py

clean:           ## remove everything that make made
	rm -rf .venv build

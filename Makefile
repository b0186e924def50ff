PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

JUDGES := $(patsubst tests/judges/requirements/%.txt,.judges/%/.installed,$(wildcard tests/judges/requirements/*.txt))

.PHONY: help install demo test judges lint docs bench figures models claims controls chaos fuzz clean

help:
	@echo "make install   a virtual environment in $(VENV) with this project and all it needs"
	@echo "make demo      from recording to a fine-tuned agent on 320 episodes: demo/report/report.html, demo/rollout/index.html"
	@echo "make test      lint, type checks and all tests"
	@echo "make judges    LeRobot's and other formats' own libraries read what we write, in environments of their own (about 1 GB)"
	@echo "make lint      ruff and mypy alone"
	@echo "make docs      the documentation as a static site: build/docs/index.html"
	@echo "make bench     labelling beside its limit and beside what a user would write instead: one table (about 30 minutes)"
	@echo "make measurements   all other measurements behind the README's figures (long)"
	@echo "make chaos     every command killed at 240 random moments and resumed, compared byte by byte (about 20 minutes)"
	@echo "make fuzz      every reader fed by a coverage-guided fuzzer for an hour (Linux); what it finds stays in tests/fuzz/findings"
	@echo "make claims    the paper's claims about agents, measured over 5 seeds (5 to 7 hours on 2 cores)"
	@echo "make controls  what live rewards are worth beside their controls, 10 seeds (some 65 hours of one core; resumes)"
	@echo "make models    the reference models of the phone and the playroom, trained anew in build/models (6 minutes on a GPU; long without one)"
	@echo "make figures   the size ladder, wordings, formulas and negatives, measured and drawn (about 15 minutes)"

# Made anew when the project's requirements change.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and f'Python must be >= 3.11, got {sys.version.split()[0]}; call make PYTHON=python3.11')"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

install: $(VENV)/.installed

demo: install
	$(BIN)/vlm-rewards demo --output demo

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal

# Each judge is one file of exact versions; what a judge's packages ask for beside them is not installed.
.judges/%/.installed: tests/judges/requirements/%.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --upgrade "pip>=25"
	$(@D)/bin/python -m pip install --quiet --no-deps --requirement $<
	touch $@

judges: install $(JUDGES)
	$(BIN)/python -m pytest tests/judges

# Warnings are errors; nothing is downloaded, and the pages load nothing from elsewhere.
docs: install
	$(BIN)/sphinx-build --builder html --fail-on-warning --keep-going --quiet docs build/docs

bench: install
	$(BIN)/python benchmarks/bench.py $(BENCH)

measurements: install
	$(BIN)/python benchmarks/run_all.py

figures: install
	$(BIN)/python benchmarks/figures.py

# On a GPU: make models MODELS="--device cuda --minutes 6".
models: install
	$(BIN)/python benchmarks/train_ladders.py --output build/models $(MODELS)

claims: install
	$(BIN)/python benchmarks/claims.py --budget full --output build/claims

controls: install
	$(BIN)/python benchmarks/controls.py --output build/controls

chaos: install
	$(BIN)/python benchmarks/chaos.py

fuzz: install
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[fuzz]"
	$(BIN)/python benchmarks/fuzz.py

clean:
	rm -rf $(VENV) .judges demo build dist *.egg-info

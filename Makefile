# Two commands on a fresh machine with Python >= 3.11, git and make:
#   make train   installs, then trains the cbam network on generated images
#   make test    installs, then runs everything that CI runs
# Both make .venv; a second call installs nothing again.

PYTHON ?= python3
JOBS ?= 2  # processes that test
PIP = .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PYTEST = .venv/bin/python -m pytest -n $(JOBS) --dist worksteal --durations 15

.PHONY: train check test nightly lint types tests nightly-tests kills format docs parity mutants clean

train: .venv/.train
	.venv/bin/python -m train --preset quick --network cbam

# After every change: minutes. Each block's and layer's own tests, with parity in float64.
check: lint types
	$(PYTEST) tests/blocks tests/layers tests/test_mirror.py tests/test_import_graph.py tests/test_parity.py::test_block_in_float64

# Before every merge: what CI runs.
test: lint types tests

# Before an issue is closed: at most two hours. `make -k nightly` goes on after a failure.
nightly: parity nightly-tests docs kills mutants

lint: .venv/.test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

types: .venv/.test
	.venv/bin/mypy

tests: .venv/.test
	$(PYTEST)

nightly-tests: .venv/.test
	$(PYTEST) -m nightly

kills: .venv/.test
	.venv/bin/python -m tests.train.kills --kills 30

format: .venv/.test
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

# The site, in docs/_build: the pages of docs/ and the API reference.
docs: .venv/.docs
	rm -rf docs/api docs/_build
	.venv/bin/python -m sphinx -q -W --keep-going -b html docs docs/_build

parity: .venv/.test
	.venv/bin/python -m torch_ref parity

# Twenty of each file; all of one file: make mutants FILES="--count 1000 flax_attn/ops/pooling.py"
mutants: .venv/.test
	.venv/bin/python -m tests.mutants --jobs $(JOBS) $(FILES)

clean:
	rm -rf .venv .cache build dist docs/_build docs/api

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "flax_attn needs Python >= 3.11; name one with: make PYTHON=/path/to/python ..." >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.train: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) -e '.[train]'
	touch $@

.venv/.test: .venv/bin/python pyproject.toml constraints.txt tests/originals.txt
	$(PIP) -e '.[test]'
	$(PIP) --no-deps -r tests/originals.txt
	touch $@ .venv/.train

.venv/.docs: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) -e '.[docs]'
	touch $@

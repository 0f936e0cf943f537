# Two commands on a fresh machine with Python >= 3.11, git and make:
#   make train   installs, then trains the cbam network on generated images
#   make test    installs, then runs everything that CI runs
# Both make .venv; a second call installs nothing again.

PYTHON ?= python3
JOBS ?= 2  # processes that test
PIP = .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: train test lint types tests wheel format docs parity mutants clean

train: .venv/.train
	.venv/bin/python -m train --preset quick --network cbam

test: lint types tests wheel

lint: .venv/.test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

types: .venv/.test
	.venv/bin/mypy

tests: .venv/.test
	.venv/bin/python -m pytest -n $(JOBS) --dist worksteal --durations 15

wheel: .venv/.test
	.venv/bin/python tests/check_wheel.py

format: .venv/.test
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

# The site, in docs/_build: the pages of docs/ and the API reference.
docs: .venv/.docs
	rm -rf docs/api docs/_build
	.venv/bin/python -m sphinx -q -W --keep-going -b html docs docs/_build

parity: .venv/.test
	.venv/bin/python -m torch_ref parity

# Hours; goes on where it was stopped. One file: make mutants FILES=flax_attn/ops/pooling.py
mutants: .venv/.mutants
	.venv/bin/python tests/mutation/run.py --jobs $(JOBS) $(FILES)

clean:
	rm -rf .venv build dist docs/_build docs/api

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "flax_attn needs Python >= 3.11; name one with: make PYTHON=/path/to/python ..." >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.train: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) -e '.[train]'
	touch $@

.venv/.test: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) -e '.[test]'
	touch $@ .venv/.train

.venv/.docs: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) -e '.[docs]'
	touch $@

.venv/.mutants: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) -e '.[mutants]'
	touch $@ .venv/.test .venv/.train

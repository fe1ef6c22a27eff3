# Two commands for newcomers: `make demo` and `make test`. Each makes its own environment in .venv first.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: help install demo test test-all check bench clean
help:
	@echo "make install   the environment in .venv, which every other target makes first, too"
	@echo "make demo      the three jobs on embedded data, then the path of a page of pictures (after installing: about ten minutes on two idle cores)"
	@echo "make test      the test suite (ten minutes)"
	@echo "make test-all  the same with the slow and peer-bound tests"
	@echo "make check     ruff, mypy, import-linter"
	@echo "make bench     ours beside the peers, in one run"

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing quincunx and what it needs into .venv (once; about two minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	@touch $(STAMP)

install: $(STAMP)

demo: $(STAMP)
	@$(BIN)/qx demo

test: $(STAMP)
	@$(BIN)/python -m pytest -n 2

test-all: $(STAMP)
	@$(BIN)/python -m pytest -n 2 -m "slow or not slow"

check: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

PEERS := .venv-peers/.installed
$(PEERS): benchmarks/peers.txt
	@test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	@echo "installing the peers into .venv-peers (once; about a minute)"
	@.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/peers.txt
	@touch $(PEERS)

bench: $(STAMP) $(PEERS)
	@$(BIN)/qx bench worlds

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache

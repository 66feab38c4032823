# Everything runs in .venv, made from setup.cfg. The two that matter: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint bench format clean

demo: $(VENV)/demo.stamp ## Export the shipped weights, upscale a real photo, print PSNR and where the picture is
	$(BIN)/ikc-export --fp32 --out demo/bundle
	$(BIN)/python examples/demo.py --bundle demo/bundle --out demo

test: $(VENV)/dev.stamp ## The whole test suite
	$(BIN)/python -m pytest

lint: $(VENV)/dev.stamp ## Formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/demo.stamp ## Measure benchmarks/suite.toml, fill in the tables of docs/performance.md
	$(BIN)/ikc-bench --suite benchmarks/suite.toml --out benchmarks/results
	$(BIN)/python -m ikc_deploy.benchmarks.render.document docs/performance.md benchmarks

format: $(VENV)/dev.stamp ## Mend formatting and what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: $(VENV)/bin/python setup.cfg constraints.txt
	$(PIP) -e '.[export,evaluation]'
	touch $@

$(VENV)/dev.stamp: $(VENV)/bin/python setup.cfg constraints.txt
	$(PIP) -e '.[dev]'
	touch $@

clean: ## Remove what the targets made, the environment included
	rm -rf $(VENV) demo build *.egg-info

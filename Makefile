# Everything runs in .venv, made from setup.cfg. The two that matter: `make demo` and `make test`.
# Ray and Triton have environments of their own, below .scale.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# Wheels for a machine without a network: `make gpu-check` uses them for its run.
WHEELS ?= $(wildcard ../shared/gpu_wheels shared/gpu_wheels)

.PHONY: demo test test-scale lint bench format gpu-check clean

demo: $(VENV)/demo.stamp ## Export the shipped weights, upscale a real photo, print PSNR and where the picture is
	$(BIN)/ikc-export --fp32 --out demo/bundle
	$(BIN)/python examples/demo.py --bundle demo/bundle --out demo

test: $(VENV)/dev.stamp ## The whole test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

test-scale: .scale/bundle/manifest.json ## Real Ray and a real Triton server, started and stopped on the loopback
	bash tests/scale/run.sh ray $(PYTHON)
	bash tests/scale/run.sh triton $(PYTHON)

.scale/bundle/manifest.json: $(VENV)/demo.stamp
	$(BIN)/ikc-export --fp32 --out .scale/bundle

lint: $(VENV)/dev.stamp ## Formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/demo.stamp ## Measure benchmarks/suite.toml, fill in the tables of docs/performance.md
	$(BIN)/ikc-bench --suite benchmarks/suite.toml --out benchmarks/results
	$(BIN)/python -m ikc_deploy.benchmarks.render.document docs/performance.md benchmarks

format: $(VENV)/dev.stamp ## Fix formatting and what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

gpu-check: ## Everything that a machine with an NVIDIA GPU can check; offline, with the Python that is there
	$(PYTHON) -m ikc_deploy.benchmarks.gpu_check $(if $(WHEELS),--wheels $(firstword $(WHEELS)))

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: $(VENV)/bin/python setup.cfg constraints.txt
	$(PIP) -e '.[export,evaluation]'
	touch $@

$(VENV)/dev.stamp: $(VENV)/bin/python setup.cfg constraints.txt
	$(PIP) -e '.[dev]'
	touch $@

clean: ## Remove what the targets made, the environment included
	rm -rf $(VENV) .scale demo build *.egg-info

# Everything runs in .venv, created from setup.cfg. Start with `make demo` and `make test`.
# Ray and Triton have their own environments below .scale.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# Wheels for a machine without a network: `make gpu-check` uses them for its run.
WHEELS ?= $(wildcard ../shared/gpu_wheels shared/gpu_wheels)

.PHONY: demo test test-wheel test-minimum test-scale docs lint bench torture format gpu-check gpu-visit clean

demo: $(VENV)/demo.stamp ## Export the shipped weights, upscale a real photo, print PSNR and the image's path
	$(BIN)/ikc-export --fp32 --out demo/bundle
	$(BIN)/python examples/demo.py --bundle demo/bundle --out demo

test: $(VENV)/dev.stamp ## Run the whole test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test-wheel: $(VENV)/dev.stamp ## Build the wheel, install it in empty environments, run the README's commands there
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/wheel -m wheel

test-minimum: $(VENV)/dev.stamp ## The wheel in an empty environment with the oldest versions that setup.cfg allows
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/wheel/test_minimum.py -m wheel

docs: $(VENV)/docs.stamp ## Build the documentation as a site, in site/
	$(BIN)/mkdocs build --quiet --strict

test-scale: .scale/bundle/manifest.json ## Test with real Ray and a real Triton server, started and stopped on the loopback
	bash tests/scale/run.sh ray $(PYTHON)
	bash tests/scale/run.sh triton $(PYTHON)

.scale/bundle/manifest.json: $(VENV)/demo.stamp
	$(BIN)/ikc-export --fp32 --out .scale/bundle

lint: $(VENV)/dev.stamp ## Check formatting, lint, types and words
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m tools.check_words

bench: $(VENV)/demo.stamp ## Measure benchmarks/suite.toml, fill in the tables of docs/performance.md
	$(BIN)/ikc-bench --suite benchmarks/suite.toml --out benchmarks/results
	$(BIN)/python -m tools.measuring.document docs/performance.md benchmarks

torture: $(VENV)/dev.stamp ## Damage inputs and disturb the commands for ten minutes, fill in docs/reliability.md
	OMP_NUM_THREADS=1 $(BIN)/python -m tools.torture --seconds 600 --json benchmarks/results/torture.json --document docs/reliability.md

format: $(VENV)/dev.stamp ## Fix formatting and what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

gpu-visit: $(VENV)/demo.stamp ## Pack for a visit to a borrowed GPU machine, and print its calls
	$(BIN)/python -m tools.gpu_visit pack

gpu-check: ## Run all checks that need an NVIDIA GPU; offline, with the installed Python
	$(PYTHON) -m tools.gpu_check $(if $(WHEELS),--wheels $(firstword $(WHEELS)))

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: $(VENV)/bin/python setup.cfg constraints.txt
	$(PIP) -e '.[export,evaluation]'
	touch $@

$(VENV)/dev.stamp: $(VENV)/bin/python setup.cfg constraints.txt
	$(PIP) -e '.[dev]'
	touch $@

$(VENV)/docs.stamp: $(VENV)/bin/python setup.cfg constraints.txt
	$(PIP) -e '.[docs]'
	touch $@

clean: ## Remove everything that the targets created, including the environment
	rm -rf $(VENV) .minimum .scale demo site build *.egg-info

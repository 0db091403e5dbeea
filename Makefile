# `make bench` and `make test` do everything on a fresh machine: environment, pinned dependencies, then the work.
PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=

BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help environment bench test lint overhead kills clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

environment: $(STAMP)  ## install everything into .venv; the others do this first

# It measures and reports; `pytest bench` gates. Of two options the last wins: ARGS="--vq-gate=fail" gates here too.
bench: $(STAMP)  ## measure the suite on the GPU if there is one, else on the CPU; ARGS="--vq-models all --vq-save"
	@set -e; gpu=$$($(BIN)/python -c 'import torch; print("--gpu" if torch.cuda.is_available() else "")'); \
	echo "$(BIN)/pytest bench --vq-gate=report --vq-report $$gpu $(ARGS)"; \
	$(BIN)/pytest bench --vq-gate=report --vq-report $$gpu $(ARGS)

# A GPU is for one test at a time; the others share two cores. Whoever has run out of tests takes some of the other's:
# what is slow comes first.
test: lint  ## lint, types and every test this machine can run; ARGS="-k store"
	$(BIN)/pytest tests -m "not gpu" -n 2 --dist worksteal $(ARGS)
	$(BIN)/pytest tests/gpu -m gpu -rs $(ARGS) || [ $$? -eq 5 ]  # 5: ARGS left none of them

lint: $(STAMP)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

overhead: $(STAMP)  ## what the plugin adds to a pytest run and to collecting, and the sampler to a bare loop
	$(BIN)/python tools/overhead.py
	$(BIN)/python tools/sampler_overhead.py

kills: $(STAMP)  ## end 100 runs at random moments with SIGKILL, and take each up; ARGS="--kills 10"
	$(BIN)/python tools/kills.py $(ARGS)

clean:  ## remove the environment, results and caches; baselines stay
	rm -rf $(VENV) vq-results gpu-results build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .benchmarks .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Python 3.11 or newer; anything older is refused here, by name, instead of by pip's search for a version that fits.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("Python %d.%d is too old: 3.11 or newer is needed; name one with PYTHON=" % v[:2])'
	$(PYTHON) -m venv $(VENV)
	@rm -rf *.egg-info  # an earlier installation's: Python would read its entry points from here first
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# Needs python3 (3.11 or newer), python3-venv and make; everything else goes into .venv.
# Stamps in .venv tell what is installed, so that nothing is installed twice until pyproject.toml changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.DEFAULT_GOAL := help
.PHONY: help demo test test-long lint bench bench-gpu env-test clean
.DELETE_ON_ERROR:

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile

demo: $(VENV)/.demo  ## train the four networks of examples/mnist_classify.py on data that needs no download
	CUTNN_DEVICE=$${CUTNN_DEVICE:-auto} $(BIN)/python examples/mnist_classify.py

# The matrices of the tests are small: one thread is as fast, and beside other programs much faster, since threads of
# OpenBLAS wait for one another.
test test-long: export OPENBLAS_NUM_THREADS ?= 1

test: lint  ## lint, types, the contract of the rooms, then the tests under a fixed seed
	@echo '== tests'
	$(BIN)/python -m pytest

test-long: $(VENV)/.test  ## the tests under random seeds, many more examples each
	HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest

lint: $(VENV)/.test  ## ruff, mypy and import-linter
	@echo '== ruff'
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	@echo '== mypy'
	$(BIN)/python -m mypy
	@echo '== import-linter'
	$(BIN)/lint-imports

bench: $(VENV)/.bench  ## measure against peers on the CPU (with PyTorch too, where it is in .venv)
	$(BIN)/python -m bench

bench-gpu: $(VENV)/.bench  ## the same on a GPU (PyTorch and JAX for CUDA compete where they are in .venv)
	$(BIN)/python -m bench --device cuda

env-test: $(VENV)/.test  ## only install what the tests need

clean:  ## remove .venv and every cache
	rm -rf $(VENV) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.demo: $(VENV)/.gpu pyproject.toml
	$(PIP) --editable '.[examples]'
	@touch $@

$(VENV)/.test: $(VENV)/.gpu pyproject.toml
	$(PIP) --editable '.[test]'
	@touch $@

$(VENV)/.bench: $(VENV)/.gpu pyproject.toml
	$(PIP) --editable '.[examples,bench,cpu]'
	@touch $@

# The CUDA version that the NVIDIA driver is for decides which CuPy fits; nothing is printed without a driver.
define FIND_CUDA
import ctypes
try:
    version = ctypes.c_int(0)
    ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    if version.value >= 12000:
        print(f"cuda{min(version.value // 1000, 13)}")
except (OSError, AttributeError):
    pass
endef
export FIND_CUDA

$(VENV)/.gpu: $(VENV)/.made pyproject.toml
	@extra=$$($(BIN)/python -c "$$FIND_CUDA"); \
	if [ -z "$$extra" ]; then echo 'No NVIDIA driver for CUDA 12 or newer: going without CuPy.'; \
	else echo "NVIDIA driver found: adding the extra $$extra."; \
	    $(PIP) --editable ".[$$extra]" || echo "CuPy could not be installed (above): going without it."; fi
	@touch $@

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "cutnn needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1)."; \
	    echo 'Name a newer one: make PYTHON=python3.12 ...'; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo 'Is python3-venv installed?'; exit 1; }
	@touch $@

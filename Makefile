# Each target sets up .venv by itself; the second time that is a check of one file's date.
PYTHON ?= python3
PY := .venv/bin/python
STAMP := .venv/.installed
STUBS := -Iworker/wire=proto --python_out=. --pyi_out=. --grpc_python_out=. proto/open_inference.proto proto/accelerator.proto

.PHONY: setup demo test check bench stubs clean
.DEFAULT_GOAL := test

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -x $(PY) || $(PYTHON) -m venv .venv
	@echo "setup: installing pinned packages into .venv (a few minutes the first time)"
	@$(PY) -m pip install --disable-pip-version-check --quiet --progress-bar on -c constraints.txt -e '.[worker,models,dev]'
	@touch $@

test: setup
	$(PY) -m pytest

check: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	.venv/bin/lint-imports
	@rm -rf build/stubs && mkdir -p build/stubs
	@$(PY) -m grpc_tools.protoc $(subst _out=.,_out=build/stubs,$(STUBS))
	diff -r -x __init__.py -x __pycache__ worker/wire build/stubs/worker/wire

stubs: setup
	$(PY) -m grpc_tools.protoc $(STUBS)

clean:
	rm -rf .venv .models runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

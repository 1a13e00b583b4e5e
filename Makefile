# Every target sets up .venv itself; once it exists, that only compares the dates of a few files.
PYTHON ?= python3
PY := .venv/bin/python
INFERLOAD := .venv/bin/inferload
STAMP := .venv/.installed
STUBS := -Iworker/wire=proto --python_out=. --pyi_out=. --grpc_python_out=. proto/open_inference.proto proto/accelerator.proto

.PHONY: setup demo article example example-gpt example-resnet18 example-report test check bench stubs clean
.DEFAULT_GOAL := test

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -x $(PY) || $(PYTHON) -m venv .venv
	@echo "setup: installing pinned packages into .venv (a few minutes the first time)"
	@$(PY) -m pip install --disable-pip-version-check --quiet --progress-bar on -c constraints.txt -e '.[worker,models,dev]'
	@touch $@

# --- demo: GPT and ResNet-18, one core per ordinal and two, one SLO ----------------------------------------------------
DEMO := runs/demo
DEMO_SLO := p90=100ms
DEMO_SECONDS := 15s
# An assumed price per hour, which the report states. For your machine's price: make demo DEMO_PRICE=0.20
DEMO_PRICE := 0.085
LOAD := $(INFERLOAD) load --headless --only-summary --loglevel WARNING --catalogue

demo: setup .models/gpt.pt .models/resnet18.pt
	@rm -rf $(DEMO) && mkdir -p $(DEMO)
	@printf '[hosts."this machine"]\nprice = %s\nnote = "assumed by make demo, not a price of this machine"\n' $(DEMO_PRICE) > $(DEMO)/hardware.toml
	@# A run that is not valid, as on a busy machine, exits with 1: the report says so, and the other runs still count.
	-$(call demo_run,gpt,1)
	-$(call demo_run,gpt,2)
	-$(call demo_run,resnet18,1)
	-$(call demo_run,resnet18,2)
	$(INFERLOAD) report $(DEMO)/*/ --slo $(DEMO_SLO) --catalogue $(DEMO)/hardware.toml --out $(DEMO)

# One run: one worker per ordinal and one user per worker; model $(1), $(2) cores per ordinal.
demo_run = $(INFERLOAD) fleet .models/$(1).pt --host-type "this machine" --cores-per-ordinal $(2) --accelerators cpu -- \
	$(LOAD) $(DEMO)/hardware.toml -t $(DEMO_SECONDS) --warmup 2s --run-dir $(DEMO)/$(1)-$(2)c

.models/%.pt:
	@mkdir -p .models
	$(INFERLOAD) export $* --mode trace --out $@

.models/%-script.pt:
	@mkdir -p .models
	$(INFERLOAD) export $* --mode script --out $@

# --- article: its comparison with simulated workers: table, chart, choice, and the choice at the SLO; under ten minutes -
article: setup
	$(PY) benchmarks/reproduce_article.py

# --- example: both models, one core per ordinal and two, traced and scripted, fp32 and bf16, on this machine -----------
# GPT is not scripted, since transformers' code is not TorchScript. docs/example was made with EXAMPLE=docs/example.
EXAMPLE := runs/example
EXAMPLE_SECONDS := 40s
EXAMPLE_PRECISIONS := fp32 bf16

example: example-gpt example-resnet18 example-report

example-gpt: setup .models/gpt.pt
	@mkdir -p $(EXAMPLE)
	@printf '[hosts."this machine"]\nprice = %s\nnote = "assumed, not a price of this machine"\n' $(DEMO_PRICE) > $(EXAMPLE)/hardware.toml
	$(foreach precision,$(EXAMPLE_PRECISIONS),$(foreach cores,1 2,$(call example_run,gpt,gpt,trace,$(precision),$(cores))))

example-resnet18: setup .models/resnet18.pt .models/resnet18-script.pt
	@mkdir -p $(EXAMPLE)
	@printf '[hosts."this machine"]\nprice = %s\nnote = "assumed, not a price of this machine"\n' $(DEMO_PRICE) > $(EXAMPLE)/hardware.toml
	$(foreach precision,$(EXAMPLE_PRECISIONS),$(foreach cores,1 2,$(call example_run,resnet18,resnet18,trace,$(precision),$(cores))))
	$(foreach precision,$(EXAMPLE_PRECISIONS),$(foreach cores,1 2,$(call example_run,resnet18,resnet18-script,script,$(precision),$(cores))))

example-report: setup
	$(INFERLOAD) report $(EXAMPLE)/*/ --slo $(DEMO_SLO) --catalogue $(EXAMPLE)/hardware.toml --out $(EXAMPLE)
	$(INFERLOAD) report $(EXAMPLE)/*/ --slo $(DEMO_SLO) --catalogue $(EXAMPLE)/hardware.toml --out $(EXAMPLE) --format markdown

# One run: model $(1) from file $(2), exported by $(3), at precision $(4), $(5) cores per ordinal. A run that is not valid
# exits with 1, and the report says so.
define example_run
-@rm -rf $(EXAMPLE)/$(1)-$(3)-$(4)-$(5)c
-$(INFERLOAD) fleet .models/$(2).pt --precision $(4) --host-type "this machine" --cores-per-ordinal $(5) --accelerators cpu -- \
	$(LOAD) $(EXAMPLE)/hardware.toml \
	-t $(EXAMPLE_SECONDS) --warmup 2s --run-dir $(EXAMPLE)/$(1)-$(3)-$(4)-$(5)c

endef

# Two files at a time, since most tests wait for real processes; the tests of a file run in order.
test: setup
	$(PY) -m pytest -n 2 --dist loadfile

check: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	.venv/bin/lint-imports
	$(PY) tests/tools/structure.py
	$(PY) tests/tools/audit.py
	@rm -rf build/stubs && mkdir -p build/stubs
	@$(PY) -m grpc_tools.protoc $(subst _out=.,_out=build/stubs,$(STUBS))
	@for stub in worker/wire/*_pb2*; do diff $$stub build/stubs/$$stub || exit 1; done

# Each script compares with a named peer and fails where its promise is missed. For quiet machines only.
bench: setup .models/gpt.pt .models/resnet18.pt
	@missed=0; for script in benchmarks/bench_*.py; do $(PY) $$script || missed=1; done; exit $$missed

stubs: setup
	$(PY) -m grpc_tools.protoc $(STUBS)

clean:
	rm -rf .venv .models .cache-clients runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

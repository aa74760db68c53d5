# Needs Python 3.11 or newer with pip and venv, and make. Every target sets up what it needs by itself.
#   make demo                  a tiny model there and back, with a proof
#   make test                  the tests a change must pass; make test-all adds the slow ones and transformers 4.57
#   make install PIP_ARGS=…    further arguments for pip, such as --extra-index-url for a CPU build of torch
#   make test ARGS="-k vision" further arguments for pytest

PYTHON := $(shell for p in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
VENV ?= .venv
VENV_OLD ?= .venv-4.57
PIP_ARGS ?=
# Tests run on all cores, a file at a time: most files share what they make.
PARALLEL ?= -n logical --maxprocesses 8 --dist loadfile
ARGS ?=

BIN := $(VENV)/bin
READY := $(VENV)/.ready
READY_OLD := $(VENV_OLD)/.ready
PIP_INSTALL = -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) --constraint constraints.txt
SETUP := pyproject.toml constraints.txt

.PHONY: install demo test test-all lint typecheck format bench clean

install: $(READY)

$(READY): $(SETUP)
	@test -n "$(PYTHON)" || { echo "vlconv needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP_INSTALL) --editable ".[dev]"
	@touch $@

# The oldest supported transformers, beside the same torch.
$(READY_OLD): $(SETUP)
	$(PYTHON) -m venv $(VENV_OLD)
	$(VENV_OLD)/bin/python $(PIP_INSTALL) --editable ".[dev]" "transformers==4.57.6" "huggingface_hub==0.36.*"
	@touch $@

demo: $(READY)
	$(BIN)/python tests/demo.py

test: $(READY)
	$(BIN)/pytest $(PARALLEL) $(ARGS)

test-all: $(READY) $(READY_OLD)
	$(VENV_OLD)/bin/pytest $(PARALLEL) -m versions $(ARGS)
	$(BIN)/pytest $(PARALLEL) -m "" $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY)
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

# mypy does not see an editable install whose folders are named otherwise, so it gets a tree of links under the package's name.
typecheck: $(READY)
	@rm -rf build/typing && mkdir -p build/typing/vlconv
	@ln -s $(CURDIR)/cli/* $(CURDIR)/converters build/typing/vlconv/
	MYPYPATH=build/typing $(BIN)/mypy --strict --package vlconv

bench: $(READY)
	$(BIN)/python tests/bench.py $(ARGS)

clean:
	rm -rf build dist vlconv.egg-info .mypy_cache .pytest_cache .ruff_cache $(VENV) $(VENV_OLD)
	find cli converters tests -name __pycache__ -type d -prune -exec rm -rf {} +

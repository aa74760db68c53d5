# Needs Python 3.11 or newer with pip and venv, and make. Every target sets up what it needs by itself.
#   make demo                  a tiny model there and back, with a proof
#   make test                  the tests a change must pass; make test-all adds the slow ones, transformers 4.57 and
#                              the newest megatron-core
#   make hostile               some 2,000 damaged or hostile sources, and the table of what came of them
#   make fuzz SECONDS=60       the same by chance, an hour if not said otherwise
#   make bench ARGS="--quick"  speed and memory beside cp and other programs; docs/bench.md
#   make dist                  a wheel and an sdist in dist/, checked, and the command of each run once
#   make pictures              docs/pictures: what a terminal of 80 columns, and a browser, show of real runs
#   make test-serving          vLLM on a CPU opens what is written; PIP_ARGS must lead pip to a CPU build of torch
#   make install PIP_ARGS=…    further arguments for pip, such as --extra-index-url for a CPU build of torch
#   make test ARGS="-k vision" further arguments for pytest

PYTHON := $(shell for p in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
VENV ?= .venv
VENV_OLD ?= .venv-4.57
VENV_MCORE ?= .venv-mcore
VENV_SERVING ?= .venv-serving
VENV_DIST ?= .venv-dist
PIP_ARGS ?=
# Tests run on all cores, a file at a time: most files share what they make.
PARALLEL ?= -n logical --maxprocesses 8 --dist loadfile
ARGS ?=

HAVE_PYTHON = @test -n "$(PYTHON)" || \
	{ echo "vlconv needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3.11" >&2; exit 1; }

BIN := $(VENV)/bin
READY := $(VENV)/.ready
READY_BENCH := $(VENV)/.ready-bench
READY_OLD := $(VENV_OLD)/.ready
READY_MCORE := $(VENV_MCORE)/.ready
READY_SERVING := $(VENV_SERVING)/.ready
READY_DIST := $(VENV_DIST)/.ready
PIP := -m pip --quiet --disable-pip-version-check
PIP_INSTALL = $(PIP) install $(PIP_ARGS) --constraint constraints.txt
PIP_INSTALL_MCORE = $(PIP) install $(PIP_ARGS) --no-deps --ignore-requires-python
SETUP := pyproject.toml constraints.txt
SERVING := tests/serving/requirements.txt
# README's small install: what conversions and verify use.
SMALL := typer isal numpy pyyaml

.PHONY: install demo test test-all test-serving hostile fuzz lint typecheck format bench dist pictures clean

install: $(READY)

$(READY): $(SETUP)
	$(HAVE_PYTHON)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP_INSTALL) --editable ".[dev]"
	@touch $@

# The oldest supported transformers, beside the same torch.
$(READY_OLD): $(SETUP)
	$(PYTHON) -m venv $(VENV_OLD)
	$(VENV_OLD)/bin/python $(PIP_INSTALL) --editable ".[dev]" "transformers==4.57.6" "huggingface_hub==0.36.*"
	@touch $@

# The newest megatron-core that was tried, in front of all the rest of $(VENV), which has the oldest supported one. It asks
# for Python 3.12 and runs on 3.11; and it imports triton, which it does not ask for and a CPU build of torch does not bring.
$(READY_MCORE): $(READY) Makefile
	$(PYTHON) -m venv --clear $(VENV_MCORE)
	$(VENV_MCORE)/bin/python $(PIP_INSTALL_MCORE) megatron-core==0.19.2
	$(BIN)/python -c 'import triton' 2>/dev/null || $(VENV_MCORE)/bin/python $(PIP_INSTALL_MCORE) triton==3.5.1
	$(BIN)/python -c 'import site; print(f"import site; site.addsitedir({site.getsitepackages()[0]!r})")' \
		> "$$($(VENV_MCORE)/bin/python -c 'import site; print(site.getsitepackages()[0])')/beside.pth"
	@touch $@

# vLLM brings torchaudio, torchcodec and torchvision, whose usual builds want CUDA. It can do without the first two; of
# torchvision only one module fails to load: it describes operators of the CUDA build, which no image here needs.
$(READY_SERVING): pyproject.toml $(SERVING)
	$(HAVE_PYTHON)
	$(PYTHON) -m venv $(VENV_SERVING)
	$(VENV_SERVING)/bin/python $(PIP) install $(PIP_ARGS) --requirement $(SERVING) --editable .
	$(VENV_SERVING)/bin/python $(PIP) uninstall --yes torchaudio torchcodec
	@site=$$($(VENV_SERVING)/bin/python -c 'import sysconfig; print(sysconfig.get_path("platlib"))') && \
		: > "$$site/torchvision/_meta_registrations.py"
	@touch $@

demo: $(READY)
	$(BIN)/python tests/demo.py

test: $(READY)
	$(BIN)/pytest $(PARALLEL) $(ARGS)

test-all: $(READY) $(READY_OLD) $(READY_MCORE)
	$(VENV_OLD)/bin/pytest $(PARALLEL) -m versions $(ARGS)
	$(VENV_MCORE)/bin/python -m pytest $(PARALLEL) -m "mcore_versions and not slow" $(ARGS)
	$(BIN)/pytest $(PARALLEL) -m "not serving and not checkouts" $(ARGS)

test-serving: $(READY_SERVING)
	$(VENV_SERVING)/bin/pytest tests/serving -m serving $(ARGS)

# Every damaged or hostile source of the tests before the real command, and the table of what came of them.
hostile: $(READY)
	PYTHONPATH=tests $(BIN)/python -m hostile $(ARGS)

# The same by chance, for some seconds; what is found lies in build/fuzz with the command that tries it again.
SECONDS ?= 3600
fuzz: $(READY)
	PYTHONPATH=tests $(BIN)/python -m hostile.fuzz $(SECONDS) $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY)
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

typecheck: $(READY)
	MYPYPATH=.package $(BIN)/mypy --strict --package vlconv

# The tables and, in build/bench, bench.json and the plots.
$(READY_BENCH): $(READY)
	$(BIN)/python $(PIP_INSTALL) --editable ".[dev,bench]"
	@touch $@

# What is published. `build` makes the wheel out of the sdist, so an sdist that lacks a file makes none. Each is installed
# beside the few libraries that a command line needs, and run. The log of setuptools is shown only where it fails.
$(READY_DIST): Makefile
	$(HAVE_PYTHON)
	$(PYTHON) -m venv --clear $(VENV_DIST)
	$(VENV_DIST)/bin/python $(PIP) install $(PIP_ARGS) "build>=1.2" "twine>=6.1"
	@touch $@

dist: $(READY_DIST)
	rm -rf dist
	@mkdir -p build && $(VENV_DIST)/bin/python -m build > build/dist.log 2>&1 || { cat build/dist.log >&2; exit 1; }
	$(VENV_DIST)/bin/twine check --strict dist/*
	@for made in dist/*; do \
		$(PYTHON) -m venv --clear build/try && \
		build/try/bin/python $(PIP) install $(PIP_ARGS) $(SMALL) && \
		build/try/bin/python $(PIP) install $(PIP_ARGS) --no-deps $$made && \
		build/try/bin/vlconv --help > /dev/null && \
		build/try/bin/vlconv names --layout mbridge --model qwen3_vl > /dev/null && echo "$$made: installs and runs" || exit 1; \
	done
	@rm -rf build/try vlconv.egg-info

bench: $(READY_BENCH)
	PYTHONPATH=tests $(BIN)/python -m bench $(ARGS)

# What a terminal shows of inspect, a conversion and a verify with differences.
pictures: $(READY)
	$(BIN)/python tests/pictures.py $(ARGS)

clean:
	rm -rf build dist vlconv.egg-info .mypy_cache .pytest_cache .ruff_cache $(VENV) $(VENV_OLD) $(VENV_MCORE) $(VENV_SERVING) $(VENV_DIST)
	find cli converters tests -name __pycache__ -type d -prune -exec rm -rf {} +

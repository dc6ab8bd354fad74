# make bench | sweep | study | kernels | offline | robustness | chain | search | test | lint | docs | wheels: each does everything on a fresh machine.
# make versions: the tests under several releases of PyTorch, Python and NumPy, which it installs: gigabytes.
# make test: every law on some cases, for minutes. make fuzz: on all cases and with more examples, for hours.
# make gpu: checks and times the kernels on a CUDA device, for at most eight minutes; installs nothing.
# PLATFORMS=manylinux_2_28_x86_64    what `make wheels` compiles for
# PYTHON=python3.12     the interpreter that the virtual environment is made with
# VENV=elsewhere        where that environment lies
# VENV=                 none: use PYTHON with the torch that it already has, install nothing
# PIP_EXTRA_INDEX_URL=...    an index that has PyTorch builds for the CPU: on Linux some gigabytes less
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
PLATFORMS ?= manylinux_2_17_x86_64 manylinux_2_17_aarch64

ifeq ($(strip $(VENV)),)
RUN := $(PYTHON)
FOR_BENCH :=
FOR_PEERS :=
FOR_TESTS :=
TESTS := -m pytest
else
RUN := $(VENV)/bin/python
# One file for each group of extras that is installed. The first group is part of the second, the second of the third.
FOR_BENCH := $(VENV)/.installed-bench
FOR_PEERS := $(VENV)/.installed-peers
FOR_TESTS := $(VENV)/.installed-tests
# A worker a core, and a thread a worker: workers that share cores by threads wait for each other.
TESTS := -m pytest --numprocesses auto --dist worksteal --benchmark-disable
test fuzz: export OMP_NUM_THREADS = 1
endif

.PHONY: bench sweep study kernels offline robustness chain search versions gpu test fuzz lint docs wheels
.DELETE_ON_ERROR:

bench: $(FOR_BENCH)
	$(RUN) -m benchmarks utilization $(ARGS)

sweep: $(FOR_BENCH)
	$(RUN) -m benchmarks sweep $(ARGS)

study: $(FOR_BENCH)
	$(RUN) -m benchmarks study $(ARGS)

kernels: $(FOR_PEERS)
	$(RUN) -m benchmarks kernels $(ARGS)

offline: $(FOR_PEERS)
	$(RUN) -m benchmarks offline $(ARGS)

robustness: $(FOR_PEERS)
	$(RUN) -m benchmarks robustness $(ARGS)

chain: $(FOR_PEERS)
	$(RUN) -m benchmarks chain $(ARGS)

search: $(FOR_PEERS)
	$(RUN) -m benchmarks search $(ARGS)

# The tests under several releases of PyTorch, Python and NumPy, each in an environment of its own.
versions: $(FOR_BENCH)
	$(RUN) -m benchmarks versions $(ARGS)

# Uses the virtual environment if there is one, and otherwise PYTHON with the packages that it already has.
gpu:
	$(if $(wildcard $(RUN)),$(RUN),$(PYTHON)) -m benchmarks gpu $(ARGS)

test: $(FOR_TESTS)
	$(RUN) $(TESTS) --share 6 --hypothesis-profile quick $(ARGS)

fuzz: $(FOR_TESTS)
	$(RUN) $(TESTS) -m "" $(ARGS)

lint: $(FOR_TESTS)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

# The site, in site/. A warning fails it: a broken link, an undocumented public name, a notebook that fails.
# The variable leaves out a message of Material's authors on the future of MkDocs.
docs: $(FOR_TESTS)
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict $(ARGS)

# Everything to publish, in dist/: the sdist, a wheel for any machine, and wheels with compiled kernels.
wheels: $(FOR_TESTS)
	rm -rf build dist
	$(RUN) -m build --no-isolation
	for platform in $(PLATFORMS); do \
	  $(RUN) -m build --wheel --no-isolation -C--build-option=--plat-name=$$platform || exit 1; \
	done
	for wheel in dist/*manylinux*.whl; do $(RUN) -m auditwheel show $$wheel || exit 1; done

$(VENV)/.installed-bench: EXTRAS := bench
$(VENV)/.installed-peers: EXTRAS := bench,codec,peers
$(VENV)/.installed-tests: EXTRAS := bench,codec,peers,models,test,dev,docs

$(VENV)/.installed-%: pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
	touch $@ $(GROUPS_INSIDE:%=$(VENV)/.installed-%)

$(VENV)/.installed-peers: GROUPS_INSIDE := bench
$(VENV)/.installed-tests: GROUPS_INSIDE := bench peers

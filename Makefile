# make bench | sweep | study | kernels | offline | robustness | chain | search | test | lint | wheels: each does everything on a fresh machine.
# make versions: the tests under several releases of PyTorch, Python and NumPy, which it installs: gigabytes.
# make fuzz: random sequences of everything that can happen to a quantizer, for minutes.
# make gpu: checks and times the kernels on a CUDA device, for at most eight minutes; installs nothing.
# PLATFORMS=manylinux_2_28_x86_64    what `make wheels` compiles for
# PYTHON=python3.12     the interpreter that the virtual environment is made with
# VENV=elsewhere        where that environment lies
# VENV=                 none: use PYTHON with the torch that it already has, install nothing
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
PLATFORMS ?= manylinux_2_17_x86_64 manylinux_2_17_aarch64

ifeq ($(strip $(VENV)),)
RUN := $(PYTHON)
INSTALLED :=
TESTS := -m pytest
else
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
# A worker a core, and a thread a worker: workers that share cores by threads wait for each other.
TESTS := -m pytest --numprocesses auto --dist worksteal --benchmark-disable
test fuzz: export OMP_NUM_THREADS = 1
endif

.PHONY: bench sweep study kernels offline robustness chain search versions gpu test fuzz lint wheels
.DELETE_ON_ERROR:

bench: $(INSTALLED)
	$(RUN) -m benchmarks utilization $(ARGS)

sweep: $(INSTALLED)
	$(RUN) -m benchmarks sweep $(ARGS)

study: $(INSTALLED)
	$(RUN) -m benchmarks study $(ARGS)

kernels: $(INSTALLED)
	$(RUN) -m benchmarks kernels $(ARGS)

offline: $(INSTALLED)
	$(RUN) -m benchmarks offline $(ARGS)

robustness: $(INSTALLED)
	$(RUN) -m benchmarks robustness $(ARGS)

chain: $(INSTALLED)
	$(RUN) -m benchmarks chain $(ARGS)

search: $(INSTALLED)
	$(RUN) -m benchmarks search $(ARGS)

# The tests under several releases of PyTorch, Python and NumPy, each in an environment of its own.
versions: $(INSTALLED)
	$(RUN) -m benchmarks versions $(ARGS)

# Uses the virtual environment if there is one, and otherwise PYTHON with the packages that it already has.
gpu:
	$(if $(wildcard $(RUN)),$(RUN),$(PYTHON)) -m benchmarks gpu $(ARGS)

test: $(INSTALLED)
	$(RUN) $(TESTS) $(ARGS)

fuzz: $(INSTALLED)
	$(RUN) $(TESTS) -m long $(ARGS)

lint: $(INSTALLED)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

# Everything to publish, in dist/: the sdist, a wheel for any machine, and wheels with compiled kernels.
wheels: $(INSTALLED)
	rm -rf build dist
	$(RUN) -m build --no-isolation
	for platform in $(PLATFORMS); do \
	  $(RUN) -m build --wheel --no-isolation -C--build-option=--plat-name=$$platform || exit 1; \
	done
	for wheel in dist/*manylinux*.whl; do $(RUN) -m auditwheel show $$wheel || exit 1; done

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[bench,test,dev,models]'
	touch $@

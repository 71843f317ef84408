# Everything a checkout can do. The environment is made on first use, and again when its inputs change.

PYTHON ?= python3
BIN := .venv/bin
ENV := .venv/.installed
DEMO := runs/demo/$(shell date +%Y%m%d-%H%M%S)
IMAGE ?= localhost/steerlm:test
# Of the tests: one a core, each on one thread.
WORKERS ?= $(shell nproc)
PARALLEL := -n $(WORKERS) --maxprocesses 8 --dist worksteal
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)

.PHONY: help demo test test-long test-method test-distributed test-crash test-cluster test-cluster-short lint format compile \
	image lock clean

help:
	@echo "make demo              run the whole SteerLM v2 loop on this machine"
	@echo "make test              the tests that belong to each edit, on all cores"
	@echo "make test-long         the rest of what CI runs: whole runs as processes, kills, faults, retraining"
	@echo "make test-method       the tests that show that the method works, over three seeds"
	@echo "make test-distributed  the tests with several processes"
	@echo "make test-crash        the tests that kill, disturb and crowd runs, on a disk and in a bucket"
	@echo "make test-cluster      the tests on a real Kubernetes (../shared/cluster, as root)"
	@echo "make lint              ruff, mypy, import-linter, hadolint"
	@echo "make format            rewrite the sources in the project's format"
	@echo "make compile           regenerate pipeline.yaml and the components' READMEs"
	@echo "make image             build the CPU image, $(IMAGE) (as root; needs buildah and debootstrap)"
	@echo "make lock              regenerate constraints.txt from what pip resolves today"
	@echo "make clean             remove what was made here, runs/ and .venv/ excepted"

$(ENV): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

demo: $(ENV)
	@echo "The run is kept in $(DEMO)"
	$(BIN)/steerlm run examples/demo.yaml --root $(DEMO)

test: $(ENV)
	$(BIN)/python -m pytest $(PARALLEL) -m "not long and not method and not distributed and not crash and not cluster"

test-long: $(ENV)
	$(BIN)/python -m pytest $(PARALLEL) -m long

test-method: $(ENV)
	$(BIN)/python -m pytest -m method --timeout 3600 -s

test-distributed: $(ENV)
	$(BIN)/python -m pytest -m distributed --timeout 600

test-crash: $(ENV)
	$(BIN)/python -m pytest -m crash

test-cluster: image
	$(BIN)/python -m pytest -m cluster --timeout 900 --durations 20

test-cluster-short: $(ENV)
	STEERLM_STAND_IN=1 $(BIN)/python -m pytest -m cluster_short --timeout 900 tests/cluster

lint: $(ENV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint images/Dockerfile

format: $(ENV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

compile: $(ENV)
	$(BIN)/python -m pipelines.steerlm_v2.pipeline
	$(BIN)/python -m tools.component_readmes
	$(BIN)/python -m tools.monitoring

# images/README.md has the other flavour and other bases.
image: $(ENV)
	$(BIN)/python -m tools.image $(IMAGE) --archive build/image/steerlm.tar

# torch keeps its pin: its next release would bring other builds. Builds ("+cpu") and what only CUDA builds need stay out.
lock:
	rm -rf build/lock
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet torch==$(TORCH) -e '.[dev,gpu,smollm2]'
	{ sed -n '/^#/p' constraints.txt; build/lock/bin/python -m pip freeze --all --exclude-editable \
		| grep -Ev '^(pip=|nvidia-|cuda-|triton)' | sed 's/+[a-z0-9.]*$$//'; } > build/constraints.txt
	mv build/constraints.txt constraints.txt
	rm -rf build/lock

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

# Two commands: `make demo` and `make test`. Each sets up all that it needs.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV ?= .venv
PYTHONS ?= 3.12 3.13
WORKERS ?= 2
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
DATA ?= data
PARAMS ?= cpu
STACK_HOME ?= .mirnet/stack
TARGET ?= cpu
IMAGE ?= mirnet:$(TARGET)

.DEFAULT_GOAL := help
.PHONY: help setup demo base-model test test-pythons test-wheel test-all stack stack-test stack-down image compose-test docs retrain lint format lock sbom clean

help: ## list all targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## create .venv with the locked packages (VENV=folder, PYTHON=python3.12)

$(STAMP): $(wildcard locks/*.lock) locks/install.sh pyproject.toml
	$(PYTHON) -m venv $(VENV)
	locks/install.sh $(CURDIR)/$(BIN)/python dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup ## the main job on sample photographs: data, training, gate, enhancement of a bucket
	$(BIN)/python -m flows.demo

base-model: setup ## train the model in the package again: minutes, on the sample photographs
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.base_model $(if $(REAL),--real $(REAL))

retrain: setup ## the retrain flow on a LoL folder: make retrain DATA=path [PARAMS=cpu]
	$(BIN)/python -m flows.retrain --data $(DATA) --params $(PARAMS)

test: setup ## the tests, without the slow ones
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

test-pythons: ## the tests on the other Pythons that we support, by hand: minutes, gigabytes
	@for version in $(PYTHONS); do \
		python$$version --version || { echo "python$$version is missing: install it, or name others in PYTHONS" >&2; exit 1; }; \
		$(MAKE) test PYTHON=python$$version VENV=.venv-$$version || exit 1; \
	done

test-wheel: setup ## the main job from a wheel, installed without locks in an empty environment
	.ci/plain-install

test-all: setup ## the tests with those that take minutes
	$(BIN)/python -m pytest -m "not gpu" -n $(WORKERS) --dist loadfile
	$(MAKE) compose-test

stack: setup ## start PostgreSQL, S3, MLflow, Prefect and Ray on this machine
	$(BIN)/mirnet stack up --home $(STACK_HOME)

stack-test: setup ## go through the running stack as a team does, with kills
	STACK_HOME=$(STACK_HOME) $(BIN)/python -m pytest -m stack tests/stack

stack-down: setup ## stop the stack; its data stay (mirnet stack down --purge removes them)
	$(BIN)/mirnet stack down --home $(STACK_HOME)

image: ## build infra/docker with docker or buildah: make image [TARGET=gpu] [IMAGE=name:tag]
	infra/docker/build.sh $(TARGET) $(IMAGE)

compose-test: setup ## the same in containers: needs the image and docker compose or podman-compose
	STACK=compose MIRNET_IMAGE=$(IMAGE) $(BIN)/python -m pytest -m stack \
		tests/stack/test_whole_stack.py tests/stack/test_compose.py

docs: setup ## build the pages of docs/ as a site in reports/site
	$(BIN)/mkdocs build

lint: setup ## ruff and mypy
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup ## format and fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: ## resolve pyproject.toml into locks/; UPGRADE=--upgrade takes the newest versions
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	.venv-lock/bin/python locks/compile.py $(UPGRADE)
	rm -rf .venv-lock

.venv-sbom/bin/pip-audit:
	$(PYTHON) -m venv .venv-sbom
	.venv-sbom/bin/python -m pip install --quiet --disable-pip-version-check cyclonedx-bom==7.5.0 pip-audit==2.10.1

sbom: .venv-sbom/bin/pip-audit ## bills of materials of the locks (CycloneDX) in reports/sbom, checked for known faults
	.venv-sbom/bin/python locks/audit.py reports/sbom

clean: ## remove the environment and what runs left behind
	rm -rf .venv .venv-* .demo .mirnet reports model .pytest_cache .mypy_cache .ruff_cache

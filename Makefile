# Every target that people and CI call; `make` alone lists them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON3 ?= python3
VENV ?= .venv
PYTHON := $(VENV)/bin/python

# local: the cluster of hack/localcluster. current: the kubeconfig's current context.
CLUSTER ?= local
IMAGE_PREFIX ?=
TAG ?= 0.1.0
IMAGES := .cache/images.json
NEEDED_IMAGES := operator engine-builder triton-cpu

# Where the system keeps its certificates, so that every tool trusts what the machine trusts.
CERTIFICATES := $(firstword $(wildcard /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt))
ifneq ($(CERTIFICATES),)
export SSL_CERT_FILE ?= $(CERTIFICATES)
endif

ifeq ($(CLUSTER),local)
TEST_CLUSTER := cluster-up images
# `up` finds the cluster healthy and prints what to export: KUBECONFIG, and kubectl and helm in PATH.
USE_CLUSTER = up="$$($(PYTHON) hack/localcluster up 2>/dev/null)" && eval "$$up" &&
else ifeq ($(CLUSTER),current)
TEST_CLUSTER := images
USE_CLUSTER =
else
$(error CLUSTER=$(CLUSTER): must be local or current)
endif

TEST_STEPS := lint types layers verify unit corpus-sample binaries chart integration faults-sample $(TEST_CLUSTER) e2e

# mypy takes each tool of hack/ by itself: each is a program with its own top-level modules.
MYPY := $(VENV)/bin/mypy --config-file pyproject.toml
# The builder also runs in images that are not ours, with their Python (numpy's types need a newer one).
OLDER_PYTHON := $(filter-out %/check.py,$(wildcard engine_builder/engine_builder/*.py)) engine_builder/engine_builder/compilers
PYTEST := $(PYTHON) -m pytest

##@ Try
.PHONY: demo demo-down
demo: cluster-ready ## Everything from nothing to answers: cluster, images, chart, quickstart, requests, a table
	@$(USE_CLUSTER) $(PYTHON) hack/demo --images $(IMAGES) --cluster $(CLUSTER)

demo-down: setup ## Remove what `make demo` installed; leave the cluster
	@$(USE_CLUSTER) $(PYTHON) hack/demo --images $(IMAGES) --cluster $(CLUSTER) --remove

##@ Check
.PHONY: test lint types layers verify unit chart integration corpus corpus-sample faults faults-sample e2e bench-switch bench-build
test: setup ## All checks and tests, with a table of seconds at the end
	@MAKE="$(MAKE)" $(PYTHON) hack/steps.py $(TEST_STEPS)

lint: setup ## ruff: rules and format
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: setup ## mypy, strict
	$(MYPY)
	MYPYPATH=hack $(MYPY) -p localcluster -p demo -p load -p corpus
	MYPYPATH=hack/images $(MYPY) hack/images
	MYPYPATH=. $(MYPY) -p hack.generate
	MYPYPATH=hack $(MYPY) hack/setup.py hack/lock.py hack/steps.py
	$(MYPY) --python-version 3.10 $(OLDER_PYTHON)

layers: setup ## import-linter: who may import whom (.importlinter)
	$(VENV)/bin/lint-imports

verify: setup ## Generated files are what the code generates
	$(PYTHON) hack/generate --check

unit: setup ## Unit and property tests
	$(PYTEST) tests/unit -n auto --maxprocesses 4

chart: setup ## Tests of the Helm chart
	$(PYTEST) tests/chart

integration: setup ## The operator against a real API server, a real keeper and a Triton double
	$(PYTEST) tests/integration -n auto --maxprocesses 4 --dist loadscope

corpus: setup ## The onnx wheel's models prepared and compiled at every precision: tables by reason (ONLY=resnet)
	$(PYTHON) hack/corpus $(if $(ONLY),--only '$(ONLY)')

corpus-sample: setup ## The same for about forty of them
	$(PYTHON) hack/corpus --sample

faults: setup ## Kill a process right after each effect and compare the end; ONLY=triton.load#3 for one
	$(PYTHON) -m tests.faults $(if $(ONLY),--only '$(ONLY)')

faults-sample: setup ## The same for a few effects of every kind
	$(PYTHON) -m tests.faults --sample

e2e: cluster-ready ## The whole of it on real nodes, through the installed chart
	$(USE_CLUSTER) IMAGES=$(IMAGES) CLUSTER=$(CLUSTER) $(PYTEST) tests/e2e

bench-switch: cluster-ready ## What clients notice of switches and restarts: a table (ONLY=ROW RATE= ROUNDS= LOAD_SECONDS=)
	@$(USE_CLUSTER) IMAGES=$(IMAGES) CLUSTER=$(CLUSTER) $(PYTHON) tests/bench switch $(if $(ONLY),--only $(ONLY)) \
		$(if $(RATE),--rate $(RATE)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(LOAD_SECONDS),--seconds $(LOAD_SECONDS))

bench-build: cluster-ready ## What a build costs beyond the compiler, beside a bare Job: a table (ROUNDS=)
	@$(USE_CLUSTER) IMAGES=$(IMAGES) CLUSTER=$(CLUSTER) $(PYTHON) tests/bench build $(if $(ROUNDS),--rounds $(ROUNDS))

##@ Cluster
.PHONY: cluster-up cluster-down cluster-status cluster-ready binaries images
cluster-up: setup ## Start the local cluster: two real nodes on this host (root, Linux)
	@$(PYTHON) hack/localcluster up
	@$(PYTHON) hack/localcluster binaries helm >/dev/null

cluster-down: setup ## Stop the local cluster and leave nothing behind
	@$(PYTHON) hack/localcluster down

cluster-status: setup ## Health of each part of the local cluster
	@$(PYTHON) hack/localcluster status

binaries: setup ## Build what the local cluster and the integration tests run: Kubernetes, etcd, helm
	@$(PYTHON) hack/localcluster binaries

ifeq ($(CLUSTER),local)
images: setup ## Build the images; with CLUSTER=current name those of IMAGE_PREFIX and TAG instead
	@mkdir -p $(dir $(IMAGES))
	@$(PYTHON) hack/images build --json > $(IMAGES).new
	@mv $(IMAGES).new $(IMAGES)

# Archives in the order of the file: both nodes get what is in them.
cluster-ready: cluster-up images
	@$(PYTHON) hack/localcluster load $$($(PYTHON) -c \
		'import json, sys; print(*(image["archive"] for image in json.load(open(sys.argv[1])).values()))' $(IMAGES))
else
images: setup
	@test -n "$(IMAGE_PREFIX)" || { echo "error: CLUSTER=current needs IMAGE_PREFIX (registry and path of" \
		"the images $(NEEDED_IMAGES)) and TAG ($(TAG)); see README.md" >&2; exit 1; }
	@mkdir -p $(dir $(IMAGES))
	@$(PYTHON) -c 'import json, sys; prefix, tag, *names = sys.argv[1:]; \
		print(json.dumps({name: {"reference": f"{prefix}/{name}:{tag}"} for name in names}))' \
		"$(IMAGE_PREFIX)" "$(TAG)" $(NEEDED_IMAGES) > $(IMAGES)

cluster-ready: images
endif

##@ Work
.PHONY: help setup generate lock format clean
setup: ## Make the virtual environment from locks/dev.txt; instantaneous when it is current
	@$(PYTHON3) hack/setup.py $(VENV)

generate: setup ## Write crds/ and the chart's copy from the resources' models
	$(PYTHON) hack/generate

lock: ## Write locks/ from the pyproject files; UPGRADE=1 takes the newest versions
	$(PYTHON3) hack/lock.py $(if $(UPGRADE),--upgrade)

format: setup ## Format the code and repair what ruff can repair
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean: ## Remove the virtual environment and caches of this clone; not the cluster, not ~/.cache
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z0-9-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo; echo "CLUSTER=current uses the kubeconfig's current context (see README.md); otherwise the local cluster."

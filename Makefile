# The five commands that matter: make run, make test, make check, make fix, make bench.
# Needs Python 3.11 or newer with venv, and a package index that pip is set up for.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
PY := $(VENV)/bin/python
# pip's own settings say where packages come from; nothing here does.
PIP := $(PY) -m pip --disable-pip-version-check
INSTALL := install --quiet --require-hashes
RUN_READY := $(VENV)/run.stamp
DEV_READY := $(VENV)/dev.stamp
SOURCES := gatekeeper tests bench
WORKERS ?= 2

.PHONY: help
help: ## Say what there is
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-20s %s\n", $$1, $$2 }'

# --- run ---

.PHONY: run
run: $(RUN_READY) ## Start the gate before a demo endpoint, or UPSTREAM=http://host:port (PORT, OPS_PORT, ADMIN_PORT)
	@exec $(VENV)/bin/gatekeeper serve $(if $(UPSTREAM),--upstream '$(UPSTREAM)',--demo) \
		$(if $(PORT),--port '$(PORT)') $(if $(OPS_PORT),--ops-port '$(OPS_PORT)') $(if $(ADMIN_PORT),--admin-port '$(ADMIN_PORT)')

# --- tests and checks ---

COVERED := -m coverage report --skip-covered --include='*/gatekeeper/policy/*' --fail-under=100

.PHONY: test
test: lint browser wheel-test ## Run everything that must hold: linters, types, contracts, all tests against the built wheel

.PHONY: unit
unit: $(DEV_READY) ## Run the tests against the checkout; policy/ must be covered to 100 % by branch
	$(PY) -m pytest -n $(WORKERS) --cov --cov-report= $(ARGS)
	$(PY) $(COVERED)

.PHONY: test-fleet
test-fleet: $(DEV_READY) ## Run the tests that need a fleet: Sentinel failover, a six-node cluster, four processes
	$(PY) -m pytest -m fleet $(ARGS)

.PHONY: soak
soak: $(DEV_READY) ## Send calls through disasters for minutes; every token must be accounted for (REQUESTS=20000, SEED)
	REQUESTS='$(REQUESTS)' SEED='$(SEED)' $(PY) -m pytest -q -s -m soak tests/e2e/test_conservation.py $(ARGS)

.PHONY: conformance
conformance: $(DEV_READY) ## Run an SDK's own suite bare and through the gate: SUITE=checkout (SPEC, ANTHROPIC_SUITE, ARGS)
	PYTHONPATH=.:tests $(PY) tests/optional/check_conformance.py $(if $(SUITE),--suite '$(SUITE)') \
		$(if $(SPEC),--spec '$(SPEC)') $(if $(ANTHROPIC_SUITE),--anthropic-suite '$(ANTHROPIC_SUITE)') -- $(ARGS)

# Tests of pages drive Debian's Chromium; where it cannot be had they are skipped.
APT := apt-get install --yes --no-install-recommends chromium

.PHONY: browser
browser: $(DEV_READY)
	@test -x /usr/bin/chromium || { test "$$(id -u)" = 0 && command -v apt-get && { $(APT) || { apt-get update && $(APT); }; }; } \
		>$(VENV)/chromium.log 2>&1 || echo 'No /usr/bin/chromium (apt-get install chromium): tests in a browser are skipped.'

.PHONY: check
check: lint ## Linters, types, import contracts, rules and settings
	$(VENV)/bin/gatekeeper check

.PHONY: lint
lint: $(DEV_READY)
	$(PY) -m ruff check --quiet $(SOURCES)
	$(PY) -m ruff format --check $(SOURCES)
	$(PY) -m mypy
	$(VENV)/bin/lint-imports --no-cache --verbose >$(VENV)/contracts.log || { cat $(VENV)/contracts.log; exit 1; }
	$(PY) -m deptry --no-ansi .

.PHONY: fix
fix: $(DEV_READY) ## Format and repair what can be repaired
	$(PY) -m ruff check --fix $(SOURCES)
	$(PY) -m ruff format $(SOURCES)

.PHONY: bench
bench: $(DEV_READY) ## Measure everything in bench/, or only BENCH=name
	@set -e; for each in $(or $(BENCH),$(patsubst bench/%.py,%,$(sort $(wildcard bench/[a-z]*.py)))); do \
		echo "== $$each"; $(PY) "bench/$$each.py" $(ARGS); \
	done

# The tests run beside the wheel, in a copy of the project without gatekeeper/.
WHEEL := build/wheel-test
BESIDE := $(filter-out gatekeeper build dist var node_modules,$(wildcard *)) .ci .dockerignore .gitignore

.PHONY: wheel-test
wheel-test: $(DEV_READY) ## Build the wheel, install it into a fresh environment, test the installed copy; coverage as in unit
	rm -rf $(WHEEL)
	mkdir -p $(WHEEL)/project
	$(PY) -m build --quiet --wheel --no-isolation --outdir $(WHEEL) .
	$(PY) -m venv $(WHEEL)/venv
	$(WHEEL)/venv/bin/python -m pip --disable-pip-version-check $(INSTALL) -r requirements/run.txt
	$(WHEEL)/venv/bin/python -m pip --disable-pip-version-check install --quiet --no-deps $(WHEEL)/*.whl
	$(WHEEL)/venv/bin/python -m pip --disable-pip-version-check check
	$(WHEEL)/venv/bin/gatekeeper --help >/dev/null
	$(WHEEL)/venv/bin/python -m pip --disable-pip-version-check $(INSTALL) -r requirements/dev.txt
	cp -R $(BESIDE) $(WHEEL)/project/
	cd $(WHEEL)/project && ../venv/bin/python -c 'import gatekeeper, sys; sys.exit("site-packages" not in gatekeeper.__file__)'
	cd $(WHEEL)/project && ../venv/bin/python -m pytest -q -n $(WORKERS) -p no:cacheprovider --cov --cov-report= $(ARGS)
	cd $(WHEEL)/project && ../venv/bin/python $(COVERED)

# --- the container image ---

.PHONY: image
image: $(DEV_READY) ## Build the image with docker, podman or buildah and test it (BASE, TAG, ENGINE, BUILD_FLAGS)
	BASE='$(BASE)' TAG='$(TAG)' ENGINE='$(ENGINE)' BUILD_FLAGS='$(BUILD_FLAGS)' \
		$(PY) -m pytest -v -s -p no:cacheprovider tests/optional/check_image.py $(ARGS)

# --- what is made from other files ---

.PHONY: docs
docs: $(DEV_READY) ## Write the documents that are made from code
	$(PY) -m gatekeeper.settings.docs docs

# Compiled on Python 3.11; every wheel of a release is hashed, so later Pythons find theirs.
# Pins stay unless UPGRADE=1. Each file starts from the pins of the one before, so that they agree.
LOCK := $(PY) -m piptools compile --quiet --generate-hashes --allow-unsafe --no-strip-extras \
	--no-header --no-annotate --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
	--no-emit-options $(if $(UPGRADE),--upgrade)

.PHONY: lock
lock: $(DEV_READY) ## Pin requirements anew after a change in pyproject.toml (UPGRADE=1: newer releases)
	cd requirements && touch run.txt watcher.txt tracing.txt exact-tokens.txt stix.txt dev.txt build.txt
	$(LOCK) --output-file requirements/run.txt pyproject.toml
	cat requirements/run.txt >>requirements/watcher.txt
	$(LOCK) --extra watcher --output-file requirements/watcher.txt pyproject.toml
	cat requirements/run.txt >>requirements/tracing.txt
	$(LOCK) --extra tracing --output-file requirements/tracing.txt pyproject.toml
	cat requirements/tracing.txt >>requirements/exact-tokens.txt
	$(LOCK) --extra tracing --extra exact-tokens --output-file requirements/exact-tokens.txt pyproject.toml
	cat requirements/run.txt >>requirements/stix.txt
	$(LOCK) --extra stix --output-file requirements/stix.txt pyproject.toml
	cat requirements/exact-tokens.txt requirements/watcher.txt requirements/stix.txt >>requirements/dev.txt
	$(LOCK) --all-extras --output-file requirements/dev.txt pyproject.toml
	cat requirements/dev.txt >requirements/build.txt
	$(LOCK) --only-build-deps --build-deps-for editable --output-file requirements/build.txt pyproject.toml

.PHONY: clean
clean: ## Remove what make made (not var/, where the gate keeps its data)
	rm -rf $(VENV) build dist .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

# --- environment ---

$(RUN_READY): requirements/watcher.txt requirements/build.txt pyproject.toml | $(PY)
	$(PIP) $(INSTALL) -r requirements/watcher.txt -r requirements/build.txt
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	touch $@

$(DEV_READY): requirements/dev.txt $(RUN_READY)
	$(PIP) $(INSTALL) -r requirements/dev.txt
	touch $@

# Names are tried by running them: a shim may exist for a Python that does not.
$(PY):
	@for python in $(PYTHON) python3.13 python3.12 python3.11 python3; do \
		if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
			echo "Making $(VENV) with $$("$$python" --version)"; \
			exec "$$python" -m venv --clear $(VENV); \
		fi; \
	done; \
	echo 'Gatekeeper needs Python 3.11 or newer with venv, and found none.' >&2; \
	echo 'On Debian: apt-get install python3 python3-venv. Elsewhere: make PYTHON=/path/to/python3.11 ...' >&2; \
	exit 1

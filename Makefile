# Everything is set up from a bare checkout: environments from locked files, into .venv and .venv-sdk.

PYTHON ?= python3
VENV := .venv
SDK := .venv-sdk
NODE := tests/conformance/node
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
PIP := -m pip --quiet --disable-pip-version-check

# Two workers: most of the time of a conformance test is an SDK waiting.
WORKERS ?= 2

# `make compiled` works on a copy: a compiled module beside its source would be imported instead of it ever after.
COMPILED := build/compiled

.PHONY: compiled help setup sdk node system demo test conformance lint check bench soak lock clean

help:
	@echo "make demo         run a device from its certificate to its telemetry, on the stock Azure SDK"
	@echo "make test         the tests that need nothing but this checkout (under a minute)"
	@echo "make conformance  unmodified SDKs, faults and the browser against running servers"
	@echo "make check        lint, types, import contracts, and all tests: what CI runs"
	@echo "make bench        how fast it is here, as JSON: the server, and AMQP"
	@echo "make compiled     a wheel with the cores of MQTT and AMQP compiled, tested"
	@echo "make soak         SOAK_MINUTES=10 of drops, takeovers and restarts under load; nothing may be lost"

setup: $(VENV)/.done

$(VENV)/.done: requirements/test.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) install --require-hashes -r requirements/test.txt
	$(BIN)/python $(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

sdk: $(SDK)/.done

$(SDK)/.done: requirements/sdk.txt
	$(PYTHON) -m venv $(SDK)
	$(SDK)/bin/python $(PIP) install --require-hashes -r requirements/sdk.txt
	@touch $@

node: $(NODE)/node_modules/.done

$(NODE)/node_modules/.done: $(NODE)/package.json $(NODE)/package-lock.json
	cd $(NODE) && npm ci --silent --ignore-scripts --omit=optional --no-audit --no-fund
	@touch $@

# What comes from the system: a browser for the portal's tests, a TPM in software for TPM attestation, MQTT clients for
# shell scripts. Installed where that is possible and they are missing.
SYSTEM := chromium chromium-driver swtpm tpm2-tools mosquitto-clients
system:
	@for tool in chromium chromedriver swtpm tpm2_import mosquitto_pub; do command -v $$tool >/dev/null || missing="$$missing $$tool"; done; \
	[ -z "$$missing" ] \
		|| { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq $(SYSTEM) >/dev/null; } \
		|| { echo "These are missing:$$missing. Install them: sudo apt-get install $(SYSTEM)"; exit 1; }

demo: setup sdk
	$(BIN)/muster demo --python $(SDK)/bin/python

test: setup
	$(PYTEST) tests/unit tests/playbook tests/property tests/operations tests/contract -n $(WORKERS) -q

conformance: setup sdk node system
	$(PYTEST) tests/conformance tests/fault tests/browser -n $(WORKERS) --dist loadfile -q --timeout 600

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

coverage: setup
	$(PYTEST) tests/unit tests/playbook tests/property tests/operations -n $(WORKERS) -q --cov --cov-report=term:skip-covered

check: lint test conformance

bench: setup sdk
	$(BIN)/python -m tests.bench.bench_server
	$(BIN)/python -m tests.bench.bench_amqp

# dist/*.whl with the cores of MQTT and AMQP compiled by mypyc, for this Python and machine, and the tests of those cores on
# what was installed from it. Needs a C compiler; not part of `check`: some minutes.
compiled: setup
	rm -rf $(COMPILED) dist/*.whl
	mkdir -p $(COMPILED) && git archive HEAD | tar -x -C $(COMPILED)
	HATCH_BUILD_HOOK_ENABLE_MYPYC=1 $(BIN)/python $(PIP) wheel --no-deps --wheel-dir dist $(COMPILED)
	rm -rf $(COMPILED)/src
	$(PYTHON) -m venv $(COMPILED)/$(VENV)
	$(COMPILED)/$(BIN)/python $(PIP) install --require-hashes -r requirements/test.txt
	$(COMPILED)/$(BIN)/python $(PIP) install --no-deps dist/*.whl
	cd $(COMPILED) && $(BIN)/python -c "import muster.wire.mqtt_session as core; assert core.__file__.endswith('.so'), core"
	cd $(COMPILED) && $(PYTEST) tests/unit/wire tests/playbook tests/property tests/operations -n $(WORKERS) -q

# Not part of `check`: it takes as long as it is told to.
soak: setup
	SOAK_MINUTES=$(or $(SOAK_MINUTES),10) $(BIN)/python -m tests.soak.soak

# Run after a change of the dependencies. Hashes, no indexes, no links: the locks name packages and nothing else.
lock: setup
	$(BIN)/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe --no-emit-index-url --no-emit-find-links \
		--no-emit-trusted-host --extra test -o requirements/test.txt pyproject.toml
	$(BIN)/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe --no-emit-index-url --no-emit-find-links \
		--no-emit-trusted-host -o requirements/sdk.txt requirements/sdk.in
	cd $(NODE) && npm install --silent --package-lock-only --ignore-scripts --omit=optional --no-audit --no-fund \
		--omit-lockfile-registry-resolved && node strip_lock.js

clean:
	rm -rf $(VENV) $(SDK) $(NODE)/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis

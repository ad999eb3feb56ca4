# `make` prints the targets below that have a description.

PYTHON ?= python3
VENV ?= .venv
TEST_VENV ?= .venv-test
PIP = bin/python -m pip --disable-pip-version-check $(QUIET)
# Whoever waits at a terminal sees what is downloaded; logs needn't have it.
QUIET = $(if $(MAKE_TERMOUT),,--quiet)
# COVERAGE=1 makes `make test` measure what the tests reach (settings in pyproject.toml).
COVERAGE_ARGS = $(if $(COVERAGE),--cov --cov-report=term:skip-covered)

# Packages whose tests run in one process, where coverage can see them, and wait for nobody. It takes
# twice the CPU of these, not of everything.
CORE = message session httpserver web
# Lines and branches of them, in percent, that their tests reach. Only ever raised.
CORE_FLOOR = 97

.PHONY: help serve install test test-core coverage mirror-coverage test-dynalite \
	test-dynamodb-local lint docs dist fuzz mutants deadcode lock clean

help: ## print this
	@echo 'Targets of make:'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "    %-21s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo 'PYTHON=python3.13 chooses another interpreter, ARGS="..." passes options on to serve,'
	@echo 'test, fuzz and mutants.'

serve: install ## install into .venv and run the service
	@$(VENV)/bin/autopush_standalone $(ARGS)

install: $(VENV)/.installed ## install into .venv

$(VENV)/.installed: requirements.txt setup.py .ci/make_venv.py
	@echo "Installing autopush into $(VENV) ..."
	@$(PYTHON) .ci/make_venv.py $(VENV)
	@$(VENV)/$(PIP) install --no-deps -r requirements.txt
	@$(VENV)/$(PIP) install --no-deps -e .
	@touch $@

$(TEST_VENV)/.installed: requirements.txt test-requirements.txt setup.py .ci/make_venv.py
	@echo "Installing autopush and its test tools into $(TEST_VENV) ..."
	@$(PYTHON) .ci/make_venv.py $(TEST_VENV)
	@$(TEST_VENV)/$(PIP) install --no-deps -r requirements.txt -r test-requirements.txt
	@$(TEST_VENV)/$(PIP) install --no-deps -e .
	@touch $@

test: $(TEST_VENV)/.installed ## run the whole suite in .venv-test
	$(TEST_VENV)/bin/python -m pytest $(COVERAGE_ARGS) $(ARGS)

test-core: $(TEST_VENV)/.installed ## the tests of single packages, with what they reach of those
	$(TEST_VENV)/bin/python -m pytest $(CORE:%=autopush/tests/%) $(CORE:%=--cov=autopush/%) \
		--cov-report=term:skip-covered --cov-fail-under=$(CORE_FLOOR) $(ARGS)

coverage: ## the whole suite, with what it reaches, line by line in htmlcov
	$(MAKE) test COVERAGE=1
	$(TEST_VENV)/bin/python -m coverage html --quiet

mirror-coverage: $(TEST_VENV)/.installed ## what of each module its own tests reach
	$(TEST_VENV)/bin/python .ci/mirror_coverage.py $(ARGS)

test-dynalite: $(TEST_VENV)/.installed ## run the storage tests on dynalite, too (needs Node.js)
	$(TEST_VENV)/bin/python .ci/dynalite.py $(ARGS)

test-dynamodb-local: $(TEST_VENV)/.installed ## the same on Amazon's DynamoDB Local
	$(TEST_VENV)/bin/python .ci/dynamodb_local.py $(ARGS)

lint: $(TEST_VENV)/.installed ## ruff and mypy
	$(TEST_VENV)/bin/ruff check .
	$(TEST_VENV)/bin/ruff format --check .
	$(TEST_VENV)/bin/mypy

docs: $(TEST_VENV)/.installed ## HTML documentation in docs/_build/html
	$(TEST_VENV)/bin/python -m sphinx -W -q -b html docs docs/_build/html

dist: $(TEST_VENV)/.installed ## sdist, wheel and autopush.pyz (one file that runs) in dist
	rm -rf dist build
	$(TEST_VENV)/bin/python -m build --outdir dist .
	$(TEST_VENV)/bin/python .ci/pyz.py dist/*.whl dist/autopush.pyz

fuzz: $(TEST_VENV)/.installed ## parsers under random input, for a minute
	$(TEST_VENV)/bin/python -m fuzz.parsers $(or $(ARGS),--seconds 60)

mutants: $(TEST_VENV)/.installed ## change single things in modules: do their tests notice?
	$(TEST_VENV)/bin/python .ci/mutants.py $(ARGS)

deadcode: $(TEST_VENV)/.installed ## what nothing uses (vulture)
	$(TEST_VENV)/bin/vulture

lock: ## write the hashes into the requirements files, after their versions were changed
	$(PYTHON) .ci/lock.py $(ARGS)

clean: ## remove what these made
	rm -rf $(VENV) $(TEST_VENV) .dynalite .dynamodb-local docs/_build htmlcov .coverage \
		build dist autopush_server.egg-info

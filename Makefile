# make serve     install into .venv and run the service
# make install   only install
# make test      run the whole suite in .venv-test
# make test-dynalite   run the storage tests on dynalite, too (needs Node.js; docs/dynamodb.rst)
# make test-dynamodb-local   the same on Amazon's DynamoDB Local
# make lint      ruff and mypy
# make docs      HTML documentation in docs/_build/html
# make clean     remove what these made
#
# PYTHON=python3.13 chooses another interpreter, ARGS passes options to serve and test.

PYTHON ?= python3
VENV ?= .venv
TEST_VENV ?= .venv-test
PIP = bin/python -m pip --disable-pip-version-check --quiet

.PHONY: serve install test test-dynalite test-dynamodb-local lint docs clean

serve: install
	@$(VENV)/bin/autopush_standalone $(ARGS)

install: $(VENV)/.installed

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

test: $(TEST_VENV)/.installed
	$(TEST_VENV)/bin/python -m pytest $(ARGS)

test-dynalite: $(TEST_VENV)/.installed
	$(TEST_VENV)/bin/python .ci/dynalite.py $(ARGS)

test-dynamodb-local: $(TEST_VENV)/.installed
	$(TEST_VENV)/bin/python .ci/dynamodb_local.py $(ARGS)

lint: $(TEST_VENV)/.installed
	$(TEST_VENV)/bin/ruff check .
	$(TEST_VENV)/bin/ruff format --check .
	$(TEST_VENV)/bin/mypy

docs: $(TEST_VENV)/.installed
	$(TEST_VENV)/bin/python -m sphinx -W -q -b html docs docs/_build/html

clean:
	rm -rf $(VENV) $(TEST_VENV) .dynalite .dynamodb-local docs/_build autopush.egg-info

# Everything a developer or an operator types; see README.md.

VENV   := .venv
PYTHON := $(VENV)/bin/python
CLAUDE := @anthropic-ai/claude-code@2.1.328

.PHONY: run demo test slow e2e check lock
.DEFAULT_GOAL := run

run: $(VENV)/runtime.stamp
	@$(PYTHON) manage.py serve

demo: $(VENV)/runtime.stamp
	@$(PYTHON) manage.py serve --demo

# Of these, what PostgreSQL makes of them waits for the slow run.
LATER := tests/accounts_pages tests/api tests/faults tests/proxy_project tests/relay \
  tests/sessions_limit_pages

test: $(VENV)/dev.stamp
	CAROUSEL_TEST_DATABASE=sqlite $(PYTHON) -m pytest -n 3
	CAROUSEL_TEST_DATABASE=postgres $(PYTHON) -m pytest -n 3 $(addprefix --ignore=,$(LATER))

# pytest ends with 5 when it found no test.
slow: $(VENV)/dev.stamp
	CAROUSEL_TEST_DATABASE=postgres $(PYTHON) -m pytest -n 3 $(LATER)
	@$(PYTHON) -m pytest -m slow || { code=$$?; [ $$code -eq 5 ] && echo "slow: no such test yet"; }

e2e: $(VENV)/dev.stamp .e2e/claude-2.1.328.stamp
	$(PYTHON) -m pytest tests/e2e -m e2e -p no:xdist

check: $(VENV)/dev.stamp
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(PYTHON) manage.py makemigrations --check --dry-run
	find templates -name '*.html' -exec $(VENV)/bin/djade --target-version 5.2 --check {} +

# For maintainers: choose the newest versions that requirements/*.in allow. Needs uv.
lock:
	uv pip compile --universal --generate-hashes --no-emit-index-url --no-header --upgrade \
	  --python-version 3.11 -o requirements/runtime.txt requirements/runtime.in
	uv pip compile --universal --generate-hashes --no-emit-index-url --no-header --upgrade \
	  --python-version 3.11 -c requirements/runtime.txt -o requirements/dev.txt requirements/dev.in

# A failed venv leaves a python without pip behind, so it is removed.
$(VENV)/bin/python:
	@for python in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	  $$python -m venv $(VENV) && exit 0; \
	  rm -rf $(VENV); \
	done; \
	echo "Carousel needs Python 3.11 or newer, with its venv module." >&2; exit 1

$(VENV)/runtime.stamp: requirements/runtime.txt | $(VENV)/bin/python
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

$(VENV)/dev.stamp: requirements/dev.txt | $(VENV)/bin/python
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@ $(VENV)/runtime.stamp

.e2e/claude-2.1.328.stamp:
	npm install --no-fund --no-audit --prefix .e2e $(CLAUDE)
	@touch $@

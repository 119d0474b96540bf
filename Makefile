# One word for each chore; plain `make` lists them.
# Kept to what GNU make 3.81 and a POSIX sh know, since that is what macOS brings.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.SUFFIXES:

# The environment in .venv stands for itself, whatever the shell around it carries.
unexport PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONOPTIMIZE VIRTUAL_ENV

BIN := .venv/bin
# The tests mostly wait, for sockets, disks and processes: four processes keep two processors busy. ARGS='-n 0' for one.
TEST_PROCESSES := -n 4 --dist worksteal

.PHONY: help serve test check demo browser e2e fuzz torture faults bench fmt clean vendor setup setup-browser setup-e2e

help: ## List these commands
	@awk 'BEGIN { FS = ":.*## " } /^[a-z0-9-]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' Makefile
	@echo "Options go into ARGS:  make serve ARGS='--port 8080'    make test ARGS='-k resume -x'"

serve: setup ## Set everything up and serve http://127.0.0.1:10242
	@exec $(BIN)/mlx-manager serve $(ARGS)

test: setup ## Set everything up and run the tests
	$(BIN)/pytest $(TEST_PROCESSES) $(ARGS)

check: setup ## Lint, format, types, import rules, house rules
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	MYPYPATH=backend/e2e $(BIN)/mypy backend/e2e
	MYPYPATH=backend/browser $(BIN)/mypy backend/browser
	$(BIN)/lint-imports
	$(BIN)/python scripts/check_house.py

demo: setup ## Try everything with no network: a hub of its own, generated models, slow links
	@exec env PYTHONPATH=backend:backend/tests $(BIN)/python -m demo $(ARGS)

browser: setup-browser ## The page in a real browser, faults included (Chromium or Chrome must be there)
	.venv-browser/bin/pytest backend/browser $(TEST_PROCESSES) $(ARGS)

e2e: setup setup-e2e ## A real MLX model from the hub to its first sentence (some hundred MB to set up)
	$(BIN)/pytest backend/e2e -o faulthandler_timeout=900 $(ARGS)

fuzz: setup ## Requests that nobody thought of, against the real API (a minute; ARGS='--seconds 600' for more)
	@exec env PYTHONPATH=backend:backend/tests $(BIN)/python -m fuzz $(ARGS)

torture: setup ## Kill the server 200 times amid its downloads, and prove that nothing is lost (a quarter of an hour)
	@exec env PYTHONPATH=backend:backend/tests $(BIN)/python -m torture $(ARGS)

faults: setup ## Everything that can go wrong, done for real; writes docs/faults.md (minutes; root sees most)
	@exec env PYTHONPATH=backend:backend/tests $(BIN)/python -m faults $(ARGS)

load: setup ## A thousand watchers and 200 downloads, ten times over: who hears late, what leaks (ten minutes)
	@exec env PYTHONPATH=backend:backend/tests $(BIN)/python -m torture.load $(ARGS)

bench: setup ## Side by side with hf, aria2c and curl against a hub of its own (half an hour; see docs/performance.md)
	@exec $(BIN)/python -m benchmarks $(ARGS)

fmt: setup ## Put the code into its format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

vendor: ## Fetch the page's library anew, in the version that scripts/vendor.sh names
	@sh scripts/vendor.sh

clean: ## Remove what these commands made in this folder (no model, no download)
	rm -rf .venv .venv-browser .venv-e2e .venv*.lock build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .cache/bench .cache/browser
	find backend benchmarks scripts -name __pycache__ -type d -prune -exec rm -rf {} +

setup:
	@sh scripts/setup.sh .venv -c constraints.txt -e '.[dev]'

setup-browser:
	@sh scripts/setup.sh .venv-browser -c constraints.txt -r backend/browser/requirements.txt -e '.[dev]'

setup-e2e:
	@sh scripts/setup.sh .venv-e2e -r backend/e2e/requirements.txt

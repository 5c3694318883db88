# `make demo` and `make test` each work alone and first, with python -m venv and pip only.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: demo test clean

demo: $(READY)
	$(BIN)/painseq demo

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2

# The stamp is made last, so an install that was interrupted or failed is done again.
$(READY): requirements/tested.txt pyproject.toml requirements/check_machine.py
	@$(PYTHON) requirements/check_machine.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/tested.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $(READY)

clean:
	rm -rf $(VENV) build dist *.egg-info

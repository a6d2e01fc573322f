# Everything runs in .venv, made once and reused; "make help" lists what there is.

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?=
WORKERS ?= 2

# The first of these that runs, is new enough and can make environments. A name on PATH proves nothing: a shim of pyenv's
# may stand for a version that is not installed, so each one is tried by running it.
NAMES := $(if $(PYTHON),"$(PYTHON)",python3.13 python3.12 python3.11 python3.10 python3 python)
CHECK := import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))

# An environment serves again unless this folder was moved, the Python it came from is gone, or another one is asked for.
USABLE := $(shell { read -r place && read -r name; } 2>/dev/null < $(VENV)/.place && test "$$place" = "$(CURDIR)" && \
    test "$(or $(PYTHON),$$name)" = "$$name" && $(BIN)/python -c "" 2>/dev/null && echo yes)

.DEFAULT_GOAL := help
.PHONY: help demo test lint types bench clean FORCE

help:  ## list what make can do here
	@grep -hE '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | while IFS='	' read -r name what; do \
	    printf '  make %-6s %s\n' "$$name" "$$what"; done
	@echo 'Settings: PYTHON=/path/to/python3.x chooses the interpreter (3.10 to 3.13), WORKERS=n the test processes.'

demo: $(VENV)/.installed  ## explain four small trained networks on handwritten digits
	@$(BIN)/python -m pnpx explain configs/digits.yaml
	@echo "Open runs/digits/report.html in a browser."

test: $(VENV)/.installed-test lint types  ## ruff, mypy --strict, and the tests with the docstrings' examples
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

lint: $(VENV)/.installed-test  ## ruff
	$(BIN)/python -m ruff check .

types: $(VENV)/.installed-test  ## mypy --strict
	$(BIN)/python -m mypy

bench: $(VENV)/.installed-bench  ## the tables of benchmarks/
	$(BIN)/python -m benchmarks

clean:  ## remove the environment, caches and build output, not runs/
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.place: $(if $(USABLE),,FORCE)
	@found=; for name in $(NAMES); do \
	    if "$$name" -c '$(CHECK)' 2>/dev/null; then found=$$name; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	    echo "pnpx needs Python 3.10 to 3.13 with its venv module, and none of these is one:" >&2; \
	    for name in $(NAMES); do \
	        echo "  $$name: `"$$name" -c 'import sys; print("Python", sys.version.split()[0]); import venv, ensurepip' 2>&1 \
	            | sed -e 's/ModuleNotFoundError: //' -e 's/.*not found.*/not found/' | grep -vE '^(Traceback| |$$)' | head -n 2 | paste -sd, -`" >&2; \
	    done; \
	    echo "Install one (Debian and Ubuntu: python3 and python3-venv), or name it: make PYTHON=/path/to/python3.12" >&2; \
	    exit 1; \
	fi; \
	echo "making $(VENV) with $$found (`"$$found" -c 'import sys; print(sys.version.split()[0])'`)"; \
	rm -rf $(VENV) && "$$found" -m venv $(VENV) && printf '%s\n' "$(CURDIR)" "$$found" > $(VENV)/.place

# A stamp an extra. Installing is repeated when the dependencies may have changed, which is when setup.cfg has.
$(VENV)/.installed: setup.cfg pyproject.toml $(VENV)/.place
	$(BIN)/python -m pip install --editable .
	@touch $@

$(VENV)/.installed-%: setup.cfg pyproject.toml $(VENV)/.place
	$(BIN)/python -m pip install --editable '.[$*]'
	@touch $(VENV)/.installed $@

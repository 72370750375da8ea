# Needs Python >= 3.11 and make. Uses uv when it is there, else pip.
PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
BRIDGE := .venvs/mcp1
FASTMCP := .venvs/fastmcp
OLDEST := .venvs/oldest
PINS ?= constraints.txt
UPSTREAM := .venvs/upstream-$(notdir $(basename $(PINS)))
HOSTED := tests/adapters/test_langchain_agents.py tests/adapters/test_langchain_asks.py \
	tests/adapters/test_llamaindex_asks.py tests/adapters/test_llamaindex_input.py \
	tests/attacks/test_langchain.py tests/attacks/test_llamaindex.py
UV := $(shell command -v uv 2>/dev/null)
RUNTIME := -e packages/core -e packages/langchain -e packages/mcp opentelemetry-sdk
MANIFESTS := $(wildcard packages/*/pyproject.toml) pyproject.toml

ifeq ($(UV),)
create = $(PYTHON) -m venv $(1)
install = $(1)/bin/python -m pip install --quiet --disable-pip-version-check
else
create = $(UV) venv --quiet --allow-existing --python $(PYTHON) $(1)
install = $(UV) pip install --quiet --python $(1)/bin/python
endif

.PHONY: demo demo-mcp test check fix bench coverage interop upstream-llamaindex docs pictures wheels clean

demo: $(VENV)/.runtime  ## the main job twice: unguarded and guarded
	$(BIN)/lictor demo

demo-mcp: $(VENV)/.runtime  ## a real server and one that lies: directly, and behind the gateway
	$(BIN)/lictor demo mcp

test: $(VENV)/.dev $(BRIDGE)/.ready $(FASTMCP)/.ready $(OLDEST)/.ready  ## all tests
	$(BRIDGE)/bin/python -m pytest tests/adapters/mcp_bridge $(ARGS)
	$(FASTMCP)/bin/python -m pytest tests/fastmcp $(ARGS)
	$(OLDEST)/bin/python -m pytest -k "not deepagents" $(HOSTED) $(ARGS)
	$(BIN)/python -m pytest --ignore=tests/adapters/mcp_bridge --ignore=tests/fastmcp $(ARGS)

check: $(VENV)/.dev  ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy packages/*/src

fix: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev  ## writes build/bench/*.json
	$(BIN)/python benchmarks/run.py $(ARGS)

interop: $(VENV)/.dev  ## against parts of others, fetched now; writes build/interop/mcp.json
	$(BIN)/python tests/interop/run.py $(ARGS)

upstream-llamaindex: $(UPSTREAM)/.ready  ## LlamaIndex's own tests, guarded; SRC= a checkout of it
	$(UPSTREAM)/bin/python tests/interop/upstream_llamaindex.py $(SRC)

coverage: $(VENV)/.dev  ## docs/coverage.md, from a run of the adapter suite
	$(BIN)/python scripts/coverage_page.py

docs: $(VENV)/.dev  ## the generated pages
	$(BIN)/python scripts/generate_docs.py

pictures: $(VENV)/.dev  ## docs/pictures, from a real run of docs/quickstart.md
	$(BIN)/python scripts/record.py

wheels: $(VENV)/.dev  ## dist/*.whl
	for package in core langchain llamaindex mcp; do \
		(cd packages/$$package && ../../$(BIN)/python -m hatchling build -t wheel -d ../../dist) || exit 1; \
	done

$(VENV)/.runtime: $(MANIFESTS) constraints.txt
	$(call create,$(VENV))
	$(call install,$(VENV)) -c constraints.txt $(RUNTIME)
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements-dev.txt
	$(call install,$(VENV)) -c constraints.txt $(RUNTIME) -e packages/llamaindex \
		-r requirements-dev.txt
	@touch $@

# langchain-mcp-adapters needs mcp 1.x, which cannot be installed beside mcp 2.x
$(BRIDGE)/.ready: $(MANIFESTS) constraints/mcp1.txt requirements-mcp1.txt
	$(call create,$(BRIDGE))
	$(call install,$(BRIDGE)) -c constraints/mcp1.txt -e packages/core -e packages/langchain \
		-e packages/mcp -r requirements-mcp1.txt
	@touch $@

# FastMCP brings a hundred packages of its own
$(FASTMCP)/.ready: $(MANIFESTS) constraints/fastmcp.txt requirements-fastmcp.txt
	$(call create,$(FASTMCP))
	$(call install,$(FASTMCP)) -c constraints/fastmcp.txt -e packages/core -e packages/mcp \
		-r requirements-fastmcp.txt
	@touch $@

# the oldest hosts that packages/*/pyproject.toml allow; the newest are in .venv
$(OLDEST)/.ready: $(MANIFESTS) constraints/oldest.txt requirements-oldest.txt
	$(call create,$(OLDEST))
	$(call install,$(OLDEST)) -c constraints/oldest.txt -e packages/core -e packages/langchain \
		-e packages/llamaindex -e packages/mcp -r requirements-oldest.txt
	@touch $@

# PINS=constraints/oldest.txt for a checkout that is nearer to the oldest version
$(UPSTREAM)/.ready: $(MANIFESTS) $(PINS) requirements-upstream.txt
	$(call create,$(UPSTREAM))
	$(call install,$(UPSTREAM)) -c $(PINS) -e packages/core -e packages/llamaindex \
		-r requirements-upstream.txt
	@touch $@

clean:
	rm -rf build .venv .venvs

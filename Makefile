# Everything a newcomer needs: `make bench` and `make test`. Both set up .venv first, and do nothing the second time.
PYTHON ?= python3
SCENARIO ?= scenarios/quickstart.toml
RESULTS ?= results
RUN ?= latest
VENV := .venv
BIN := $(VENV)/bin
OWN := $(VENV)/environments

# A run starts dozens of processes, and compiling what they import takes each of them seconds.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
PEERS := mlserver mlflow bentoml
.PHONY: help setup autogluon peers bench test test-long lint lock report gate serve clean

help: ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.setup ## install what a run needs into .venv

autogluon: $(OWN)/autogluon/.setup ## install the engine autogluon, in an environment of its own

peers: $(PEERS:%=$(OWN)/%/.setup) ## install the servers that benchmarks/peers compares ours with, each in an environment of its own

bench: $(VENV)/.setup ## run a scenario: SCENARIO=file (RESUME=run goes on with one)
	@$(BIN)/harness run $(if $(RESUME),--resume $(RESUME),$(SCENARIO)) --results $(RESULTS)

test: $(VENV)/.setup-dev lint ## lint, then every test that takes seconds
	@$(BIN)/python -m pytest -m "not long and not alone" --numprocesses 2 --dist loadfile
	@$(BIN)/python -m pytest -m "not long and alone"

test-long: $(VENV)/.setup-dev ## the tests that take minutes
	@$(BIN)/python -m pytest -m long

lint: $(VENV)/.setup-dev ## ruff, mypy, import contracts
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports --no-cache

lock: $(BIN)/uv ## write the lock files anew after pyproject.toml changed (UPGRADE=1: newest versions)
	@for group in setup dev; do $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --no-emit-index-url $(if $(UPGRADE),--upgrade) --group $$group pyproject.toml \
		--output-file requirements$$(test $$group = setup || echo -dev).lock || exit 1; done
	@grep -oE '^(ray|pydantic)==[^ ]+' requirements.lock | $(BIN)/uv pip compile --quiet --universal \
		--python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url \
		$(if $(UPGRADE),--upgrade) --group autogluon - --output-file requirements-autogluon.lock
	@for peer in $(PEERS); do grep -oE '^scikit-learn==[^ ]+' requirements.lock | $(BIN)/uv pip compile --quiet \
		--universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url \
		$(if $(UPGRADE),--upgrade) --group $$peer - --output-file benchmarks/peers/$$peer.lock || exit 1; done

report: $(VENV)/.setup ## make the report of a run anew: RUN=id
	@$(BIN)/harness report $(RUN) --results $(RESULTS)

gate: $(VENV)/.setup ## the verdict of a run as an exit status: RUN=id
	@$(BIN)/harness gate $(RUN) --results $(RESULTS)

serve: $(VENV)/.setup ## serve a candidate until interrupted: BUNDLE=results/RUN/candidates/ID
	@$(BIN)/harness serve $(BUNDLE)

clean: ## remove .venv and caches (results stay)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .benchmarks .hypothesis build dist

$(BIN)/uv: requirements-uv.lock
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements-uv.lock && touch $@

$(VENV)/.setup: $(BIN)/uv requirements.lock pyproject.toml
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable . && touch $@

$(VENV)/.setup-dev: $(VENV)/.setup requirements-dev.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements-dev.lock && touch $@

# Libraries whose pins conflict with ours. Its last line makes it count as installed.
$(OWN)/%/.setup: requirements-%.lock $(VENV)/.setup
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(@D)
	@$(BIN)/uv pip install --quiet --python $(@D)/bin/python --require-hashes -r $<
	@$(BIN)/uv pip install --quiet --python $(@D)/bin/python --no-deps --no-build-isolation --editable . && touch $@

# Servers of others, which know nothing of us.
$(PEERS:%=$(OWN)/%/.setup): $(OWN)/%/.setup: benchmarks/peers/%.lock $(VENV)/.setup
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(@D)
	@$(BIN)/uv pip install --quiet --python $(@D)/bin/python --require-hashes -r $< && touch $@

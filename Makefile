# dsmt: everything a person or CI does begins here. Only Python >= 3.11 and make are needed to begin.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
SEEDS  ?= 3
PARTED ?= $(SEEDS)

.PHONY: demo test lint nats fuzz kills partitions connections crowd operate soak bench mutants docs vectors sim sim-long profile day wheel clean environment tools

environment: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/.tools: $(VENV)/.installed
	$(BIN)/pip install --quiet --editable '.[test,lint]'
	touch $@

tools: $(VENV)/.tools

demo: environment
	$(BIN)/dsmt demo

# Bytecode is kept, as for most users: tests start thousands of processes, each of which would compile all modules anew.
test lint bench: export PYTHONDONTWRITEBYTECODE :=

test: tools
	./scripts/test-needs
	DSMT_SEEDS=$(SEEDS) DSMT_PARTED=$(PARTED) $(BIN)/pytest -n 6 --dist loadgroup --no-loadscope-reorder --durations 40 $(TESTS)

lint: tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -q tests/architecture

sim: tools
	$(BIN)/python -m dsmt.simulator --seeds 50 --jobs 2
	$(BIN)/python -m dsmt.simulator --scenario storm --seeds 4 --seconds 120 --nodes 100 --jobs 2

sim-long: tools
	$(BIN)/python -m dsmt.simulator --seeds 1000 --jobs 2

profile: tools
	$(BIN)/python -m dsmt.simulator.profiling --scenario $(or $(SCENARIO),storm) --seed $(or $(SEED),1) $(PROFILE)

day: tools
	$(BIN)/python -m dsmt.simulator.day $(DAY)

nats: tools
	DSMT_NATS_ROUNDS=$(or $(ROUNDS),5) $(BIN)/pytest -s tests/bus/test_nats_kills.py tests/bus/test_nats_door.py tests/bus/test_nats_bus.py tests/bus/test_nats_readers.py
	$(BIN)/pytest -k nats tests/bus/contract
	$(BIN)/pytest tests/bus/test_nats_gate.py tests/real/test_nats_realm.py
	DSMT_ENGINE=nats $(BIN)/pytest tests/real/test_kills.py tests/real/test_stops.py

fuzz: tools
	$(BIN)/pip install --quiet --editable '.[fuzz]'
	for target in $(or $(ONLY),codec frames certificates store); do $(BIN)/python -m tests.fuzz $$target $(or $(SECONDS),60) || exit 1; done

kills: tools
	DSMT_KILL_ROUNDS=$(or $(ROUNDS),200) $(BIN)/pytest --durations=2 tests/bus/test_kills.py

partitions: tools
	DSMT_PARTITION_S=60 $(BIN)/pytest -s tests/real/test_partitions.py

connections: tools
	$(BIN)/python -m tests.operate.connections $(CONNECTIONS)

crowd: tools
	$(BIN)/python -m tests.operate.crowd $(NODES)

operate: tools
	./scripts/test-needs operate
	$(BIN)/python -m tests.operate $(OPERATE)

soak: tools
	$(BIN)/python -m tests.operate.soak $(SOAK)

bench: tools
	$(BIN)/pip install --quiet --editable '.[bench]'
	$(BIN)/python -m benchmarks $(ONLY) $(if $(STAGES),--stages) $(if $(LONG),--long)

mutants: tools
	$(BIN)/pip install --quiet --editable '.[mutants]'
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m scripts.mutants $(or $(ROOM),event) $(MUTANTS)

docs: environment
	$(BIN)/python -m scripts.reference

vectors: environment
	$(BIN)/python -m scripts.vectors

wheel: tools
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .

clean:
	rm -rf $(VENV) .venv-* dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis

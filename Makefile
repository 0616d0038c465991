# Plain verbs. Each one sets up what it needs first; a second call finds it done.
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-unit check bench chaos up lock clean

BIN := .venv/bin
PYTHON_READY := .venv/.python-ready
KAFKA_READY := .venv/.kafka-ready
ARGS ?=
ALL ?=

help:  ## Show the verbs
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

$(PYTHON_READY): requirements.lock pyproject.toml .ci/setup .ci/uv.lock
	@.ci/setup python

$(KAFKA_READY): $(PYTHON_READY) .ci/warm_kafka.py broker/embedded/pom.xml
	@.ci/setup kafka

setup: $(PYTHON_READY) $(KAFKA_READY)  ## Get everything: .venv from the lock, Java, Kafka's jars

demo: setup  ## Play a day on a real Kafka and check it; ARGS="--json --soknader 60"
	@$(BIN)/formidler demo $(ARGS)

test: setup  ## The whole suite, on a real Kafka; ARGS="-k outbox"
	@$(BIN)/pytest $(ARGS)

test-unit: $(PYTHON_READY)  ## The tier that needs no Kafka, in seconds
	@$(BIN)/pytest tests/unit tests/architecture $(ARGS)

check: $(PYTHON_READY)  ## Style, types, layers, packaging
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/mypy tests/typing
	@$(BIN)/pyright
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/pytest -q tests/architecture/test_packaging.py tests/architecture/test_lock.py

bench: setup  ## One table: what each step costs, against its floor and its goal
	@$(BIN)/python tests/benchmarks $(ARGS)

chaos: setup  ## Break everything, minutes; ALL=1 takes a night; ARGS="--seed 7 --punkt producers.outbox.after-commit"
	@$(BIN)/python tests/chaos $(if $(ALL),--alle) $(ARGS)

up: setup  ## Keep everything running until Ctrl-C; ARGS="--kommuner 0301,4601"
	@$(BIN)/formidler up $(ARGS)

lock: $(PYTHON_READY)  ## Resolve pyproject.toml's dependencies anew; ARGS="--upgrade"
	@$(BIN)/uv pip compile --quiet pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
		--no-annotate --no-header --no-emit-index-url --no-emit-find-links -o requirements.lock $(ARGS) >/dev/null

clean:  ## Remove what was made here; the cache for all clones (~/.cache/meldingsformidler) stays
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist build

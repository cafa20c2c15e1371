# Two commands matter: `make demo` and `make test`. Both set themselves up inside .venv.
PYTHON ?= python3
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
DEV := .make/dev
RUN := .make/run

COUNT ?= 2000

.PHONY: demo test check fmt bench million drills release histories faults clean help

help: ## what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

UI_SOURCES := $(shell find ui -type f -not -path '*/node_modules/*' 2>/dev/null)

$(RUN): pyproject.toml constraints.txt hatch_build.py contract/openapi.json src/watchbill/workload_fields.py \
		$(wildcard src/watchbill/responses/*.py src/watchbill/api/*.yaml) $(UI_SOURCES) | $(BIN)/python
	@echo "Installing Watchbill into $(VENV) (a few minutes the first time) ..."
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e .
	@mkdir -p .make && touch $@

$(DEV): $(RUN)
	@echo "Installing what the tests need ..."
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[dev]'
	@mkdir -p .make && touch $@

demo: $(RUN) ## a live fleet on simulated clusters; Ctrl-C ends it
	$(BIN)/watchbill demo $(ARGS)

test: $(DEV) ## all tests, in JOBS processes; names what was skipped for want of a system component
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(DEV) ## style, types, arrows
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: $(DEV) ## format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(DEV) ## ratios against the bare driver and peers, alternating; ARGS="--workloads 2000 --rounds 3"
	$(BIN)/python -m bench $(ARGS)

drills: $(DEV) ## failures of servers, proxies and databases, done to real ones (Debian: haproxy nginx etcd-server patroni pgbouncer postgresql-15)
	$(BIN)/python -m drills $(ARGS)

faults: $(DEV) ## faults between a cluster and its record, done to real processes; ARGS are words of their names
	$(BIN)/python -m drills.faults $(ARGS)

histories: $(DEV) ## COUNT random histories of agent and server, and of every kind; then all else that is drawn at random, more of it
	WATCHBILL_HISTORIES=$(COUNT) $(BIN)/python -m pytest tests/sync/test_model.py -k random --timeout 0 -o faulthandler_timeout=0
	WATCHBILL_HISTORIES=$(COUNT) $(BIN)/python -m pytest tests/unit/kinds/test_histories.py --timeout 0 -o faulthandler_timeout=0
	WATCHBILL_HISTORIES=$(COUNT) $(BIN)/python -m pytest tests/store/test_usage_changes.py -k whatever --timeout 0 -o faulthandler_timeout=0
	WATCHBILL_HISTORIES=$(COUNT) $(BIN)/python -m pytest tests/store/test_differential.py tests/api/http/test_schemathesis.py -k "random or invalid" --timeout 0 -o faulthandler_timeout=0
	WATCHBILL_HISTORIES=$(COUNT) $(BIN)/python -m pytest -n $(JOBS) -m hypothesis --timeout 0 -o faulthandler_timeout=0

release: $(DEV) ## dist/: wheel, sdist, manifests, bill of materials, checksums; see CONTRIBUTING.md
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist .
	$(BIN)/python deploy/release.py dist

million: $(DEV) ## how long every kind of question takes over a million workloads; ARGS="--live 1000000"
	$(BIN)/python -m bench.targets $(ARGS)

clean: ## forget what was installed and built
	rm -rf $(VENV) .make dist build src/watchbill/api/page

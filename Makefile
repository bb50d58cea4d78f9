PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
KEY := $(shell { cat pyproject.toml constraints.txt; $(PYTHON) --version; } | sha256sum | cut -c1-16)
# A process per core and two more, since those that drive Ray or start others mostly wait; a file's tests stay in one
PARALLEL ?= --numprocesses $(shell n=$$(getconf _NPROCESSORS_ONLN); echo $$((n < 7 ? n + 2 : 8)))
READY := $(VENV)/.ready-$(KEY)

.PHONY: bench check-gpu demo docs site test test-all test-faults lint link bench-training bench-nnunet bench-recipes bench-blocks bench-startup bench-search bench-transfer bench-memory bench-prices bench-latency bench-presets bench-export bench-ray bench-scale bench-dashboard lock

demo: link
	$(BIN)/voxnas demo

test: link
	$(BIN)/python -m pytest $(PARALLEL) -m "not long"

# With the long forms of some tests, whose short forms `make test` runs
test-all: link
	$(BIN)/python -m pytest $(PARALLEL)

# Random faults during 30 studies of 60 trials on each executor; `make test` runs two short studies, without Ray
test-faults: link
	$(BIN)/python tests/faults.py

lint: link
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The reference of all keys, from the schema
docs: link
	$(BIN)/voxnas help --markdown > studies/docs/keys.md

# The documentation as a static site, in studies/build/site
site: docs
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[docs]"
	$(BIN)/zensical build --clean --strict --config-file studies/site.toml

# All benchmarks in a short form, into studies/examples/bench.md
bench: link
	$(BIN)/python tests/bench.py

bench-training: link
	$(BIN)/python tests/bench_training.py

# Compares with nnunetv2, in an environment of its own, since nnunetv2 needs an older timm
bench-nnunet: $(VENV)-nnunet/.ready-$(KEY)
	$(VENV)-nnunet/bin/python tests/bench_nnunet.py

bench-recipes: link
	$(BIN)/python tests/bench_recipes.py

bench-startup: link
	$(BIN)/python tests/bench_startup.py

bench-search: link
	$(BIN)/python tests/bench_search.py
	$(BIN)/python tests/bench_noise.py

# TABLES=FOLDER: tables of trainings that share one space
bench-transfer: link
	$(BIN)/python tests/bench_transfer.py $(TABLES)

bench-memory: link
	$(BIN)/python tests/bench_memory.py

bench-prices: link
	$(BIN)/python tests/bench_prices.py

bench-latency: link
	$(BIN)/python tests/bench_latency.py

bench-presets: link
	$(BIN)/python tests/bench_presets.py

bench-export: link
	$(BIN)/python tests/bench_export.py
	$(BIN)/python tests/bench_export.py --networks

bench-ray: link
	$(BIN)/python tests/bench_ray.py
	$(BIN)/python tests/bench_scale.py

# The second part of bench-ray
bench-scale: link
	$(BIN)/python tests/bench_scale.py

bench-dashboard: link
	$(BIN)/python tests/bench_dashboard.py

# What only a GPU can show, in a few minutes of one; tests/gpu/check.py --help names its parts
check-gpu: link
	$(BIN)/python tests/gpu/check.py

bench-blocks: link
	$(BIN)/python tests/bench_blocks.py

# Rebuild the environment whenever pyproject.toml, constraints.txt or the Python version changes.
$(READY):
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	pwd > $(VENV)/.linked
	touch $@

$(VENV)-nnunet/.ready-$(KEY):
	rm -rf $(VENV)-nnunet
	$(PYTHON) -m venv $(VENV)-nnunet
	grep -v '^timm==' constraints.txt > $(VENV)-nnunet/constraints.txt
	$(VENV)-nnunet/bin/pip install --quiet --constraint $(VENV)-nnunet/constraints.txt --editable ".[bench-nnunet]"
	touch $@

# Several checkouts may share one environment: link it to the checkout that runs make.
link: $(READY)
	@test "$$(cat $(VENV)/.linked)" = "$$(pwd)" || \
		{ $(BIN)/pip install --quiet --no-deps --editable . && pwd > $(VENV)/.linked; }

# Resolve the newest versions for every platform with uv; uv.lock names package indexes and stays out of the repository
lock:
	uv lock --upgrade
	uv export --all-extras --no-hashes --no-emit-project --no-annotate --no-header --output-file constraints.txt

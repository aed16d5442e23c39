# `make` lists what can be done. PYTHON=/path/to/python3.12 chooses the interpreter for .venv, and
# ARGS="--config.sampling.k=100" is handed on to the program (to pytest for `make test`). METHODS and
# SEEDS choose the rows and seeds of `make table` and `make tune`: METHODS=knn,vos SEEDS=0, or
# METHODS=every for all rows there are, with the trainings that `all` leaves out. WORKERS=2 shares the
# trainings of these two, `make photos` and `make ablation` among processes. MINUTES, SEED and PARTS
# are those of `make soak`: MINUTES=5 SEED=7 PARTS=kills,damages. PYTHONS and VERSIONS are those of
# `make compatibility`: PYTHONS="python3.12 /opt/bin/python3.13" VERSIONS=newest.

PYTHON ?=
ARGS ?=
METHODS ?= all
SEEDS ?= 0,1,2
WORKERS ?= 1
MINUTES ?= 60
SEED ?=
PARTS ?= kills,damages,disk,images,settings
PYTHONS ?=
VERSIONS ?= newest,oldest

VENV := .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.requirements
INSTALLED_DEV := $(VENV)/.requirements-dev
INSTALLED_RIVALS := $(VENV)/.requirements-benchmarks
BENCHMARKS := sampler resnet max_pool dense generator scoring knn training_loop schedulers

# What is installed are the versions of constraints/, which the tests passed with; a Python that has no
# file there gets the newest that requirements.txt allows. Found by the shell, as .venv is new then.
MINOR := import sys; print("%d.%d" % sys.version_info[:2])
TESTED := $$(python=$$($(RUN) -c '$(MINOR)'); file=constraints/python$$python.txt; \
    if test -f $$file; then echo "-c $$file"; \
    else echo "Python $$python is untested: installs the newest versions allowed" >&2; fi)
PIP_INSTALL := $(RUN) -m pip install --disable-pip-version-check --no-input $(TESTED)

# Looked for only when something is to be installed.
CANDIDATES := $(or $(PYTHON),python3.11 python3.12 python3.13 python3)
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
FOUND_PYTHON = $(shell for python in $(CANDIDATES); do \
    "$$python" -c '$(NEW_ENOUGH)' 2>/dev/null && { echo "$$python"; break; }; done)
USABLE_VENV = $(shell $(RUN) -c 'import pip; $(NEW_ENOUGH)' 2>/dev/null && echo yes)
NO_PYTHON = Python 3.11 or newer is needed (tried: $(CANDIDATES)); \
    name one with PYTHON=/path/to/python3.11

.DEFAULT_GOAL := help
.PHONY: help quickstart quickstart-photos score photos table tune ablation generator test soak compatibility \
    benchmark lint clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-17s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

quickstart: $(INSTALLED) ## install, then run the whole pipeline on data that packages carry
	$(RUN) launch/main.py --config=configs/quickstart.py $(ARGS)

quickstart-photos: $(INSTALLED) ## the same on CIFAR-10, with the generator of photographs
	$(RUN) launch/main.py --config=configs/cifar10.py:quickstart $(ARGS)

score: $(INSTALLED) ## score your images: ARGS="--run=runs/quickstart --images=FOLDER --page=scores.html"
	$(RUN) launch/score.py $(ARGS)

photos: $(INSTALLED) ## every row on CIFAR-10, three seeds; needs prepared sets, see configs/cifar10.py
	$(RUN) launch/main.py --config=configs/cifar10.py:small --config.methods=$(METHODS) \
	    --config.seeds=$(SEEDS) --workers=$(WORKERS) $(ARGS)

table: $(INSTALLED) ## all rows, three seeds, on the quickstart's data; METHODS=every for more trainings
	$(RUN) launch/main.py --config=configs/quickstart.py --config.methods=$(METHODS) \
	    --config.seeds=$(SEEDS) --config.data.shifted=noise,blur,shear,occlusion,contrast \
	    --workers=$(WORKERS) $(ARGS)

tune: $(INSTALLED) ## choose the settings of the table's rows on tuning sets
	$(RUN) launch/tune.py --config=configs/quickstart.py --config.methods=$(METHODS) \
	    --workers=$(WORKERS) $(ARGS)

ablation: $(INSTALLED) ## compare variants of the quickstart's recipe on tuning sets
	$(RUN) launch/ablate.py --config=configs/quickstart.py --workers=$(WORKERS) $(ARGS)

generator: $(INSTALLED) ## train the miniature Stable Diffusion that quickstart uses
	$(RUN) launch/train_generator.py --config=configs/generator_glyphs.py $(ARGS)

test: $(INSTALLED_DEV) ## install, then run the tests
	$(RUN) -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder \
	    --durations=10 $(ARGS)

soak: $(INSTALLED_DEV) ## kill and damage runs at random for an hour, and say what did not hold
	$(RUN) -m tests.soak --minutes=$(MINUTES) --parts=$(PARTS) $(if $(SEED),--seed=$(SEED)) $(ARGS)

compatibility: ## test the Pythons that are here, with the newest versions allowed and the oldest
	$(or $(FOUND_PYTHON),$(error $(NO_PYTHON))) -m tests.compatibility --pythons="$(PYTHONS)" \
	    --versions=$(VERSIONS) $(ARGS)

benchmark: $(INSTALLED_RIVALS) ## install the rivals too, then measure against them
	for name in $(BENCHMARKS); do $(RUN) -m benchmarks.$$name $(ARGS) || exit 1; done
	$(RUN) -m benchmarks.paired

lint: $(INSTALLED_DEV) ## check style, formatting and types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

clean: ## remove .venv and caches; runs/ stays
	rm -rf $(VENV) .compatibility .pytest_cache .ruff_cache .mypy_cache build *.egg-info
	find . -path ./runs -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

# The stamps are written last, so an interrupted installation is taken up again.
$(INSTALLED): requirements.txt $(wildcard constraints/python*.txt)
	$(if $(USABLE_VENV),,$(or $(FOUND_PYTHON),$(error $(NO_PYTHON))) -m venv --clear $(VENV))
	$(PIP_INSTALL) -r requirements.txt
	@touch $@

$(INSTALLED_DEV): requirements-dev.txt $(INSTALLED)
	$(PIP_INSTALL) -r requirements-dev.txt
	@touch $@

$(INSTALLED_RIVALS): benchmarks/requirements.txt $(INSTALLED)
	$(PIP_INSTALL) -r benchmarks/requirements.txt
	@touch $@

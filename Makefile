# make book | make test | make serve | make lab | make clean     (make help explains)
# Every target makes its own environment first. Nothing is installed outside this folder.

PYTHON  ?= python3
PROFILE ?= tiny
CORES   ?= all
PORT    ?= 8000
SNAKEMAKE_ARGS ?=
PYTEST_ARGS ?=
LAB_ARGS ?=

# A profile is a file in config/: no other name reaches a shell.
PROFILES := $(sort $(basename $(notdir $(wildcard config/*.yaml))))
ifneq ($(words $(value PROFILE)) $(filter $(PROFILES),$(value PROFILE)),1 $(value PROFILE))
  $(error PROFILE=$(value PROFILE): expected one of $(PROFILES))
endif

VENV := .venv
BIN  := $(VENV)/bin
# Keep freed memory instead of asking for fresh pages: several times faster where page faults are slow (virtual machines).
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184
# One stamp per content of the two files and place of the folder: no change, no work.
STAMP := $(VENV)/.ready-$(shell { cat requirements.txt pyproject.toml; pwd; } | cksum | cut -d' ' -f1)

# $(call step,what,command): say what is done, do it, say how long it took.
step = @echo "==> $(1)"; start=$$(date +%s); $(2) && echo "    $$(( $$(date +%s) - start )) s"

.PHONY: help book pipeline dry-run prefetch site test serve lab lock clear clean clean-runs
.DEFAULT_GOAL := help

help:
	@echo "make book  [PROFILE=tiny] [CORES=all]   run the notebooks, build the book   -> _build/html/index.html"
	@echo "make test  [PYTEST_ARGS=...]            run the tests"
	@echo "make dry-run [PROFILE=tiny]             say which jobs would run and why, and run none"
	@echo "make prefetch [PROFILE=tiny]            fetch models and data, for nodes without a network"
	@echo "make serve [PORT=8000]                  show the built book on this machine only"
	@echo "make lab   [LAB_ARGS=--no-browser]      open the notebooks in JupyterLab: sliders and forms compute anew"
	@echo "make lock                               write requirements.lock anew, after a change of requirements.txt"
	@echo "make clear                              remove the outputs from notebooks/, before they are committed"
	@echo "make clean                              remove pages, executed notebooks and logs; keep runs/ and results/"
	@echo "make clean-runs PROFILE=tiny            remove the models and tables of one profile"

book: site

pipeline: $(STAMP)
	$(call step,run what is missing or changed (profile $(PROFILE)),$(BIN)/python workflow/pipeline.py --profile "$(PROFILE)" --cores "$(CORES)" $(SNAKEMAKE_ARGS))

dry-run: $(STAMP)
	@$(BIN)/python workflow/pipeline.py --profile "$(PROFILE)" --cores "$(CORES)" --dry-run $(SNAKEMAKE_ARGS)

prefetch: $(STAMP)
	@$(BIN)/python workflow/prefetch.py "$(PROFILE)"

site: pipeline
	$(call step,build the pages,$(BIN)/python book/_ext/build.py build)
	@echo "Read it: make serve, or open _build/html/index.html"

test: $(STAMP)
	$(call step,run the tests,OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --dist loadgroup $(PYTEST_ARGS))

serve: $(STAMP)
	@$(BIN)/python book/_ext/build.py serve --port $(PORT)

lab: $(STAMP)
	@$(BIN)/python -m jupyterlab $(LAB_ARGS)

# What is installed here, with hashes, for every system. PyTorch has other files for other devices, so it is not in it.
lock: $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@mkdir -p .cache && echo "torch ; sys_platform == 'never'" > .cache/no-torch.txt
	@$(BIN)/python -m pip freeze --exclude-editable | grep -v '^torch==\|^uv==' > .cache/installed.txt
	$(call step,lock,$(BIN)/python -m uv pip compile requirements.txt --quiet --universal --python-version 3.11.5 --generate-hashes \
	  --no-annotate --no-header --override .cache/no-torch.txt --constraint .cache/installed.txt > .cache/lock.txt)
	@sed "/sys_platform == 'never'/,/[^\\\\]\$$/d" .cache/lock.txt > requirements.lock

clear: $(STAMP)
	@$(BIN)/python book/_ext/committed.py

clean:
	rm -rf _build executed study work logs vendor_site book/generated .cache/book.new
	rm -rf .pytest_cache .ruff_cache .hypothesis
	@echo "kept: runs/ and results/ (computed), .venv and .cache (downloaded)"

# A run at work holds this lock; where the file system has none, the file beside it is there.
clean-runs:
	@$(PYTHON) -c 'import fcntl, os, sys; path = "runs/$(PROFILE)/.work.lock"; os.path.exists(path) and \
	  fcntl.flock(os.open(path, os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB); sys.exit(os.path.exists(path + ".soft"))' \
	  2>/dev/null || { echo "error: a run is at work in runs/$(PROFILE): wait for it, or end it with Ctrl-C" >&2; exit 2; }
	rm -rf "runs/$(PROFILE)"

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: needs Python 3.11 or newer, found $$($(PYTHON) --version 2>&1); name one: make PYTHON=python3.12" >&2; exit 2; }
	$(call step,make the environment in $(VENV),$(PYTHON) -m venv $(VENV))
	$(call step,install the pinned packages,$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt)
	$(call step,install this package,$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .)
	@rm -f $(VENV)/.ready-*; touch $@

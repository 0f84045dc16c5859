# make lab         open your copies of the lessons       ARGS="..." is passed on to it
# make check       formatter, linter and quick tests     TESTS="tests/codec" runs a part, JOBS=1 one at a time
# make test        the same with every test: what is slow, and each lesson in a browser
# make notebooks   execute the notebooks in place, to be committed
# make bench       run every benchmark, and put the tables into benchmarks/README.md
# make trust       run the long checks, and put their figures into SECURITY.md (an hour)
# make lock        take the newest versions that pyproject.toml allows, and write them to constraints.txt
# make clean       remove .venv and what Python left behind, never your copies of the lessons
#
# All of them first make .venv, once; a change of pyproject.toml or constraints.txt updates it.

VENV   := .venv
PY     := $(VENV)/bin/python
READY  := $(VENV)/ready
PYTHON ?= python3.11 python3.12 python3
JOBS   ?= 2
TESTS  ?= tests
LESSONS := $(wildcard notebooks/*.ipynb)
OPENED  := /lab/workspaces/my-lessons/tree/my-lessons/00_start_here.ipynb
BENCHES ?= start_up codec_speed tiling_seams explorer_latency effort training_speed denoiser_worth \
           digit_samplers digit_guidance digit_training few_steps digit_flow caption_accuracy latent_cost \
           block_removal small_teachers scenes_codec picture_measures realism z_only
TRUST ?= hostile_files killed_trainings

export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: lab check test notebooks bench trust lock clean
.DELETE_ON_ERROR:

$(READY): pyproject.toml constraints.txt
	@for python in $(PYTHON); do \
	  $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null || continue; \
	  $$python -m venv $(VENV) && exit 0; \
	  echo "$$python could not make $(VENV); on Debian and Ubuntu: apt-get install $$python-venv" >&2; exit 1; \
	done; \
	echo "dhp-lab needs Python 3.11 or 3.12, and none of these is one: $(PYTHON)" >&2; \
	echo "Install one of them, or name it: make PYTHON=path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1
	$(PY) -m pip install --constraint constraints.txt --editable '.[lab,test]'
	@touch $@

# The reader's copies, in a workspace of their own: that of an earlier time may hold the lessons themselves, and
# JupyterLab saves what it has open. No display, no browser: it then prints the address to open. Root needs its word
# that this is meant.
lab: $(READY)
	@$(PY) -m dhp_lab.cli lessons
	@flags=""; [ "$$(id -u)" != 0 ] || flags="--allow-root"; \
	[ "$$(uname)" != Linux ] || [ -n "$$DISPLAY$$WAYLAND_DISPLAY$$BROWSER" ] || flags="$$flags --no-browser"; \
	exec $(PY) -m jupyterlab --LabApp.default_url=$(OPENED) $$flags $(ARGS)

# One thread for each of the parallel jobs: two jobs that share two cores must not start four threads.
check test: export DHP_PROFILE := ci
check test: export HF_HUB_OFFLINE := 1
check test: export OMP_NUM_THREADS := 1
check: SELECT := -m "not slow"
test: SELECT := --durations=15
check test: $(READY)
	$(PY) -m ruff format --check
	$(PY) -m ruff check
	$(PY) -m pytest -n $(JOBS) $(SELECT) $(TESTS)

notebooks: export DHP_PROFILE := laptop
notebooks: export HF_HUB_OFFLINE := 1
notebooks: $(READY)
	$(PY) tests/notebooks/execute_notebooks.py $(LESSONS)

# PHOTOS="train eval" also trains and measures the variants of benchmarks/ablation.py, for an hour.
bench: $(READY)
	@for file in $(BENCHES); do echo "== $$file"; $(PY) benchmarks/$$file.py || exit 1; done
	@set -- $(PHOTOS); [ -z "$$1" ] || $(PY) benchmarks/ablation.py --data_path "$$1" --eval_path "$$2"
	$(PY) benchmarks/tables.py

# Each check replaces its own key of data/results/trust.json; one that finds a fault ends it all.
trust: export DHP_PROFILE := ci
trust: export HF_HUB_OFFLINE := 1
trust: $(READY)
	$(PY) -m pip install --quiet --constraint constraints.txt --editable '.[trust]'
	@for check in $(TRUST); do echo "== $$check"; $(PY) tests/trust/$$check.py || exit 1; done
	$(PY) tests/trust/trust_results.py

lock: $(READY)
	$(PY) -m pip install --upgrade --upgrade-strategy eager --editable '.[lab,test,rivals,trust]'
	@mkdir -p build
	sed -n '/^#/p' constraints.txt > build/constraints.txt
	$(PY) -m pip freeze --exclude-editable | sed 's/+[a-z0-9.]*$$//' >> build/constraints.txt
	mv build/constraints.txt constraints.txt

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache
	find . -path ./my-lessons -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

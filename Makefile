# Every target makes the environment it needs.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
DEMO := runs/demo
# Epsilon 2 for the users that are trained on, instead of for a simulated deployment. The noise is then tens of times the
# clipping bound: fewer rounds and shorter steps, chosen on val with another seed, lose less to it than the others' would.
OWN_USERS := --central_privacy_mechanism gaussian_moments_accountant --population null --noise_cohort_size null \
	--central_delta 0.001 --central_num_iterations 42 --learning_rate 0.1 --central_lr_end 0.1
# What asks for a store of FLAIR's size, an hour, or a GPU.
ALONE := $(addprefix perf/,gpu.py mutate.py parity_curves.py private_choice.py rehearse.py)
# The GPU machine's, where it differs from this one's.
TARGET := --python-version 3.12 --implementation cp --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64

.PHONY: help setup demo test fuzz lint bench gpu wheels dist docs pictures clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv, pinned by constraints.txt

$(READY): pyproject.toml constraints.txt peers.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r peers.txt
	touch $@

demo: $(READY) ## train the benchmark's four settings and an honest private one on a FLAIR-like dataset; a report
	rm -rf $(DEMO)
	$(BIN)/fedflair synthesize --scale mini --output data/demo/flair_federated.hdf5
	$(BIN)/fedflair describe data/demo/flair_federated.hdf5
	$(BIN)/fedflair train --args_config demo --run $(DEMO)/flair_iid --dataset flair_iid
	$(BIN)/fedflair train --args_config demo --run $(DEMO)/flair
	$(BIN)/fedflair train --args_config demo --run $(DEMO)/flair_iid_dp --dataset flair_iid \
	    --central_privacy_mechanism gaussian_moments_accountant
	$(BIN)/fedflair train --args_config demo --run $(DEMO)/flair_dp \
	    --central_privacy_mechanism gaussian_moments_accountant
	$(BIN)/fedflair train --args_config demo --run $(DEMO)/flair_dp_own_users $(OWN_USERS)
	$(BIN)/fedflair report $(DEMO)/flair_iid $(DEMO)/flair $(DEMO)/flair_iid_dp $(DEMO)/flair_dp \
	    $(DEMO)/flair_dp_own_users --output $(DEMO)/report.html

# Two processes, each with whole files: what a file's tests share is made once. Long files first (tests/conftest.py).
test: $(READY) ## run the suite: no network, no GPU, under ten minutes on two cores
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

fuzz: $(READY) ## try the tests of properties with other examples than the suite's, and twenty times as many
	$(BIN)/python -m pytest -n 2 -m hypothesis --hypothesis-profile fuzz

lint: $(READY) ## check style, types, dead code, dependencies and the floors that imports may go down
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/vulture
	$(BIN)/deptry src
	$(BIN)/lint-imports --no-logo

bench: $(READY) ## compare speed and memory with other tools; each script in perf/ can be run alone
	@for script in $(filter-out $(ALONE),$(wildcard perf/*.py)); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

gpu: ## on a machine with a GPU: its tests, the comparison with other tools, a short training (see perf/gpu.sh)
	PYTHON=$(PYTHON) sh perf/gpu.sh

wheels: $(READY) ## gather what a bare GPU machine without a network lacks, for make gpu there
	$(BIN)/python -m pip download --quiet --no-deps --only-binary=:all: --dest wheels $(TARGET) -c constraints.txt -r perf/wheels.txt

dist: ## build sdist and wheel, check both, and take the wheel through README's first run in fresh environments
	PYTHON=$(PYTHON) bash .ci/dist

docs: $(READY) ## build the documentation as a site, site/index.html; no dead link, no undocumented public name
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	@echo "read it: $(BIN)/python -m http.server --directory site 8000, or site/index.html without its search"

pictures: $(READY) ## draw the documentation's pictures anew, from the runs of make demo
	@test -e $(DEMO)/report.html || $(MAKE) demo
	$(BIN)/python docs/generate/pictures.py $(DEMO)/flair_iid $(DEMO)/flair $(DEMO)/flair_dp $(DEMO)/flair_dp_own_users

clean: ## remove .venv and what was built
	rm -rf .venv build dist site src/*.egg-info

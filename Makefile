# Every target makes the environment it needs.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
DEMO := runs/demo

.PHONY: setup demo test lint bench docs clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt peers.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r peers.txt
	touch $@

# The four settings of the benchmark on a FLAIR-like dataset, and the report that compares them.
demo: $(READY)
	rm -rf $(DEMO)
	$(BIN)/fedflair synthesize --scale mini --output data/demo/flair_federated.hdf5
	$(BIN)/fedflair describe data/demo/flair_federated.hdf5
	$(BIN)/fedflair train --args_config demo --run $(DEMO)/flair_iid --dataset flair_iid
	$(BIN)/fedflair train --args_config demo --run $(DEMO)/flair
	$(BIN)/fedflair train --args_config demo --run $(DEMO)/flair_iid_dp --dataset flair_iid \
	    --central_privacy_mechanism gaussian_moments_accountant
	$(BIN)/fedflair train --args_config demo --run $(DEMO)/flair_dp \
	    --central_privacy_mechanism gaussian_moments_accountant
	$(BIN)/fedflair report $(DEMO)/flair_iid $(DEMO)/flair $(DEMO)/flair_iid_dp $(DEMO)/flair_dp \
	    --output $(DEMO)/report.html

# Two processes, each with whole files: what a file's tests share is made once.
test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Side-by-side speed; each script can be run alone.
bench: $(READY)
	@for script in perf/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

# Checks that the documentation's commands and links are true.
docs: $(READY)
	$(BIN)/python -m pytest tests/test_documentation.py

clean:
	rm -rf .venv build dist src/*.egg-info

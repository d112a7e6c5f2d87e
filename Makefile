PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test clean

help:
	@echo "make demo   the main job on synthetic recordings: prepare, pretrain, linear, knn"
	@echo "make test   lint, types, floors and tests"
	@echo "make clean  remove what the demo wrote"

# The stamp is renewed when what is to be installed has changed.
.venv/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

demo: .venv/installed
	$(BIN)/python -m ssl_skeleton.synthesise --out data/synthetic_recordings --overwrite
	$(BIN)/python -m ssl_skeleton.prepare synthetic --source data/synthetic_recordings --out data/synthetic --overwrite
	rm -rf runs/crrl_demo
	$(BIN)/python -m ssl_skeleton.pretrain --cfg configs/crrl_demo.yaml
	$(BIN)/python -m ssl_skeleton.linear --run runs/crrl_demo
	$(BIN)/python -m ssl_skeleton.knn --run runs/crrl_demo

test: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n 2 --dist worksteal

clean:
	rm -rf data/synthetic_recordings data/synthetic runs/crrl_demo

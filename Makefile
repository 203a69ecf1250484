# The two commands that do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: env show demo baselines results benchmarks test lint clean

env: $(VENV)/.ready  ## the environment with the pinned packages

$(VENV)/.ready: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -r requirements.txt
	touch $@

demo: env  ## train both stages on the pendula, judge, draw, report; everything lands in runs/demo
	$(BIN)/python main.py --preset demo
	@echo "Open runs/demo/report.html; its pictures are in runs/demo/images, its figures in runs/demo/metrics.json"

show: env  ## swaps, transfers and samples of the models in weights/, in seconds, into runs/show
	$(BIN)/python main.py --show

baselines: env  ## VDSM, DSA and Unordered alike, 3 seeds: pendula (14 minutes a seed on two cores); with LI=CLONE also sprites-li (24)
	$(BIN)/python -m benchmarks.baselines pendulum
	$(BIN)/python -m benchmarks.side_by_side demo demo-dsa demo-unordered --to runs/baselines-pendulum.gif
	$(if $(LI),$(BIN)/python -m benchmarks.baselines sprites-li --source $(LI))
	$(if $(LI),$(BIN)/python -m benchmarks.side_by_side $(addprefix sprites-li-,vdsm dsa unordered) --to runs/baselines-sprites-li.gif)

results: env  ## a row of docs/RESULTS.md again: ROW=NAME or NAME:RUN (docs/SWEEPS.md); without ROW, the list
	$(BIN)/python -m benchmarks.sweep $(or $(ROW),--list) $(if $(LI),--source $(LI)) $(FLAGS)

benchmarks: env  ## the figures of docs/SPEED.md, as text and as JSON in runs/benchmarks
	mkdir -p runs/benchmarks
	$(BIN)/python -m benchmarks.step --threads 1,2 --json runs/benchmarks/step.json
	for name in generate run data guards; do $(BIN)/python -m benchmarks.$$name --json runs/benchmarks/$$name.json || exit 1; done

test: env lint  ## the test suite; VDSM_REAL_DATA names a folder of real art
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal $(PYTEST_ARGS)

lint: env  ## style and types
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ruff check .
	$(BIN)/ty check --python $(VENV)

clean:  ## the environment; runs stay
	rm -rf $(VENV)

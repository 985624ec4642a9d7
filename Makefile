# make demo                    set up, then rendered people -> trained swapper -> swapped video and report
# make demo DATA=photographs   the same from photographs, a folder with a subfolder for each person
# make test                    set up, then run the tests
# make campaign                the long ones: many kills, full-size networks on each engine, 10,000 hostile inputs
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN ?= runs/demo

.PHONY: setup demo test campaign lint clean

setup: $(VENV)/ready

# The weights come last: they need the package. Both steps do nothing where their work is done.
$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.2'
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	$(BIN)/facedancer weights get
	touch $@

demo: setup
	$(BIN)/facedancer demo --run_dir "$(RUN)" $(if $(DATA),--data_dir "$(DATA)")

test: setup
	$(BIN)/python -m pytest -n 2 --dist worksteal

campaign: setup
	$(BIN)/python -m pytest -n 2 --dist worksteal -m campaign

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) weights_cache

# Each target sets up what it needs; `make` alone lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# The main job runs on what DATA= and WEIGHTS= name; without them on the embedded drawn people and weights.
TABLE ?= all
OUT ?= tables
PORT ?= 8000

.PHONY: help tables test lab docs docs-serve readme notebooks clean
help:
	@echo 'make tables      every table and figure, and a report of them, on the embedded drawn people'
	@echo '                 [TABLE=1 DATA=folder SPLIT=val2017 WEIGHTS="files" OUT=tables OPTIONS="..."]'
	@echo 'make test        export is up to date, notebooks run, commands work'
	@echo 'make lab         open the notebooks in JupyterLab'
	@echo 'make docs        the documentation site in _build/html, from the stored notebooks'
	@echo 'make docs-serve  the same, shown at http://127.0.0.1:$(PORT)'
	@echo 'make notebooks   run all notebooks, keep their outputs, export the package and README.md'
	@echo 'make readme      README.md from nbs/index.ipynb'
	@echo 'make clean       remove the virtual environment and the built site'

$(READY): settings.ini setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[dev,docs]'
	touch $@

tables: $(READY)
	$(BIN)/logocap-tables --table '$(TABLE)' $(if $(DATA),--data '$(DATA)') $(if $(SPLIT),--split '$(SPLIT)') $(if $(WEIGHTS),--weights $(WEIGHTS)) --out '$(OUT)' $(OPTIONS)

test: $(READY)
	OMP_NUM_THREADS=1 MPLBACKEND=agg $(BIN)/nbdev_test --n_workers 2
	$(BIN)/python -m pytest tests

lab: $(READY)
	$(BIN)/jupyter lab nbs/index.ipynb

docs: $(READY)
	$(BIN)/python docs/build.py

docs-serve: docs
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

notebooks: $(READY)
	$(BIN)/nbdev_export
	for n in nbs/*.ipynb; do $(BIN)/jupyter nbconvert --to notebook --execute --inplace --log-level WARN $$n || exit 1; done
	$(BIN)/nbdev_clean
	$(MAKE) readme

# nbdev's own nbdev_readme needs Quarto. Cells marked `echo: false` show only what they draw.
readme: $(READY)
	$(BIN)/python tests/readme.py

clean:
	rm -rf $(VENV) _build

# Each target sets up what it needs; `make` alone lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# The main job runs on what DATA= and WEIGHTS= name; without them on the embedded drawn people and weights.
TABLE ?= all
OUT ?= tables
PORT ?= 8000

# LOCK=.ci/requirements.txt (for the site .ci/requirements-docs.txt) installs from the lock that the workflow uses, with hashes; without it the newest allowed versions.
LOCK ?=

.PHONY: help tables test test-all test-processors stress lock audit lab docs docs-serve readme notebooks clean
help:
	@echo 'make tables      every table and figure, and a report of them, on the embedded drawn people'
	@echo '                 [TABLE=1 DATA=folder SPLIT=val2017 WEIGHTS="files" OUT=tables AGAIN=1 PROCESSES=1 OPTIONS="..."]'
	@echo 'make test        export is up to date, notebooks run, commands work, and all reads well'
	@echo 'make test-all    the same with the long forms of tests and cells'
	@echo 'make test-processors'
	@echo '                 what depends on rounding, under other instruction sets, with one and two threads [ONLY=avx2]'
	@echo 'make stress      the long form of the tests that try to break it; writes tests/RELIABILITY.md'
	@echo 'make audit       look up known vulnerabilities of the locked packages'
	@echo 'make lock        write the locks of the workflow anew'
	@echo 'make lab         open the notebooks in JupyterLab'
	@echo 'make docs        the documentation site in _build/html, from the stored notebooks'
	@echo 'make docs-serve  the same, shown at http://127.0.0.1:$(PORT)'
	@echo 'make notebooks   run all notebooks, keep their outputs, export the package and README.md'
	@echo 'make readme      README.md from nbs/index.ipynb'
	@echo 'make clean       remove the virtual environment and the built site'

# Compiling all that is installed takes as long as installing it; what is imported Python compiles itself, where it may keep the result.
INSTALL = $(BIN)/python -m pip install --quiet $(if $(PYTHONDONTWRITEBYTECODE),,--no-compile)
$(READY): settings.ini setup.py
	$(PYTHON) -m venv $(VENV)
ifeq ($(LOCK),)
	$(INSTALL) --upgrade pip
	$(INSTALL) -e '.[dev]'
else
	$(INSTALL) --require-hashes -r '$(LOCK)'
	$(INSTALL) --no-deps --no-build-isolation -e .
endif
	touch $@

# Table 1 comes first, because it is what most people wait for. What an earlier run has made is shown again; AGAIN=1 measures times anew.
# So many processes share the images and the cores. Two are sooner done with small networks than one with all threads; a GPU
# is for one, and what is wrong with files of one's own one process says once. Drawn people are small: eight at a time are quicker.
PROCESSES ?= $(if $(DATA)$(WEIGHTS)$(shell which nvidia-smi 2>/dev/null),1,2)
CORES = $(shell getconf _NPROCESSORS_ONLN)
THREADS = $(shell expr '(' $(CORES) + $(PROCESSES) - 1 ')' / $(PROCESSES))
TOGETHER = OMP_NUM_THREADS=$(THREADS) $(BIN)/torchrun --standalone --nproc-per-node $(PROCESSES) --no-python
MEASURE = $(if $(filter-out 1,$(PROCESSES)),$(TOGETHER)) $(BIN)/logocap-tables $(if $(DATA),--data '$(DATA)') $(if $(SPLIT),--split '$(SPLIT)') $(if $(WEIGHTS),--weights $(WEIGHTS)) --out '$(OUT)' $(if $(DATA)$(WEIGHTS),,--batch-size 8)
tables: $(READY)
	$(MEASURE) --table '$(TABLE)' $(if $(filter all 4,$(TABLE)),--times) $(if $(AGAIN),--again) $(OPTIONS)

# A process of one thread on each core: first for the notebooks, then for the tests, each file of which stays in one process.
# What is red stops nothing: all four parts run, and the last line names each.
ONE_THREAD = OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
NOTEBOOKS = $(ONE_THREAD) MPLBACKEND=agg $(BIN)/nbdev_test $(if $(ALL),--flags slow)
test: $(READY)
	@green() { test $$1 -eq 0 && echo green || echo red; }; front=0; others=0; tests=0; style=0; \
	$(BIN)/ruff check nbs tests docs || style=$$?; \
	$(NOTEBOOKS) --path nbs/index.ipynb & front_page=$$!; \
	$(NOTEBOOKS) --n_workers $(CORES) --skip_file_re '^[_i]' || others=$$?; \
	wait $$front_page || front=$$?; \
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(CORES) --dist loadfile $(if $(ALL),-m 'slow or not slow') tests || tests=$$?; \
	echo "make test: nbs/index.ipynb $$(green $$front), the other notebooks $$(green $$others), pytest $$(green $$tests), ruff $$(green $$style)"; \
	test $$front -eq 0 && test $$others -eq 0 && test $$tests -eq 0 && test $$style -eq 0

# Cells and tests that are marked slow, too. Each has a short form, or stands beside one, that `make test` runs.
test-all:
	@$(MAKE) --no-print-directory test ALL=1

# What depends on rounding, as other processors round. ONLY='avx2' runs combinations whose names contain it.
test-processors: $(READY)
	$(BIN)/python tests/processors.py $(ONLY)

# 20,000 annotation files, 30 kills, 5,000 predictions …; the same tests with smaller numbers are part of `make test`. The report is written if all are green.
stress: $(READY)
	STRESS=long RELIABILITY=tests/RELIABILITY.md $(BIN)/python -m pytest tests/test_hard_*.py

# uv and pip-audit are wanted here only, and so are installed on the way.
LIST = $(BIN)/python -c "from configparser import ConfigParser as C; c = C(delimiters=['=']); c.read('settings.ini'); print(*' '.join(c['DEFAULT'][k] for k in '$(1)'.split()).split(), sep='\n')"
COMPILE = $(BIN)/uv pip compile --quiet --no-config --no-header --no-annotate --generate-hashes --upgrade --python-version
lock: $(READY)
	$(BIN)/python -m pip install --quiet uv
	$(call LIST,requirements dev_requirements) | $(COMPILE) 3.10 --universal - -o .ci/requirements.txt
	$(call LIST,requirements dev_requirements) | sed 's/^torch>=.*/torch>=2.5,<2.6/' | $(COMPILE) 3.10 --python-platform x86_64-unknown-linux-gnu - -o .ci/requirements-oldest.txt
	$(call LIST,requirements dev_requirements docs_requirements) | $(COMPILE) 3.11 --python-platform x86_64-unknown-linux-gnu - -c .ci/requirements.txt -o .ci/requirements-docs.txt

# Without --strict a package that could not be looked up would count as sound.
audit: $(READY)
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/pip-audit --strict --require-hashes --disable-pip -r .ci/requirements.txt
	$(BIN)/pip-audit --strict --require-hashes --disable-pip -r .ci/requirements-docs.txt

lab: $(READY)
	$(BIN)/jupyter lab nbs/index.ipynb

$(VENV)/.docs: $(READY)
ifeq ($(LOCK),)
	$(BIN)/python -m pip install --quiet -e '.[docs]'
else
	$(BIN)/python -m pip install --quiet --require-hashes -r .ci/requirements-docs.txt
endif
	touch $@

docs: $(VENV)/.docs
	$(BIN)/python docs/build.py

docs-serve: docs
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

notebooks: $(READY)
	$(BIN)/nbdev_export
	for n in $$(find nbs -name '*.ipynb' -not -path '*/.*' | sort); do $(BIN)/jupyter nbconvert --to notebook --execute --inplace --log-level WARN --ExecutePreprocessor.store_widget_state=False $$n || exit 1; done
	$(BIN)/python tests/widgets.py
	$(BIN)/nbdev_clean
	$(MAKE) readme

# nbdev's own nbdev_readme needs Quarto. Cells marked `echo: false` show only what they draw.
readme: $(READY)
	$(BIN)/python tests/readme.py

clean:
	rm -rf $(VENV) _build

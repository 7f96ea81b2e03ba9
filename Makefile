# Every target sets up what it needs in .venv by itself; only Python 3.11+, git and make must be there.
PYTHON   ?= python3
BACKENDS ?= tensorflow jax
# The tested release; a plain `torch` may bring a newer one. Installed only where BACKENDS names it.
TORCH    ?= torch==2.13.0
export TF_CPP_MIN_LOG_LEVEL ?= 2
export PYTHONHASHSEED ?= 0
bin := .venv/bin

.PHONY: demo test notebooks readme docs clean

.venv/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tripletloss needs Python 3.11 or newer; name one with make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	touch $@

.venv/demo: .venv/python settings.ini setup.py
	$(bin)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo]'
	touch $@

.venv/dev: .venv/python settings.ini setup.py
	$(bin)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

.venv/backend-tensorflow: .venv/dev
	touch $@

.venv/backend-jax: .venv/dev
	$(bin)/python -m pip install --quiet --disable-pip-version-check '.[jax]'
	$(bin)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

.venv/backend-torch: .venv/dev
	$(bin)/python -m pip install --quiet --disable-pip-version-check '$(TORCH)'
	touch $@

demo: .venv/demo  ## train on handwritten digits, then ask for nearest neighbours
	$(bin)/python -m tripletloss.demo --output build/demo.png

test: .venv/dev $(BACKENDS:%=.venv/backend-%)  ## each backend in a process of its own, then the project
	set -e; for backend in $(BACKENDS); do \
	    echo "== $$backend"; KERAS_BACKEND=$$backend $(bin)/python -m pytest tests/backends; \
	done
	@echo "== notebooks, documents and packages"
	KERAS_BACKEND=tensorflow $(bin)/python -m pytest tests/project

notebooks: .venv/dev  ## run every notebook, store its outputs, export the package
	set -e; for notebook in nbs/*.ipynb nbs/tutorials/*.ipynb; do \
	    [ -e "$$notebook" ] || continue; \
	    (cd $$(dirname $$notebook) && $(CURDIR)/$(bin)/exec_nb $$(basename $$notebook) --dest $$(basename $$notebook) --exc_stop); \
	done
	$(bin)/nbdev_export
	$(bin)/nbdev_clean
	$(bin)/python tools/readme.py

readme: .venv/dev  ## README.md from nbs/index.ipynb
	$(bin)/python tools/readme.py

docs: .venv/dev  ## the site; needs the quarto program
	@command -v quarto >/dev/null || { echo "make docs needs Quarto: https://quarto.org/docs/get-started"; exit 1; }
	$(bin)/nbdev_docs

clean:
	rm -rf .venv _proc _docs build dist *.egg-info

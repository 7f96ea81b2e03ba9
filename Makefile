# Every target sets up what it needs in .venv by itself; only Python 3.11+, git and make must be there.
PYTHON   ?= python3
BACKENDS ?= tensorflow jax
# The tested release; a plain `torch` may bring a newer one. Installed only where BACKENDS names it.
TORCH    ?= torch==2.13.0
# What the tests fall into, and is run side by side: a backend each, the pages, the package.
PARTS    ?= $(BACKENDS) pages package
# The lowest Python; also that of the last TensorFlow Addons, in the benchmark.
PYTHON311 ?= python3.11
export TF_CPP_MIN_LOG_LEVEL ?= 2
export PYTHONHASHSEED ?= 0
bin := .venv/bin

# Half a file must not count as made.
.DELETE_ON_ERROR:
.PHONY: demo test test-every test-all test-lowest fuzz mutations notebooks readme pictures quarto docs bench bench-full clean

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

# JAX compiles an operation in half the time; older ones end at a flag that they do not know.
test test-every: export XLA_FLAGS += --xla_cpu_use_fusion_emitters=false

test: .venv/dev $(BACKENDS:%=.venv/backend-%)  ## all that a change needs, on each backend; PARTS=jax for one part
	$(bin)/python tests/run.py --coverage $(PARTS)

test-every: .venv/dev $(BACKENDS:%=.venv/backend-%)  ## the same with every combination; PARTS=jax for one part
	$(bin)/python tests/run.py --every $(PARTS)

test-all: test-every test-lowest fuzz mutations  ## everything, for hours

# The constraints come from the bounds themselves, so that the two cannot fall out of step.
.venv-lowest/constraints.txt: settings.ini tools/lowest.py
	$(PYTHON311) -m venv .venv-lowest
	.venv-lowest/bin/python tools/lowest.py > $@

# A backend is a package of its name; tensorflow is required anyway.
.venv-lowest/backend-%: .venv-lowest/constraints.txt setup.py
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check --constraint $< \
	    --editable '.[metrics,plots,demo,usearch,faiss]' $* 'pytest<9.2' pytest-xdist hypothesis
	touch $@

test-lowest: $(BACKENDS:%=.venv-lowest/backend-%)  ## the lowest versions that settings.ini admits, on the lowest Python
	.venv-lowest/bin/python tests/run.py $(BACKENDS)
	KERAS_BACKEND=tensorflow .venv-lowest/bin/python -m pytest tests/project/test_plots.py
	KERAS_BACKEND=tensorflow .venv-lowest/bin/python -m tripletloss.demo --output build/demo-lowest.png

# A number for make; the shell's own SECONDS is not exported.
SECONDS ?= 600
fuzz: .venv/dev $(BACKENDS:%=.venv/backend-%)  ## the properties on new batches, for SECONDS=600
	$(bin)/python tests/fuzz/for_a_while.py $(SECONDS) $(BACKENDS)

mutations: .venv/dev  ## breaks a copy of the package in many places: do the tests notice?
	$(bin)/python tests/mutations.py

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

pictures: .venv/dev  ## the site's favicon, social card and picture of the home page
	$(bin)/python tools/pictures.py

# Before anything is installed for it.
quarto:
	@command -v quarto >/dev/null || { echo "make docs needs Quarto: https://quarto.org/docs/get-started"; exit 1; }

docs: quarto .venv/dev  ## the site, into _docs; needs the quarto program
	touch README.md  # so that nbdev does not write it anew, in Quarto's way
	$(bin)/nbdev_docs

# TensorFlow Similarity asks for an older TensorFlow than it runs on, hence --no-deps.
.venv-bench/ready: benchmarks/requirements.txt settings.ini setup.py
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --no-deps tensorflow-similarity==0.17.1 --editable .
	touch $@

# Without a Python 3.11 there is no TensorFlow Addons, and its rows are left out.
.venv-addons/ready: benchmarks/requirements-addons.txt
	@command -v $(PYTHON311) >/dev/null || echo "No $(PYTHON311): TensorFlow Addons, which needs it, is left out. Name one with make bench PYTHON311=..."
	! command -v $(PYTHON311) >/dev/null || { $(PYTHON311) -m venv .venv-addons && \
	    .venv-addons/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/requirements-addons.txt && touch $@; }

define measure
	set -e; for backend in tensorflow torch jax; do .venv-bench/bin/python -m benchmarks.loss --backend $$backend $(1); done
	[ ! -e .venv-addons/ready ] || .venv-addons/bin/python -m benchmarks.loss --backend addons $(1)
	set -e; for backend in tensorflow torch jax; do KERAS_BACKEND=$$backend .venv-bench/bin/python -m benchmarks.training $(1); done
endef

# What each trick of the engine is worth.
define ablate
	set -e; for backend in tensorflow torch jax; do .venv-bench/bin/python -m benchmarks.ablations --backend $$backend $(1); done
endef

bench: .venv-bench/ready .venv-addons/ready  ## speed and memory beside the peers, in a few sizes, into build/bench
	$(call measure,--quick --output build/bench)

# TensorFlow Similarity 0.16 stands in a folder of its own, found before 0.17.
define peers
	set -e; for library in tensorflow-similarity pytorch-metric-learning sentence-transformers torch optax; do .venv-bench/bin/python -m benchmarks.peers --library $$library; done
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target build/similarity-0.16 tensorflow-similarity==0.16.10
	PYTHONPATH=build/similarity-0.16 .venv-bench/bin/python -m benchmarks.peers --library tensorflow-similarity-0.16
	[ ! -e .venv-addons/ready ] || .venv-addons/bin/python -m benchmarks.peers --library tensorflow-addons
endef

bench-full: .venv-bench/ready .venv-addons/ready  ## all sizes, and what the peers answer, into benchmarks/results
	$(call measure,)
	KERAS_BACKEND=tensorflow .venv-bench/bin/python -m benchmarks.batches
	$(call ablate,)
	$(peers)

clean:
	rm -rf .venv .venv-lowest .venv-bench .venv-addons _proc _docs build dist *.egg-info

# The two that a newcomer needs:  make book   and   make test.  Each makes .venv when it has to.
SIZE ?= demo
PYTHON ?= python3
JOBS ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
SNAKEMAKE_FLAGS ?=
LAB_PORT ?= 8888
PAGE := book/_build/html/index.html

# A person's own Python or Jupyter settings must not shadow the packages and kernels of .venv.
unexport PYTHONHOME PYTHONPATH JUPYTER_PATH
export JUPYTER_PREFER_ENV_PATH := 1
IN_VENV := PATH="$(CURDIR)/.venv/bin:$$PATH"

.PHONY: help book test lab lint lock clean setup

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1	/p' Makefile

book: setup  ## run the demo experiments and build the book (SIZE=tiny is the quickest)
	@$(IN_VENV) snakemake --cores $(JOBS) --rerun-incomplete --config size=$(SIZE) $(SNAKEMAKE_FLAGS)
	@echo "The book is ready: open file://$(CURDIR)/$(PAGE)"

# One torch thread in each worker: more would contend for the same cores.
test: setup  ## run all tests, without network
	@$(IN_VENV) OMP_NUM_THREADS=1 pytest -n $(JOBS) --maxprocesses 4 --dist loadgroup $(PYTEST_FLAGS)

# The book's links lead to port 8888: a server that quietly took another would leave them dead.
lab: setup  ## open the source notebooks in JupyterLab; library edits are picked up as you work
	@$(IN_VENV) JUPYTER_CONFIG_PATH="$(CURDIR)/jupyter" IPYTHONDIR="$(CURDIR)/jupyter/ipython" \
		jupyter lab --ServerApp.root_dir="$(CURDIR)" --LabApp.default_url=/lab/tree/book \
		--ServerApp.port=$(LAB_PORT) --ServerApp.port_retries=0 $(LAB_FLAGS) || { code=$$?; \
		echo "Is port $(LAB_PORT) in use? End the server that has it, or take another port: make lab \
	LAB_PORT=8889. The book's links to JupyterLab lead to port 8888." >&2; exit $$code; }

lint: setup  ## check the style of all code
	@$(IN_VENV) ruff check .

# For maintainers: every version of requirements.lock, anew, for all platforms. The tool that
# resolves them lives in a throw-away environment; it is not a dependency.
lock:
	@tools=$$(mktemp -d) && trap 'rm -rf "$$tools"' EXIT && $(PYTHON) -m venv "$$tools" && \
		"$$tools/bin/python" -m pip install -q uv && \
		"$$tools/bin/uv" pip compile --universal --python-version 3.11 --upgrade \
		--no-annotate --no-header -q -o requirements.lock requirements.in

clean:  ## remove the built pages; .venv, data and runs stay
	rm -rf book/_build book/_generated .pytest_cache .ruff_cache

setup:
	@command -v "$(PYTHON)" >/dev/null || { echo "$(PYTHON) was not found. Python 3.11 to 3.13 is \
	needed: install it, or name it: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; }
	@"$(PYTHON)" tools/bootstrap.py

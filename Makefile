# Two commands are all that a newcomer needs: `make demo` and `make test`.
PYTHON ?= python3
TORCH_CPU ?= https://download.pytorch.org/whl/cpu
BIN := .venv/bin

# Some machines forbid bytecode files by this variable. Every import then compiles torch and transformers again: 12 s
# of a core for each of the many processes that the tests start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check docs sbom clean

demo: .venv/ready  ## scan the bundled model, leave out/demo/report.html
	$(BIN)/layeralign demo --out out/demo

# One worker more than cores: many tests wait for a server, a child or a clock.
test: .venv/ready  ## every test, with lint and types beside them
	@mkdir -p out
	@$(MAKE) --no-print-directory check > out/check.log 2>&1 & check=$$!; \
	$(BIN)/pytest -n $$(($$(getconf _NPROCESSORS_ONLN) + 1)) --dist worksteal; tests=$$?; \
	wait $$check || { cat out/check.log; exit 1; }; exit $$tests

check: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: .venv/ready  ## the site: out/site/index.html
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet -c docs . out/site

sbom:  ## out/supply: an SBOM, a lock with hashes, an audit
	$(PYTHON) .ci/supply.py

# torch first and alone: its CPU build, where that index is reachable, keeps gigabytes of CUDA away. Then every
# pinned package at once: with them there, pip has nothing to resolve, which took it minutes. Python compiles a
# module at its first import; to compile all of them took a minute.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "layeralign needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-compile --no-deps --retries 1 --timeout 30 --constraint constraints.txt --extra-index-url $(TORCH_CPU) torch==2.13.0
	$(BIN)/pip install --quiet --no-compile --no-deps --requirement constraints.txt
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv out

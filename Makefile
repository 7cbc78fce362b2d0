# make reproduce    set up, then the default study (STUDY=config/cifar10.yaml for another, CORES=8 for more jobs at once)
# make test         set up, then the tests; .ci/run adds the longest ones

PYTHON ?= python3
CORES  ?= $(shell getconf _NPROCESSORS_ONLN)
STUDY  ?= config.yaml

# The environment's programs are called through its Python, which still works after the folder was moved.
VENV := .venv/bin/python -m

.PHONY: reproduce resume test setup envs docs
.DEFAULT_GOAL := reproduce

reproduce: setup
	@test -f "$(STUDY)" || { echo "There is no study $(STUDY); there are: config.yaml $(wildcard config/*.yaml)"; exit 1; }
	@$(VENV) snakemake --configfile "$(STUDY)" --cores $(CORES) all

# What was killed goes on by the same command; this is another name for it.
resume: reproduce

test: setup
	@$(VENV) pytest -n 2 --dist loadfile

setup: .venv/ready

.venv/ready: envs/requirements.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed, $(PYTHON) is $$($(PYTHON) --version); name another by PYTHON=…"; exit 1; }
	@echo "Setting up .venv from envs/requirements.txt (several GB, a few minutes)"
	@$(PYTHON) -m venv .venv
	@$(VENV) pip install --quiet --disable-pip-version-check --requirement envs/requirements.txt
	@echo "../../../../profiles/console" > "$$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/pqag.pth"
	@touch $@

# Files that are generated and committed; tests hold them equal to their source.
envs:
	@$(PYTHON) envs/generate.py

docs: setup
	@.venv/bin/python docs/rulegraph.py
	@.venv/bin/python docs/staleness.py
	@.venv/bin/python docs/jobs.py

# make demo         set up and attack a network that ships with the project: two minutes, no training, no network connection
# make reproduce    set up and run the default study (STUDY=config/cifar10.yaml: another study; CORES=8: 8 jobs at once)
# make test         set up and run the tests; .ci/run also runs the long tests
# make bench        compare the speed with that of other libraries (BENCH="--seconds 5": less time for each; see docs/bench)

PYTHON ?= python3
CORES  ?= $(shell getconf _NPROCESSORS_ONLN)
STUDY  ?= config.yaml

# Call programs through the Python of the environment: this still works after the folder was moved.
VENV := .venv/bin/python -m

.PHONY: demo reproduce resume test bench bench-training setup lock envs docs zoo
.DEFAULT_GOAL := reproduce

reproduce: setup
	@test -f "$(STUDY)" || { echo "There is no study $(STUDY). There are: config.yaml $(wildcard config/*.yaml)"; exit 1; }
	@$(VENV) snakemake --configfile "$(STUDY)" --cores $(CORES) all

demo: setup
	@$(VENV) snakemake --configfile config/demo.yaml --cores $(CORES) all

# The same command continues a killed run; this is another name for it.
resume: reproduce

test: setup
	@$(VENV) pytest -n 2 --dist loadfile

bench: .venv-bench/ready
	@nice .venv-bench/bin/python scripts/tools/bench.py $(BENCH)

# The libraries of .venv, and those that only the comparison needs.
.venv-bench/ready: envs/bench.txt .venv/ready
	@$(VENV) venv .venv-bench
	@.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement envs/bench.txt
	@.venv-bench/bin/python -c 'import sysconfig; from pathlib import Path; own = Path(sysconfig.get_path("purelib")); \
		(own / "venv.pth").write_text("../../../../.venv/" + str(own.relative_to(Path(".venv-bench").resolve())) + "\n")'
	@touch $@

setup: .venv/ready

# TORCH: auto, cpu or cuda, see envs/install.py.
TORCH ?= auto
.venv/ready: envs/lock.txt envs/install.py Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed, but $(PYTHON) is $$($(PYTHON) --version). Use PYTHON=… for another one."; exit 1; }
	@echo "Setting up .venv from envs/lock.txt (several GB, a few minutes)"
	@$(PYTHON) -m venv .venv
	@.venv/bin/python envs/install.py --torch $(TORCH)
	@echo "../../../../profiles/console" > "$$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/pqag.pth"
	@touch $@

# Training compared with the usual recipe of torchvision: half an hour, see docs/bench.
bench-training: setup
	@$(VENV) snakemake --cores $(CORES) results/default/fashion_mnist/images.h5
	@.venv/bin/python scripts/tools/bench_training.py

# The trained networks of a study; of the default one only the victim of the demo (MODELS="alexnet vgg16": these).
MODELS ?= $(if $(filter config.yaml,$(STUDY)),resnet18)
zoo: setup
	@.venv/bin/python scripts/tools/zoo.py "$(STUDY)" $(MODELS)

# Keeps the locked versions that still fit; delete envs/lock.txt first to get the newest ones.
lock:
	@command -v uv >/dev/null || { echo "make lock needs uv: pip install uv"; exit 1; }
	@cd envs && uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-emit-index-url \
		--custom-compile-command "make lock" requirements.txt --output-file lock.txt

# Generated files that are committed; tests check that they match their source.
envs:
	@$(PYTHON) envs/generate.py

docs: setup
	@.venv/bin/python scripts/tools/rulegraph.py
	@.venv/bin/python scripts/tools/staleness.py
	@.venv/bin/python scripts/tools/jobs.py
	@.venv/bin/python scripts/tools/schema.py

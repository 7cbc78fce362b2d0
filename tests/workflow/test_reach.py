"""The digest of a step covers all that the step runs: its static reach against the functions that a real run called."""

import ast
import os
from pathlib import Path

import pytest
import yaml

from pqag.job import provenance
from pqag.study.rules import RULES

from .conftest import ROOT, snakemake, write_config

#: Loaded by every Python of the run: writes down, for each script, the functions of the library that it calls, as file and first line.
WATCH = """
import atexit, os, sys
seen = set()
def outside(code):  # what runs because the harness calls it, or a module is imported
    return "/scripts/pqag/job/" in code.co_filename or code.co_name == "<module>" and "/scripts/pqag/" in code.co_filename
def watch(frame, event, argument):
    where = frame.f_code.co_filename, frame.f_code.co_firstlineno
    if event == "call" and "/scripts/pqag/" in where[0] and where not in seen:
        caller = frame
        while caller and not outside(caller.f_code):
            caller = caller.f_back
        if not caller:
            seen.add(where)
def tell():
    script = os.path.basename(sys.argv[0]).split(".")[-2] if sys.argv[0].endswith(".py") else ""
    with open(os.path.join({folder!r}, f"{{script}}.{{os.getpid()}}"), "w") as file:
        file.writelines(f"{{path}} {{line}}\\n" for path, line in seen)
if "/.snakemake/scripts/" in " ".join(sys.orig_argv):
    atexit.register(tell)
    sys.setprofile(watch)
"""


def definition_at(path, line):
    """The name of the definition at the top of the module at ``path`` that the line belongs to; none for code that runs on import."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        decorators = getattr(node, "decorator_list", [])
        if min([node.lineno, *(one.lineno for one in decorators)]) <= line <= node.end_lineno:
            return getattr(node, "name", "")
    return ""


#: What the steps look up by names that the settings of a job hold: here of the attacks of the tiny study.
OF_ATTACK = {*(("losses", name) for name in ("basic", "apd", "aod")), ("methods", "pgd")}
CHOSEN = {"attack": OF_ATTACK, "sweep": OF_ATTACK}


@pytest.mark.slow
def test_no_step_runs_a_function_that_its_digest_leaves_out(tmp_path, monkeypatch):
    """But for the harness and what only that calls."""
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch/sitecustomize.py").write_text(WATCH.format(folder=str(tmp_path / "watch")))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "watch"))
    study = yaml.safe_load((ROOT / "config/tiny.yaml").read_text())
    joint = {"joint": {"network": "alexnet", "width": 0.125, "quantizer": {"method": "pqn"}}}
    study["models"] |= joint | {"turned": {"like": "vgg16", "quantizer": {"method": "opq"}}}
    write_config(tmp_path / "config.yaml", study)
    done = snakemake(tmp_path, "--configfile", tmp_path / "config.yaml", "--cores", 2, "all")
    assert done.returncode == 0, done.stderr
    called = {}
    for file in (tmp_path / "watch").glob("*.*[0-9]"):
        called.setdefault(file.name.split(".")[0], set()).update(file.read_text().splitlines())
    assert called.keys() >= {"pretrain", "train_joint", "extract", "attack", "evaluate", "quantize", "table", "sweep"}
    scripts = {one.path.stem: one.path for one in RULES.values()}
    for script, lines in called.items():
        reached = provenance.reached(scripts[script], CHOSEN.get(script, ()))
        for file, line in (line.rsplit(" ", 1) for line in lines):
            path = Path(file).resolve()
            found = path, definition_at(path, int(line))
            assert provenance._is_harness(path) or found in reached, f"{script} calls {found[1]} of {os.path.relpath(path, ROOT)}"

"""The package as pip installs it, and its command."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv

import pytest

from pqag import cli

from ..workflow.conftest import ROOT


def test_run_passes_targets_and_options_to_snakemake_in_the_clone(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.chdir(ROOT / "docs")
    snakemake = [sys.executable, "-m", "snakemake"]
    cores = ["--cores", str(os.cpu_count())]
    assert cli.run("default", []) == [*snakemake, "all", "--configfile", "config.yaml", *cores]
    assert os.getcwd() == str(ROOT) and os.environ["PYTHONPATH"].split(os.pathsep)[0] == str(ROOT / "scripts")
    expected = [*snakemake, "table1", "-n", "--cores=3", "--configfile", "config/tiny.yaml"]
    assert cli.run("tiny", ["table1", "-n", "--cores=3"]) == expected
    assert cli.run("config/tiny.yaml", ["-n"]) == [*snakemake, "all", "-n", "--configfile", "config/tiny.yaml", *cores]


MISTAKES = {
    "audits": "pqag has no command audits: there are run and audit",
    "run": "`pqag run` needs a study: a file, or a name in config/",
    "run tinny": "there is no study tinny: give a file, or one of default, ",
}


@pytest.mark.parametrize("call", MISTAKES)
def test_a_mistake_is_told_in_one_sentence(monkeypatch, capsys, call):
    monkeypatch.chdir(ROOT)
    assert cli.main(call.split()) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {MISTAKES[call]}") and told.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("option", ["", "--editable"])
def test_pip_installs_a_library_that_works_alone_and_a_command_that_works_in_a_clone(tmp_path, option):
    """Into a fresh environment, which takes other packages from the present one."""
    clone, elsewhere, environment = tmp_path / "clone", tmp_path / "elsewhere", tmp_path / "environment"
    ignored = shutil.ignore_patterns(".*", "build", "*.egg-info", "results", "data", "__pycache__", "tests")
    shutil.copytree(ROOT, clone, ignore=ignored)
    elsewhere.mkdir()
    venv.create(environment)
    python, pqag = environment / "bin/python", environment / "bin/pqag"

    def run(*command, folder=elsewhere):
        free = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(list(map(str, command)), cwd=folder, env=free, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    [purelib] = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")[1].split()
    with open(f"{purelib}/others.pth", "w") as file:
        file.write(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "install", "--quiet")
    status, told = run(*pip, "--no-deps", "--no-build-isolation", *filter(None, [option]), clone)
    assert status == 0, told

    code = "import pqag.api, pqag.show.tables; print(pqag.api.__file__, len(pqag.show.tables.paper())); "
    status, told = run(python, "-W", "ignore", "-c", code + "pqag.api.load_victim('zoo:fashion_resnet18')")
    assert status == 0 and told.startswith(str(clone / "scripts" if option else purelib)), told
    status, told = run(pqag, "audit", "verify", "none")
    alone = f"error: `pqag audit` works in a clone of the project, but {elsewhere} is in none: change to the folder with its Snakefile\n"
    assert (status, told) == (2, alone) if not option else "results/none" in told, told
    status, told = run(pqag, "audit", "verify", "none", folder=clone)
    assert status in (1, 2) and "results/none" in told
    status, told = run(pqag, "run", "tiny", "table1", "--dry-run", folder=clone / "docs")
    assert status == 0 and "pretrain" in told, told
    status, told = run(python, "-m", "snakemake", "--configfile", "config/tiny.yaml", "--dry-run", "table1", folder=clone)
    assert status == 0 if option else status == 1 and "A copy of this workflow's library is installed" in told, told

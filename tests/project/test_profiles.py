"""The profile for SLURM and the image for apptainer agree with the rules and the pins."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import snakemake_executor_plugin_slurm as plugin
import yaml
import yte

from pqag.study.resources import Work
from pqag.study.rules import READERS, RULES

from ..workflow.conftest import ROOT

sys.path.append(str(ROOT / "scripts/tools"))
import jobs  # noqa: E402

PROFILE = (ROOT / "profiles/slurm/config.yaml").read_text()


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """What the profile sets is taken back."""
    monkeypatch.setenv("PQAG_GPUS", "")
    monkeypatch.setattr(plugin, "get_min_job_age", lambda: 300)


def profile(**site):
    """The profile as Snakemake reads it, with other values for some names of its site."""
    text = PROFILE
    for name, value in site.items():
        text, changed = re.subn(rf"- {name} = \S+", f"- {name} = {value!r}", text)
        assert changed == 1, name
    return yte.process_yaml(text, require_use_yte=True)


NETWORKS = {rule for rule, one in RULES.items() if one.network}


def bodies():
    """What stands in the files of the workflow below each rule that runs a script or a command; with that of the rule it is made of."""
    text = "".join(file.read_text() for file in [ROOT / "Snakefile", *(ROOT / "rules").glob("*.smk")])
    found = {name: (other, body) for other, name, body in re.findall(BODY, text, re.MULTILINE)}
    whole = {name: body + (found[other][1] if other else "") for name, (other, body) in found.items()}
    return {name: body for name, body in whole.items() if re.search(r"^    (script|shell):", body, re.MULTILINE)}


BODY = r"^(?:use rule (\w+) as|rule) (\w+)(?: with)?:\n((?:    .*\n|\n)+)"


def test_the_table_of_rules_says_which_script_runs_a_network_and_every_rule_what_it_needs():
    direct = {rule for rule, one in RULES.items() if "torch_device(" in one.path.read_text()}
    assert direct | {"reading"} == NETWORKS, "which runs a study of its own"
    assert set(profile(gpu_type="a100")["set-resources"]) == NETWORKS
    assert set(bodies()) == {*RULES, *READERS}
    for name, body in bodies().items():
        assert re.search(r"^    threads:", body, re.MULTILINE), name
        asked = re.search(r'\*\*needs\("(\w+)"\)', body)[1]
        assert asked == name or RULES[asked].resources == RULES[name].resources, name


def test_groups_and_local_rules_are_those_of_the_table_and_no_group_holds_a_gpu_for_nothing():
    groups = profile()["groups"]
    assert groups == {rule: one.group for rule, one in RULES.items() if one.group}
    for group in set(groups.values()):
        assert len({rule in NETWORKS for rule in groups if groups[rule] == group}) == 1, group
    assert set(profile()["group-components"]) == set(groups.values())
    local = set(re.findall(r"    (\w+),", re.search(r"^localrules:\n((?:    \w+,\n)+)", (ROOT / "rules/common.smk").read_text(), re.M)[1]))
    assert local == {rule for rule, one in RULES.items() if one.local} | set(READERS)
    assert not local & NETWORKS, "a network on a login node"


def test_steps_of_a_job_are_bounded_and_jobs_are_not():
    """The profile that is always read limits what a machine runs side by side; on a cluster the same limits are those of one job."""
    limits = yte.process_yaml((ROOT / "profiles/default/config.yaml").read_text(), require_use_yte=True)["resources"]
    assert sorted(limits) == ["at_once=1", "gpu=1"]
    assert profile()["set-resource-scopes"] == {"gpu": "local", "at_once": "local"}


def test_what_a_site_says_reaches_the_jobs_and_without_it_slurm_chooses():
    said = profile()
    assert said["default-resources"] == {"at_once": 1} and "slurm-qos" not in said and "set-resources" not in said
    said = profile(account="lab", partition="short", gpu_partition="gpu-a100", gpu_type="a100", qos="low")
    assert said["default-resources"] == {"at_once": 1, "slurm_account": "'lab'", "slurm_partition": "'short'"}
    assert said["slurm-qos"] == "low"
    assert said["set-resources"]["attack_shard"] == {"gpu_model": "'a100'", "slurm_partition": "'gpu-a100'"}
    for rule in ("extract", "attack"):
        for shards, model, where in (([], "a100", "gpu-a100"), (["1.h5"], "", "short")):
            asked = {name: eval(value, {"input": {"shards": shards}}) for name, value in said["set-resources"][rule].items()}
            assert asked == {"gpu_model": model, "slurm_partition": where}
    assert "set-resources" not in profile(gpus=0, gpu_type="a100")
    with pytest.raises(SystemExit, match="gpu_type of profiles/slurm is 'a100-sxm', but the plugin accepts no hyphens"):
        profile(gpu_type="a100-sxm")
    for gpus in (0, 1):
        profile(gpus=gpus)
        assert os.environ["PQAG_GPUS"] == str(gpus)


@pytest.mark.parametrize("status, command", [(0, "sacct"), (1, "squeue"), (None, "squeue")])
def test_status_comes_from_accounting_where_it_works(tmp_path, monkeypatch, status, command):
    """Where there is no accounting, `sacct` often exists all the same, and fails."""
    if status is not None:
        (tmp_path / "sacct").write_text(f"#!/bin/sh\nexit {status}\n")
        (tmp_path / "sacct").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin" if status is not None else str(tmp_path))
    assert profile()["slurm-status-command"] == command
    assert (plugin.get_min_job_age() == float("inf")) == (command == "squeue"), "else the plugin may turn to sacct all the same"


def test_nothing_in_rules_or_scripts_knows_of_the_cluster():
    library = (ROOT / "scripts/pqag").rglob("*.py")
    for path in [ROOT / "Snakefile", *(ROOT / "rules").glob("*.smk"), *(ROOT / "scripts").glob("*.py"), *library]:
        assert not re.search(r"slurm|sbatch", path.read_text(), re.IGNORECASE), path


def test_image_has_the_pins_of_the_steps(tmp_path):
    (line,) = re.findall(r"^RUN (sed .*) \| pip install .*/dev/stdin$", (ROOT / "envs/Dockerfile").read_text(), re.MULTILINE)
    command = line.replace("/requirements.txt", str(ROOT / "envs/requirements.txt"))
    given = subprocess.run(command, shell=True, capture_output=True, text=True, check=True).stdout
    environment = yaml.safe_load((ROOT / "envs/steps.yaml").read_text())
    assert [pin for pin in given.splitlines() if pin and not pin.startswith("#")] == environment["dependencies"][-1]["pip"]
    assert "FROM python:3.11-" in (ROOT / "envs/Dockerfile").read_text() and "python=3.11" in environment["dependencies"]


#: Writes down what it is told to mount, and where, and runs the command without a container.
APPTAINER = """#!/bin/sh
[ "$1" = --version ] && echo apptainer version 1.3.0 && exit
while [ "$1" != {image} ]; do
    [ "$1" = --bind ] && echo "$2" >> {folder}/mounted
    shift
done
shift
exec "$@"
"""


def test_a_step_in_a_container_loads_the_library_from_where_it_lies(tmp_path):
    """Mounted under another name, as Snakemake does with all that is on its path, it would have no envs/requirements.txt beside it."""
    copy, programs = tmp_path / "pqag", tmp_path / "bin"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "results", "data", "__pycache__"))
    image = copy / "envs/steps.sif"
    image.touch()
    programs.mkdir()
    (programs / "apptainer").write_text(APPTAINER.format(image=image, folder=tmp_path))
    (programs / "apptainer").chmod(0o755)
    environment = os.environ | {"PATH": os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])}
    command = [sys.executable, "-m", "snakemake", "--sdm", "apptainer", "--configfile", "config/tiny.yaml", "--cores", "1", "study"]
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    mounted = (tmp_path / "mounted").read_text().split()
    assert any("/snakemake" in place for place in mounted)
    assert not [place for place in mounted if Path(place.split(":")[0]).samefile(copy / "scripts")]


def test_needs_of_a_study_by_hand(tmp_path, monkeypatch):
    """Steps that take a minute each: 6 of 10 jobs run networks, in steps of one thread or two, each with one GPU."""
    monkeypatch.setattr(jobs, "work", lambda rule, wildcards, study, gpu: Work(100, 54))
    needs = jobs.needs(ROOT / "config/tiny.yaml", tmp_path, "all")
    of_each = jobs.submitted(ROOT / "config/tiny.yaml", tmp_path, "all")
    assert needs[:3] == (sum(map(len, of_each)), 10, 6)
    networked = [step for job in of_each for step in job if step.rule.name in NETWORKS]
    assert (needs.gpu_hours, needs.core_hours) == pytest.approx((len(networked) / 60, (needs.steps - len(networked)) / 60))
    assert needs.longest_minutes == max(sum(step.resources.runtime for step in job) for job in of_each)
    assert needs.most_mb == max(step.resources.mem_mb for job in of_each for step in job)


def test_a_mistake_in_the_call_of_jobs_is_told_in_a_line():
    done = subprocess.run([sys.executable, "scripts/tools/jobs.py", "config/tiny.yaml", "table9"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "table9" in done.stderr and "Traceback" not in done.stderr


def test_number_of_jobs_in_the_docs_is_that_of_the_plan():
    page = (ROOT / "docs/cluster.md").read_text()
    assert jobs.with_table(page) == page, "run `make docs`"
    assert "| `all` |" in page

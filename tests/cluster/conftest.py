"""A real SLURM of two nodes on this machine, for the time of the tests; all its files lie in a folder of theirs."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ..workflow.conftest import ROOT

#: The nodes have more processors than the machine: they are slots.
CONFIGURATION = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=2
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
MinJobAge=3600
KillWait=1
GresTypes=gpu
NodeName=one NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=8 RealMemory=16000 Gres=gpu:tested:2 State=UNKNOWN
NodeName=two NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=8 RealMemory=16000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES State=UP
"""

#: Devices that are none, so that jobs can ask for them.
GPUS = "NodeName=one Name=gpu Type=tested File=/dev/null\nNodeName=one Name=gpu Type=tested File=/dev/zero\n"

#: The plugin takes every SLURM_… out of the environment of a job's inner call, and with it where this configuration lies.
SRUN = '#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {program} "$@"\n'

#: Writes down what is submitted: the words of a line with a unit separator between them.
SBATCH = '#!/bin/sh\nprintf "%s\\037" "$@" >> {folder}/submitted\necho >> {folder}/submitted\nexec {program} "$@"\n'

#: Programs that fail while there is a file ``away``, as if the controller were.
AWAY = '#!/bin/sh\ntest -e {folder}/away && exit 1\nexec {program} "$@"\n'

#: Snakemake that asks for the status of its jobs every second. The plugin by itself waits 10 seconds longer each time that none has ended.
IMPATIENT = """
import snakemake_executor_plugin_slurm as plugin
from snakemake.cli import main

plugin.Executor.next_seconds_between_status_checks = property(lambda executor: 1, lambda executor, seconds: None)
main()
"""

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel", "sinfo")


class Cluster:
    """The commands of a cluster, and Snakemake with the profile on it."""

    def __init__(self, folder: Path):
        self.folder = folder
        path = os.pathsep.join([str(folder / "bin"), os.environ["PATH"], "/usr/sbin"])
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": path}

    def call(self, *command: str) -> str:
        """What a command of SLURM prints; raises CalledProcessError where it fails."""
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True).stdout

    def jobs(self) -> dict[str, dict[str, str]]:
        """What the scheduler knows of every job, by its number, in the words of ``scontrol show job``."""
        lines = self.call("scontrol", "--oneliner", "show", "job").splitlines()
        known = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]
        return {job["JobId"]: job for job in known if "JobId" in job}

    def submitted(self) -> list[list[str]]:
        """The words of every call of sbatch so far."""
        file = self.folder / "submitted"
        return [line.split("\x1f")[:-1] for line in file.read_text().split("\n") if line] if file.exists() else []

    def command(self, folder: Path, *arguments) -> list[str]:
        """Snakemake in ``folder`` with the profile; files arrive at once here, and jobs end soon."""
        options = ["--snakefile", ROOT / "Snakefile", "--directory", folder, "--configfile", folder / "config.yaml"]
        options += ["--profile", ROOT / "profiles/slurm", "--slurm-init-seconds-before-status-checks", 1, "--latency-wait", 10]
        return [sys.executable, "-c", IMPATIENT, *map(str, [*options, *arguments])]

    def start(self, folder: Path, *arguments) -> subprocess.Popen:
        """Snakemake, in a process group of its own, with what it prints in ``printed.txt``."""
        with (folder / "printed.txt").open("a") as printed:
            return subprocess.Popen(
                self.command(folder, *arguments), cwd=ROOT, env=self.environment, start_new_session=True, stdout=printed, stderr=printed
            )


def wait_for(what, seconds=120):
    """The first true value of ``what()``; fails after some time without."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.2)
    pytest.fail("waited in vain")


def option(words, name):
    """The value of an option of sbatch, written as two words or one; None where it is not given."""
    for word, after in zip(words, [*words[1:], ""]):
        if word == name:
            return after
        if word.startswith(f"{name}="):
            return word.split("=", 1)[1]
    return None


def free_ports(number):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def missing():
    """Why there can be no SLURM here, None if there can."""
    programs = os.environ["PATH"] + os.pathsep + "/usr/sbin"
    if os.geteuid():
        return "SLURM's daemons are started by root"
    lacking = [name for name in NEEDED if not shutil.which(name, path=programs)]
    return f"no {', '.join(lacking)} here (Debian: slurm-wlm, munge)" if lacking else None


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """Two nodes that take jobs."""
    if why := missing():
        (pytest.fail if os.environ.get("REQUIRE_SLURM") else pytest.skip)(why)
    folder = tmp_path_factory.mktemp("slurm")
    it = Cluster(folder)
    (folder / "state").mkdir()
    (folder / "bin").mkdir()
    (folder / "slurm.conf").write_text(CONFIGURATION.format(host=socket.gethostname(), folder=folder, ports=free_ports(3)))
    (folder / "gres.conf").write_text(GPUS)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    for name, text in (("srun", SRUN), ("sbatch", SBATCH), ("squeue", AWAY), ("scontrol", AWAY)):
        (folder / "bin" / name).write_text(text.format(folder=folder, program=shutil.which(name)))
        (folder / "bin" / name).chmod(0o755)
    files = [f"--{name}={folder}/munge.{end}" for name, end in (("socket", "socket"), ("pid-file", "pid"), ("seed-file", "seed"))]
    daemons = [["munged", "--foreground", "--force", f"--key-file={key}", f"--log-file={folder}/munge.log", *files]]
    daemons += [["slurmctld", "-D"], ["slurmd", "-D", "-N", "one"], ["slurmd", "-D", "-N", "two"]]
    with (folder / "daemons.log").open("w") as log:
        running = []
        try:
            for daemon in daemons:
                running.append(subprocess.Popen(daemon, env=it.environment, stdout=log, stderr=log))
                if daemon[0] == "munged":
                    wait_for((folder / "munge.socket").exists)
            wait_for(lambda: it.call("sinfo", "--noheader", "--format=%D %T").split() == ["2", "idle"])
            yield it
            it.call("scancel", "--user=root", "--signal=KILL", "--full")
            it.call("scancel", "--user=root")
            wait_for(lambda: not it.call("squeue", "--noheader"))
        finally:
            for daemon in reversed(running):
                daemon.send_signal(signal.SIGTERM)
                daemon.wait()

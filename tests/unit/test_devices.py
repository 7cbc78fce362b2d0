"""The device that torch computes on, its threads and its determinism."""

import os
import subprocess
import types

import pytest
import torch

from pqag import devices
from pqag.devices import torch_device
from pqag.errors import UserError


@pytest.fixture
def torch_as_before():
    threads, environment = torch.get_num_threads(), os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    deterministic, warn_only = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    flags = torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
    torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = flags
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
    if environment is not None:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = environment


@pytest.fixture(params=[False, True], ids=["no GPU", "a GPU"])
def gpu(request, monkeypatch, tmp_path):
    """A torch that finds a GPU, or none; no job of this machine has it."""
    monkeypatch.setattr(devices.tempfile, "gettempdir", lambda: tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: types.SimpleNamespace(uuid="only"))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    return request.param


def test_the_device_is_that_of_the_settings_and_auto_takes_a_gpu_where_there_is_one(torch_as_before, gpu):
    for threads in (1, 3):
        assert torch_device({"device": "cpu", "threads": threads}) == torch.device("cpu") and torch.get_num_threads() == threads
    assert torch_device({"device": "auto", "threads": 1}) == torch.device("cuda:0" if gpu else "cpu")
    if gpu:
        assert torch_device({"device": "cuda", "threads": 1}) == torch.device("cuda:0")
    else:
        with pytest.raises(UserError, match='device is "cuda".*no GPU.*"auto"'):
            torch_device({"device": "cuda", "threads": 1})


PIPES = {"start": subprocess.Popen, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
TAKES_A_GPU = """
import sys, types, tempfile, torch
folder, *shown = sys.argv[1:]
tempfile.tempdir = folder
torch.cuda.is_available = lambda: True
torch.cuda.device_count = lambda: len(shown)
torch.cuda.get_device_properties = lambda index: types.SimpleNamespace(uuid=shown[index])
torch.cuda.set_device = lambda device: print(shown[device.index], flush=True)
from pqag.devices import torch_device
torch_device({"device": "auto", "threads": 1})
sys.stdin.read()  # the life of a job
"""


def test_two_jobs_are_on_two_gpus_and_one_that_ends_leaves_its_own(python, tmp_path):
    """By a torch that is told of GPUs. The third job finds both taken and shares; the last is shown the second alone, as by a scheduler."""
    jobs = []

    def start(*shown):
        jobs.append(python(TAKES_A_GPU, tmp_path, *shown, **PIPES))
        return jobs[-1].stdout.readline().strip()

    try:
        assert [start("first", "second"), start("first", "second")] == ["first", "second"]
        assert start("first", "second") in ("first", "second")
        jobs[0].kill()
        jobs[0].wait()
        assert start("first", "second") == "first"
        assert start("second") == "second"
    finally:
        for job in jobs:
            job.kill()
            job.communicate()


TAKES_A_REAL_GPU = """
import sys, tempfile, torch
tempfile.tempdir = sys.argv[1]
from pqag.devices import torch_device
device = torch_device({"device": "cuda", "threads": 1})
assert float(torch.full((2, 3), 7.0, device=device).sum()) == 42
print(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid, flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here")
def test_every_real_gpu_is_taken_by_one_job_before_any_is_shared(python, tmp_path):
    count, jobs = torch.cuda.device_count(), []
    try:
        for _ in range(count + 1):
            jobs.append(python(TAKES_A_REAL_GPU, tmp_path, **PIPES))
        taken = [job.stdout.readline().strip() for job in jobs]
        assert all(taken) and len(set(taken)) == count
    finally:
        for job in jobs:
            job.kill()
            job.communicate()


def test_computation_is_set_to_be_reproducible(torch_as_before):
    torch.backends.cudnn.benchmark = torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    torch.use_deterministic_algorithms(False)
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
    torch_device({"device": "cpu", "threads": 1})
    assert torch.are_deterministic_algorithms_enabled()
    assert not (torch.backends.cudnn.benchmark or torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"

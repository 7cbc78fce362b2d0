"""Trained networks as files that hold weights and cannot run anything."""

import io
import pickle
import zipfile
from unittest.mock import Mock

import pytest
import torch

from pqag import checkpoints, networks
from pqag.errors import UserError

from .conftest import Evil

VALUE = {
    "identity": "abc",
    "history": [[0, 0.5], [1, 0.25]],
    "training": {"network": {"w": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(3)}, "epoch": 1, "none": None},
}


def small_network():
    torch.manual_seed(0)
    return networks.build("vgg11", 5, 0.05, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


@pytest.fixture
def saved(tmp_path):
    checkpoints.save(tmp_path / "a.pt", VALUE)
    return tmp_path / "a.pt"


def refused(load, path, words):
    """``load`` raises a UserError with ``words``, in one line that does not advise to run the code."""
    with pytest.raises(UserError, match=words) as error:
        load(path)
    assert not any(advice in str(error.value) for advice in ("\n", "set to `False`", "weights_only"))


def test_values_and_tensors_come_back(saved):
    got = checkpoints.load(saved)
    assert got["identity"] == "abc" and got["history"] == [[0, 0.5], [1, 0.25]]
    assert got["training"]["epoch"] == 1 and got["training"]["none"] is None
    for name, tensor in VALUE["training"]["network"].items():
        assert torch.equal(got["training"]["network"][name], tensor) and got["training"]["network"][name].dtype == tensor.dtype


def test_the_state_of_an_optimizer_comes_back(tmp_path):
    """A killed training resumes from it."""
    network = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, 0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=10, anneal_strategy="linear")
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    schedule.step()
    checkpoints.save(tmp_path / "a.pt", {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()})
    got = checkpoints.load(tmp_path / "a.pt")
    assert got["schedule"] == schedule.state_dict()
    assert torch.equal(got["optimizer"]["state"][0]["momentum_buffer"], torch.ones(2, 3)), "the gradient of a sum of W 1 + b"


def test_a_network_comes_back_whole_and_stays_as_it_was(tmp_path):
    network = small_network().train()
    network(torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1)))  # moves the running statistics
    checkpoints.save_network(tmp_path / "w.pt", network, "vgg11", 0.05, 5)
    torch.manual_seed(99)
    got = checkpoints.load_network(tmp_path / "w.pt")
    assert network.training and not got.training and got.head.out_features == 5
    assert got.state_dict().keys() == network.state_dict().keys()
    for name, tensor in network.state_dict().items():
        assert torch.equal(got.state_dict()[name], tensor), name
    assert got.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3]) and got.std.flatten().tolist() == pytest.approx([0.4, 0.5, 0.6])
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(got(images), network.eval()(images))


def test_the_bytes_do_not_depend_on_the_name_of_the_file(tmp_path):
    (tmp_path / "other").mkdir()
    paths = [tmp_path / "a.pt", tmp_path / "other" / "another-name.bin"]
    for path in paths:
        checkpoints.save_network(path, small_network(), "vgg11", 0.05, 5)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    for path in paths:
        torch.save(VALUE, path)
    assert paths[0].read_bytes() != paths[1].read_bytes(), "the control: torch itself puts the name inside"


def test_what_cannot_be_saved_leaves_the_old_file(saved):
    before = saved.read_bytes()
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        checkpoints.save(saved, {"f": lambda: None})
    assert saved.read_bytes() == before and [path.name for path in saved.parent.iterdir()] == ["a.pt"]


# Malicious and damaged files


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_code_in_a_checkpoint_is_refused_and_does_not_run(tmp_path, form):
    path, trace = tmp_path / "evil.pt", tmp_path / "trace"
    value = {"model": "vgg11", "weights": Evil(trace)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(value, protocol=2))
    else:
        torch.save(value, path, _use_new_zipfile_serialization=form == "zip")
    for load in (checkpoints.load, checkpoints.load_network):
        refused(load, path, "evil.pt")
    assert not trace.exists()
    if form != "pickle":
        torch.load(path, weights_only=False)
        assert trace.is_dir(), "the control: without the refusal the code runs"


def test_what_is_no_checkpoint_or_cut_is_a_user_error(saved, monkeypatch):
    content = saved.read_bytes()
    for damaged in (b"hello", bytes(1000), b"", content[: len(content) // 3], content[:-1]):
        saved.write_bytes(damaged)
        refused(checkpoints.load, saved, "a.pt cannot be read safely")
    monkeypatch.setattr(checkpoints.zipfile, "ZipFile", Mock(side_effect=RuntimeError("the first line\nthe second line")))
    refused(checkpoints.load, saved, "the first line")
    saved.unlink()
    refused(checkpoints.load, saved, "a.pt cannot be read safely")


def test_a_flipped_bit_of_a_weight_is_a_user_error(tmp_path):
    checkpoints.save(tmp_path / "a.pt", {"w": torch.arange(1000.0)})
    content = bytearray((tmp_path / "a.pt").read_bytes())
    content[content.find(torch.arange(1000.0).numpy().tobytes()) + 2003] ^= 1
    (tmp_path / "a.pt").write_bytes(content)
    assert zipfile.ZipFile(io.BytesIO(content)).testzip() is not None, "the file holds a checksum"
    refused(checkpoints.load, tmp_path / "a.pt", "it is damaged")


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch has deprecated TorchScript, but such files exist
def test_a_torchscript_program_is_called_one_and_does_not_run(tmp_path):
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(tmp_path / "program.pt")
    refused(checkpoints.load, tmp_path / "program.pt", "TorchScript program instead of plain weights")


@pytest.mark.parametrize("value", [{"identity": "abc"}, {"model": "vgg11", "width": 0.05, "classes": 5, "weights": {}}])
def test_a_checkpoint_that_holds_no_network_is_a_user_error(tmp_path, value):
    checkpoints.save(tmp_path / "a.pt", value)
    refused(checkpoints.load_network, tmp_path / "a.pt", "does not contain the weights of a network")

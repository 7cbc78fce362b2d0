"""Pretraining: augmentation against loops, losses against their definition, resuming bit for bit."""

import math
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

from pqag import networks, storage, training, training_run

SGD = {"batch_size": 32, "learning_rate": 0.05, "momentum": 0.9, "weight_decay": 5e-4, "label_smoothing": 0.1}
RECIPE = training.Recipe(epochs=3, **SGD, crop=2, flip=True, precision="float32")


def small_network():
    torch.manual_seed(1)
    return networks.build("alexnet", 3, width=0.01)


def run(data, recipe=RECIPE, checkpoint=None, network=None, seed=5):
    network = network or small_network()
    return network, list(started(network, data, recipe, seed, checkpoint=checkpoint))


def started(network, data, recipe=RECIPE, seed=5, **options):
    """A classifier in training, with the training images held out too."""
    objective = training.classification(network, recipe, False)
    return training.train(network, objective, in_memory(data), recipe, seed, **options)


def in_memory(data):
    images, labels = data
    return training.Data(images.numpy(), labels, lambda: [data], False, "")


def test_shifts_are_windows_of_the_reflected_image():
    images = torch.arange(2 * 3 * 8 * 8, dtype=torch.float32).reshape(2, 3, 8, 8)
    result = training.augmented(images, crop=2, flip=False, generator=torch.Generator().manual_seed(3))
    for image, shifted in zip(images.numpy(), result.numpy()):
        padded = np.pad(image, ((0, 0), (2, 2), (2, 2)), mode="reflect")
        windows = [padded[:, y : y + 8, x : x + 8] for y in range(5) for x in range(5)]
        assert any(np.array_equal(window, shifted) for window in windows)


def test_all_shifts_occur_and_are_equally_frequent():
    images = torch.arange(64, dtype=torch.uint8).reshape(1, 1, 8, 8).repeat(5000, 1, 1, 1)
    corners = training.augmented(images, 2, False, torch.Generator().manual_seed(0))[:, 0, 4, 4]
    values, counts = corners.unique(return_counts=True)
    assert set(values.tolist()) == {8 * y + x for y in range(2, 7) for x in range(2, 7)}
    assert counts.min() > 130  # expected 200, standard deviation 14


def test_about_half_of_the_images_are_mirrored_if_requested(data):
    images = torch.arange(8, dtype=torch.uint8).expand(4000, 1, 8, 8)
    mirrored = training.augmented(images, 0, True, torch.Generator().manual_seed(0))[:, 0, 0, 0] == 7
    assert mirrored.float().mean() == pytest.approx(0.5, abs=0.04)
    assert torch.equal(training.augmented(data[0], 0, False, torch.Generator()), data[0])


def test_a_large_data_set_is_read_in_random_windows(monkeypatch, tmp_path):
    """Windows of at most 100 images are 3 batches of 32; they have every image once, most next to their neighbours in the file."""
    images = np.random.default_rng(1).integers(0, 256, (1000, 3, 32, 32), dtype=np.uint8)
    storage.write_hdf5(tmp_path / "images.h5", {"images": images})
    monkeypatch.setattr(training, "WINDOW", 100 * 3072)
    windows = list(training.windows(images.shape, 32, torch.Generator().manual_seed(3)))
    assert [len(window) for window in windows] == 10 * [96] + [40]
    rows = torch.cat(windows)
    assert rows.sort().values.tolist() == list(range(1000)) != rows.tolist()
    assert all((window.diff() > 0).all() for window in windows)
    assert (rows.diff() == 1).float().mean() > 0.98
    with h5py.File(tmp_path / "images.h5") as file:
        for window in [*windows, torch.tensor([0, 1, 5, 339, 340, 341, 999])]:
            np.testing.assert_array_equal(training.read_rows(file["images"], window), images[window])


@pytest.mark.parametrize("window", [1, 40, 1000])
def test_every_epoch_has_every_image_once_with_its_own_label(monkeypatch, window):
    """Image and label number n consist of n, in whatever windows they are read."""
    monkeypatch.setattr(training, "WINDOW", window * 3072)
    numbers = torch.arange(100, dtype=torch.uint8)
    images = numbers[:, None, None, None].expand(100, 3, 32, 32).numpy()
    data = training.Data(images, numbers[:, None], lambda: [(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), numbers[:1, None])], False, "")
    network, seen = torch.nn.Conv2d(3, 1, 1), []

    def objective(x, y, epoch):
        assert torch.equal((255 * x[:, 0, 0, 0]).round(), y[:, 0])
        seen.append((epoch, y[:, 0].int().tolist()))
        return network(x).mean(), torch.zeros(len(x), 1)

    monkeypatch.setattr(training, "accuracy", lambda network, batches: 0.0)
    list(training.train(network, objective, data, replace(RECIPE, epochs=2, batch_size=8, crop=0, flip=False), 0))
    epochs = [[one for number, batch in seen if number == epoch for one in batch] for epoch in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(100)) and epochs[0] != epochs[1]


def test_training_images_are_enlarged_batch_by_batch(data):
    """To twice the size: between neighbours a and b of a row lie 3/4 a + 1/4 b and 1/4 a + 3/4 b."""
    images, labels = (values[:8] for values in data)
    sized = replace(in_memory((images, labels)), image_size=64)
    network, seen = torch.nn.Conv2d(3, 1, 1), []

    def objective(x, y, epoch):
        seen.append(x)
        return network(x).mean(), torch.zeros(len(x), labels.shape[1])

    next(training.train(network, objective, sized, replace(RECIPE, epochs=2, batch_size=8, crop=0, flip=False), 0))
    [x] = seen
    assert x.shape == (8, 3, 64, 64)
    first = {image[0, 0, 0].item(): image for image in (255 * x)}
    for image in images.double():
        rows = 0.75 * image[:, :, :-1] + 0.25 * image[:, :, 1:]
        match = next(one for key, one in first.items() if abs(key - image[0, 0, 0]) < 1e-3)
        np.testing.assert_allclose(match[:, 0, 1:-1:2], rows[:, 0], atol=1e-3)


def test_held_out_are_the_images_that_are_not_trained_on(tmp_path):
    """Of the database 3, 4 and 7 the 4 is trained on; the image and the label of number n consist of n."""
    arrays = {}
    for part, ids in (("train", [1, 4]), ("database", [3, 4, 7]), ("query", [8])):
        numbers = np.array(ids, np.uint8)
        arrays |= {f"{part}/ids": np.array(ids), f"{part}/labels": numbers[:, None]}
        arrays[f"{part}/images"] = np.broadcast_to(numbers[:, None, None, None], (len(ids), 3, 32, 32))
    storage.write_hdf5(tmp_path / "images.h5", arrays, {"multilabel": False})
    data = training_run.read(tmp_path / "images.h5", torch.device("cpu"))
    assert data.image_size == 32
    assert data.images[:, 0, 0, 0].tolist() == data.labels[:, 0].tolist() == [1, 4]
    for batches, sizes in ((data.held_out(), [2, 1]), (training_run.held_out(tmp_path / "images.h5", torch.device("cpu"), 1), [1, 1, 1])):
        images, labels = zip(*batches)
        assert [len(batch) for batch in images] == sizes
        assert torch.cat(images)[:, 2, 31, 31].tolist() == torch.cat(labels)[:, 0].tolist() == [3, 7, 8]


def test_channel_statistics_are_numpys(data):
    mean, std = training.channel_statistics(data[0].numpy())
    pixels = data[0].numpy() / 255
    assert mean == pytest.approx(pixels.mean((0, 2, 3)), rel=1e-12)
    assert std == pytest.approx(pixels.std((0, 2, 3)), rel=1e-9)


def test_losses_by_hand():
    # Two classes, logits (0, ln 3): p = (1/4, 3/4). Smoothing 0.2 gives the target (0.9, 0.1).
    loss = training.classification_loss(torch.tensor([[0.0, math.log(3)]]), torch.tensor([[1.0, 0.0]]), False, 0.2)
    assert float(loss) == pytest.approx(-0.9 * math.log(0.25) - 0.1 * math.log(0.75))
    # sigmoid(0) = 1/2 whatever the label: the mean is ln 2.
    loss = training.classification_loss(torch.zeros(2, 3), torch.tensor([[1.0, 0, 1], [0, 0, 1]]), True, 0.2)
    assert float(loss) == pytest.approx(math.log(2))


def test_correct_takes_any_of_several_labels():
    logits = torch.tensor([[1.0, 2, 3], [3, 2, 1], [1, 3, 2]])
    assert training.correct(logits, torch.tensor([[0, 1, 1], [0, 1, 1], [0, 1, 0]])).tolist() == [True, False, True]


def test_identity_initialisation_passes_the_input_on():
    convolution = torch.nn.Conv2d(3, 5, 3, padding=1, bias=False)
    training.identity_initialisation(convolution)
    images = torch.rand(2, 3, 6, 6)
    assert torch.equal(convolution(images)[:, :3], images)


def test_learns_and_reports_each_epoch(data):
    network, epochs = run(data, replace(RECIPE, epochs=8))
    figures = [figure for figure, _ in epochs]
    assert [f.epoch for f in figures] == list(range(8))
    assert figures[-1].train_loss < figures[0].train_loss
    assert [f.test_accuracy is None for f in figures] == 7 * [True] + [False]
    assert figures[-1].test_accuracy > 0.9
    network.eval()
    with torch.no_grad():
        assert figures[-1].test_accuracy == pytest.approx(
            float((network(networks.pixels(data[0])).argmax(1) == data[1].argmax(1)).float().mean())
        )


def test_learning_rate_rises_then_falls_to_nothing(data):
    """Eight epochs: the peak after two, then in six equal steps down."""
    assert [training.one_cycle(p) for p in (0, 0.25, 0.625, 1)] == pytest.approx([0.04, 1, 0.5, 0])
    rates = [figure.learning_rate for figure, _ in run(data, replace(RECIPE, epochs=8))[1]]
    assert rates == pytest.approx([0.05 * f for f in (0.52, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0)])


def test_an_epoch_by_hand(data):
    """A linear classifier in two steps, of 64 images and of 32: SGD with Nesterov momentum and weight decay, and the mean loss."""
    recipe = replace(RECIPE, epochs=1, batch_size=64, crop=0, flip=False, weight_decay=0.1)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 3, bias=False))
    images, labels = data[0].double() / 255, data[1].double()
    weight, velocity, losses = network[1].weight.detach().double(), 0.0, []
    order = torch.randperm(96, generator=torch.Generator().manual_seed(5 * 1_000_003))
    for batch, rate in ((order[:64], 0.04 * 0.05), (order[64:], (1 - 1 / 2) / 0.75 * 0.05)):
        x, y = images[batch].flatten(1), 0.9 * labels[batch] + 0.1 / 3
        p = (x @ weight.T).softmax(1)
        losses.append(float(-(y * p.log()).sum()))
        gradient = (p - y).T @ x / len(batch) + 0.1 * weight
        velocity = 0.9 * velocity + gradient
        weight = weight - rate * (gradient + 0.9 * velocity)

    [(epoch, _)] = started(network, data, recipe)
    np.testing.assert_allclose(network[1].weight.detach(), weight, rtol=1e-4, atol=1e-7)
    assert epoch.train_loss == pytest.approx(sum(losses) / 96, rel=1e-6)


@pytest.mark.parametrize("stopped_after", [1, 2])
def test_resumed_training_ends_in_the_same_bits(data, stopped_after, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "WINDOW", 64 * 3072)  # two windows, of 64 and 32 images
    whole, _ = run(data)
    calls = []
    interrupted = started(small_network(), data, on_batch=lambda: calls.append(1))
    for _ in range(stopped_after):
        _, checkpoint = next(interrupted)
    assert len(calls) == 3 * stopped_after, "the batches of an epoch"
    torch.save(checkpoint, tmp_path / "checkpoint.pt")  # the generator's tensors go on changing; a file does not
    resumed, epochs = run(data, checkpoint=torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    assert [figure.epoch for figure, _ in epochs] == list(range(stopped_after, 3))
    for (key, expected), actual in zip(whole.state_dict().items(), resumed.state_dict().values()):
        assert torch.equal(expected, actual), key


def test_seed_decides(data):
    same, again, other = (run(data, seed=seed)[0].head.weight for seed in (5, 5, 6))
    assert torch.equal(same, again)
    assert not torch.equal(same, other)


def test_precision_by_name_and_by_hardware(monkeypatch):
    cpu = torch.device("cpu")
    assert training.autocast_dtype("float32", cpu) is None
    assert training.autocast_dtype("bfloat16", cpu) is torch.bfloat16
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert training.autocast_dtype("auto", cpu) is torch.bfloat16
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    assert training.autocast_dtype("auto", cpu) is None
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert training.autocast_dtype("auto", torch.device("cuda")) is torch.bfloat16


def test_bfloat16_trains_too(data):
    _, epochs = run(data, replace(RECIPE, epochs=1, precision="bfloat16"))
    assert math.isfinite(epochs[0][0].train_loss)

"""The library gives what the workflow gave."""

import h5py
import numpy as np
import pytest
import torch

from pqag import api, files

VICTIM = "results/tiny/synthetic/vgg16-pretrained/seed0"


@pytest.fixture(scope="module")
def victim(table1):
    """A victim of the tiny study, its folder, and the queries: images, labels and ids."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # as the study has it
    with h5py.File(table1[0] / "results/tiny/synthetic/images.h5") as file:
        queries = [file[f"query/{name}"][()] for name in ("images", "labels", "ids")]
    yield api.load_victim(table1[0] / VICTIM, bits=16), table1[0] / VICTIM, *queries
    torch.set_num_threads(threads)


@pytest.mark.parametrize("loss", ["basic", "apd", "aod"])
def test_attacks_are_those_of_the_workflow_bit_for_bit_and_so_are_their_scores(victim, loss):
    victim, folder, images, labels, ids = victim
    adversarial = api.attack(victim, images, loss, ids=ids)
    with h5py.File(folder / f"16bits/adversarial/{loss}.h5") as file:
        assert adversarial.dtype == np.uint8 and np.array_equal(adversarial, file["query/images"])
        assert np.array_equal(api.features(victim, adversarial), file["query/features"])
    metrics = files.read_json(folder / f"16bits/metrics/{loss}.vgg16-pretrained-16bits.json")
    scores = api.evaluate(victim, adversarial, labels)
    assert scores == {key: metrics[key] for key in scores} and {"SDC", "ADC", "map_floor"} <= set(scores)


def test_clean_queries_codebooks_and_classes_as_numbers(victim):
    victim, folder, images, labels, _ = victim
    metrics = files.read_json(folder / "16bits/metrics/clean.json")
    assert api.evaluate(victim, torch.from_numpy(images), labels.argmax(1))["ADC"] == metrics["ADC"]
    with h5py.File(folder / "features/database.h5") as file:
        fitted = api.fit_codebook(file["features"][()], bits=16)
    for name in ("codewords", "codes"):
        assert np.array_equal(getattr(fitted, name), getattr(victim.codebook, name))

"""The library for Python programs: the page on it, types and shapes, and mistakes. tests/workflow compares it with the workflow."""

import json
import re

import numpy as np
import pytest
import torch
from torch import nn

from pqag import api
from pqag.api import Codebook, UserError, Victim
from pqag.names import ANSWERS

from ..workflow.conftest import ROOT


class Means(nn.Module):
    """Features of 4 numbers: the means of the quarters of the red channel. Its ``features`` is a layer, as torchvision's are."""

    def __init__(self):
        super().__init__()
        self.features = nn.AvgPool2d(16)

    def forward(self, images):
        return self.features(images)[:, 0].flatten(1)


CODEWORDS = np.array([[[1.0, 0], [0, 1]], [[1, 0], [0, 1]]])  # two sub-spaces of two codewords
IMAGES = np.zeros((4, 3, 32, 32), np.uint8)
for place, (row, column) in enumerate(((0, 0), (0, 16), (16, 0), (16, 16))):
    IMAGES[place] = 40
    IMAGES[place, 0, row : row + 16, column : column + 16] = 60 + 40 * place


@pytest.fixture
def victim():
    """Four database images with the codes (0, 0), (0, 1), (1, 0), (1, 1)."""
    return Victim(Means(), Codebook(CODEWORDS, np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), None), [0, 0, 1, 1], normalised=False)


def test_the_example_of_the_page_runs(capsys):
    [code] = re.findall(r"```python\n(.*?)```", (ROOT / "docs/api.md").read_text(), re.DOTALL)
    assert len(code.splitlines()) <= 10
    torch.manual_seed(0)
    exec(code, {})
    before, after = map(float, re.findall(r"mAP before and after: (\S+) (\S+)", capsys.readouterr().out)[0])
    assert 0 < after < 1 and 0 < before < 1 and before != after


def test_search_and_scores_by_hand(victim):
    """Features are three equal numbers and a larger one, so in one sub-space both codewords are equally near."""
    assert np.allclose(
        api.features(victim, IMAGES) * 255, [[60, 40, 40, 40], [40, 100, 40, 40], [40, 40, 140, 40], [40, 40, 40, 180]], atol=1e-3
    )
    assert api.search(victim, IMAGES).tolist() == [[0, 1, 2, 3], [2, 3, 0, 1], [0, 2, 1, 3], [1, 3, 0, 2]]
    assert api.search(victim, IMAGES[:1], k=2, kind="SDC").tolist() == [[0, 1]]
    scores = api.evaluate(victim, IMAGES[:2], [0, 0])
    assert scores["ADC"]["average_precision"] == pytest.approx([1, (1 / 3 + 2 / 4) / 2])
    assert scores["SDC"]["average_precision"][0] == pytest.approx((1 + (2 / 2 + 2 / 3) / 2) / 2), "the code (0, 0), then a tie of two"
    assert api.evaluate(victim, IMAGES[:2], np.array([[1, 0], [1, 0]])) == scores


@pytest.mark.parametrize("loss", [*api.LOSSES, lambda z, clean, head: ((z - clean) ** 2).sum(1)])
def test_adversarial_images_are_of_the_type_of_the_clean_ones_and_the_same_pixels(victim, loss):
    of_bytes = api.attack(victim, IMAGES, loss, epsilon=4, **(options := {"method": "square", "budget": 9} if loss in ANSWERS else {}))
    change = np.abs(of_bytes.astype(int) - IMAGES)
    assert of_bytes.dtype == np.uint8 and 0 < change.max() <= 4
    for images in (IMAGES / 255, torch.from_numpy(IMAGES), torch.from_numpy(IMAGES).double() / 255, torch.from_numpy(IMAGES / 255).float()):
        adversarial = api.attack(victim, images, loss, epsilon=4, **options)
        assert type(adversarial) is type(images) and adversarial.dtype == images.dtype
        scale = 1 if images.dtype in (torch.uint8, np.uint8) else 255
        assert np.array_equal(np.rint(np.asarray(adversarial) * scale), of_bytes)


def test_an_image_is_attacked_alike_in_any_batch_and_otherwise_with_another_seed(victim):
    both = api.attack(victim, IMAGES, seed=3, ids=[7, 8, 9, 10])
    assert np.array_equal(api.attack(victim, IMAGES[1:2], seed=3, ids=[8])[0], both[1])
    assert not np.array_equal(api.attack(victim, IMAGES, seed=4, ids=[7, 8, 9, 10]), both)


def test_a_victim_of_the_zoo_gets_a_database():
    victim = api.load_victim("zoo:fashion_resnet18")
    images = np.random.default_rng(0).integers(0, 256, (40, 3, 32, 32), dtype=np.uint8)
    with pytest.raises(UserError, match="the victim has no codewords: make it with"):
        api.attack(victim, images)
    z = api.features(victim, images)
    assert z.shape == (40, 64) and np.allclose((z**2).sum(1), 1, atol=1e-5)
    whole = Victim(victim.network, api.fit_codebook(z, 16), np.arange(40) % 3)
    assert whole.codebook.codewords.shape == (4, 16, 16) and api.search(whole, images, 1, "SDC").shape == (40, 1)


NAN = np.where(IMAGES == 60, np.nan, IMAGES / 255)
MISTAKES = [
    (lambda v: api.attack(v, IMAGES.astype(int)), "images are int64, but must be uint8, or floats in [0, 1]"),
    (lambda v: api.attack(v, IMAGES.astype(float)), "images are floats from 40 to 180, but must be in [0, 1], or uint8"),
    (lambda v: api.attack(v, NAN), "1 of the 4 images have pixels that are NaN"),
    (lambda v: api.attack(v, IMAGES[:0]), "there are no images: their shape is (0, 3, 32, 32)"),
    (lambda v: api.attack(v, IMAGES[0]), "images have the shape (3, 32, 32), but must have (N, 3, H, W)"),
    (lambda v: api.search(v, IMAGES.transpose(0, 2, 3, 1)), "channels come second: images.transpose(0, 3, 1, 2)"),
    (
        lambda v: api.attack(v, IMAGES, "aodd"),
        "loss is 'aodd', but must be basic, apd, aod, margin, clipped_margin, hag, ranks, distances, or a function",
    ),
    (lambda v: api.attack(v, IMAGES, method=["pgd"]), "method is ['pgd'], but must be pgd, fgsm, momentum_pgd, apgd, cw_l2,"),
    (lambda v: api.attack(v, IMAGES, steps=2), "attack has no option steps: known are step, iterations,"),
    (lambda v: api.attack(v, IMAGES, goals=[[0, 0]]), "attack has no option goals: known are"),
    (lambda v: api.attack(v, IMAGES, changes=torch.sign), "attack has no option changes: known are"),
    (
        lambda v: api.attack(v, IMAGES, "dhta"),
        "loss is 'dhta', but must be basic, apd, aod, margin, clipped_margin, hag, ranks, distances, or a function",
    ),
    (lambda v: api.attack(v, IMAGES, "hag", method="apgd", iterations=20), "that of hag changes from step to step"),
    (lambda v: api.attack(v, IMAGES, epsilon=0.03), "epsilon is 0.03, but pixels are whole numbers of 0 to 255"),
    (lambda v: api.attack(v, IMAGES, epsilon="8"), "epsilon is '8', but must be a number from 0 to 255"),
    (lambda v: api.attack(v, IMAGES, iterations=1.5), "iterations is 1.5, but must be a whole number of at least 1"),
    (lambda v: api.attack(v, IMAGES, method="cw_l2", iterations=100), "cw_l2 needs the loss clipped_margin, or a function"),
    (lambda v: api.attack(v, IMAGES, method="apgd", iterations=9), "iterations of apgd is 9, but must be a number of at least 20"),
    (lambda v: api.attack(v, IMAGES, restarts=2, random_start=False), "restarts is 2, but without random_start all would begin at"),
    (lambda v: api.attack(v, IMAGES, "ranks"), "method is 'pgd', but the loss ranks has no gradient: nes, random_groups, square"),
    (lambda v: api.attack(v, IMAGES, method="nes"), "loss is 'aod', but nes only sees what a retrieval system answers: ranks or"),
    (lambda v: api.attack(v, IMAGES, "ranks", method="nes", budget=50), "budget of nes is 50, but must be a number of at least 51"),
    (lambda v: api.attack(v, IMAGES, "ranks", method="nes", distance="adc"), "distance is 'adc', but must be SDC or ADC"),
    (lambda v: api.attack(Victim(Means(), CODEWORDS), IMAGES, "ranks", method="nes"), "the victim has no database"),
    (lambda v: api.attack(v, IMAGES, assignment="l2"), "assignment is 'l2', but must be inner_product or euclidean"),
    (lambda v: api.attack(v, IMAGES, ids=[1, 2]), "ids are an array (2,) of int64, but must be whole numbers (4,), 0 or more"),
    (lambda v: api.attack(Victim(Means(), CODEWORDS[:1]), IMAGES), "its features have 4 numbers, and the codewords 1 sub-spaces of 2"),
    (lambda v: api.search(Victim(Means(), CODEWORDS), IMAGES), "the victim has no database: its codebook has codewords, but no codes"),
    (lambda v: api.search(v, IMAGES, k=0), "k is 0, but must be a whole number of at least 1"),
    (lambda v: api.search(v, IMAGES, kind="adc"), "kind is 'adc', but must be SDC or ADC"),
    (lambda v: api.features(Victim(nn.Identity()), IMAGES), "the network returns a tensor (4, 3, 32, 32) of float32 for 4 images"),
    (lambda v: api.evaluate(v, IMAGES, [0, 1]), "there are 2 labels, but 4 images"),
    (lambda v: api.evaluate(v, IMAGES, [2, 2, 2, 2]), "no query shares a label with any database image"),
    (lambda v: api.evaluate(v, IMAGES, [0.5] * 4), "labels: an array (4,) of float64, but must be classes as whole numbers (N,)"),
    (lambda v: api.evaluate(v, IMAGES, np.eye(4, 1, dtype=int)), "have the class 1, but the multi-hot ones have columns for 0 to 0 only"),
    (lambda v: Victim(print, CODEWORDS), "network is a builtin_function_or_method, but must be a torch.nn.Module"),
    (lambda v: Victim(Means(), CODEWORDS[0]), "codewords: an array (2, 2) of float64, but must be floats (M, K, D/M)"),
    (lambda v: Victim(Means(), CODEWORDS * np.nan), "codewords: some numbers are NaN or infinite"),
    (lambda v: Victim(Means(), Codebook(CODEWORDS, np.array([[0, 2]]), None)), "numbers from 0 to 2, but there are 2 codewords"),
    (
        lambda v: Victim(Means(), Codebook(CODEWORDS, np.array([[0]]), None)),
        "codes are an array (1, 1) of int64, but must",
    ),
    (
        lambda v: Victim(Means(), Codebook(CODEWORDS, None, None, np.eye(2))),
        "(2, 2), but codewords (2, 2, 2) need (4, 4)",
    ),
    (lambda v: Victim(Means(), v.codebook, [1]), "there are 1 labels, but codes of 4 database images"),
    (lambda v: api.fit_codebook(np.ones((9, 6)), bits=16), "4 subspaces must divide both the 16 bits and the 6 numbers of a feature"),
    (
        lambda v: api.fit_codebook(np.ones((9, 8)), bits=16),
        "need 2^4 features, one for each codeword, but there are 9",
    ),
    (lambda v: api.fit_codebook(np.ones((9, 8)), bits=40_000), "need 2^10000 features, one for each codeword, but there are 9"),
    (lambda v: api.load_victim("zoo:fashion_resnet"), "zoo:fashion_resnet is not in the zoo; did you mean zoo:fashion_resnet18?"),
    (
        lambda v: api.load_victim("nowhere.pt"),
        "nowhere.pt does not exist: give a weights.pt of results/, its folder, or",
    ),
]


@pytest.mark.parametrize("call, words", MISTAKES, ids=[words for _, words in MISTAKES])
def test_a_mistake_is_told_in_one_sentence(victim, call, words):
    with pytest.raises(UserError, match=re.escape(words)) as told:
        call(victim)
    assert "\n" not in str(told.value)


def test_the_notebook_runs_and_shows_what_it_prints(monkeypatch, capsys):
    monkeypatch.chdir(ROOT / "docs")
    names = {}
    for cell in json.loads((ROOT / "docs/quickstart.ipynb").read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
            [output] = cell["outputs"]
            printed, shown = capsys.readouterr().out, "".join(output["text"])
            fixed = [re.sub(r"\d+\.\d|(finds|then) \[.*?\]", "", text) for text in (printed, shown)]
            assert fixed[0] == fixed[1]
            for one, other in zip(re.findall(r"\d+\.\d", printed), re.findall(r"\d+\.\d", shown), strict=True):
                assert float(one) == pytest.approx(float(other), abs=2), "other processors round otherwise"

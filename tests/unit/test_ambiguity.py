"""Readings of the paper: what is measured of them, against numbers worked out by hand, and what a study says of them."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pqag.codebooks import Codebook
from pqag.errors import UserError
from pqag.losses import Head
from pqag.show import ambiguity
from pqag.study import settings as needs
from pqag.study.model import parse_study
from pqag.study.resources import START_SECONDS
from pqag.study.rules import jobs, jobs_of, settings, work

sys.path.append(str(Path(__file__).parents[2] / "scripts/tools"))
import order as measured  # noqa: E402

STUDY = {
    "study": "base",
    "datasets": {"cifar10": {"database": 100, "queries": 10}},
    "models": {"victim": {"network": "vgg16", "width": 0.25}},
    "attacks": {"apd": {"loss": "apd"}},
    "bits": [16],
    "readings": {
        "default": {"title": "The default", "change": {}},
        "hot": {"title": "Temperature 10", "change": {"attacks": {"apd": {"temperature": 10}}}},
        "large": {"title": "64 pixels", "change": {"datasets": {"cifar10": {"image_size": 64}}}},
        "long": {"title": "Two epochs", "change": {"training": {"epochs": 2}}},
        "mine": {"title": "Mine", "change": {"models": {"victim": {"network": "a.b:make", "width": 1, "training": {"epochs": 2}}}}},
    },
}


def test_a_reading_is_the_study_with_one_change():
    study = parse_study(STUDY)
    hot = study.reading("hot").resolved()
    base = study.resolved()
    assert hot["study"] == "base_hot" and hot["attacks"]["apd"] == base["attacks"]["apd"] | {"temperature": 10}
    assert {key: hot[key] for key in ("datasets", "models")} == {key: base[key] for key in ("datasets", "models")}
    assert base["readings"]["hot"]["study"] == hot and "readings" not in hot
    assert study.brings() == [("readings.mine.change.models.victim.network", "a.b:make")]
    again = parse_study(needs.as_config(base)).resolved()
    assert {name: one["study"] for name, one in again["readings"].items()} == {name: one["study"] for name, one in base["readings"].items()}


def test_a_reading_takes_the_weights_where_it_changes_no_training():
    base = parse_study(STUDY).resolved()
    assert {name for name in STUDY["readings"] if needs.lent(base, name)} == {"default", "hot"}


def test_a_reading_is_stale_when_one_of_its_jobs_is():
    base = parse_study(STUDY).resolved() | {"brought": {"a.b:make": "ab" * 32}}
    more = parse_study(STUDY | {"quantizer": {"iterations": 7}}).resolved() | {"brought": {"a.b:make": "ab" * 32}}
    other_file = base | {"brought": {"a.b:make": "cd" * 32}}

    def digest(study, name):
        return settings("reading", {"reading": name}, study)["jobs"]

    assert digest(base, "hot") != digest(base, "long") != digest(more, "long")
    assert digest(base, "mine") != digest(other_file, "mine") and digest(base, "hot") == digest(other_file, "hot")
    found = [wildcards for rule, wildcards in jobs(base) if rule == "reading"]
    assert found == [{"reading": name} for name in STUDY["readings"]] and ("ambiguity", {}) in list(jobs(base))


def test_the_time_of_a_reading_is_that_of_its_jobs_and_of_no_training_where_the_weights_are_lent():
    base = parse_study(STUDY).resolved()
    each = [rule for rule, _ in jobs_of(needs.reading(base, "long"))]
    assert [each.count(rule) for rule in ("pretrain", "extract", "quantize", "attack", "evaluate", "evaluate_clean")] == [1] * 6
    hot, long = (work("reading", {"reading": name}, base).seconds for name in ("hot", "long"))
    of_one = {"dataset": "cifar10", "model": "victim", "seed": "0"}
    training, adopting = (work(rule, of_one, needs.reading(base, name)).seconds for rule, name in (("pretrain", "long"), ("adopt", "hot")))
    assert long - hot == pytest.approx(training - adopting)
    alone = [job for job in jobs_of(needs.reading(base, "long")) if job[0] != "pretrain"]
    rest = sum(START_SECONDS + work(*job, needs.reading(base, "long")).seconds for job in alone)
    assert long == pytest.approx(rest + START_SECONDS + training)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"trainin": {}}, r"readings.bad.change: trainin is no key: did you mean training\?"),
        ({"training": {"epochs": 0}}, "readings.bad.change: training.epochs is 0, but must be at least 1"),
        ({"attacks": {"apd": {"loss": "apdd"}}}, "readings.bad.change: attacks.apd.loss: 'apdd' is not known"),
    ],
)
def test_a_wrong_change_is_refused_in_a_sentence(change, words):
    with pytest.raises(UserError, match=words):
        parse_study(STUDY | {"readings": {"bad": {"title": "Bad", "change": change}}})


def test_peak_of_the_soft_assignment():
    """Two sub-spaces of one number, codewords 0 and 1: inner products 0 and z."""
    codewords = np.array([[[0.0], [1.0]], [[0.0], [1.0]]])
    share = 1 / (1 + np.exp(-2))
    assert ambiguity.peak(np.array([[2.0, 0.0]]), codewords, 1) == pytest.approx(2 * (share + 0.5) / 2)
    assert ambiguity.peak(np.array([[2.0, 2.0]]), codewords, 0.01) == pytest.approx(2)
    assert ambiguity.peak(np.array([[2.0, 2.0]]), codewords, 1e9) == pytest.approx(1)


def test_codewords_whose_nearest_neighbour_stands_for_the_same_class():
    """Codewords 0, 1, 5, 6 and one of no item: 0 and 1 stand for the first class, 5 for the second, 6 for the first."""
    codewords = np.array([[[0.0], [1.0], [5.0], [6.0], [5.5]]])
    codes = np.array([[0], [1], [2], [2], [2], [3]])
    labels = np.eye(2, dtype=np.uint8)[[0, 0, 1, 1, 0, 0]]
    assert ambiguity.neighbours_of_one_class(Codebook(codewords, codes, np.arange(6)), labels) == 0.5


def rows(aod=(20.0, 19.0, 21.0)):
    cells = {"clean": (80.0, 78.0, 82.0), "basic": (30.0, 28.0, 32.0), "apd": (21.5, 20.5, 22.5), "aod": aod}
    made = [
        {"target_bits": "16", "dataset": "cifar10", "target_model": "victim", "distance": "SDC", "attack": attack, "map": str(map)}
        | {"ci_low": str(low), "ci_high": str(high)}
        for attack, (map, low, high) in cells.items()
    ]
    return {"reading": "default", "title": "The default", "accuracy": {"victim": "0.825"}, "rows": made}


def test_the_page_says_in_which_order_the_attacks_stand():
    tidy = ambiguity.tidy([rows(), rows(aod=(10.0, 9.0, 11.0)) | {"reading": "other", "title": "Other"}])
    assert isinstance(tidy, pd.DataFrame) and tidy["map"].dtype == float and len(tidy) == 8
    lines = ambiguity.page(tidy).splitlines()
    assert "## 16 bits, SDC" in lines
    assert "| The default | 82.5 | 80.0 | 30.0 | 21.5 | 20.0 | AOD ~ APD < Basic |" in lines
    assert "| Other | 82.5 | 80.0 | 30.0 | 21.5 | 10.0 | AOD < APD < Basic |" in lines


def test_gradients_of_the_losses_are_those_on_paper():
    """Basic: 2 (z - clean). APD: the mean codeword of z less the clean code's. AOD: the mean codeword of z less that of the clean feature.
    All but the first are divided by the temperature."""
    generator = torch.Generator().manual_seed(0)
    z, clean, codewords = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((5, 6), (5, 6), (2, 4, 3)))
    z, clean = (torch.nn.functional.normalize(x, dim=1) for x in (z, clean))

    def scores(x):
        return torch.stack([x[:, :3] @ codewords[0].T, x[:, 3:] @ codewords[1].T], 1)

    def mean_codeword(x):
        return torch.cat([(scores(x) / 0.5).softmax(2)[:, m] @ codewords[m] for m in range(2)], 1)

    code = torch.cat([codewords[m][scores(clean)[:, m].argmax(1)] for m in range(2)], 1)
    on_paper = {"basic": 2 * (z - clean), "apd": (mean_codeword(z) - code) / 0.5, "aod": (mean_codeword(z) - mean_codeword(clean)) / 0.5}
    on_paper = {name: found - (found * z).sum(1, keepdim=True) * z for name, found in on_paper.items()}
    found = measured.compared(z, clean, Head(codewords, temperature=0.5))
    for one, other in measured.PAIRS:
        cosine = (on_paper[one] * on_paper[other]).sum(1) / on_paper[one].norm(dim=1) / on_paper[other].norm(dim=1)
        assert found[f"{one}, {other}"] == pytest.approx(cosine.mean().item())
    assert found["length"] == pytest.approx((on_paper["aod"].norm(dim=1) / on_paper["apd"].norm(dim=1)).mean().item())


def test_in_how_many_subspaces_queries_left_their_class():
    """Two sub-spaces of two codewords, the first for class 0, the second for class 1; three queries of class 0 and one of class 1."""
    items = np.array([[[3, 1], [0, 2]], [[5, 0], [1, 2]]])
    codes, labels = np.array([[0, 0], [0, 1], [1, 1], [0, 1]]), np.eye(2)[[0, 0, 0, 1]]
    assert measured.left(codes, labels, items).tolist() == [0.25, 0.5, 0.25]

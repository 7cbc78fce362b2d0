"""The gallery of a whole study against a plain computation from the study's files, and its links to the audit page and back."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from pqag import files
from pqag.audit import html

from ..unit.test_gallery import data_of, tiles

RESULTS = Path("results/tiny")
ATTACKS = ("basic", "apd", "aod")


@pytest.fixture
def finished(study, monkeypatch):
    monkeypatch.chdir(study[0])


def test_a_run_says_where_it_is(study):
    assert study[1].stdout.rstrip().endswith(f"Files: {RESULTS}/tables/\nGallery: {RESULTS}/gallery.html")


def expected_precision(distances, relevant):
    """Average precision in expectation over the orders of ties: at place j of a tie of n items, r of them relevant, is a relevant one with
    probability r/n, and then (r - 1)(j - 1)/(n - 1) relevant ones of the tie are before it."""
    total, before, hits = 0, 0, 0
    for distance in np.unique(distances):
        tie = relevant[distances == distance]
        n, r = len(tie), int(tie.sum())
        total += sum(r / n * (hits + 1 + (r - 1) * (j - 1) / max(n - 1, 1)) / (before + j) for j in range(1, n + 1))
        before, hits = before + n, hits + r
    return total / hits


@pytest.mark.parametrize("model", ["alexnet", "vgg16"])
def test_numbers_and_images_are_those_of_the_study(finished, model):
    data = data_of((RESULTS / "gallery.html").read_text())
    its = next(one for one in data["victims"] if one["model"] == model)
    folder = RESULTS / f"synthetic/{model}-pretrained/seed0"
    with h5py.File(RESULTS / "synthetic/images.h5") as images, h5py.File(folder / "16bits/codebook.h5") as codebook:
        queries, labels, gallery_labels = (images[name][()] for name in ("query/images", "query/labels", "database/labels"))
        codewords, codes = codebook["codewords"][()].astype(float), codebook["codes"][()]
    items = np.concatenate([codewords[m][codes[:, m]] for m in range(4)], axis=1)
    side = data["datasets"]["synthetic"]["side"]
    assert (tiles(data["datasets"]["synthetic"]["queries"], side)[:60] == queries).all()
    numbers = np.array(data["datasets"]["synthetic"]["items"]["numbers"])
    for k, attack in enumerate(("clean", *ATTACKS)):
        with h5py.File(folder / (f"16bits/adversarial/{attack}.h5" if k else "features/query.h5")) as file:
            features = file["query/features" if k else "features"][()].astype(float)
            if k:
                changes = tiles(its["changes"][k - 1], side)[:60]
                assert (queries + changes == file["query/images"][()]).all(), "modulo 256"
        for q, feature in enumerate(features):
            code = [int(((codewords[m] - part) ** 2).sum(1).argmin()) for m, part in enumerate(np.split(feature, 4))]
            assert its["codes"][k][q] == code
            quantized = np.concatenate([codewords[m][word] for m, word in enumerate(code)])
            for kind, point in (("ADC", feature), ("SDC", quantized)):
                distances = ((items - point) ** 2).sum(1).round(9)
                order = np.argsort(distances, kind="stable")
                relevant = (gallery_labels & labels[q]).any(1)
                found = its["distances"][kind]
                assert numbers[found["first"][k][q]].tolist() == order[:10].tolist()
                assert found["relevant"][k][q] == relevant[order[:10]].tolist()
                assert found["precision"][k][q] == pytest.approx(expected_precision(distances, relevant))
    for kind, found in its["distances"].items():
        cells = {cell["id"]: cell for cell in files.read_json(RESULTS / "tables/table1.cells.json")["cells"]}
        assert [cells[name]["value"] for name in its["cells"][kind]] == pytest.approx([100 * value for value in found["map"]])
        assert [name.split("/")[1] for name in its["cells"][kind]] == ["clean", *ATTACKS]


def test_a_cell_leads_to_its_queries_and_back(finished, browser, tmp_path):
    shutil.copy(RESULTS / "gallery.html", tmp_path)
    (tmp_path / "audit.html").write_text(html.page(RESULTS)[0])
    page = browser.open(f"file://{tmp_path}/audit.html#table4:synthetic/aod/alexnet/16/vgg16/16/SDC")
    assert not page.evaluate("document.querySelector('.queries')"), "queries made for another network are not shown"
    for cell, view in (("apd/vgg16/16/SDC", "vgg16/apd/SDC/0"), ("clean/alexnet/16/ADC", "alexnet/aod/ADC/0")):
        page = browser.open(f"file://{tmp_path}/audit.html#table1:synthetic/{cell}")
        page = browser.open(page.evaluate("document.querySelector('.queries').href"))
        page.settle()
        assert page.evaluate("location.href") == f"file://{tmp_path}/gallery.html#synthetic/{view}"
        page = browser.open(page.evaluate(f"document.querySelector('#all a[href*=\"{cell}\"]').href"))
        assert page.evaluate("document.querySelector('#chain header .code').textContent") == f"table1:synthetic/{cell}"
        assert page.complaints == []

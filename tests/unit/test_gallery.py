"""The gallery: what it makes of images of every size, and the page in headless Chromium. Its numbers are tested on a whole study."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from pqag import codebooks
from pqag.show import figures, gallery

#: A name as a folder of images may have it.
HOSTILE = "</script><img src=x onerror=console.log(13)>"
PGD = {"loss": "aod", "method": "pgd", "epsilon": 8, "step": 2.55, "iterations": 5}
ATTACKS = {"strong": PGD | {"epsilon": 16}, "other": PGD | {"loss": "apd"}, "weak": PGD | {"epsilon": 4}}
SETTINGS = {"study": "small", "datasets": ["scenes"], "models": ["vgg16", "mine"], "attacks": ATTACKS, "attack": "other", "bits": 4}
SETTINGS |= {"seed": 5, "queries": 8, "tables": {"vgg16": "table2"}}


def made(side=32, queries=6):
    """A data set with three labels, and two victims of 2 sub-spaces with 4 codewords each; nothing is relevant to query 4."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (1 + 2 * len(ATTACKS), queries, 3, side, side), np.uint8)
    labels, database_labels = rng.integers(0, 2, (2, 40, 3), np.uint8)
    labels[4] = 0
    striped = np.broadcast_to(rng.integers(0, 170, (40, 3, 1, 1)), (40, 3, side, side)) + 80 * (np.arange(side) % 4 == 3)
    images = gallery.Images("Scenes", ["sea", "sky", HOSTILE], noise[0], labels[:queries], database_labels, striped.astype(np.uint8))
    victims = []
    for model, attacked in zip(SETTINGS["models"], np.split(noise[1:], 2)):
        codebook = codebooks.Codebook(rng.normal(size=(2, 4, 3)).astype("f4"), rng.integers(0, 4, (40, 2), np.uint8), np.arange(40))
        scores = []
        for attack in ("clean", *ATTACKS):
            precision = [None if q == 4 else x for q, x in enumerate(rng.random(queries).tolist())]
            kinds = {kind: {"map": rng.random(), "average_precision": precision} for kind in ("SDC", "ADC")}
            scores.append({"attack": attack, "training": "joint"} | kinds)
        features = rng.normal(size=(1 + len(ATTACKS), queries, 6)).astype("f4")
        victims.append(gallery.Victim("scenes", model, codebook, features, attacked, scores))
    return images, victims


def data_of(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])


def tiles(sheet, side):
    """The images of a sheet, uint8 (n, 3, H, H), with those that only fill it."""
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(sheet.split(",")[1]))).convert("RGB"))
    rows, columns = pixels.shape[0] // side, pixels.shape[1] // side
    return pixels.reshape(rows, side, columns, side, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 3, side, side)


def test_attacks_that_differ_in_epsilon_alone_are_a_series():
    assert gallery.series(ATTACKS) == [[2, 0]]
    fgsm = {f"x{epsilon}": PGD | {"method": "fgsm", "iterations": 1, "epsilon": epsilon, "step": epsilon} for epsilon in (2, 1)}
    assert gallery.series(ATTACKS | fgsm | {"longer": PGD | {"iterations": 9}}) == [[2, 0], [4, 3]]


@pytest.mark.parametrize(("side", "shown", "factor"), [(32, 32, 1), (64, 64, 1), (65, 32, 2), (200, 50, 4)])
def test_large_images_are_shown_by_single_pixels_or_by_means(side, shown, factor):
    images, victims = made(side)
    data = data_of(gallery.page(SETTINGS, {"scenes": images}, victims))
    its = data["datasets"]["scenes"]
    assert (its["pixels"], its["side"]) == (side, shown)
    every = slice(factor // 2, shown * factor, factor)
    queries = tiles(its["queries"], shown)[:6]
    assert (queries == images.queries[:, :, every, every]).all()
    for victim, one in zip(victims, data["victims"]):
        for attacked, changes in zip(victim.attacked, one["changes"]):
            assert (queries + tiles(changes, shown)[:6] == attacked[:, :, every, every]).all(), "modulo 256"
    items, part = its["items"], slice(0, shown * factor)
    means = images.database[items["numbers"]][:, :, part, part].reshape(-1, 3, shown, factor, shown, factor).mean((3, 5))
    assert np.abs(tiles(items["sheet"], shown)[: len(means)] - means).mean() < 6, "other images differ by 50, single pixels by 20"
    assert items["labels"] == [np.flatnonzero(images.database_labels[number]).tolist() for number in items["numbers"]]


def test_a_page_that_would_be_too_large_shows_fewer_queries():
    images, victims = made()
    whole = gallery.page(SETTINGS, {"scenes": images}, victims)
    codes = data_of(whole)["victims"][1]["codes"][3]
    assert len(codes) == 6, "all, though 8 were asked for"
    page = gallery.page(SETTINGS, {"scenes": images}, victims, limit=len(whole) - 1)
    kept = data_of(page)["victims"][1]["codes"][3]
    assert len(page) < len(whole) and kept == codes[: len(kept)] and 1 <= len(kept) < 6
    assert [data_of(one)["fit"] for one in (whole, page)] == [None, len(kept)]
    assert data_of(gallery.page(SETTINGS, {"scenes": images}, victims, limit=1))["victims"][1]["codes"][3] == codes[:1]


def test_colours_are_legible_in_light_and_dark():
    for block in re.findall(r":root \{(.*?)\}", gallery.TEMPLATE.read_text(), re.DOTALL):
        colours = {name: re.sub("^#(.)(.)(.)$", r"#\1\1\2\2\3\3", colour) for name, colour in re.findall(r"--(\w+): (#\w+)", block)}
        for ink, papers in {**dict.fromkeys(("text", "faint", "link", "no"), ("page", "box")), "on": ("yes", "no")}.items():
            assert all(figures.contrast(colours[ink], colours[paper]) >= 4.5 for paper in papers), ink
        for frame in ("yes", "edge"):
            assert figures.contrast(colours[frame], colours["page"]) >= 3, frame


# ---------------------------------------------------------------------------------------------------------------------------- in Chromium


@pytest.fixture
def shown(tmp_path):
    """The data set, its victims, what the page knows, and the address of the page."""
    images, victims = made()
    text = gallery.page(SETTINGS, {"scenes": images}, victims)
    (tmp_path / "gallery.html").write_text(text)
    return images, victims, data_of(text), f"file://{tmp_path}/gallery.html"


def drawn(page, place):
    """The pixels of an image on the page, int (3, H, H)."""
    pixels = page.evaluate(f"Array.from(pixels(document.querySelector('#{place} canvas')).data)")
    return np.reshape(pixels, (32, 32, 4)).transpose(2, 0, 1)[:3]


def view(page):
    page.settle()
    return page.evaluate("location.hash")


def test_a_query_its_perturbation_and_what_they_retrieve(browser, shown):
    images, victims, data, address = shown
    page = browser.open(f"{address}#scenes/mine/weak/SDC/3")
    assert view(page) == "#scenes/mine/weak/SDC/3"
    query, attacked = images.queries[3].astype(int), victims[1].attacked[2][3].astype(int)
    assert (drawn(page, "query") == query).all() and (drawn(page, "adversarial") == attacked).all()
    assert (drawn(page, "change") == np.clip(128 + 10 * (attacked - query), 0, 255)).all()

    its = data["victims"][1]
    before, after = (its["codes"][k][3] for k in (0, 3))
    bits, words = sum((a ^ b).bit_count() for a, b in zip(before, after)), sum(a != b for a, b in zip(before, after))
    assert page.evaluate("at('flipped').textContent") == f"{bits} of 4 bits flipped, in {words} of 2 sub-spaces"
    assert page.evaluate("document.querySelectorAll('#code b').length") == 2 * bits > 0
    precision = "average precision {:.1f}\xa0% before, {:.1f}\xa0% after"
    values = [100 * victims[1].scores[k]["SDC"]["average_precision"][3] for k in (0, 3)]
    assert page.evaluate("at('summary').textContent").endswith(precision.format(*values))
    assert not page.evaluate("document.querySelector('#all a')"), "no table shows this victim"

    found, numbers = its["distances"]["SDC"], data["datasets"]["scenes"]["items"]["numbers"]
    one = "[one.className, one.querySelector('.mark').textContent, Number(one.title.match(/\\d+/)[0])]"
    for place, k in (("before", 0), ("after", 3)):
        marks = [["relevant", "✓"] if good else ["irrelevant", "✗"] for good in found["relevant"][k][3]]
        listed = page.evaluate(f"[...document.querySelectorAll('#{place} li')].map(one => {one})")
        assert listed == [[*mark, numbers[item]] for mark, item in zip(marks, found["first"][k][3], strict=True)]
    assert page.complaints == [] and [one for one in page.requests if not one.startswith("data:")] == [address]


def test_buttons_keys_and_lists_choose_what_is_shown(browser, shown):
    page = browser.open(shown[3])
    trail = [view(page)]
    for action in ("#next", "ArrowRight", "End", "ArrowRight", "ArrowLeft", "Home", "[data-query='2']", "#previous", "[value=SDC]"):
        (page.press if action.isalpha() else page.click)(action)
        trail.append(view(page))
    places = ["ADC/0", "ADC/1", "ADC/2", "ADC/5", "ADC/5", "ADC/4", "ADC/0", "ADC/2", "ADC/1", "SDC/1"]
    assert trail == [f"#scenes/vgg16/other/{place}" for place in places]
    assert page.evaluate("[at('strength').hidden, document.querySelector('#strip [aria-current]').dataset.query]") == [True, "1"]
    cells = [f"audit.html#table2:scenes/joint/{attack}/vgg16/4/SDC" for attack in ("clean", "other")]
    assert page.evaluate("[...document.querySelectorAll('#all a')].map(one => one.getAttribute('href'))") == cells

    for control, value, event in (("victim", 1, "change"), ("attack", 2, "change"), ("slider", 1, "input"), ("order", "'loss'", "change")):
        page.evaluate(f"at('{control}').value = {value}, at('{control}').dispatchEvent(new Event('{event}')), undefined")
        trail.append(view(page))
    clean, strong = (shown[1][1].scores[k]["SDC"]["average_precision"] for k in (0, 1))
    lost = sorted({*range(6)} - {4}, key=lambda q: strong[q] - clean[q])
    assert trail[-4:] == [f"#scenes/mine/{place}" for place in ("other/SDC/1", "weak/SDC/1", "strong/SDC/1", f"strong/SDC/{lost[0]}")]
    assert page.evaluate("[at('strength').hidden, at('epsilon').textContent, at('slider').max]") == [False, "16 of 255", "1"]
    assert page.evaluate("[...at('strip').children].map(one => Number(one.dataset.query))") == [*lost, 4]
    assert page.complaints == []


@pytest.mark.parametrize("fragment", ["nowhere", "%E0%A4%A/__proto__", "scenes/vgg16/clean/ADC", "scenes/__proto__/x/__proto__/9999"])
def test_an_address_that_names_no_view_opens_one(browser, shown, fragment):
    page = browser.open(f"{shown[3]}#{fragment}")
    assert re.fullmatch(r"#scenes/vgg16/other/ADC/[05]", view(page))
    page.evaluate("location.hash = '#scenes/mine/weak/SDC/2'")
    assert view(page) == "#scenes/mine/weak/SDC/2" and page.evaluate("at('place').textContent") == "3 of 6 queries"
    assert page.complaints == []


def test_names_are_text_and_everything_has_a_name_and_fits_a_phone(browser, shown):
    page = browser.open(f"{shown[3]}#scenes/mine/strong/ADC/4", width=390)
    page.settle()
    assert HOSTILE in page.evaluate("document.body.textContent") and page.evaluate("document.querySelectorAll('main img').length") == 0
    assert "no relevant image in the database" in page.evaluate("at('before').parentElement.textContent")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390, "nothing sticks out"
    nodes = [node for node in page.call("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]]
    found = [(node["role"]["value"], node["name"]["value"]) for node in nodes if "name" in node]
    found = [one for one in found if one[0] in ("button", "combobox", "slider", "radio", "image")]
    assert all(name for _, name in found) and {"combobox", "slider", "radio", "button"} <= {role for role, _ in found}
    assert sum(role == "image" for role, _ in found) == 3 + 2 * 10
    assert page.complaints == []

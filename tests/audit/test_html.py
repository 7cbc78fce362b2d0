"""The page of a study: its markup by a parser, its chains against the records, hostile names, and all of it in headless Chromium."""

import base64
import csv
import hashlib
import http.server
import json
import math
import os
import re
import shutil
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote, unquote

import pytest

from pqag import files
from pqag.audit import html
from pqag.audit.verify import load, verify
from pqag.audit.why import chain
from pqag.job import records
from pqag.study.file import printable

from .browser import Browser
from .conftest import command

RESULTS = Path("results/tiny")
APD = "table1:synthetic/apd/vgg16/16/ADC"


class Element:
    def __init__(self, tag, attributes):
        self.tag, self.attributes, self.children = tag, attributes, []

    def all(self, tag):
        for child in self.children:
            if isinstance(child, Element):
                if child.tag == tag:
                    yield child
                yield from child.all(tag)

    @property
    def text(self):
        return "".join(child if isinstance(child, str) else child.text for child in self.children)


class Tree(HTMLParser):
    """The elements of a page; refuses tags that are not closed in order."""

    VOID = {"meta", "br", "link", "img", "input"}

    def __init__(self, page):
        super().__init__()
        self.open = [Element("", {})]
        self.feed(page)
        self.close()
        assert len(self.open) == 1, self.open[-1].tag
        self.root = self.open[0]

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), attrs
        element = Element(tag, dict(attrs))
        self.open[-1].children.append(element)
        if tag not in self.VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open.pop().tag == tag

    def handle_data(self, data):
        self.open[-1].children.append(data)


def data_of(tree):
    return json.loads(next(script for script in tree.all("script") if script.attributes.get("id") == "data").text)


@pytest.fixture
def finished(study, monkeypatch):
    """In the folder of the tiny study, where nothing may be changed."""
    monkeypatch.chdir(study[0])
    return study[0]


@pytest.fixture
def copied(study, tmp_path, monkeypatch):
    """In a copy of the tiny study; its images come from two raw files, so its records say."""
    shutil.copytree(study[0], tmp_path / "study", ignore=shutil.ignore_patterns(".snakemake"))
    monkeypatch.chdir(tmp_path / "study")
    path = Path("data/synthetic.prov.json")
    record = json.loads(path.read_text())
    raw = [{"name": f"part{i}.gz", "digest": {"sha256": str(i) * 64}, "annotations": {"role": "raw"}} for i in (1, 2)]
    record["predicate"]["buildDefinition"]["resolvedDependencies"] += raw
    path.write_text(json.dumps(record))
    return Path.cwd()


def rows():
    with (RESULTS / "tables/table1.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_static_table_and_its_caption_have_every_number_where_it_belongs(finished):
    tree = Tree(html.page(RESULTS)[0]).root
    (table,) = tree.all("table")
    header = [[one.text for one in line.children if isinstance(one, Element)] for line in next(table.all("thead")).all("tr")]
    assert header == [["", "", "Synthetic patterns"], ["", "", "AlexNet", "VGG16"], ["", "", "16 bits", "16 bits"]]
    assert next(one for one in table.all("th") if one.text == "Synthetic patterns").attributes["colspan"] == "2"
    found = {}
    for body in table.all("tbody"):
        distance = next(th for th in body.all("th") if th.attributes["scope"] == "rowgroup")
        lines = list(body.all("tr"))
        assert distance.attributes["rowspan"] == str(len(lines)) == "4"
        for line in lines:
            attack = next(th for th in line.all("th") if th.attributes["scope"] == "row").text.lower()
            for model, field in zip(("alexnet", "vgg16"), line.all("td"), strict=True):
                (link,) = field.all("a")
                assert link.attributes["href"] == f"#table1:synthetic/{attack}/{model}/16/{distance.text}"
                found[distance.text, attack, model] = field.text
    assert found == {(row["distance"], row["attack"], row["target_model"]): f"{float(row['map']):.1f}" for row in rows()}

    caption = next(tree.all("section")).children[1]
    printed = (RESULTS / "tables/table1.txt").read_text()
    assert f"Table 1. {caption.text}".split() == printed.split("\n\n")[0].split()
    alone = "".join(child if isinstance(child, str) else "" for child in caption.children)
    assert re.findall(r"\d+", alone.replace("VGG16", "")) == []
    assert len(list(caption.all("a"))) > 8
    identities = {cell["id"] for cell in data_of(tree)["cells"]}
    assert {unquote(link.attributes["href"].removeprefix("#")) for link in tree.all("a")} == identities


def test_the_page_needs_no_other_file_and_allows_none(finished):
    page, _ = html.page(RESULTS)
    tree = Tree(page).root
    attributes = [
        (element.tag, *one) for tag in {*re.findall(r"<(\w+)", page)} for element in tree.all(tag) for one in element.attributes.items()
    ]
    assert not [one for one in attributes if one[1] in ("src", "srcset", "action", "data", "style") or one[1].startswith("on")]
    assert all(one[2].startswith("#") for one in attributes if one[1] == "href")
    assert not re.search(r"@import|url\(|innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function", page)
    policy = next(one for one in tree.all("meta") if one.attributes.get("http-equiv") == "Content-Security-Policy").attributes["content"]
    hashes = {}
    for tag in ("script", "style"):
        (text,) = (element.text for element in tree.all(tag) if element.attributes == {})
        hashes[tag] = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    allowed = f"script-src 'sha256-{hashes['script']}'; style-src 'sha256-{hashes['style']}'"
    assert policy == f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


def test_verdict_and_root_digest(finished):
    page, faults = html.page(RESULTS)
    _, remarks, study = verify(RESULTS)
    text = Tree(page).root.text
    assert faults == 0
    assert f"No fault in {len(study.made_by)} files of {len(study.records)} jobs" in text
    assert hashlib.sha256((RESULTS / "MANIFEST.sha256").read_bytes()).hexdigest() in text
    assert all(remark in text for remark in remarks)


def test_the_command_writes_the_same_bytes_again_and_verify_minds_no_page(copied, capsys):
    before = verify(RESULTS)[0]
    for arguments in (["tiny"], ["results/tiny", "--output", "elsewhere/page.html"]):
        assert command.main(["html", *arguments]) == 0
    shown = capsys.readouterr()
    assert shown.out.endswith(f"elsewhere/page.html: {len(before)} faults in the study\n") and shown.err == ""
    assert Path("elsewhere/page.html").read_bytes() == (RESULTS / "audit.html").read_bytes() == html.page(RESULTS)[0].encode()
    assert verify(RESULTS)[0] == before


def test_all_faults_stand_on_the_page(copied):
    (RESULTS / "synthetic/vgg16-pretrained/seed0/weights.pt").write_bytes(b"other")
    (RESULTS / "left.txt").write_text("by nobody")
    faults, _, study = verify(RESULTS)
    page, number = html.page(RESULTS)
    tree = Tree(page).root
    (details,) = tree.all("details")
    assert number == len(faults) > 2
    assert next(details.all("summary")).text == f"{len(faults)} faults in {len(study.made_by)} files of {len(study.records)} jobs"
    assert [item.text for item in details.all("li")] == [f"{fault.file} {fault.what}" for fault in faults]
    assert [one.text for one in details.all("p")] == [f"Remedy: {remedy}." for remedy in dict.fromkeys(fault.remedy for fault in faults)]
    assert data_of(tree)["faults"] == [[fault.file, fault.what] for fault in faults]


def edit_layout(change):
    """Put ``change`` of the layout of Table 1 in its place."""
    path = RESULTS / "tables/table1.cells.json"
    content = files.read_json(path)
    content["table"] = change(content["table"])
    files.write_json(path, content)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: {},
        lambda table: table | {"heads": "2"},
        lambda table: table | {"header": [[{"text": ["x"], "span": '2" onclick="x'}]]},
        lambda table: table | {"groups": [[[{}]]]},
        lambda table: table | {"caption": [{"cell": "table1:nothing"}]},
        lambda table: table | {"caption": [{"cell": []}]},
    ],
)
def test_of_a_damaged_layout_the_cells_are_listed(copied, change):
    edit_layout(change)
    page, count = html.page(RESULTS)
    listed = {line.children[0].text: line.children[1].text for line in next(Tree(page).root.all("table")).all("tr")}
    cells = files.read_json(RESULTS / "tables/table1.cells.json")["cells"]
    assert listed == {cell["id"]: cell["text"] for cell in cells} and count > 0


def test_a_damaged_study_still_gives_a_page(copied):
    for damaged in ("table1.cells.json", "table1.tex"):
        (RESULTS / "tables" / damaged).write_bytes(b"\xff{")
        assert html.page(RESULTS)[1] > 0
    (RESULTS / "MANIFEST.sha256").unlink()
    (RESULTS / "study.json").write_text("{}")
    assert "missing" in Tree(html.page(RESULTS)[0]).root.text


def test_a_number_that_is_typed_by_hand_is_no_link_and_what_cannot_be_seen_is_written_out(copied):
    edit_layout(lambda table: json.loads(json.dumps(table).replace(f'{{"cell": "{APD}"}}', '"99.9"')))
    fields = [field for field in Tree(html.page(RESULTS)[0]).root.all("td") if field.text == "99.9"]
    assert len(fields) == 1 and not list(fields[0].all("a"))
    assert any(fault.what == "the number 99.9 was typed by hand" for fault in verify(RESULTS)[0])
    edit_layout(lambda table: json.loads(json.dumps(table).replace("AlexNet", "Alex\u202eNet\u200b")))
    page, _ = html.page(RESULTS)
    assert '<th scope="col" class="start">Alex\\u202eNet\\u200b</th>' in page


def test_data_that_is_not_quite_json_does_not_break_the_page(copied):
    """Python reads NaN and halves of surrogate pairs in JSON; browsers do not."""
    path = RESULTS / "tables/table1.cells.json"
    content = files.read_json(path)
    content["cells"][0] |= {"value": math.nan, "text": "half \ud800", "format": math.inf}
    path.write_text(json.dumps(content))
    page, _ = html.page(RESULTS)
    cell = data_of(Tree(page.encode().decode()).root)["cells"][0]
    assert (cell["value"], cell["text"], cell["format"]) == ("NaN", "half \ud800", "Infinity")
    json.loads(re.search(r'id="data">(.*)</script>', page)[1], parse_constant=pytest.fail)


#: Each says 13 to the console where it runs.
HOSTILE = [
    "<script>console.log(13)</script>",
    "</script><script>console.log(13)</script>",
    "<img src=x onerror=console.log(13)>",
    '"><svg onload=console.log(13)>',
    "' tabindex=0 autofocus onfocus='console.log(13)",
    '" tabindex=0 autofocus onfocus="console.log(13)',
    "--></style></title></textarea></noscript></script><script>console.log(13)</script>",
    "<!--<script>--><iframe srcdoc='<script>parent.console.log(13)</script>'></iframe>",
]
#: Names that a careless script or template stumbles over.
ODD = ["{{data}}", "__proto__", "constructor", "$& $1 \\1", "</script", "a\u2028\u2029b", "&lt;b&gt;&amp;#60;"]


def poison(payload):
    """Put ``payload`` into every name and setting of the study here that holds "aod", and for the title of the data set and the name AOD.
    Names of files get it without slashes, which would make folders."""

    def replaced(text):
        return text.replace("aod", payload.replace("/", "") if text.startswith("results/") else payload)

    for path in [*Path().rglob(f"*{records.SUFFIX}"), *RESULTS.glob("tables/*.cells.json"), RESULTS / "study.json"]:
        path.write_text(json.dumps(renamed(files.read_json(path), replaced)))
    titles = ("Synthetic patterns", "AOD")
    edit_layout(lambda table: renamed(table, lambda text: payload if text in titles else text))


def renamed(value, rename):
    """A copy of plain values with other strings, those of keys too."""
    if isinstance(value, dict):
        return {rename(key): renamed(inner, rename) for key, inner in value.items()}
    return [renamed(inner, rename) for inner in value] if isinstance(value, list) else rename(value) if isinstance(value, str) else value


@pytest.mark.parametrize("payload", HOSTILE + ODD)
def test_hostile_names_are_text(copied, payload):
    poison(payload)
    page, _ = html.page(RESULTS)
    tree = Tree(page).root
    assert [len(list(tree.all(tag))) for tag in ("script", "style", "title", "table", "img", "iframe", "svg")] == [2, 1, 1, 1, 0, 0, 0]
    (title,) = (field.text for field in tree.all("th") if field.attributes["scope"] == "colgroup")
    printed = printable(payload)
    assert title == printed
    assert sum(field.text == printed for field in tree.all("th") if field.attributes["scope"] == "row") == 2
    data = data_of(tree)
    assert any(job["wildcards"].get("attack") == payload for job in data["jobs"])
    assert "<" not in re.search(r'id="data">(.*)</script>', page)[1]
    links = [link for link in tree.all("a") if unquote(link.attributes["href"]) == f"#table1:synthetic/{payload}/vgg16/16/ADC"]
    assert len(links) == 1


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        assert "REQUIRE_CHROMIUM" not in os.environ, "Chromium is wanted here, but not installed"
        pytest.skip("Chromium is not installed")
    found = Browser(program, tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture
def site(tmp_path):
    """Serves pages: ``site(text)`` is the address of one. ``site.asked`` are the paths that were asked for."""
    pages, asked = {}, []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200 if self.path in pages else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(pages.get(self.path, "").encode())

        def log_message(self, *arguments):
            pass

    def add(text):
        pages[f"/{len(pages)}.html"] = text
        return f"http://127.0.0.1:{server.server_address[1]}{list(pages)[-1]}"

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    add.asked = asked
    yield add
    server.shutdown()
    server.server_close()


def link(identity):
    return f'a[href="#{quote(identity, safe="/:")}"]'


STEPS = "[...document.querySelectorAll('.steps > li .name')].map(one => one.textContent.replace(/^\\d+ /, ''))"


def test_a_click_shows_the_chain_down_to_the_raw_files(browser, site, copied):
    page = browser.open(site(html.page(RESULTS)[0]))
    assert page.evaluate(STEPS) == []
    page.click(link(APD))
    names = page.evaluate(STEPS)
    metrics = "results/tiny/synthetic/vgg16-pretrained/seed0/16bits/metrics/apd.vgg16-pretrained-16bits.json"
    assert names[:2] == [APD, metrics]
    assert names[-2:] == ["part1.gz", "part2.gz"]
    study = load(RESULTS)
    assert sorted(names[1:-2]) == sorted(name for _, name, _ in chain(study, metrics))
    needs = {
        (name, needed) for name in names[1:-2] for role in ("input", "raw") for needed in records.dependencies(study.record(name), role)
    }
    assert all(names.index(name) < names.index(needed) for name, needed in needs)
    drawn = page.evaluate("[...document.querySelectorAll('.graph [data-ends]')].map(one => one.dataset.ends)")
    pairs = {tuple(names[int(place)] for place in ends.split()) for ends in drawn if len(ends.split()) == 2}
    assert pairs == needs | {(APD, metrics)}
    boxes = page.evaluate("[...document.querySelectorAll('.graph button')].map(one => one.title)")
    assert boxes == names
    assert page.evaluate("location.hash") == f"#{APD}"
    assert page.evaluate(f"document.querySelector('{link(APD)}').getAttribute('aria-current')") == "true"
    assert page.complaints == []
    assert [address.rsplit("/", 1)[1] for address in page.requests] == ["0.html"]
    assert set(site.asked) <= {"/0.html", "/favicon.ico"}


def test_each_step_says_all_that_its_record_says(browser, site, copied):
    page = browser.open(site(html.page(RESULTS)[0]) + f"#{APD}")
    steps = page.evaluate("[...document.querySelectorAll('.steps > li')].map(one => one.textContent)")
    study, names = load(RESULTS), page.evaluate(STEPS)
    for name, text in zip(names[1:-2], steps[1:-2], strict=True):
        record = study.record(name)
        definition, details = record["predicate"]["buildDefinition"], record["predicate"]["runDetails"]
        inner, outer = definition["internalParameters"], definition["externalParameters"]
        words = [name, records.outputs(record)[name], f"made by{outer['rule']}", inner["code"], f"threads {inner['threads']}"]
        words += [inner["git"]["commit"] or "unknown", details["metadata"]["startedOn"][:10], study.made_by[name]]
        words += [f"{key} {value}" for key, value in {**outer["wildcards"], **inner["seeds"]}.items()]
        words += [
            f"{key} {value if isinstance(value, str) else json.dumps(value)}".replace(".0", "") for key, value in outer["settings"].items()
        ]
        words += [f"{module}{digest}" for module, digest in records.dependencies(record, "code").items()]
        words += [f"{package}{version}" for package, version in details["builder"]["version"].items()]
        assert [word for word in words if word not in text.replace(".0", "") and word not in text] == [], name
    assert all(str(i) * 64 in text for i, text in zip((1, 2), steps[-2:]))
    row = next(row for row in rows() if (row["distance"], row["attack"], row["target_model"]) == ("ADC", "apd", "vgg16"))
    assert page.evaluate("document.querySelector('.value dd').textContent") == row["map"]
    assert "/ADC/map of 2 apd.vgg16-pretrained-16bits.json" in page.evaluate("document.querySelector('.value').textContent")


def test_every_cell_opens_and_ends_in_what_came_from_outside(browser, site, copied):
    page = browser.open(site(html.page(RESULTS)[0]))
    config = list(files.read_json(RESULTS / "study.json")["configfiles"])
    ends = {}
    for cell in files.read_json(RESULTS / "tables/table1.cells.json")["cells"]:
        page.click(link(cell["id"]))
        assert page.evaluate("document.querySelector('#chain h2').textContent") == cell["text"]
        assert page.evaluate("document.querySelector('#chain header .code').textContent") == cell["id"]
        ends[cell["id"]] = page.evaluate(STEPS)[-1]
    settings = {identity for identity in ends if re.match(r"table1:(bits|seed|width|epsilon|step|iterations)/", identity)}
    assert len(settings) >= 5
    for identity, end in ends.items():
        assert end == (config[-1] if identity in settings else "part2.gz"), identity
    assert page.complaints == []


def test_generated_images_are_said_to_have_no_raw_file(browser, site, finished):
    page = browser.open(site(html.page(RESULTS)[0]) + f"#{APD}")
    assert page.evaluate(STEPS)[-1] == "data/synthetic.h5"
    assert "its code made it without a raw file" in page.evaluate("document.querySelector('.steps > li:last-child').textContent")
    assert page.evaluate("document.querySelectorAll('.faulty, .fault').length") == 0


def test_the_keyboard_suffices(browser, site, copied):
    page = browser.open(site(html.page(RESULTS)[0]))
    focused = "document.activeElement.getAttribute('href')"
    page.evaluate(f"document.querySelector('{link('table1:synthetic/clean/alexnet/16/SDC')}').focus()")
    trail = []
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "ArrowDown", "ArrowDown", "ArrowLeft", "ArrowUp"):
        page.press(key)
        trail.append(page.evaluate(focused).removeprefix("#table1:synthetic/"))
    across = ["clean/vgg16/16/SDC", "basic/vgg16/16/SDC", "apd/vgg16/16/SDC", "aod/vgg16/16/SDC", "clean/vgg16/16/ADC"]
    assert trail == [*across, "clean/alexnet/16/ADC", "aod/alexnet/16/SDC"]
    page.press("Enter")
    assert page.evaluate("document.querySelector('#chain header .code').textContent") == "table1:synthetic/aod/alexnet/16/SDC"
    assert page.evaluate("document.activeElement.tagName") == "H2"
    page.press("Tab")
    page.press("Tab")
    page.press("Enter")  # the link to the metrics
    assert page.evaluate("document.activeElement.querySelector('.name').textContent").startswith("2 results/tiny/synthetic/alexnet")
    page.press("Escape")
    assert page.evaluate(STEPS) == []
    assert page.evaluate("location.hash") == ""
    assert page.evaluate(focused) == "#table1:synthetic/aod/alexnet/16/SDC"
    assert page.complaints == []


def test_the_address_is_a_permanent_link(browser, site, copied):
    address = site(html.page(RESULTS)[0])
    page = browser.open(f"{address}#{APD}")
    assert page.evaluate(STEPS)[0] == APD
    other = APD.replace("ADC", "SDC")
    page.click(link(other))
    page.evaluate("history.back()")
    page.settle()
    assert page.evaluate(STEPS)[0] == APD
    page.click(".close")
    assert page.evaluate(STEPS) == []
    page.evaluate("history.back()")
    page.settle()
    assert page.evaluate(STEPS)[0] == APD
    assert page.complaints == []


def test_an_address_that_names_no_cell_opens_none(browser, site, finished):
    address = site(html.page(RESULTS)[0])
    for fragment in ("nowhere", "%E0%A4%A", "__proto__", "%00", "<script>console.log(13)</script>"):
        page = browser.open(f"{address}#{fragment}")
        assert page.evaluate("document.querySelector('#chain').textContent") == "Select a number to see its chain here."
        assert page.complaints == []


def test_the_page_works_from_a_file(browser, tmp_path, finished):
    (tmp_path / "page.html").write_text(html.page(RESULTS)[0])
    page = browser.open(f"file://{tmp_path}/page.html", width=400)
    page.click(link(APD))
    assert page.evaluate(STEPS)[0] == APD
    assert page.evaluate("document.querySelector('#chain').getBoundingClientRect().top") < 100, "it is scrolled to"
    assert page.evaluate("document.documentElement.scrollWidth") <= 400, "nothing sticks out"
    page.click(".close")
    assert page.evaluate("location.href") == f"file://{tmp_path}/page.html"
    assert page.complaints == []
    assert page.requests == [f"file://{tmp_path}/page.html"]


def test_a_fault_is_shown_where_it_lies(browser, site, copied, study):
    shutil.copy(study[0] / "data/synthetic.prov.json", "data/synthetic.prov.json")
    path = RESULTS / "synthetic/vgg16-pretrained/seed0/weights.pt"
    path.write_bytes(b"other")
    faults = [f"{fault.file} {fault.what}" for fault in verify(RESULTS)[0]]
    page = browser.open(site(html.page(RESULTS)[0]) + f"#{APD}")
    shown = page.evaluate("[...document.querySelectorAll('.steps .fault')].map(one => one.textContent)")
    assert set(shown) <= set(faults)
    assert sum(fault.startswith(f"{path} is not what its job made") for fault in shown) == 1
    assert page.evaluate("document.querySelector('.graph .fault[title$=\"weights.pt\"]') !== null")
    summary = page.evaluate("document.querySelector('#chain > .fault').textContent")
    assert summary == f"{len(shown)} fault{'s' * (len(shown) > 1)} in this chain"
    page.click(link(APD.replace("vgg16", "alexnet")))
    assert page.evaluate("document.querySelectorAll('#chain .fault').length") == 0
    marked = page.evaluate("[...document.querySelectorAll('td a.faulty')].map(one => decodeURIComponent(one.hash))")
    assert sorted(marked) == sorted(
        f"#table1:synthetic/{row['attack']}/vgg16/16/{row['distance']}" for row in rows() if "vgg16" in row.values()
    )


def test_a_fault_of_one_number_is_not_shown_at_another(browser, site, copied):
    path = RESULTS / "tables/table1.tex"
    path.write_text(re.sub(rf"(\\cell\{{{APD}\}})\{{.*?\}}", r"\1{99.9}", path.read_text()))
    page = browser.open(site(html.page(RESULTS)[0]) + f"#{APD}")
    shown = "[...document.querySelectorAll('.steps .fault')].map(one => one.textContent)"
    assert sum(f"the cell {APD} prints 99.9" in fault for fault in page.evaluate(shown)) == 1
    page.click(link(APD.replace("ADC", "SDC")))
    assert page.evaluate(shown) != [], "the file is still not what its job made"
    assert not any("99.9" in fault for fault in page.evaluate(shown))


@pytest.mark.parametrize("payload", HOSTILE + ODD)
def test_hostile_names_run_nothing(browser, site, copied, payload):
    poison(payload)
    page = browser.open(site(html.page(RESULTS)[0]))
    before = page.evaluate("document.querySelectorAll('*').length")
    identities = page.evaluate("[...cells.keys()]")
    assert sum(payload in identity for identity in identities) >= 4
    assert page.evaluate(f"[...cells.keys()].map(id => (show(id), {STEPS}[0]))") == [*map(printable, identities)]
    page.evaluate(f"location.hash = encodeURIComponent({json.dumps(f'table1:synthetic/{payload}/vgg16/16/ADC')})")
    page.settle()
    text = page.evaluate("document.querySelector('#chain').textContent")
    assert f"attack {printable(payload)}, bits 16" in text
    assert page.evaluate("document.querySelectorAll('script, style, title, img, iframe').length") == 4
    names = "[...document.querySelectorAll('*')].flatMap(one => one.getAttributeNames())"
    assert page.evaluate(f"{names}.filter(name => /^on|autofocus/.test(name))") == []
    page.press("Escape")
    assert page.evaluate("document.querySelectorAll('*').length") == before
    assert page.complaints == []
    assert len(page.requests) == 1


def test_the_same_names_do_run_in_a_naive_page(browser, site):
    for name in HOSTILE:
        page = f"<p title=\"{name}\"></p><p title='{name}'></p><td>{name}</td><script>const name = {json.dumps(name)}</script>"
        assert 13 in [one["args"][0]["value"] for one in browser.open(site(page)).complaints if "args" in one], name


def test_the_policy_stops_a_script_that_got_in(browser, site, finished):
    """Were a name ever to break out of its place."""
    page, _ = html.page(RESULTS)
    broken = page.replace(
        "</main>", "<script>document.title = 'taken'</script><img src=/taken onerror=\"document.title = 'taken'\"></main>"
    )
    assert broken != page
    opened = browser.open(site(broken))
    assert opened.evaluate("document.title") == "Audit of the study tiny"
    assert any("Content Security Policy" in one["entry"]["text"] for one in opened.complaints)
    assert "/taken" not in site.asked
    without = re.sub(r"<meta http-equiv=.*?>", "", broken)
    assert browser.open(site(without)).evaluate("document.title") == "taken"
    assert "/taken" in site.asked

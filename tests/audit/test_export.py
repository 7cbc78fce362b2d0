"""The crate: what is in it, what it says, and that the validator of the RO-Crate community accepts it, without a network."""

import collections
import hashlib
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
import requests
import requests_cache
import rocrate
import urllib3
import yaml
from rocrate_validator import models, services

from pqag.audit import export as exporting
from pqag.audit.export import export
from pqag.audit.verify import verify
from pqag.errors import UserError
from pqag.job import records

from ..workflow.conftest import ROOT
from .conftest import command
from .edits import change_record

pytestmark = pytest.mark.filterwarnings("ignore:ConjunctiveGraph:DeprecationWarning")  # inside the validator

STUDY = Path("results/tiny")
METADATA = "ro-crate-metadata.json"
CONTEXT = "https://w3id.org/ro/crate/1.1/context"
#: What the validator recommends and the crate cannot follow, by check: http addresses of rules, and of the authors of CITATION.cff.
UNMET = {"process-run-crate-0.5_5.1", "ro-crate-1.1_31.2"}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Nothing here may reach for the network."""

    def refuse(*_, **__):
        raise AssertionError("the network was reached for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def run(study, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    shutil.copytree(study[0], folder, ignore=shutil.ignore_patterns(".snakemake"))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def exported(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "crate"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(study[0])
        export(STUDY, folder)
    return folder


@pytest.fixture
def crate(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "crate")


def graph(crate):
    return {entity["@id"]: entity for entity in json.loads((crate / METADATA).read_text())["@graph"]}


def ids(value):
    """The ids that a property refers to."""
    return [one["@id"] for one in (value if isinstance(value, list) else [value])] if value else []


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def statements(folder=Path()):
    """The records of the study by their paths, read without the library."""
    return {
        str(path.relative_to(folder)): json.loads(path.read_text()) for path in folder.glob("**/*.prov.json") if "crate" not in path.parts
    }


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """The validator's cache, as if it had fetched the context of RO-Crate 1.1 before; rocrate 0.15.0 ships its text."""
    path = tmp_path_factory.mktemp("validator") / "cache"
    body = (Path(rocrate.__file__).parent / "data/ro-crate.jsonld").read_bytes()
    assert json.loads(body)["@id"] == CONTEXT
    session = requests_cache.CachedSession(cache_name=str(path), backend="sqlite", expire_after=-1)
    kind = {"Content-Type": "application/ld+json"}
    for headers in ({"Accept": "application/ld+json, application/json, */*;q=0.1"}, {}):
        response = requests.Response()
        response.status_code, response.url, response._content = 200, CONTEXT, body
        response.headers.update(kind)
        response.request = session.prepare_request(requests.Request("GET", CONTEXT, headers=headers))
        response.raw = urllib3.HTTPResponse(io.BytesIO(body), kind, 200, preload_content=False, request_method="GET")
        session.cache.save_response(response)
    session.close()
    return path


def issues(crate, cache, severity="REQUIRED"):
    """How often each check of Provenance Run Crate 0.5, and of the profiles that it builds on, finds something: by severity and check."""
    options = {"profile_identifier": "provenance-run-crate-0.5", "requirement_severity": models.Severity[severity]}
    settings = services.ValidationSettings(rocrate_uri=str(crate), cache_path=str(cache), offline=True, **options)
    return collections.Counter((one.severity.name, one.check.identifier) for one in services.validate(settings).get_issues())


def test_the_validator_finds_nothing_that_is_required_and_two_things_that_are_recommended(exported, cache):
    found = issues(exported, cache, "RECOMMENDED")
    assert {severity for severity, _ in found} == {"RECOMMENDED"}
    assert {check for _, check in found} == UNMET


def test_the_validator_passes_with_everything_put_in(run, cache):
    folder, _, left_out = export(STUDY, everything=True)
    assert left_out == 0
    assert not issues(folder, cache)


def test_every_file_is_described_as_it_is_also_if_it_is_left_out(exported, study):
    entities = graph(exported)
    described = {unquote(name): one for name, one in entities.items() if "File" in one["@type"] and not name.startswith("#")}
    assert set(described) == set(tree(exported)) - {METADATA}
    for name, one in described.items():
        assert one["sha256"] == sha256(exported / name), name
        assert int(one["contentSize"]) == (exported / name).stat().st_size, name
    assert set(ids(entities["./"]["hasPart"])) == {one["@id"] for one in described.values()}
    entities = graph(exported)
    outside = {one["name"]: one for name, one in entities.items() if one["@type"] == "File" and name.startswith("#")}
    results = (path for top in ("results", "data") for path in (study[0] / top).rglob("*.*") if path.suffix in (".h5", ".pt"))
    assert set(outside) == {str(path.relative_to(study[0])) for path in results}
    assert any(name.endswith("weights.pt") for name in outside)
    for name, one in outside.items():
        assert one["sha256"] == sha256(study[0] / name), name
        assert int(one["contentSize"]) == (study[0] / name).stat().st_size, name


def test_it_holds_the_small_results_the_records_the_config_and_the_code(exported, study):
    held = tree(exported)
    for path in (study[0] / "results").rglob("*"):
        name = str(path.relative_to(study[0]))
        if path.is_file() and not {"logs", "benchmarks"} & set(path.parts) and path.suffix in (".json", ".csv", ".tex", ".txt", ".sha256"):
            assert held.pop(name) == path.read_bytes(), name
    assert held.pop("config.yaml") == (study[0] / "config.yaml").read_bytes()
    assert held.pop("data/synthetic.prov.json")
    assert b"table1:synthetic/aod/vgg16/16/ADC" in held.pop("results/tiny/audit.html")
    held.pop(METADATA)
    assert {"Snakefile", "LICENSE", "scripts/pqag/attacks.py", "scripts/pqag/show/paper_tables.csv", "rules/common.smk"} <= set(held)
    for name, content in held.items():
        assert content == (ROOT / name).read_bytes(), "the rest is code"
    assert not any(re.search(r"\.pyc$|^tests|^config/", name) for name in held)


def test_hidden_and_compiled_files_are_no_code(repository):
    before = set(exporting._code())
    for name in ("scripts/.secret", "scripts/__pycache__/audit.pyc", "profiles/.cache/x", "scripts/pqag.egg-info/PKG-INFO"):
        (records.REPOSITORY / name).parent.mkdir(parents=True, exist_ok=True)
        (records.REPOSITORY / name).touch()
    (records.REPOSITORY / "scripts/new.py").touch()
    assert set(exporting._code()) == {"scripts/new.py", *before}


def test_the_workflow_can_be_planned_from_its_crate_alone(crate):
    command = [sys.executable, "-m", "snakemake", "--configfile", "config.yaml", "--dry-run", "--quiet", "rules", "all"]
    done = subprocess.run(command, cwd=crate, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_audit_works_in_the_crate_by_the_standard_library_alone(run, tmp_path):
    audit = [sys.executable, "-E", "-S", "scripts/audit.py"]

    def works(*command):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        return (done.returncode, done.stdout + done.stderr)

    folder, _, left_out = export(STUDY, tmp_path / "small")
    assert left_out > 0
    assert works("sha256sum", "--check", "--ignore-missing", "--strict", "results/tiny/MANIFEST.sha256")[0] == 0
    assert works(*audit, "why", "table1:aod/vgg16/16/ADC", "--study", "tiny")[1].count("data/synthetic.h5\n") == 1
    assert works(*audit, "verify", "tiny")[0] == 1, "what was left out is missing"
    folder, _, left_out = export(STUDY, tmp_path / "whole", everything=True)
    assert works("sha256sum", "--check", "--strict", "results/tiny/MANIFEST.sha256")[0] == 0
    assert works(*audit, "verify", "tiny")[0] == 0, works(*audit, "verify", "tiny")[1]
    (folder / "data/synthetic.h5").write_bytes(b"other")
    assert works(*audit, "verify", "tiny")[0] == 1


def test_every_job_is_an_action_with_what_its_record_says(exported, study):
    entities = graph(exported)
    actions = {ids(one["subjectOf"])[0]: one for one in entities.values() if one["@type"] == "CreateAction" and one["@id"] != "#run"}
    made = statements(study[0])
    assert {unquote(name) for name in actions} == set(made)
    for name, action in actions.items():
        record = made[unquote(name)]
        definition, details = record["predicate"]["buildDefinition"], record["predicate"]["runDetails"]
        assert ids(action["instrument"]) == [f"#rule/{definition['externalParameters']['rule']}"]
        assert action["startTime"].removesuffix("+00:00") + "Z" == details["metadata"]["startedOn"]
        assert action["endTime"].removesuffix("+00:00") + "Z" == details["metadata"]["finishedOn"]
        assert entities[ids(action["agent"])[0]]["name"] == details["byproducts"][0]["annotations"]["user"]
        assert details["byproducts"][0]["annotations"]["host"] in action["description"]
        files = {entities[one]["name"]: entities[one]["sha256"] for one in ids(action["result"])}
        assert files == {one["name"]: one["digest"]["sha256"] for one in record["subject"]}
        read = [one for one in definition["resolvedDependencies"] if one["annotations"]["role"] in ("input", "raw")]
        objects = [entities[one] for one in ids(action.get("object"))]
        files = {one["name"]: one["sha256"] for one in objects if "File" in one["@type"]}
        assert files == {one["name"]: one["digest"]["sha256"] for one in read}
        values = {one["name"]: one["value"] for one in objects if one["@type"] == "PropertyValue"}
        wanted = definition["externalParameters"]["wildcards"] | definition["externalParameters"]["settings"]
        assert set(values) == set(wanted)
        for key, value in wanted.items():
            assert values[key] == value if isinstance(value, str | int | float) else json.loads(values[key]) == value, key


def test_the_actions_lead_from_the_table_to_the_data_in_the_order_of_the_work(exported):
    entities = graph(exported)
    maker = {
        result: one for one in entities.values() if one["@type"] == "CreateAction" and one["@id"] != "#run" for result in ids(one["result"])
    }
    pending, rules = ["results/tiny/tables/table1.csv"], set()
    while pending:
        action = maker[pending.pop()]
        rules.add(ids(action["instrument"])[0].removeprefix("#rule/"))
        pending += [one for one in ids(action.get("object")) if "File" in entities[one]["@type"]]
    assert rules == {"table", "evaluate", "evaluate_clean", "attack", "quantize", "extract", "pretrain", "prepare", "fetch"}
    entities = graph(exported)
    steps = [entities[one] for one in ids(entities["Snakefile"]["step"])]
    place = {step["name"]: int(step["position"]) for step in steps}
    assert sorted(place.values()) == list(range(1, len(steps) + 1))
    order = ["fetch", "prepare", "pretrain", "extract", "quantize", "attack", "evaluate", "table", "manifest"]
    assert sorted(order, key=place.get) == order
    run = entities["#run"]
    assert ids(run["object"]) == ["config.yaml"]
    assert {"results/tiny/MANIFEST.sha256", "results/tiny/tables/table1.tex"} <= set(ids(run["result"]))
    assert "#results/tiny/synthetic/images.h5" not in ids(run["result"]), "something was made of it"
    assert run["startTime"] < run["endTime"] == entities["./"]["datePublished"]


def test_tools_say_what_they_take(exported):
    entities = graph(exported)
    tool = entities["#rule/attack"]
    kinds = {entities[one]["name"]: entities[one]["additionalType"] for one in ids(tool["input"])}
    wanted = {"epsilon": "Float", "iterations": "Integer", "random_start": "Boolean", "loss": "Text"}
    assert wanted.items() <= kinds.items()
    values = {ids(one["exampleOfWork"])[0]: one["value"] for one in entities.values() if one["@type"] == "PropertyValue"}
    assert values["#rule/attack/epsilon"] == 8.0
    assert tool["description"].startswith("Make adversarial queries")
    assert ids(entities["#rule/evaluate_clean"]["hasPart"]) == ["scripts/evaluate.py"]


def test_authors_license_and_paper_are_those_of_the_repository_and_no_folder_of_this_machine_is_named(exported, study):
    entities, citation = graph(exported), yaml.safe_load((ROOT / "CITATION.cff").read_text())
    root = entities["./"]
    assert [entities[one]["name"] for one in ids(root["author"])] == [one["name"] for one in citation["authors"]]
    assert ids(root["license"]) == ["https://spdx.org/licenses/MIT"]
    assert entities["https://spdx.org/licenses/MIT"]["name"] == (ROOT / "LICENSE").read_text().splitlines()[0] == "MIT License"
    assert [entities[one]["name"] for one in ids(root["citation"])] == [one["title"] for one in citation["references"]]
    text = (exported / METADATA).read_text()
    for place in (ROOT, study[0], Path.home()):
        assert f'"{place}' not in text and f" {place}/" not in text
    assert ".." not in re.sub(r"\.\.\.", "", text)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A copy of the repository whose CITATION.cff may be changed: the function takes the new content."""
    copy = tmp_path / "repository"
    for name in exporting._code():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, copy / name)
    monkeypatch.setattr(records, "REPOSITORY", copy)
    return lambda content: (copy / "CITATION.cff").write_text(content)


def test_persons_are_named_with_their_place(run, repository, cache):
    person = {"given-names": "Grace", "family-names": "Hopper", "orcid": "https://orcid.org/0000-0002-1825-0097", "affiliation": "Navy"}
    institute = {"name": "Institute", "website": "https://example.org"}
    repository(yaml.safe_dump({"title": "A study", "license": "MIT", "authors": [person, institute]}))
    folder, _, _ = export(STUDY)
    entities = graph(folder)
    author = entities["https://orcid.org/0000-0002-1825-0097"]
    assert author["name"] == "Grace Hopper" and author["@type"] == "Person"
    assert entities[author["affiliation"]["@id"]]["name"] == "Navy"
    assert entities[ids(entities["./"]["publisher"])[0]]["url"] == "https://example.org"
    assert not issues(folder, cache)


LITTLE = ["", "title: [", "title: x\nlicense: MIT\n", "title: x\nlicense: [MIT]\nauthors: [{name: x}]\n"]
LITTLE.append("title: x\nlicense: MIT\nauthors: [{alias: x}]\n")


def test_a_citation_that_says_too_little_is_refused(run, repository):
    for content in LITTLE:
        repository(content)
        with pytest.raises(UserError, match="CITATION.cff must contain title, license and authors"):
            export(STUDY)
        assert not (STUDY / "crate").exists() and not (STUDY / ".crate.part").exists()


def test_an_anonymous_study_names_neither_host_nor_user(run):
    def machines(change):
        for path, record in statements().items():
            change(record["predicate"]["runDetails"]["byproducts"][0]["annotations"])
            Path(path).write_text(json.dumps(record))
        folder, _, _ = export(STUDY, force=True)  # the manifest lists other records
        return folder

    folder = machines(lambda machine: machine.update(host="hopperhost", user="gracehopper"))
    assert "hopperhost" in (folder / METADATA).read_text() and "gracehopper" in (folder / METADATA).read_text()
    folder = machines(lambda machine: (machine.pop("host"), machine.pop("user")))
    assert [name for name, content in tree(folder).items() if b"hopperhost" in content or b"gracehopper" in content] == []
    assert {one["name"] for one in graph(folder).values() if one["@type"] == "Person"} == {"not named"}


EXPORT = """
import sys
from pathlib import Path
from pqag.audit.export import export
export(Path("results/tiny"), Path(sys.argv[1]))
"""


def test_a_second_export_has_the_same_bytes(run, exported, tmp_path):
    """In another process, place, time zone and order of sets, with other time stamps."""
    for path in run.rglob("*"):
        os.utime(path, (1, 1))
    os.utime(exported / "README.md")
    environment = os.environ | {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONPATH": str(ROOT / "scripts")}
    done = subprocess.run([sys.executable, "-c", EXPORT, tmp_path / "again"], cwd=run, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "again") == tree(exported)


def test_an_earlier_crate_is_replaced_and_is_no_part_of_the_study(run):
    export(STUDY, everything=True)
    (STUDY / "crate/left over").write_text("x")
    (STUDY / ".crate.part/results").mkdir(parents=True)  # of an export that was killed
    shutil.copy(STUDY / "study.prov.json", STUDY / ".crate.part/results")
    assert verify(STUDY)[0] == []
    folder, number, left_out = export(STUDY)
    assert not (folder / "left over").exists() and not (STUDY / ".crate.part").exists()
    assert not list(folder.rglob("*.h5"))
    assert number == len(tree(folder)) - 1
    assert verify(STUDY)[0] == []


def test_an_export_that_fails_leaves_the_earlier_crate(run, monkeypatch):
    folder, _, _ = export(STUDY)
    before = tree(folder)

    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(exporting, "Description", fail)
    with pytest.raises(OSError, match="no space"):
        export(STUDY, everything=True)
    assert tree(folder) == before and not (STUDY / ".crate.part").exists()


def test_no_other_folder_is_overwritten(run):
    for name in ("full", "foreign"):
        Path(name).mkdir()
        Path(name, "kept").write_text("x")
    Path("foreign", METADATA).write_text("{}")
    Path("file").write_text("x")
    before = tree(run)
    for output in (".", "..", "results", "results/tiny", "results/tiny/tables", "results/tiny/mine", "full", "file", "foreign"):
        with pytest.raises(UserError, match=re.escape(output)):
            export(STUDY, Path(output))
    assert tree(run) == before


def test_a_faulty_study_is_exported_only_by_force(run, cache):
    table = STUDY / "tables/table1.csv"
    table.write_text(table.read_text().replace("0.", "1.", 1))
    with pytest.raises(
        UserError, match=r"results/tiny has \d+ faults?, first: results/tiny/tables/table1.csv: is not what its job made.*--force"
    ):
        export(STUDY)
    assert not (STUDY / "crate").exists()
    folder, _, _ = export(STUDY, force=True)
    assert graph(folder)["results/tiny/tables/table1.csv"]["sha256"] == sha256(table)
    (STUDY / "tables/table1.txt").unlink()
    folder, _, _ = export(STUDY, force=True)
    assert graph(folder)["#results/tiny/tables/table1.txt"]["@type"] == "File", "what is missing is described as left out"
    assert not issues(folder, cache)


SECRET = "what nobody asked for"


def test_neither_a_record_that_names_other_files_nor_a_link_puts_them_into_the_crate(run):
    Path("../secret").write_text(SECRET)
    names = ["../secret", str(Path("../secret").absolute())]
    change_record(
        STUDY / "study.prov.json", lambda record: record["subject"].extend({"name": name, "digest": {"sha256": "0" * 64}} for name in names)
    )
    folder, _, _ = export(STUDY, force=True)
    assert SECRET.encode() not in tree(folder).values()
    table = STUDY / "tables/table1.csv"
    table.unlink()
    table.symlink_to(Path("../secret").absolute())
    with pytest.raises(UserError, match="results/tiny/tables/table1.csv is outside this folder or is a link"):
        export(STUDY, force=True)
    assert SECRET.encode() not in tree(STUDY / "crate").values() and not (STUDY / ".crate.part").exists()


def test_an_input_from_another_folder_is_refused_with_its_record(run):
    Path("../elsewhere").mkdir()
    Path("../elsewhere/secret.json").write_text(SECRET)
    shutil.copy(STUDY / "study.prov.json", "../elsewhere/secret.prov.json")
    one = {"name": "../elsewhere/secret.json", "digest": {"sha256": "0" * 64}}
    change_record("../elsewhere/secret.prov.json", lambda record: record.update(subject=[one]))
    inputs = {**one, "annotations": {"role": "input"}}
    path = STUDY / "tables/table1.prov.json"
    change_record(path, lambda record: record["predicate"]["buildDefinition"]["resolvedDependencies"].append(inputs))
    with pytest.raises(UserError, match=r"\.\./elsewhere/secret\S* is outside this folder"):
        export(STUDY, force=True)


def test_a_config_from_elsewhere_lies_in_config(run):
    shutil.move("config.yaml", "../mine.yaml")
    path = STUDY / "study.json"
    study = json.loads(path.read_text())
    path.write_text(json.dumps(study | {"configfiles": {"../mine.yaml": study["configfiles"]["config.yaml"]}}))
    folder, _, _ = export(STUDY, force=True)
    assert (folder / "config/mine.yaml").read_bytes() == Path("../mine.yaml").read_bytes()
    assert ids(graph(folder)["#run"]["object"]) == ["config/mine.yaml"]
    Path("../mine.yaml").write_text("study: other\n")
    folder, _, _ = export(STUDY, force=True)
    assert not (folder / "config/mine.yaml").exists(), "what was changed since stays out"


def test_the_command_says_what_it_wrote_and_what_it_left_out_and_tells_a_fault_in_one_sentence(run, capsys):
    large = sum(path.suffix in (".h5", ".pt") for path in run.rglob("*"))
    assert command.main(["export", "tiny"]) == 0
    number = len(tree(STUDY / "crate")) - 1
    assert (
        capsys.readouterr().out == f"results/tiny/crate: {number} files; {large} other files of the study left out, --all includes them\n"
    )
    assert command.main(["export", "tiny", "--all", "--output", "../whole"]) == 0
    assert capsys.readouterr().out == f"../whole: {number + large} files\n"
    (STUDY / "tables/table1.csv").write_text("")
    assert command.main(["export", "tiny"]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("error: results/tiny has ") and shown.err.count("\n") == 1
    assert command.main(["export", "tiny", "--force"]) == 0


def test_without_rocrate_only_the_export_is_missing(run):
    """Without any installed package; that verify works is tested in the crate."""
    bare = [sys.executable, "-E", "-S", ROOT / "scripts/audit.py", "export", "tiny"]
    done = subprocess.run(bare, capture_output=True, text=True)
    assert done.returncode == 2
    assert re.fullmatch(r"error: export needs the package \w+, which `make setup` installs.*\n", done.stderr)

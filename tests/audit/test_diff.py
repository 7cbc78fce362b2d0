"""What differs between two studies, and nothing else, is told."""

import json
import os
import shutil
from pathlib import Path

import pytest

from pqag import files
from pqag.audit.diff import differences
from pqag.errors import UserError

from . import edits
from .edits import CELLS, FILES, STUDY, change_record, change_study, copied, write

OTHER = Path("results/other")


@pytest.fixture
def folder(study, tmp_path, monkeypatch):
    """The tiny study twice in a folder of its own, which is the working directory: the second under another name."""
    monkeypatch.chdir(copied(study[0], tmp_path))
    shutil.copytree(STUDY, OTHER, copy_function=os.link)
    return tmp_path


def found():
    return list(differences(OTHER, STUDY))


def test_a_study_and_its_copy_are_the_same_whatever_their_logs_and_pages(folder):
    assert found() == []
    assert list(differences(STUDY, STUDY)) == []
    change_study(lambda study: study.update(configfiles={"another.yaml": "0" * 64}))
    shutil.rmtree("results/tiny/logs")
    Path("results/tiny/audit.html").write_text("page")
    assert found() == []


def test_the_same_study_run_under_another_name_or_in_another_place_is_the_same(folder, tmp_path_factory):
    for path in OTHER.rglob("*"):
        if path.suffix in (".json", ".sha256"):
            text = path.read_text().replace("results/tiny/", "results/other/").replace('"study": "tiny"', '"study": "other"')
            write(path, text.replace("2026-", "2027-").encode())
    assert OTHER.joinpath("tables/table1.cells.json").read_bytes() != Path(CELLS).read_bytes()
    assert found() == []
    away = tmp_path_factory.mktemp("away") / "tiny"
    shutil.move(OTHER, away)
    assert list(differences(STUDY, away)) == []


def test_settings(folder):
    change_study(lambda study: study["attacks"]["apd"].update(iterations=7))
    change_study(lambda study: study.update(seeds=[0, 1]))
    change_study(lambda study: study["attacks"]["aod"].pop("step"))
    assert found() == ["setting attacks.aod.step: 2.55 | absent", "setting attacks.apd.iterations: 5 | 7", "setting seeds: [0] | [0, 1]"]


def test_a_changed_file_and_files_that_one_has_alone(folder):
    edits.flip(FILES["weights"])
    Path(FILES["history"]).unlink()
    Path("results/tiny/mine.txt").write_text("mine")
    assert found() == [
        "file mine.txt: only in results/tiny",
        "file synthetic/vgg16-pretrained/seed0/training.csv: only in results/other",
        "file synthetic/vgg16-pretrained/seed0/weights.pt: differs",
    ]


def test_a_number(folder):
    edits.ONCE["another number in the .tex and in the cells"]()
    *file_lines, line = found()
    assert file_lines == ["file tables/table1.cells.json: differs", "file tables/table1.tex: differs"]
    old = {cell["id"]: cell for cell in json.loads((OTHER / "tables/table1.cells.json").read_text())["cells"]}
    cell = old["table1:synthetic/apd/vgg16/16/ADC"]
    assert line == f"number table1:synthetic/apd/vgg16/16/ADC: {cell['text']} | 64.3 (+{64.3 - cell['value']:.3g})"


def test_a_number_that_one_has_alone(folder):
    cells = json.loads(Path(CELLS).read_text())
    cells["cells"] = [cell for cell in cells["cells"] if cell["id"] != "table1:seed/0"]
    cells["cells"].append(cells["cells"][0] | {"id": "table1:new"})
    write(CELLS, files.json_text(cells).encode())
    numbers = ["number table1:seed/0: only in results/other", "number table1:new: only in results/tiny"]
    assert found() == ["file tables/table1.cells.json: differs", *numbers]


def test_code_and_versions(folder):
    def change(record):
        record["predicate"]["buildDefinition"]["internalParameters"]["code"] = "ab" * 32
        record["predicate"]["runDetails"]["builder"]["version"]["numpy"] = "0.1"

    before = json.loads(Path(FILES["record of queries"]).read_text())["predicate"]
    numpy = before["runDetails"]["builder"]["version"]["numpy"]
    codes = {code_of(path) for path in STUDY.rglob("adversarial/*.prov.json")}
    assert len(codes) == 3, "each loss has its own"
    change_record(FILES["record of queries"], change)
    code, numpy = (
        f"{' and '.join(sorted(one))} | {' and '.join(sorted([*one, other]))}" for one, other in ((codes, "ab" * 6), ([numpy], "0.1"))
    )
    assert found() == [f"code of attack: {code}", f"version of numpy: {numpy}"]


def code_of(path):
    return json.loads(path.read_text())["predicate"]["buildDefinition"]["internalParameters"]["code"][:12]


def test_another_processor_is_a_note(folder):
    for path in STUDY.rglob("*.prov.json"):
        change_record(path, lambda record: record["predicate"]["runDetails"]["byproducts"][0]["annotations"].update(cpu="another"))
    [line] = found()
    assert line.startswith("note: processor: ") and line.endswith(" | another")


@pytest.mark.parametrize("path", ["results/tiny/study.json", CELLS, FILES["record of weights"]])
def test_what_is_damaged_is_told_in_a_sentence(folder, path):
    write(path, b"{")
    with pytest.raises(UserError) as error:
        found()
    assert path in str(error.value) or "results/tiny is not a study" in str(error.value)
    assert len(str(error.value).splitlines()) == 1

"""Every printed number leads back to the raw files."""

import itertools
import json
import re
import shutil
from pathlib import Path

import pytest

from pqag import files
from pqag.audit import why
from pqag.audit.verify import Fault, load
from pqag.errors import UserError

from . import edits
from .edits import CELLS, FILES, STUDY, TEX, VICTIM, change_record, write

CELL = "table1:synthetic/apd/vgg16/16/ADC"


def explain(query):
    return list(map(str, why.explain(STUDY, query)))


def printed_cells(study):
    return re.findall(r"\\cell\{([^{}]*)\}\{([^{}]*)\}", (study[0] / TEX).read_text())


def test_every_number_of_the_table_leads_to_the_raw_data(folder, study):
    cells = {cell["id"]: cell for cell in json.loads(Path(CELLS).read_text())["cells"]}
    printed = printed_cells(study)
    assert len(printed) == 30 and {identity for identity, _ in printed} == set(cells)
    for identity, text in printed:
        lines = explain(identity)
        assert lines[0].startswith(f"{identity} prints {text} for ")
        [data] = [number for number, line in enumerate(lines) if line.strip() == "data/synthetic.h5"]
        assert lines[data + 1].strip() == f"sha256 {files.sha256('data/synthetic.h5')}"
        assert lines[data + 2].strip().startswith("made by fetch (dataset=synthetic)")
        assert float(text) == pytest.approx(source_value(cells[identity]), abs=0.05 + 1e-9)


def source_value(cell):
    """The number that a cell is made of, read by hand."""
    [source] = cell["sources"]
    if source["file"].endswith(".csv"):
        rows = [line.split(",") for line in Path(source["file"]).read_text().splitlines()]
        row, column = source["pointer"].split("/")
        return cell["scale"] * float(rows[1:][int(row)][rows[0].index(column)])
    content = json.loads(Path(source["file"]).read_text())
    for part in source["pointer"].split("/")[1:]:
        content = content[int(part)] if isinstance(content, list) else content[part]
    return cell["scale"] * content


def test_the_chain_of_a_cell_is_what_the_steps_read(folder):
    """Worked out by hand from the rules: (depth, file) in the order of the walk."""
    chain = [(depth, name) for depth, name, _ in why.chain(load(STUDY), FILES["metrics"])]
    assert chain[:4] == [(0, FILES["metrics"]), (1, FILES["queries"]), (2, FILES["images"]), (3, "data/synthetic.h5")]
    assert chain[4:] == [(2, FILES["codebook"]), (3, f"{VICTIM}/features/database.h5"), (4, FILES["weights"])]


def test_what_is_said_of_a_file(folder):
    record = json.loads(Path(FILES["record of queries"]).read_text())["predicate"]
    inner = record["buildDefinition"]["internalParameters"]
    lines = explain(FILES["queries"])
    assert lines[:4] == [
        FILES["queries"],
        f"  sha256 {files.sha256(FILES['queries'])}",
        "  made by attack (attack=apd, bits=16, dataset=synthetic, model=vgg16, seed=0, training=pretrained) with "
        "assignment=inner_product, decay=1.0, device=auto, epsilon=8.0, feature=normalised, iterations=5, loss=apd, method=pgd, "
        "random_start=True, step=2.55, temperature=1.0, threads=1",
        f"  commit {inner['git']['commit'] or 'unknown'}{' and uncommitted changes' if inner['git']['dirty'] else ''}, "
        f"code {inner['code'][:12]}, threads 1, seed 0, {record['runDetails']['metadata']['startedOn']}",
    ]
    assert lines[4] == f"  {FILES['images']}", "what it was made from is set in"
    assert sum(line.strip() == FILES["images"] for line in lines) == 1, "and told once"
    assert sum(line.strip() == f"{FILES['images']}, as above" for line in lines) == 2
    raw = {"name": "archive.tar.gz", "digest": {"sha256": "ab" * 32}, "annotations": {"role": "raw"}}
    change_record("data/synthetic.prov.json", lambda record: record["predicate"]["buildDefinition"]["resolvedDependencies"].append(raw))
    assert explain("data/synthetic.h5")[-1] == f"  raw archive.tar.gz sha256 {'ab' * 32}"


def test_words_in_any_order_and_case(folder):
    for words in itertools.permutations(["synthetic", "APD", "vgg16", "16", "adc"]):
        assert why.find(STUDY, f"table1:{'/'.join(words)}")["id"] == CELL
        assert why.find(STUDY, " ".join(words))["id"] == CELL

    for query in ("apd/vgg16/ADC", "vgg16 adc apd", "table1:ADC/apd/vgg16", "/apd/vgg16/adc/", "table1: apd vgg16 adc"):
        assert why.find(STUDY, query)["id"] == CELL, query
    assert why.find(STUDY, "table1:bits/16")["id"] == "table1:bits/16"
    with pytest.raises(UserError, match="16 matches 17 cells: "):
        why.find(STUDY, "16")


REFUSED = {
    "apd/vgg16": "apd/vgg16 matches 2 cells: table1:synthetic/apd/vgg16/16/SDC, table1:synthetic/apd/vgg16/16/ADC",
    "table1:apd/vgg16/24/ADC": f"table1:apd/vgg16/24/ADC matches no cell of results/tiny; the nearest are {CELL}, ",
    "apd apd vgg16 adc": f"matches no cell of results/tiny; the nearest are {CELL}, ",
    "table2:apd/vgg16/16/ADC": "table2:apd/vgg16/16/ADC matches no cell of results/tiny; the nearest are table1:",
    "": " matches 29 cells: table1:synthetic/clean/alexnet/16/SDC, ",
    "results/tiny/tables": "results/tiny/tables matches no cell",
    "config.yaml": "config.yaml was made by no recorded job of results/tiny",
}


def test_another_query_is_told_the_candidates_in_a_sentence(folder):
    for query, words in REFUSED.items():
        with pytest.raises(UserError) as error:
            explain(query)
        assert words in str(error.value)
        assert len(str(error.value).splitlines()) == 1 and len(str(error.value)) < 600
    with pytest.raises(UserError, match="and 21 more$"):
        why.find(STUDY, "")


def test_a_file_by_its_path_by_its_place_in_the_study_and_by_its_record(folder):
    for query in (FILES["metrics"], f"./{FILES['metrics']}", FILES["metrics"].replace("seed0", "seed0/../seed0")):
        assert explain(query)[0] == FILES["metrics"]
    assert explain("tables/table1.csv") == explain("results/tiny/tables/table1.csv")
    assert explain(FILES["record of weights"])[0] == f"{VICTIM}/training.csv", "the first that the job made"


def test_a_changed_file_on_the_way_is_a_fault(folder):
    assert not any(isinstance(line, Fault) for line in why.explain(STUDY, CELL))
    edits.flip(FILES["codebook"])
    Path(FILES["data"]).unlink()
    faults = [line for line in why.explain(STUDY, CELL) if isinstance(line, Fault)]
    assert [fault.file for fault in faults] == [FILES["data"], FILES["codebook"]]
    assert "no longer what its job made" in str(faults[1])


def test_a_number_that_its_source_does_not_give_is_a_fault(folder):
    edits.ONCE["another number in the .tex and in the cells"]()
    [cell] = [cell for cell in json.loads(Path(CELLS).read_text())["cells"] if cell["id"] == CELL]
    [fault, *_] = [line for line in why.explain(STUDY, CELL) if isinstance(line, Fault)]
    assert fault.file == CELL and f"says 64.3, but its source gives {source_value(cell)}" in str(fault)


def test_a_mean_over_seeds_names_all_its_sources(folder):
    other = FILES["metrics"].replace("apd", "aod")
    cells = json.loads(Path(CELLS).read_text())
    [cell] = [cell for cell in cells["cells"] if cell["id"] == CELL]
    cell["sources"].append({"file": other, "pointer": "/ADC/map"})
    write(CELLS, files.json_text(cells).encode())
    lines = explain(CELL)
    assert lines[0].endswith("which is 100 x the mean of")
    assert lines[1:3] == [f"  {FILES['metrics']} at /ADC/map", f"  {other} at /ADC/map"]
    assert FILES["metrics"] in lines and other in lines
    assert sum(line.strip() == FILES["weights"] for line in lines) == 1


NO_CELLS = ["", "{}", '{"cells": 1}', '{"cells": [{"id": "x"}]}', "[" * 10**5, '{"cells": [{"id": "no colon", "value": 1, "scale": 1}]}']


def test_a_damaged_list_of_cells_or_none_is_told_in_a_sentence(folder):
    for text in NO_CELLS:
        write(CELLS, text.encode())
        with pytest.raises(UserError, match="table1.cells.json is not a list of cells: "):
            explain("aod")
    shutil.rmtree("results/tiny/tables")
    with pytest.raises(UserError, match="results/tiny has no tables yet: run the study first"):
        explain("aod")


def test_a_circle_of_records_and_a_file_without_a_record_end_the_chain(folder):
    inputs = {"name": FILES["metrics"], "digest": {"sha256": "0" * 64}, "annotations": {"role": "input"}}
    change_record("data/synthetic.prov.json", lambda record: record["predicate"]["buildDefinition"]["resolvedDependencies"].append(inputs))
    assert len(why.chain(load(STUDY), FILES["metrics"])) == 7
    Path(FILES["record of data"]).unlink()
    lines = explain(CELL)
    [place] = [number for number, line in enumerate(lines) if line.strip() == "data/synthetic.h5"]
    assert lines[place + 1].strip() == "has no record"

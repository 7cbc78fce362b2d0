"""Results that are kept with the project: each file is the one that its record and the list of the study name, and the page shows them."""

import subprocess
import sys
from pathlib import Path

import pytest

from pqag import files
from pqag.job import records

from .conftest import ROOT, plan

sys.path.append(str(ROOT / "scripts"))
import publish  # noqa: E402

KEPT = sorted((ROOT / "docs/results").glob("*/"))


def check(folder: Path) -> None:
    """What a reader would check by hand: needs nothing but the folder."""
    name = files.read_json(folder / "study.json")["study"]
    listed = dict(reversed(line.split("  ", 1)) for line in (folder / "MANIFEST.sha256").read_text().splitlines())
    recorded = {
        path: sha256 for record in folder.rglob(f"*{records.SUFFIX}") for path, sha256 in records.outputs(records.read(record)).items()
    }
    left_out = ("README.md", ".snakemake_timestamp")  # the page, see below, and what Snakemake writes into a folder that it made
    found = [path for path in folder.rglob("*") if path.is_file() and path.name not in left_out]
    assert len(found) > 5
    for path in found:
        origin = f"results/{name}/{path.relative_to(folder)}"
        if path.name not in ("MANIFEST.sha256", "MANIFEST.prov.json"):
            assert listed[origin] == files.sha256(path), path
        if not path.name.endswith(records.SUFFIX):
            assert recorded[origin] == files.sha256(path), path
    assert len(publish.commits(folder)) == 1
    assert (folder / "README.md").read_text(encoding="utf-8") == publish.page(folder)


@pytest.mark.parametrize("folder", KEPT, ids=lambda path: path.name)
def test_published_results_are_those_of_their_records(folder):
    check(folder)
    assert " with changed files" not in "".join(publish.commits(folder))


def test_the_page_of_claims_has_those_of_the_study_of_record():
    assert (ROOT / "docs/results/cifar10/claims.md").read_text() in (ROOT / "docs/claims.md").read_text()


def test_a_study_is_published(study, tiny, tmp_path):
    assert plan(study[0], tiny, "docs/results/tiny") == [("publish", {"name": "tiny"})]
    folder, shown = tmp_path / "docs/results/tiny", sorted((study[0] / "results/tiny").glob("tables/*.[ct][sex][vxt]"))
    call = [sys.executable, ROOT / "scripts/publish.py", "tiny", folder, *(path.relative_to(study[0]) for path in shown)]
    done = subprocess.run(call, cwd=study[0], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    check(folder)
    page = (folder / "README.md").read_text()
    assert "snakemake docs/results/tiny " in page and files.sha256(study[0] / "results/tiny/MANIFEST.sha256") in page
    assert (study[0] / "results/tiny/tables/table1.txt").read_text() in page
    (folder / "tables/table1.csv").write_text("changed by hand")
    with pytest.raises(AssertionError, match="table1.csv"):
        check(folder)

"""Verify finds and names every change to a study, and nothing else."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pqag import files
from pqag.audit.verify import verify
from pqag.errors import UserError
from pqag.study.file import printable
from pqag.study.model import parse_study

from ..workflow.conftest import ROOT, plan, snakemake, write_config
from . import edits
from .edits import FILES, MANIFEST, MANIFEST_RECORD, STUDY, VICTIM, change_record, change_study, copied, flipped, named, write


def told():
    """The faults as they are printed."""
    return [str(fault) for fault in verify(STUDY)[0]]


def test_what_nobody_touched_has_no_fault(folder):
    faults, remarks, study = verify(STUDY)
    assert faults == [] and verify(STUDY, files.sha256(STUDY / "study.json"))[0] == []
    assert [fault.file for fault in verify(STUDY, "0" * 64)[0]] == [str(STUDY / "study.json")]
    assert len(study.records) == 25 and len(study.made_by) == 39
    assert sorted(map(str, folder.rglob("*.prov.json"))) == sorted(str(folder / name) for name in study.records)
    assert all("uncommitted" in remark or "outside git" in remark for remark in remarks)


@pytest.mark.parametrize("edit", edits.EDITS)
def test_every_edit_to_every_kind_of_file_is_found(study, tmp_path, monkeypatch, edit):
    monkeypatch.chdir(tmp_path)  # to come back to
    for kind in (kind for one, kind in edits.MATRIX if one == edit):
        os.chdir(copied(study[0], tmp_path / kind))
        assert edits.apply(edit, kind) in named(), kind


@pytest.mark.parametrize("edit", edits.ONCE)
def test_every_other_edit_is_found(folder, edit):
    path = edits.apply(edit)
    assert path in named()


@pytest.mark.parametrize("kind", sorted(edits.LAST - {"table tex", "cells", "study"}))
def test_who_makes_everything_fit_is_given_away_by_the_digest_of_the_list_alone(folder, kind):
    """The limit: of a file that nothing was made from, the record, the list and the list's record all forged."""
    before = files.sha256(MANIFEST)
    edits.flip_and_fit_all(FILES[kind])
    assert told() == []
    assert files.sha256(MANIFEST) != before


SILENT = [
    *(("one bit flipped", kind) for kind in ("data", "images", "weights", "codebook", "queries", "metrics")),
    *(("one bit flipped", kind) for kind in ("table csv", "table tex", "cells", "study", "record of weights")),
    ("cut in half", "weights"),
    ("emptied", "metrics"),
    ("another network's in its place", "queries"),
    ("swapped with another network's, and the records", "metrics"),
    ("a link to the same bytes", "weights"),
    ("one bit flipped, and its record and the list made to fit", "weights"),
    ("a number typed by hand into the .tex, and record and list made to fit", None),
    ("threads changed in a record, and the list made to fit", None),
    ("a file that no job made", None),
    ("what a killed writer left", None),
    ("a link in the place of a folder", None),
    ("a line taken out of the list", None),
    ("the config deleted", None),
]


@pytest.mark.parametrize(("edit", "kind"), SILENT[::4])
def test_snakemake_alone_has_nothing_to_say(study, tmp_path, monkeypatch, tiny, edit, kind):
    """Why there is verify: Snakemake plans nothing but the rule that verifies, which always runs. The long run tries every case."""
    monkeypatch.chdir(copied(study[0], tmp_path, snakemake=True))
    path = edits.apply(edit, kind)
    assert plan(tmp_path, tiny) == [("all", {})]
    assert path in named()


@pytest.mark.parametrize("kind", ["images", "health", "cells", "record of metrics"])
def test_what_is_deleted_is_made_again(study, tmp_path, monkeypatch, tiny, kind):
    monkeypatch.chdir(copied(study[0], tmp_path, snakemake=True))
    job = edits.job_of(FILES[kind])
    edits.delete(FILES[kind])
    assert job in plan(tmp_path, tiny)


ANSWERS = {"nothing to do": "✘", "builds on it": "~", "makes it anew": "✔"}


def snakemakes_answer(folder, config, job):
    jobs = plan(folder, config)
    if jobs == [("all", {})]:
        return "nothing to do"
    return "makes it anew" if job in jobs else "builds on it"


def tamper_table(study, config):
    """Every edit of the matrix and every other one done to copies of the study, and what Snakemake and audit find: as Markdown."""
    answers = {}
    for edit, kind in [*edits.MATRIX, *((edit, None) for edit in edits.ONCE)]:
        with tempfile.TemporaryDirectory() as name:
            folder = copied(study, Path(name), snakemake=True)
            os.chdir(folder)
            job = edits.job_of(FILES[kind]) if kind else None
            path = edits.apply(edit, kind)
            today = yaml.safe_load(Path("config.yaml").read_text()) if Path("config.yaml").exists() else config
            answers[edit, kind] = snakemakes_answer(folder, today, job), path in named()
    letters = dict(zip(edits.EDITS, "abcdefghijklmnopqrstuvwxyz"))
    lines = [f"| | what was done | files | Snakemake: {' | '.join(ANSWERS)} | audit names it |", "|---|---|--:|--:|--:|--:|--:|"]
    total = Counter()
    for edit in edits.EDITS:
        found = [answer for (one, _), answer in answers.items() if one == edit]
        counts = Counter(answer for answer, _ in found)
        total += counts
        numbers = " | ".join(str(counts[answer]) for answer in ANSWERS)
        lines.append(f"| {letters[edit]} | {edit} | {len(found)} | {numbers} | {sum(by_audit for _, by_audit in found)} |")
    numbers = " | ".join(str(total[answer]) for answer in ANSWERS)
    lines.append(f"| | all | {len(edits.MATRIX)} | {numbers} | {sum(by for (_, kind), (_, by) in answers.items() if kind)} |")
    lines += ["", f"| kind of file | {' | '.join(letters.values())} |", f"|---|{'---|' * len(letters)}"]
    for kind in FILES:
        signs = [ANSWERS[answers[edit, kind][0]] if (edit, kind) in answers else "" for edit in edits.EDITS]
        lines.append(f"| {kind} | {' | '.join(signs)} |")
    lines += ["", "| what else was done | Snakemake | audit |", "|---|---|---|"]
    for (edit, kind), (answer, by_audit) in answers.items():
        if kind is None:
            lines.append(f"| {edit} | {'plans jobs' if answer == 'builds on it' else answer} | {'names it' if by_audit else 'silent'} |")
    return "\n".join(lines) + "\n", answers


@pytest.mark.slow
def test_the_tamper_table(study, tiny, monkeypatch, tmp_path):
    """The whole table, written to the file that the variable TAMPER_TABLE names, for docs/audit.md."""
    monkeypatch.chdir(tmp_path)  # to come back to
    table, answers = tamper_table(study[0], tiny)
    if "TAMPER_TABLE" in os.environ:
        Path(os.environ["TAMPER_TABLE"]).write_text(table)
    assert len(answers) == len(edits.MATRIX) + len(edits.ONCE)
    assert all(by_audit for _, by_audit in answers.values())
    silent = {case for case, (answer, _) in answers.items() if answer == "nothing to do"}
    assert silent >= set(SILENT) and len(silent) > 150
    assert all(answers["deleted", kind][0] == "makes it anew" for kind in FILES)


def test_times_logs_and_what_audit_writes_play_no_part(study, tmp_path, monkeypatch):
    folder = copied(study[0], tmp_path, copy=shutil.copy2)
    monkeypatch.chdir(folder)
    for path in [*folder.rglob("*.h5"), *folder.rglob("*.json"), Path("config.yaml")]:
        path.touch()
    for name in ("logs/extra.log", "benchmarks/extra.jsonl", "audit.html", "crate/results/tiny/study.prov.json"):
        (STUDY / name).parent.mkdir(parents=True, exist_ok=True)
        (STUDY / name).write_text("anything")
    shutil.copyfile(FILES["record of weights"], "results/tiny/crate/weights.prov.json")
    Path(VICTIM, "unfinished.pt").write_bytes(b"a training that goes on")
    shutil.rmtree("results/tiny/logs")
    assert told() == []


def test_other_data_and_studies_beside_it_and_another_disk_play_no_part(folder, tmp_path_factory):
    for name in ("data/other.h5", "data/other.prov.json", "results/other/study.json"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("anything")
    shutil.copyfile("data/synthetic.h5", "data/cifar10.h5")
    record = Path("data/synthetic.prov.json").read_text().replace("synthetic", "cifar10")
    Path("data/cifar10.prov.json").write_text(record)
    assert told() == []
    disk = tmp_path_factory.mktemp("disk")
    for name in ("results", "data"):
        shutil.move(folder / name, disk / name)
        os.symlink(disk / name, folder / name)
    assert told() == []


@pytest.fixture
def there(folder):
    """The files of a study whose tests put back what they change."""
    inside = [path for name in ("data", "results") for path in sorted(Path(name).rglob("*")) if path.is_file()]
    return [str(path) for path in inside if not {"logs", "benchmarks"} & set(path.parts)]


def changed(path, content):
    """What verify tells while ``path`` has another content."""
    original = Path(path).read_bytes()
    write(path, content)
    try:
        return verify(STUDY)[0]
    finally:
        write(path, original)


in_place = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def test_keys_given_on_the_command_line_are_told(folder):
    """The config files are as they were, and yet say otherwise than what was run."""
    assert not [remark for remark in verify(STUDY)[1] if "--config" in remark]
    study_becomes(lambda study: study.update(overrides=["bits"]))
    assert "['bits'] was set with --config and differs from the config files" in verify(STUDY)[1]


def test_a_key_of_the_study_with_one_bit_flipped_is_found(there):
    for key in ("study", "datasets", "models", "attacks", "bits", "seeds", "configfiles", "threads"):
        content = Path(FILES["study"]).read_text().replace(f'"{key}":', f'"{chr(ord(key[0]) ^ 1)}{key[1:]}":', 1)
        assert FILES["study"] in {fault.file for fault in changed(FILES["study"], content.encode())}, key


@in_place
@given(st.data())
def test_every_flipped_bit_is_found(there, data):
    """Of results and records: the record of the list, which no list can hold, bears a checksum of its own as all records do."""
    assert len(there) == 64
    path = data.draw(st.sampled_from(there) | st.just(MANIFEST_RECORD))
    content = bytearray(Path(path).read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert path in {fault.file for fault in changed(path, bytes(content))}


NONSENSE = [b"", b"{}", b"[]", b"null", b"NaN", b"[" * 10**5, b'{"a":' * 10**5, b"\xff\xfe", b"0" * 5000, b"a  b\n"]
DAMAGED = ["record of weights", "record of data", "study", "cells", "table tex", "manifest", "record of manifest"]


@pytest.mark.parametrize("kind", DAMAGED)
def test_no_content_makes_verify_fail(there, kind):
    contents = list(NONSENSE)
    if kind == "record of weights":  # numbers that JSON does not know
        text = Path(FILES[kind]).read_text()
        contents += [text.replace('"threads": 1', f'"threads": {number}').encode() for number in ("NaN", "Infinity", "1e999")]
    for content in contents:
        assert FILES[kind] in {fault.file for fault in changed(FILES[kind], content)}, content[:10]


@example("\x1b]0;title\x07\n")
@example("\udcff")
@given(st.text())
def test_nothing_that_is_printed_steers_a_terminal(text):
    shown = printable(text)
    assert shown.isprintable() and shown.encode().decode() == shown
    assert shown == text or not text.isprintable()


def test_one_cause_is_told_once(there):
    for kind in ("data", "images", "weights", "codebook", "queries", "health", "comparison"):
        content = flipped(Path(FILES[kind]).read_bytes())
        [fault] = changed(FILES[kind], content)
        digest = hashlib.sha256(content).hexdigest()
        assert str(fault).startswith(f"{FILES[kind]}: is not what its job made: sha256 {digest}, recorded ")


DAMAGED_STUDY = "is missing or damaged, so no setting can be checked: delete it and run the study again, which makes it again"


@pytest.mark.parametrize("fit", [False, True])
@pytest.mark.parametrize("key", ["attacks", "configfiles", "datasets", "device", "figures", "models", "seeds", "tables", "threads"])
def test_a_study_without_a_key_is_damaged_and_makes_no_record_left_over(folder, key, fit):
    """Its jobs are unknown, so nothing but itself is to be deleted."""
    study = files.read_json(STUDY / "study.json")
    del study[key]
    write(STUDY / "study.json", files.json_text(study).encode())
    if fit:
        edits.make_record_fit(str(STUDY / "study.json"))
        edits.make_list_fit()
    [fault] = verify(STUDY)[0]
    assert str(fault) == f"results/tiny/study.json: {DAMAGED_STUDY}" and "computes no result again" in fault.remedy


def test_a_study_that_was_not_run_to_its_end(folder):
    Path(MANIFEST).unlink()
    Path(MANIFEST_RECORD).unlink()
    Path("results/tiny/study.json").unlink()
    Path("results/tiny/study.prov.json").unlink()
    assert told() == [
        f"results/tiny/study.json: {DAMAGED_STUDY}",
        "results/tiny/MANIFEST.sha256: is missing: no run of the study has finished",
    ]


def test_settings_that_differ_are_told_one_by_one(folder):
    edits.ONCE["a setting changed in study.json, and record and list made to fit"]()
    assert sorted(told()) == [
        f"results/tiny/{path}: was made with {key} 5, but the study has 7"
        for path, key in (
            ("study.prov.json", "attacks.apd.iterations"),
            ("synthetic/alexnet-pretrained/seed0/16bits/adversarial/apd.prov.json", "iterations"),
            ("synthetic/vgg16-pretrained/seed0/16bits/adversarial/apd.prov.json", "iterations"),
            ("tables/table1.prov.json", "attacks.apd.iterations"),
        )
    ]


def study_becomes(change):
    """study.json and all that holds it are as after a run with another config."""
    study = change_study(change)
    edits.make_record_fit("results/tiny/study.json")

    def settings_too(record):
        record["predicate"]["buildDefinition"]["externalParameters"]["settings"] = study

    change_record("results/tiny/study.prov.json", settings_too)
    edits.make_list_fit()


LEFT = {
    f"results/tiny/synthetic/{model}-pretrained/seed0/16bits/{name}.prov.json": f"{rule} ("
    for model in ("alexnet", "vgg16")
    for name, rule in {"adversarial/apd": "attack", f"metrics/apd.{model}-pretrained-16bits": "evaluate"}.items()
}


def test_jobs_that_the_study_no_longer_has_are_told_once_each(folder):
    study_becomes(lambda study: study["attacks"].pop("apd"))
    found = {fault.file: fault for fault in verify(STUDY)[0]}
    assert set(found) == {*LEFT, "results/tiny/tables/table1.prov.json"}
    for path, rule in LEFT.items():
        assert f"to a job that is not in the study, {rule}" in str(found[path])
        assert found[path].remedy.startswith("delete the named records and their outputs")
    assert str(found[FILES["record of queries"]]).endswith("as does its output, apd.h5 and apd.health.json")
    assert "results/tiny/tables/table1.prov.json: was made with attacks.apd, which is not in the study" in told()
    for path in LEFT:
        assert sum(path in line for line in told()) == 1


def test_left_over_jobs_may_be_those_of_a_run_that_has_not_come_so_far(folder):
    """Another config than that of study.json: they may belong to it, so nothing is to be deleted yet."""
    study_becomes(lambda study: study["attacks"].pop("apd"))
    edits.ONCE["the config edited"]()
    found = {fault.file: fault for fault in verify(STUDY)[0]}
    assert "config.yaml" in found
    assert all(found[path].remedy.startswith("run the study to its end; if the fault remains, delete") for path in LEFT)


TAKEN_OUT = {
    "seeds": lambda study: study.update(seeds=[1]),
    "bits": lambda study: study.update(bits=[24]),
    "datasets": lambda study: study.update(datasets={"cifar10": study["datasets"]["synthetic"]}),
    "models": lambda study: (study["models"].pop("vgg16"), study["tables"]["table1"].update(models=["alexnet"])),
    "tables": lambda study: study["tables"]["table1"].update(models=["alexnet"]),
}


@pytest.mark.parametrize("what", TAKEN_OUT)
def test_whatever_was_taken_out_of_the_study_is_left_over(folder, what):
    study_becomes(TAKEN_OUT[what])
    assert "to a job that is not in the study, quantize (bits=16, dataset=synthetic, model=vgg16, seed=0" in " ".join(told())
    assert not any("no recorded job" in line or "no record" in line for line in told())


def test_another_order_of_rows_is_another_table_and_a_copy_under_another_name_is_refused(folder):
    study_becomes(lambda study: study.update(attacks=dict(reversed(study["attacks"].items()))))
    assert told() == ["results/tiny/tables/table1.prov.json: was made with its settings in another order than in the study"]
    os.rename("results/tiny", "results/mine")
    with pytest.raises(UserError, match=r"results/mine is a copy: .* is the record of results/tiny/.*; restore its original name"):
        verify(Path("results/mine"))


@pytest.fixture
def repository(tmp_path_factory):
    folder = tmp_path_factory.mktemp("repository")
    shutil.copytree(ROOT / "scripts", folder / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def audit(repository, folder, *arguments, python=(sys.executable,), **environment):
    command = [*python, repository / "scripts/audit.py", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=os.environ | environment)


def test_changed_code_is_told_with_the_records_of_what_it_made(folder, repository):
    with (repository / "scripts/pqag/attacks.py").open("a") as file:
        file.write("# a remark\n")
    plainest = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    assert audit(repository, folder, "verify", "tiny", **plainest).returncode == 0, "what it says did not change"
    with (repository / "scripts/pqag/attacks.py").open("a") as file:
        file.write("print()\n")
    done = audit(repository, folder, "verify", "tiny")
    assert done.returncode == 1 and done.stderr == ""
    lines = [line for line in done.stdout.splitlines() if "code other" in line and not line.startswith("error: ")]
    assert {line.split(": ")[0] for line in lines} == {
        f"results/tiny/synthetic/{model}-pretrained/seed0/16bits/adversarial/{attack}.prov.json"
        for model in ("alexnet", "vgg16")
        for attack in ("basic", "apd", "aod")
    }
    assert all(line.endswith(": was made with code other than the current code: scripts/pqag/attacks.py") for line in lines)
    assert done.stdout.splitlines()[-1].startswith("error: 6 faults in 39 files of 25 jobs of results/tiny; first: ")
    assert any(line.startswith("remedy: run the study again") for line in done.stdout.splitlines())


def test_verify_why_diff_and_html_need_the_standard_library_alone(study, repository, tmp_path):
    """On a copy that was moved, without Snakemake's memory, from a copy of the code."""
    copied(study[0], tmp_path / "here")
    moved = (tmp_path / "here").rename(tmp_path / "there")
    alone = [sys.executable, "-S", "-E", "-s"]
    assert subprocess.run([*alone, "-c", "import numpy"], capture_output=True).returncode == 1
    done = audit(repository, moved, "verify", "tiny", python=alone)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].endswith(f"sha256 of {MANIFEST}: {files.sha256(moved / MANIFEST)}")
    for arguments, last in (
        (["why", "table1:apd/vgg16/16/ADC", "--study", "tiny"], f"  {VICTIM}/features/database.h5, as above"),
        (["diff", "tiny", "tiny"], "the two studies are the same"),
        (["html", "tiny"], "results/tiny/audit.html: no faults in the study"),
    ):
        done = audit(repository, moved, *arguments, python=alone)
        assert (done.returncode, done.stderr, done.stdout.splitlines()[-1]) == (0, "", last)


@pytest.mark.slow
def test_results_of_other_settings_are_no_results_of_the_study_that_runs(study, tmp_path, tiny):
    """--touch, which says that all is up to date, is found whatever the settings are that it passed over."""
    folder = copied(study[0], tmp_path, snakemake=True, copy=shutil.copy2)
    write_config(folder / "config.yaml", tiny)
    for change in ("attacks: {apd: {epsilon: 16}}", "training: {epochs: 7}", "quantizer: {iterations: 3}", "anonymous: true"):
        (folder / "overlay.yaml").write_text(change)
        call = ("--configfile", folder / "config.yaml", folder / "overlay.yaml", "--cores", 1)
        assert snakemake(folder, *call, "--touch", "--", "all").returncode == 0, change
        done = snakemake(folder, *call, "--", "all")
        assert done.returncode == 1 and "study.json: has other settings than the study that runs" in done.stderr, change


def test_a_forged_memory_of_snakemake_is_found_out(study, tmp_path, monkeypatch, tiny):
    """--touch notes the new settings as if all had been made with them; what verify then says to do helps."""
    folder = copied(study[0], tmp_path, snakemake=True, copy=shutil.copy2)
    monkeypatch.chdir(folder)
    tiny["attacks"]["apd"]["iterations"] = 7
    write_config(folder / "config.yaml", tiny)
    assert snakemake(folder, "--configfile", folder / "config.yaml", "--cores", 1, "--touch", "all").returncode == 0
    assert plan(folder, tiny) == [("all", {})]
    [fault] = verify(STUDY)[0]
    assert fault.file == "config.yaml" and "first delete study.json of the study" in fault.remedy
    done = snakemake(folder, "--configfile", folder / "config.yaml", "--cores", 1, "all")
    assert done.returncode == 1 and "study.json: has other settings than the study that runs" in done.stderr
    resolved = parse_study(tiny).resolved() | {"configfiles": {"config.yaml": files.sha256("config.yaml")}}
    study_becomes(lambda study: study.update(resolved))
    made_with_others = {FILES["record of queries"], FILES["record of queries"].replace("vgg16", "alexnet"), FILES["record of table"]}
    assert {fault.file for fault in verify(STUDY)[0]} == made_with_others
    Path("results/tiny/study.json").unlink()
    assert [rule for rule, _ in plan(folder, tiny)] == ["study", "manifest", "all"]

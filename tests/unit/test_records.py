"""Records: what they say of a job, what is refused as one, and inputs that are not what they say."""

import copy
import datetime
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

from pqag import files
from pqag.errors import UserError
from pqag.job import records
from pqag.job.provenance import LIBRARY

ROOT = Path(__file__).parents[2]
A, B, C, D, E = ("a" * 64, "b" * 64, "c" * 64, "d" * 64, "e" * 64)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def a_record(anonymous=False, **changes):
    """The record of a job of this workflow, on this machine."""
    job = {
        "rule": "quantize",
        "script": LIBRARY.parent / "quantize.py",
        "wildcards": {"seed": "3", "bits": "16", "dataset": "cifar10"},
        "settings": {"subspaces": 4, "codewords": 16, "iterations": 25, "code": C},
    }
    parts = {
        "outputs": {"results/z.h5": A, "results/b.h5": B},
        "inputs": {"results/y.h5": D, "results/c.h5": A},
        "raw": [{"name": "folder/archive.tar", "digest": {"sha256": E}}],
        "started": "2026-01-31T12:00:00.000Z",
    }
    job |= {name: changes.pop(name) for name in list(changes) if name in job}
    return records.statement(records.Job(**job), **parts | changes, anonymous=anonymous)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine and a repository of which everything is known: two modules of ours and one from elsewhere."""
    library = tmp_path / "repository" / "scripts" / "pqag"
    library.mkdir(parents=True)
    (library / "b.py").write_bytes(b"b")
    (library.parent / "a.py").write_bytes(b"a")
    (tmp_path / "elsewhere.py").write_bytes(b"x")
    monkeypatch.setattr(records, "REPOSITORY", tmp_path / "repository")
    monkeypatch.setattr(records, "engine", lambda: None)
    monkeypatch.setattr(records, "modules_of", lambda script: [library / "b.py", library.parent / "a.py", tmp_path / "elsewhere.py"])
    monkeypatch.setattr(records, "git_state", lambda: {"commit": "0" * 40, "dirty": True, "difference_sha256": B})
    monkeypatch.setattr(records, "package_versions", lambda: {"torch": "1.2.3"})
    monkeypatch.setattr(records, "cpu", lambda: "a processor")
    monkeypatch.setattr(records, "_user", lambda: "a-user")
    monkeypatch.setattr(records, "now", lambda: "2026-01-31T12:00:01.500Z")
    for name, value in {"node": "a-host", "platform": "a-system", "python_version": "3.99"}.items():
        monkeypatch.setattr(platform, name, lambda value=value: value)


def by_hand(machine) -> dict:
    """The record that ``a_record`` must be on ``machine``, with the seal left empty."""
    wildcards, settings = {"bits": "16", "dataset": "cifar10", "seed": "3"}, {"subspaces": 4, "codewords": 16, "iterations": 25}
    git = {"commit": "0" * 40, "dirty": True, "difference_sha256": B}
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "results/b.h5", "digest": {"sha256": B}}, {"name": "results/z.h5", "digest": {"sha256": A}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:pqag:job:v1",
                "externalParameters": {"rule": "quantize", "wildcards": wildcards, "settings": settings},
                "internalParameters": {"code": C, "seeds": {"seed": 3}, "threads": 1, "git": git},
                "resolvedDependencies": [
                    {"name": "results/c.h5", "digest": {"sha256": A}, "annotations": {"role": "input"}},
                    {"name": "results/y.h5", "digest": {"sha256": D}, "annotations": {"role": "input"}},
                    {"name": "folder/archive.tar", "digest": {"sha256": E}, "annotations": {"role": "raw"}},
                    {"name": "scripts/a.py", "digest": {"sha256": sha256(b"a")}, "annotations": {"role": "code"}},
                    {"name": "scripts/pqag/b.py", "digest": {"sha256": sha256(b"b")}, "annotations": {"role": "code"}},
                ],
            },
            "runDetails": {
                "builder": {"id": "urn:pqag:local", "version": {"python": "3.99", "torch": "1.2.3"}},
                "metadata": {"invocationId": "", "startedOn": "2026-01-31T12:00:00.000Z", "finishedOn": "2026-01-31T12:00:01.500Z"},
                "byproducts": [{"name": "machine", "uri": "urn:pqag:machine", "annotations": machine}],
            },
        },
    }


@pytest.mark.parametrize("anonymous", [False, True])
@pytest.mark.parametrize("gpu", [None, "a GPU"])
def test_a_record_by_hand(machine, anonymous, gpu, monkeypatch):
    own = {"cpu": "a processor", "gpu": gpu, "system": "a-system"} | ({"engine": "pqag"} if gpu else {})
    monkeypatch.setattr(records, "engine", lambda: own.get("engine"))
    wanted = by_hand(own | ({} if anonymous else {"host": "a-host", "user": "a-user"}))
    seal = sha256((json.dumps(wanted, indent=1) + "\n").encode())
    wanted["predicate"]["runDetails"]["metadata"]["invocationId"] = seal
    assert a_record(anonymous, gpu=gpu) == wanted


def test_threads_seeds_and_times(monkeypatch):
    inner = a_record(settings={"code": C, "threads": 7})["predicate"]["buildDefinition"]["internalParameters"]
    assert inner["threads"] == 7
    assert records.seeds_of({"seed": "3", "bits": "16"}, {"split_seed": 7, "train": None}) == {"seed": 3, "split_seed": 7}
    assert records.seeds_of({"dataset": "cifar10"}, {}) == {}
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    before, now, after = datetime.datetime.now(datetime.UTC), records.now(), datetime.datetime.now(datetime.UTC)
    assert TIME.fullmatch(now)
    assert before - datetime.timedelta(milliseconds=1) <= datetime.datetime.fromisoformat(now) <= after


TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def test_a_record_of_this_machine_has_versions_as_texts_and_names_no_folder():
    record = json.loads(json.dumps(a_record(anonymous=True)))
    versions = record["predicate"]["runDetails"]["builder"]["version"]
    assert all(isinstance(version, str) for version in versions.values())
    assert not any(place in json.dumps(record) for place in (str(ROOT), str(Path.home()), sys.prefix))
    code = records.dependencies(a_record(), "code")
    assert {"scripts/quantize.py", "scripts/pqag/__init__.py", "scripts/pqag/job/records.py", "scripts/pqag/quantizer.py"} <= set(code)
    assert "scripts/pqag/networks.py" not in code, "which the script does not use"
    assert {name: sha256((ROOT / name).read_bytes()) for name in code} == code


def test_versions_are_those_installed_of_what_steps_and_workflow_ask_for(tmp_path, monkeypatch):
    versions = records.package_versions()
    assert all(versions[name] == importlib.metadata.version(name) for name in ("torch", "numpy", "h5py", "snakemake"))
    assert not {"pytest", "ruff", "certifi"} & set(versions), "what tests ask for, and what the others need in turn"
    files.write_text(tmp_path / "envs/requirements.txt", "# steps\nnumpy==0.1\nno-such-package-at-all==1.0\n\n# tests\npytest==1\n")
    monkeypatch.setattr(records, "REPOSITORY", tmp_path)
    assert records.package_versions() == {"numpy": versions["numpy"]}, "what is not installed has none"


def test_the_processor_has_a_name_and_a_user_without_one_is_none(monkeypatch):
    assert records.cpu().strip() == records.cpu() != ""
    if Path("/proc/cpuinfo").exists() and "model name" in (text := Path("/proc/cpuinfo").read_text()):
        assert f": {records.cpu()}\n" in text
    monkeypatch.setattr(records.getpass, "getuser", {}.popitem)  # it raises KeyError, as getpwuid() does
    assert records._user() is None


def test_the_gpu_is_named_if_it_was_used(monkeypatch, python):
    for available, used, name in ((True, True, "a GPU"), (True, False, None), (False, False, None)):
        found = {"is_available": available, "is_initialized": used, "get_device_name": "a GPU"}
        cuda = types.SimpleNamespace(**{key: lambda value=value: value for key, value in found.items()})
        monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))
        assert records.gpu() == name
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert records.gpu() is None and "torch" not in sys.modules
    code = "import sys, pqag.job.records, pqag.show.cells; print({'torch', 'pandas', 'numpy', 'h5py', 'pydantic'} & set(sys.modules))"
    assert python(code, capture_output=True, text=True, check=True).stdout == "set()\n"


@pytest.fixture
def git(tmp_path, monkeypatch):
    """Runs git in a small repository of one commit, taken for ours; nothing that this machine's user has set up counts."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "name")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "name@example.org")
    monkeypatch.setattr(records, "REPOSITORY", tmp_path)

    def run(*arguments):
        done = subprocess.run(["git", "-C", tmp_path, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("init", "--quiet", "--initial-branch=main")
    (tmp_path / "code.py").write_text("x = 1\n")
    (tmp_path / ".gitignore").write_text("ignored\n")
    run("add", ".")
    run("commit", "--quiet", "--message", "first")
    return run


git_state = records.git_state.__wrapped__  # as a process finds it that has not asked before
NO_GIT = {"commit": None, "dirty": None, "difference_sha256": None}


def test_a_clean_repository_has_its_commit_alone_and_untracked_deleted_and_binary_files_are_differences(git, tmp_path):
    commit = (tmp_path / ".git/refs/heads/main").read_text().strip()
    assert git_state() == {"commit": commit, "dirty": False, "difference_sha256": None}
    (tmp_path / "ignored").write_text("x")
    os.utime(tmp_path / "code.py", (0, 0))
    assert git_state()["dirty"] is False, "neither ignored files nor times count"
    (tmp_path / "new.py").write_text("y = 1\n")
    assert (git_state()["dirty"], git_state()["difference_sha256"]) == (True, sha256(b"new.py\n"))
    (tmp_path / "new.py").unlink()
    (tmp_path / "code.py").unlink()
    deleted = git_state()
    (tmp_path / "code.py").write_bytes(bytes(range(256)))
    binary = git_state()
    (tmp_path / "code.py").write_bytes(bytes(range(255)) + b"\0")
    assert len({one["difference_sha256"] for one in (deleted, binary, git_state())}) == 3


def test_an_uncommitted_change_is_recorded_by_its_sha256(git, tmp_path):
    clean = git_state()
    (tmp_path / "code.py").write_text("x = 2\n")
    changed = git_state()
    assert changed["commit"] == clean["commit"] and changed["dirty"] is True
    blob = {value: hashlib.sha1(f"blob 6\0x = {value}\n".encode()).hexdigest() for value in (1, 2)}
    difference = (
        f"diff --git a/code.py b/code.py\nindex {blob[1]}..{blob[2]} 100644\n--- a/code.py\n+++ b/code.py\n@@ -1 +1 @@\n-x = 1\n+x = 2\n"
    )
    assert changed["difference_sha256"] == sha256(difference.encode())
    git("add", ".")
    assert git_state() == changed, "whether it is staged makes no difference"
    (tmp_path / "code.py").write_text("x = 1\n")
    git("add", ".")
    assert git_state() == clean
    (tmp_path / "code.py").write_text("x = 2\n")
    git("commit", "--quiet", "--all", "--message", "second")
    assert git_state() == {"commit": git("rev-parse", "main").strip(), "dirty": False, "difference_sha256": None} != clean


def test_the_difference_does_not_depend_on_how_the_user_likes_it_shown(git, tmp_path):
    (tmp_path / "code.py").write_text("x = 2\n")
    before = git_state()
    liked = {"core.abbrev": "5", "diff.noprefix": "true", "diff.external": "true", "color.ui": "always", "diff.mnemonicPrefix": "true"}
    for key, value in liked.items():
        git("config", key, value)
    assert git("diff", "HEAD") == "", "the control: another program shows differences now"
    assert git_state() == before


def test_without_a_repository_without_a_commit_and_without_git_nothing_is_known(tmp_path, monkeypatch):
    monkeypatch.delenv("GIT_DIR", raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setattr(records, "REPOSITORY", tmp_path)
    assert git_state() == NO_GIT
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    assert git_state() == NO_GIT, "no commit yet"
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError):
        subprocess.run(["git"])
    assert git_state() == NO_GIT


def leaves(value, path=()):
    """The path of every value that is no mapping and no list."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, (*path, key))
    else:
        yield path


DELETED = object()


def changed(record, path, value):
    """A copy of ``record`` with another value at ``path`` (a tuple of keys), or none."""
    record = copy.deepcopy(record)
    *above, last = path
    section = functools.reduce(lambda inner, key: inner[key], above, record)
    if value is DELETED:
        del section[last]
    else:
        section[last] = value
    return record


def test_a_seal_tells_of_every_change_and_sealing_again_changes_nothing(tmp_path):
    record = a_record()
    for path in leaves(record):
        files.write_json(tmp_path / "a.json", changed(record, path, "another"))
        assert not records.is_sealed(tmp_path / "a.json"), path
    files.write_json(tmp_path / "a.json", record)
    assert records.is_sealed(tmp_path / "a.json")
    (tmp_path / "a.json").write_text(json.dumps(record))
    assert not records.is_sealed(tmp_path / "a.json"), "another layout"
    record = a_record()
    assert records.sealed(record) == record
    broken = changed(record, ("predicate", "runDetails", "metadata", "invocationId"), "x")
    assert records.sealed(broken) == record
    assert broken["predicate"]["runDetails"]["metadata"]["invocationId"] == "x"
    (tmp_path / "a.json").write_text("{}")
    assert not records.is_sealed(tmp_path / "a.json"), "no seal"


@pytest.fixture
def refused(tmp_path):
    """Writes this as a record, which must not be read as one: its sentence."""

    def refuse(content) -> str:
        path = tmp_path / "a.prov.json"
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        with pytest.raises(UserError) as error:
            records.read(path)
        words = str(error.value)
        assert words.startswith(f"{path} is no record of a job: ") and "\n" not in words
        return words

    return refuse


NO_RECORDS = [b"", b"{", b"null", b"7", b'"text"', b"[]", b"{}", b"\xff\xfe\0", b"\0" * 1000, b"[" * 100_000, b"9" * 5000, b"<!DOCTYPE>"]
NO_RECORDS += [b'{"_type": "https://in-toto.io/Statement/v1", "subject": [], "predicate": {}}']


def test_what_is_no_record_is_refused(refused):
    whole = files.json_text(a_record())
    for content in (*NO_RECORDS, *(whole[: int(share * len(whole))].encode() for share in (0.01, 0.3, 0.7, 0.99))):
        refused(content)
    for constant in ("NaN", "Infinity", "-Infinity"):  # which Python alone takes for JSON
        assert f"{constant} is no JSON" in refused(whole.replace('"codewords": 16', f'"codewords": {constant}').encode())
    others = {("_type",): "https://in-toto.io/Statement/v0.1", ("predicateType",): "https://slsa.dev/provenance/v0.2"}
    for path, value in {**others, (*DEFINITION, "buildType"): "urn:pqag:job:v2"}.items():
        assert value in refused(changed(a_record(), path, value))
    record = changed(a_record(), ("subject", 0, "name"), "a\nb\r\nc")
    assert "a b c has no sha256" in refused(changed(record, ("subject", 0, "digest", "sha256"), "x"))


def test_a_record_is_read_as_it_was_written_and_a_file_that_is_none_is_refused(tmp_path):
    files.write_json(tmp_path / "a.prov.json", record := a_record())
    assert records.read(tmp_path / "a.prov.json") == records.read(str(tmp_path / "a.prov.json")) == record
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("nowhere", "folder", "pipe", "nowhere/deeper"):
        with pytest.raises(UserError, match="is no record of a job"):
            records.read(tmp_path / name)


DEFINITION, RUN = ("predicate", "buildDefinition"), ("predicate", "runDetails")
OUTER, INNER = (*DEFINITION, "externalParameters"), (*DEFINITION, "internalParameters")
DEPENDENCIES = (*DEFINITION, "resolvedDependencies")
#: Everything that the library looks at, by where it stands, and of what kind it must be; None: any.
KINDS = {
    (): {"_type": str, "predicateType": str, "subject": list, "predicate": dict},
    ("subject",): {0: dict},
    ("subject", 1): {"name": str, "digest": dict},
    ("subject", 1, "digest"): {"sha256": str},
    ("predicate",): {"buildDefinition": dict, "runDetails": dict},
    DEFINITION: {"buildType": str, "externalParameters": dict, "internalParameters": dict, "resolvedDependencies": list},
    OUTER: {"rule": str, "wildcards": dict, "settings": dict},
    INNER: {"code": str, "seeds": dict, "threads": None, "git": dict},
    (*INNER, "git"): {"commit": None, "dirty": None},
    DEPENDENCIES: {0: dict},
    (*DEPENDENCIES, 0): {"name": str, "digest": dict, "annotations": dict},
    (*DEPENDENCIES, 0, "digest"): {"sha256": str},
    RUN: {"builder": dict, "metadata": dict, "byproducts": list},
    (*RUN, "builder"): {"version": dict},
    (*RUN, "metadata"): {"startedOn": str, "finishedOn": str},
    (*RUN, "byproducts"): {0: dict},
    (*RUN, "byproducts", 0): {"annotations": dict},
    (*RUN, "byproducts", 0, "annotations"): {"cpu": None},
}
LOOKED_AT = {(*place, key): kind for place, kinds in KINDS.items() for key, kind in kinds.items()}
MAY_BE_ABSENT = {("subject", 0), (*DEPENDENCIES, 0), (*DEPENDENCIES, 0, "annotations")}


@pytest.mark.parametrize("path", LOOKED_AT, ids=lambda path: ".".join(map(str, path[-2:])))
def test_a_record_that_lacks_something_or_has_it_of_another_kind_is_refused(refused, path):
    if path not in MAY_BE_ABSENT:
        refused(changed(a_record(), path, DELETED))
    for value in (None, True, 7, 1.5, "text", [], ["text"], [{}], {}, {"a": 1}) if LOOKED_AT[path] else ():
        if not isinstance(value, LOOKED_AT[path]):
            refused(changed(a_record(), path, value))


@pytest.mark.parametrize("path", [("subject", 0), (*DEPENDENCIES, -1)])
def test_a_digest_that_is_no_sha256_is_refused(refused, path):
    for digest in ("", "a" * 63, "a" * 65, "g" * 64, "A" * 64, "a" * 63 + " ", "a" * 64 + "\n", ["a"] * 64):
        refused(changed(a_record(), (*path, "digest", "sha256"), digest))


def test_parts_of_a_record_by_hand(machine):
    record = a_record()
    assert records.outputs(record) == {"results/b.h5": B, "results/z.h5": A}
    assert records.dependencies(record, "input") == {"results/c.h5": A, "results/y.h5": D}
    assert records.dependencies(record, "raw") == {"folder/archive.tar": E}
    assert records.dependencies(record, "code") == {"scripts/a.py": sha256(b"a"), "scripts/pqag/b.py": sha256(b"b")}
    assert records.dependencies(record, "another") == {}
    assert records.settings_of(record) == {"subspaces": 4, "codewords": 16, "iterations": 25, "code": C}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(record, **contents: bytes):
    """Files with the record of the job that made them; their names have a slash for two underscores and a dot for one."""
    outputs = {name.replace("__", "/").replace("_", "."): content for name, content in contents.items()}
    for path, content in outputs.items():
        files.write_bytes(path, content)
    files.write_json(record, a_record(outputs={path: sha256(content) for path, content in outputs.items()}))


def with_shards(folder, **changes):
    """A record of a job that joined two shards, whose own records differ by ``changes`` from what they must be."""
    common = {"inputs": {"results/y.h5": D}}
    for shard in (1, 2):
        name = f"x.shard{shard}of2"
        files.write_json(f"{name}.prov.json", a_record(outputs={f"{name}.h5": A}, **common | changes))
        files.write_bytes(f"{name}.h5", b"")
    paths = sorted(str(path) for path in Path().glob("*.shard*"))
    return a_record(inputs=common["inputs"] | {path: files.sha256(path) for path in paths})


def test_shards_are_named_in_the_record_of_the_job_that_joined_them_with_their_machines(folder, machine, monkeypatch):
    record = with_shards(folder)
    assert records.dependencies(record, "input") == {"results/y.h5": D}
    names = ["x.shard1of2.h5", "x.shard1of2.prov.json", "x.shard2of2.h5", "x.shard2of2.prov.json"]
    assert records.dependencies(record, "shard") == {name: files.sha256(name) for name in names}
    found = {one["name"]: one["annotations"] for one in record["predicate"]["buildDefinition"]["resolvedDependencies"][1:5]}
    assert found["x.shard2of2.h5"] == {"role": "shard"}
    times = {"startedOn": "2026-01-31T12:00:00.000Z", "finishedOn": "2026-01-31T12:00:01.500Z"}
    own = {"cpu": "a processor", "gpu": None, "system": "a-system", "host": "a-host", "user": "a-user"}
    assert found["x.shard2of2.prov.json"] == {"role": "shard"} | own | times
    assert records.processors(record) == {"a processor"}
    monkeypatch.setattr(records, "cpu", lambda: "another")
    other = with_shards(folder)
    other["predicate"]["runDetails"]["byproducts"] = record["predicate"]["runDetails"]["byproducts"]
    assert records.processors(other) == {"a processor", "another"}
    other = {"subspaces": 8, "codewords": 16, "iterations": 25, "code": C}
    for changes in ({"settings": other}, {"inputs": {"results/y.h5": A}}):
        with pytest.raises(UserError, match="^x.shard1of2.prov.json is of a shard with other settings, or of other files"):
            with_shards(folder, **changes)


def test_a_record_is_of_its_settings_and_of_what_its_input_is_now(folder):
    made("data/y.prov.json", data__y_h5=b"1")
    settings = {"subspaces": 4, "code": C}
    files.write_json("x.prov.json", a_record(settings=settings, inputs={"data/y.h5": sha256(b"1")}))
    assert records.is_of("x.prov.json", settings, ["data/y.h5"])
    assert not records.is_of("x.prov.json", settings | {"subspaces": 8}, ["data/y.h5"])
    assert not records.is_of("x.prov.json", settings | {"code": A}, ["data/y.h5"])
    assert not records.is_of("x.prov.json", settings, [])
    assert not records.is_of("x.prov.json", settings, ["data/y.h5", "data/z.h5"]), "it has no record"
    assert not records.is_of("nowhere.prov.json", settings, ["data/y.h5"])
    made("data/y.prov.json", data__y_h5=b"2")
    assert not records.is_of("x.prov.json", settings, ["data/y.h5"])
    Path("x.prov.json").write_text("{")
    assert not records.is_of("x.prov.json", settings, ["data/y.h5"])


def test_the_record_of_a_file_is_found_beside_it_if_it_names_the_file_and_is_whole(folder):
    made("data/images.prov.json", data__images_h5=b"1")
    made("data/aod.prov.json", data__aod_h5=b"2", data__aod_health_json=b"3")
    made("data/aod.alexnet.prov.json", data__aod_alexnet_h5=b"4")
    made("data/weights.prov.json", data__weights_pt=b"5", data__training_csv=b"6")
    makers = {"images.h5": "images", "aod.h5": "aod", "aod.health.json": "aod", "aod.alexnet.h5": "aod.alexnet"}
    for name, maker in {**makers, "weights.pt": "weights", "training.csv": "weights"}.items():
        assert records.record_of(f"data/{name}") == Path(f"data/{maker}.prov.json")
    assert records.record_of("data/images.h5") == records.record_of("./data/images.h5") == Path("data/images.prov.json")
    made("a.prov.json", b_txt=b"x")
    files.write_bytes("a.txt", b"x")
    assert records.record_of("a.txt") is None
    assert records.record_of("nowhere/a.txt") is None
    made("other.prov.json", a_txt=b"x")
    files.write_text("a.prov.json", "{")
    assert records.record_of("a.txt") == Path("other.prov.json")
    Path("other.prov.json").unlink()
    assert records.record_of("a.txt") is None


def test_the_sha256_of_a_file_that_is_what_its_job_made(folder):
    made("a.prov.json", a_txt=b"x", b_txt=b"y")
    assert records.checked_sha256("a.txt") == records.checked_sha256("./a.txt") == sha256(b"x")
    with records.unchanged(iter(["b.txt", "a.txt"])) as digests:
        assert digests == {"b.txt": sha256(b"y"), "a.txt": sha256(b"x")}
    with records.unchanged([]) as digests:
        assert digests == {}


def fails(*fragments, path="a.txt"):
    """Neither is the file's sha256 told nor the body run, with a sentence that holds each fragment and says what to do."""
    with pytest.raises(UserError) as error:
        records.checked_sha256(path)
    with pytest.raises(UserError) as again, records.unchanged([path]):
        pytest.fail("the body ran")
    assert str(error.value) == str(again.value) and "\n" not in str(error.value)
    for fragment in (path, "delete it and run again", *fragments):
        assert fragment in str(error.value)


def test_a_file_that_was_changed_or_has_no_record_and_a_record_without_its_seal_are_refused(folder):
    made("a.prov.json", a_txt=b"x", b_txt=b"y")
    Path("a.txt").write_bytes(b"y")
    fails("is not what its job made", sha256(b"x")[:12], sha256(b"y")[:12], "audit.py verify")
    with pytest.raises(UserError, match="a.txt is not what its job made"), records.unchanged(["b.txt", "a.txt"]):
        pytest.fail("the body ran")
    Path("a.prov.json").unlink()
    fails("has no record of how it was made", "audit.py verify")
    made("a.prov.json", a_txt=b"x")
    assert records.checked_sha256("a.prov.json") == sha256(Path("a.prov.json").read_bytes())
    text = Path("a.prov.json").read_text()
    Path("a.prov.json").write_text(text.replace('"codewords": 16', '"codewords": 17'))
    fails("was changed after it was written", path="a.prov.json")
    Path("a.prov.json").write_text("{}")
    with pytest.raises(UserError, match="is no record of a job"):
        records.checked_sha256("a.prov.json")


def replace(path: Path):
    """Another file with the same bytes and the same time."""
    found = path.stat()
    path.with_name("another").write_bytes(path.read_bytes())
    os.utime(path.with_name("another"), ns=(found.st_atime_ns, found.st_mtime_ns))
    path.with_name("another").replace(path)


#: What can be done to a file with ``x`` in it.
CHANGES = [lambda path: path.write_bytes(b"other"), replace, lambda path: os.utime(path, (0, 0)), Path.unlink]


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_while_it_is_used_is_refused_afterwards(folder, change):
    made("a.prov.json", a_txt=b"x", b_txt=b"y")
    seen = []
    with pytest.raises(UserError) as error, records.unchanged(["b.txt", "a.txt"]):
        change(Path("a.txt"))
        seen.append("the body ran")
    assert str(error.value) == "a.txt was changed while it was used; run again"
    assert seen == ["the body ran"]


def test_a_file_that_changes_while_its_sha256_is_taken_is_refused_afterwards(folder, monkeypatch):
    made("a.prov.json", a_txt=b"x")

    def slow(path, checked=records.checked_sha256):
        digest = checked(path)
        Path(path).write_bytes(b"other")
        return digest

    monkeypatch.setattr(records, "checked_sha256", slow)
    with pytest.raises(UserError, match="a.txt was changed while it was used"), records.unchanged(["a.txt"]):
        pass


def test_reading_a_file_is_no_change_and_an_error_of_the_body_is_not_covered_by_one(folder):
    made("a.prov.json", a_txt=b"x")
    with records.unchanged(["a.txt"]):
        os.utime("a.txt", ns=(0, Path("a.txt").stat().st_mtime_ns))  # as reading does, where the time of access is kept
        assert Path("a.txt").read_bytes() == b"x"
    with pytest.raises(ZeroDivisionError), records.unchanged(["a.txt"]):
        Path("a.txt").write_bytes(b"other")
        raise ZeroDivisionError

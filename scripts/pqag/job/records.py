"""One record a job: what it made out of what, by which code, with which settings, on what machine.

A record is an in-toto Statement (v1) with SLSA provenance (v1), written beside the outputs after all of them: its presence says that the
job ended well. Names are paths relative to the folder the workflow runs in. Needs only the standard library.
"""

import contextlib
import datetime
import functools
import getpass
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pqag import files
from pqag.errors import UserError
from pqag.job.provenance import LIBRARY, modules_of
from pqag.job.shards import is_shard

STATEMENT = "https://in-toto.io/Statement/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
#: What a record says of itself: a job of this workflow, described in docs/audit.md.
BUILD_TYPE = "urn:pqag:job:v1"
SUFFIX = ".prov.json"
REPOSITORY = LIBRARY.parents[1]


# ------------------------------------------------------------------------------------------------------------------------ writing


def now() -> str:
    """The time in UTC as RFC 3339, to the millisecond."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Job(NamedTuple):
    """A job as the workflow started it: its rule and script, and what distinguishes it from other jobs of that rule.

    ``settings`` are those of ``pqag.study.rules.settings`` and hold the digest of the code.
    """

    rule: str
    script: Path
    wildcards: Mapping[str, str]
    settings: Mapping[str, Any]


def statement(
    job: Job,
    outputs: Mapping[str, str],
    inputs: Mapping[str, str],
    raw: Iterable[Mapping[str, Any]],
    started: str,
    anonymous: bool,
    gpu: str | None = None,
) -> dict[str, Any]:
    """The record of a job that has just ended, as plain values.

    ``outputs`` and ``inputs`` map paths to sha256. ``raw`` are resource descriptors (``name``, ``digest``) of what came from outside.
    ``anonymous`` leaves out host and user. Inputs that are shards do not outlive the job, so the record keeps what their own records say;
    raises UserError where a shard was made with other settings, or from other files, than this job.
    """
    settings = job.settings
    used = {name: digest for name, digest in inputs.items() if not is_shard(name)}
    modules = [path for path in modules_of(job.script) if path.is_relative_to(REPOSITORY)]
    code = {str(path.relative_to(REPOSITORY)): files.sha256(path) for path in modules}
    named = {name: value for name, value in settings.items() if name != "code"}
    machine = {"cpu": cpu(), "gpu": gpu, "system": platform.platform()}
    machine |= {"engine": engine()} if engine() else {}
    machine |= {} if anonymous else {"host": platform.node(), "user": _user()}
    record = {
        "_type": STATEMENT,
        "subject": [_descriptor(name, digest) for name, digest in sorted(outputs.items())],
        "predicateType": PROVENANCE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"rule": job.rule, "wildcards": dict(sorted(job.wildcards.items())), "settings": named},
                "internalParameters": {
                    "code": settings["code"],
                    "seeds": seeds_of(job.wildcards, named),
                    "threads": settings.get("threads", 1),
                    "git": git_state(),
                },
                "resolvedDependencies": [
                    *(_descriptor(name, digest, role="input") for name, digest in sorted(used.items())),
                    *(_shard(name, digest, settings, used) for name, digest in sorted(inputs.items()) if is_shard(name)),
                    *({**one, "annotations": {"role": "raw"}} for one in raw),
                    *(_descriptor(name, digest, role="code") for name, digest in sorted(code.items())),
                ],
            },
            "runDetails": {
                "builder": {"id": "urn:pqag:local", "version": {"python": platform.python_version(), **package_versions()}},
                "metadata": {"invocationId": "", "startedOn": started, "finishedOn": now()},
                "byproducts": [{"name": "machine", "uri": "urn:pqag:machine", "annotations": machine}],
            },
        },
    }
    return sealed(record)


def _shard(name: str, digest: str, settings: Mapping[str, Any], used: Mapping[str, str]) -> dict[str, Any]:
    """A shard's file; its record with the machine and the time of its job."""
    descriptor = _descriptor(name, digest, role="shard")
    if name.endswith(SUFFIX):
        record = read(name)
        if _plain(settings_of(record)) != _plain(settings) or dependencies(record, "input") != used:
            raise UserError(f"{name} is of a shard with other settings, or of other files, than its job has now: delete it and run again")
        run = record["predicate"]["runDetails"]
        descriptor["annotations"] |= run["byproducts"][0]["annotations"] | {
            key: run["metadata"][key] for key in ("startedOn", "finishedOn")
        }
    return descriptor


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they come back from a record."""
    return json.loads(json.dumps(settings))


def seeds_of(wildcards: Mapping[str, str], settings: Mapping[str, Any]) -> dict[str, int]:
    """The seeds that a job used, by their names."""
    return {name: int(value) for name, value in {**wildcards, **settings}.items() if name in ("seed", "split_seed")}


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of ``record`` with the sha256 of all that it says as its ``invocationId``.

    So a record shows by itself that a byte of it changed, even the record of the list, which no list can hold. This guards against
    accidents: whoever edits a record on purpose can seal it again.
    """
    copy = json.loads(json.dumps(record))
    copy["predicate"]["runDetails"]["metadata"]["invocationId"] = ""
    copy["predicate"]["runDetails"]["metadata"]["invocationId"] = hashlib.sha256(files.json_text(copy).encode()).hexdigest()
    return copy


def is_sealed(path: str | Path) -> bool:
    """Whether the file of a record is there, with every byte that it was written with, by its own seal."""
    try:
        content = Path(path).read_bytes()
    except OSError:
        return False
    seal = re.search(rb'"invocationId": "([0-9a-f]{64})"', content)
    return bool(seal) and hashlib.sha256(content.replace(seal[0], b'"invocationId": ""', 1)).hexdigest().encode() == seal[1]


def _descriptor(name: str, digest: str, role: str | None = None) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": digest}} | ({"annotations": {"role": role}} if role else {})


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        return None


@functools.cache
def git_state() -> dict[str, Any]:
    """The commit of the repository, whether files differ from it, and the sha256 of that difference; all None where there is no git."""

    def git(*arguments: str) -> bytes:
        return subprocess.run(["git", "-C", str(REPOSITORY), *arguments], capture_output=True, check=True).stdout

    plain = ["--binary", "--full-index", "--no-ext-diff", "--no-textconv", "--no-color", "--src-prefix=a/", "--dst-prefix=b/"]
    try:
        commit = git("rev-parse", "HEAD").decode().strip()
        difference = git("diff", *plain, "HEAD") + git("ls-files", "--others", "--exclude-standard")
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None, "difference_sha256": None}
    return {
        "commit": commit,
        "dirty": bool(difference),
        "difference_sha256": hashlib.sha256(difference).hexdigest() if difference else None,
    }


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that envs/requirements.txt asks for by name (its first two sections)."""
    asked = (REPOSITORY / "envs/requirements.txt").read_text(encoding="utf-8").split("# tests", 1)[0]
    names = [line.split("==")[0] for line in asked.splitlines() if "==" in line and not line.startswith("#")]
    versions = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def cpu() -> str:
    """The processor's name as the system gives it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def gpu() -> str | None:
    """The GPU's name, if this process has used torch with one."""
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized() else None


def engine() -> str | None:
    """What took the steps of PGD in this process, if anything did: AdverTorch, or pqag where that cannot be imported."""
    return getattr(sys.modules.get("pqag.methods"), "ENGINE", None)


# ------------------------------------------------------------------------------------------------------------------------ reading


def read(path: str | Path) -> dict[str, Any]:
    """A record; raises UserError if the file is no record, or lacks something that this library reads."""
    try:
        if not Path(path).is_file():  # a pipe would never end
            raise FileNotFoundError("no such file")
        record = json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=_refuse)
        reason = _missing(record)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__} {error}"
    if reason:
        raise UserError(f"{path} is no record of a job: {' '.join(reason[:200].split())}")  # a damaged record may have whole sections here
    return record


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _missing(record: Mapping[str, Any]) -> str | None:
    """What a record lacks, in words; raises some error if the record is too damaged to look."""
    definition, run = record["predicate"]["buildDefinition"], record["predicate"]["runDetails"]
    outer, inner = definition["externalParameters"], definition["internalParameters"]
    kinds = record["_type"], record["predicateType"], definition["buildType"]
    if kinds != (STATEMENT, PROVENANCE, BUILD_TYPE):
        return f"it is of the kinds {', '.join(map(str, kinds))}"
    if not isinstance(record["subject"], list) or not isinstance(definition["resolvedDependencies"], list):
        return "its files are no list"
    for one in (*record["subject"], *definition["resolvedDependencies"]):
        if not isinstance(one["name"], str) or not re.fullmatch("[0-9a-f]{64}", one["digest"]["sha256"]):
            return f"{one['name']} has no sha256"
        if not isinstance(one.get("annotations", {}), dict):
            return f"the annotations of {one['name']} are no mapping"
    texts = [outer["rule"], inner["code"], run["metadata"]["startedOn"], run["metadata"]["finishedOn"]]
    mappings = [outer["wildcards"], outer["settings"], inner["seeds"], inner["git"], run["builder"]["version"]]
    mappings.append(run["byproducts"][0]["annotations"])
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(mapping, dict) for mapping in mappings):
        return "texts or mappings are of another type"
    looked_at = {"git": inner["git"].keys() >= {"commit", "dirty"}, "threads": "threads" in inner, "cpu": "cpu" in mappings[-1]}
    return next((f"{name} is missing" for name, there in looked_at.items() if not there), None)


def outputs(record: Mapping[str, Any]) -> dict[str, str]:
    """sha256 of the outputs by path."""
    return {one["name"]: one["digest"]["sha256"] for one in record["subject"]}


def dependencies(record: Mapping[str, Any], role: str) -> dict[str, str]:
    """sha256 of the dependencies with ``role`` input, shard, raw or code, by name."""
    found = record["predicate"]["buildDefinition"]["resolvedDependencies"]
    return {one["name"]: one["digest"]["sha256"] for one in found if one.get("annotations", {}).get("role") == role}


def processors(record: Mapping[str, Any]) -> set[str]:
    """The processors that a job and its shards ran on."""
    shards = (one.get("annotations", {}) for one in record["predicate"]["buildDefinition"]["resolvedDependencies"])
    own = record["predicate"]["runDetails"]["byproducts"][0]["annotations"]
    return {str(machine["cpu"]) for machine in (own, *shards) if "cpu" in machine}


def settings_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the job ran with, as ``pqag.study.rules.settings`` gives them."""
    definition = record["predicate"]["buildDefinition"]
    return definition["externalParameters"]["settings"] | {"code": definition["internalParameters"]["code"]}


def record_of(path: str | Path) -> Path | None:
    """The record beside ``path`` that names it among its outputs; None where there is none."""
    path = Path(path)
    likely = path.with_name(path.name.split(".", 1)[0] + SUFFIX), path.with_suffix(SUFFIX)
    for candidate in (*likely, *sorted(path.parent.glob(f"*{SUFFIX}"))):
        with contextlib.suppress(UserError):
            if str(path) in outputs(read(candidate)):
                return candidate
    return None


def is_of(path: str | Path, settings: Mapping[str, Any], inputs: Iterable[str]) -> bool:
    """Whether ``path`` is the record of a job that had these ``settings``, and these ``inputs`` as their own records are now.

    Reads only records and no large file; if a record is missing or damaged, the answer is no.
    """
    try:
        record, makers = read(path), {name: record_of(name) for name in inputs}
        made = {name: outputs(read(maker))[name] for name, maker in makers.items() if maker}
    except UserError:
        return False
    return None not in makers.values() and _plain(settings_of(record)) == _plain(settings) and dependencies(record, "input") == made


# ------------------------------------------------------------------------------------------------------------------- while a job runs


@contextlib.contextmanager
def unchanged(paths: Iterable[str]) -> Iterator[dict[str, str]]:
    """Yield the sha256 of each path, having made sure that it is what the job that made it recorded; nothing may change it meanwhile.

    Raises UserError that names the file: before anything is loaded from it, or after the body if it changed while the job ran.
    """
    before = {path: _identity(path) for path in paths}
    digests = {path: checked_sha256(path) for path in before}
    yield digests
    for path, identity in before.items():
        if _identity(path) != identity:
            raise UserError(f"{path} was changed while it was used; run again")


def checked_sha256(path: str) -> str:
    """The sha256 of ``path``; raises UserError unless its record is there and says the same.

    A record has no record of its own; its seal must be right.
    """
    if path.endswith(SUFFIX):
        read(path)  # says what is wrong with a file that is missing or no record
        if not is_sealed(path):
            raise UserError(f"{path} was changed after it was written: delete it and run again")
        return files.sha256(path)
    digest, record = files.sha256(path), record_of(path)
    remedy = "delete it and run again; `python3 scripts/audit.py verify` finds every such file"
    if record is None:
        raise UserError(f"{path} has no record of how it was made: {remedy}")
    recorded = outputs(read(record))[str(Path(path))]
    if recorded != digest:
        raise UserError(f"{path} is not what its job made (sha256 {digest[:12]}…, recorded {recorded[:12]}…): {remedy}")
    return digest


def _identity(path: str) -> tuple[int, ...] | None:
    """What changes when someone writes to the file or replaces it; None if there is no such file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

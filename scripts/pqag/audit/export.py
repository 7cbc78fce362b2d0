"""Exports a study as a folder to deposit that describes its content and origin: a Workflow Run RO-Crate.

It follows Provenance Run Crate 0.5 on RO-Crate 1.1. Files have the same paths in it as in the folder of the workflow, so the records and
MANIFEST.sha256 stay valid, and the other verbs of the audit work there too. Needs rocrate and PyYAML; the other verbs do not import this
module.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from pqag import files
from pqag.audit import html
from pqag.audit.crate import Description
from pqag.audit.verify import DAMAGE, Study, verify
from pqag.errors import UserError
from pqag.job import records

#: The code of the study, as patterns in the repository; without tests.
CODE = ("Snakefile", "Makefile", "README.md", "LICENSE", "CITATION.cff", "rules/*", "scripts/**/*", "envs/*", "profiles/**/*", "docs/*")
#: Suffixes of images, weights, features and codebooks, which the crate only includes with ``everything``.
LARGE = (".h5", ".pt")


def export(folder: Path, output: Path | None = None, everything: bool = False, force: bool = False) -> tuple[Path, int, int]:
    """Write the crate of the study in ``folder``. Return its folder, its number of files, and the number of files of the study left out.

    The crate goes to ``crate`` in the study, or to ``output``, and replaces an earlier crate there. It also has the page of ``audit html``
    and, with ``everything``, the files of ``LARGE``. Another export of the same study has the same bytes. Raises UserError if ``audit
    verify`` finds a fault and ``force`` is false, and if ``output`` contains anything other than a crate.
    """
    faults, _, study = verify(folder)
    if faults and not force:
        number = f"{len(faults)} fault{'s' * (len(faults) > 1)}"
        raise UserError(f"{folder} has {number}, first: {faults[0]}; `audit verify` lists them, and --force exports the study anyway")
    if not study.records:
        raise UserError(f"{folder} has no readable record, so there is nothing to describe")
    output = output or folder / "crate"
    _refuse_to_overwrite(output, study)
    configs = _configs(study)
    sources = dict(sorted((_code() | configs | _results(study, everything)).items()))
    with _replacing(output) as part:
        for name, source in sources.items():
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, part / name)
        page = str(folder / "audit.html")
        files.write_text(part / page, html.page(folder)[0])
        Description(study, part, {*sources, page}, sorted(configs)).crate.write(part)
    return output, len(sources) + 1, len(set(study.made_by) - set(sources))


def _code() -> dict[str, Path]:
    """Return the files of ``CODE`` by their names in the crate."""
    found = {path.relative_to(records.REPOSITORY): path for pattern in CODE for path in records.REPOSITORY.glob(pattern) if path.is_file()}
    made = re.compile(r"\..*|__pycache__.*|.*\.egg-info")
    return {str(name): path for name, path in found.items() if not any(map(made.fullmatch, name.parts))}


def _configs(study: Study) -> dict[str, Path]:
    """Return the existing config files of the study by their names in the crate: as in this folder or the repository, else in config/."""
    found = {}
    for name, recorded in _configured(study).items():
        path = Path(name).resolve()
        if path.is_file() and files.sha256(path) == recorded:
            inside = [path.relative_to(root) for root in (Path.cwd(), records.REPOSITORY.resolve()) if path.is_relative_to(root)]
            found[str(inside[0] if inside else Path("config", path.name))] = path
    return found


def _configured(study: Study) -> dict[str, str]:
    """Return the sha256 of the config files by path, from study.json. A damaged study.json gives nothing here; verify reports it."""
    try:
        return dict(files.read_json(study.folder / "study.json")["configfiles"])
    except DAMAGE:
        return {}


def _results(study: Study, everything: bool) -> dict[str, Path]:
    """Return records and results, which have the same names in the crate as here."""
    found = {name: Path(name) for name in (*study.records, *study.made_by)}
    for name, path in found.items():
        if path.is_absolute() or ".." in path.parts or path.is_symlink():
            raise UserError(f"{name} is outside this folder or is a link, so it cannot be exported")
    return {name: path for name, path in found.items() if path.is_file() and (everything or path.suffix not in LARGE)}


def _refuse_to_overwrite(output: Path, study: Study) -> None:
    """Raise UserError if a crate at ``output`` would overwrite other files, or would look like a result."""
    place, results = output.resolve(), study.folder.resolve()
    if Path.cwd().is_relative_to(place) or results.is_relative_to(place):
        raise UserError(f"{output} contains the study itself: name another folder for the crate")
    if place.is_relative_to(results) and place != results / "crate":
        raise UserError(f"{output} is among the results of the study: use {study.folder}/crate or a folder elsewhere")
    earlier = (output / "ro-crate-metadata.json").is_file() and (output / study.folder).is_dir()
    if output.exists() and not (earlier or (output.is_dir() and not any(output.iterdir()))):
        raise UserError(f"{output} already exists and is no crate of this study: name another folder, or remove it")


@contextlib.contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """Yield an empty folder next to ``folder``. On a clean exit it replaces ``folder``; on an exception it is removed."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)

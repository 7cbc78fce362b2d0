"""The command ``pqag``: ``pqag run STUDY [TARGET …]`` and ``pqag audit VERB …``, both with the code of a clone of the project.

An installed package has the library alone, without the workflow, its steps and its studies, from which results are computed and checked.
Needs only the standard library.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from pqag.errors import UserError

USAGE = """\
usage: pqag run STUDY [TARGET …] [OPTION …]    run a study (a file, or a name in config/; default: config.yaml); TARGET is all unless given,
                                               options are those of snakemake
       pqag audit VERB …                       check and trace the results of a study: pqag audit --help
Both work in a clone of the project. docs/api.md describes the library for Python programs."""


def clone(command: str) -> Path:
    """The clone of the project around the working directory, or the one that `pip install -e` installed; UserError if there is neither."""
    here = Path.cwd()
    for folder in (here, *here.parents, Path(__file__).resolve().parents[2]):
        if (folder / "Snakefile").is_file() and (folder / "scripts/pqag").is_dir():
            return folder
    raise UserError(f"`pqag {command}` works in a clone of the project, but {here} is in none: change to the folder with its Snakefile")


def run(study: str, arguments: list[str]) -> list[str]:
    """The command that makes the targets of a study in its clone, which becomes the working directory.

    A job loads the library of the clone, whichever is installed. Raises UserError if there is no such study, or no snakemake.
    """
    root = clone("run")
    named = root / ("config.yaml" if study == "default" else f"config/{study}.yaml")
    file = Path(study).absolute() if Path(study).is_file() else named
    if not file.is_file():
        known = ", ".join(["default", *sorted(path.stem for path in root.glob("config/*.yaml"))])
        raise UserError(f"there is no study {study}: give a file, or one of {known}")
    if find_spec("snakemake") is None:
        raise UserError(f"`pqag run` needs snakemake: run `pip install -e '.[workflow]'` in {root}, or `make setup`")
    cores = [] if {"--cores", "-c"} & {one.split("=")[0] for one in arguments} else ["--cores", str(os.cpu_count())]
    targets = [] if arguments and not arguments[0].startswith("-") else ["all"]
    path = [str(root / "scripts"), str(root / "profiles/console"), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(path)
    os.chdir(root)
    return [sys.executable, "-m", "snakemake", *targets, *arguments, "--configfile", os.path.relpath(file), *cores]


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return the exit status: that of snakemake or of the audit, or 2 for a mistake in the call."""
    verb, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        if verb in ("-h", "--help") or verb == "run" and {"-h", "--help"} & set(rest):
            print(USAGE)
            return 0
        if verb == "run":
            if not rest or rest[0].startswith("-"):
                raise UserError("`pqag run` needs a study: a file, or a name in config/; see `pqag --help`")
            command = run(rest[0], rest[1:])
        elif verb == "audit":
            command = [sys.executable, str(clone("audit") / "scripts/audit.py"), *rest]
        else:
            raise UserError(f"pqag has no command {verb}: there are run and audit; see `pqag --help`")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return subprocess.run(command).returncode

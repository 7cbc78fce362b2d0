"""Audit the results of a study: ``python3 scripts/audit.py VERB …``, from the folder where the workflow ran. See docs/audit.md."""

import argparse
import os
import signal
import sys
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036, the library would end in a stack trace
    print(f"error: this needs Python 3.11 or later, not {sys.version.split()[0]}: run it with .venv/bin/python", file=sys.stderr)
    sys.exit(2)

from pqag import files
from pqag.audit import diff, html, verify, why
from pqag.errors import UserError
from pqag.study.file import printable

DEFAULT = Path("results/default")


def _verify(arguments: argparse.Namespace) -> int:
    faults, remarks, study = verify.verify(arguments.study, arguments.settings)
    for fault in faults:
        print(fault)
    for remedy in dict.fromkeys(fault.remedy for fault in faults):
        print(f"remedy: {remedy}")
    for remark in remarks:
        print(f"note: {remark}")
    checked = f"{len(study.made_by)} files of {len(study.records)} jobs"
    if faults:
        print(f"error: {len(faults)} fault{'s' * (len(faults) > 1)} in {checked} of {arguments.study}; first: {faults[0]}")
        return 1
    print(f"{checked} verified; sha256 of {arguments.study}/MANIFEST.sha256: {files.sha256(arguments.study / 'MANIFEST.sha256')}")
    return 0


def _why(arguments: argparse.Namespace) -> int:
    faulty = False
    for line in why.explain(arguments.study, arguments.what):
        faulty |= isinstance(line, verify.Fault)
        print(f"fault: {line}" if isinstance(line, verify.Fault) else line)
    return int(faulty)


def _diff(arguments: argparse.Namespace) -> int:
    found = list(diff.differences(arguments.study, arguments.other))
    same = all(line.startswith("note: ") for line in found)
    print("\n".join([*found, *["the two studies are the same"] * same]))
    return int(not same)


def _rerun(arguments: argparse.Namespace) -> int:
    from pqag.audit import rerun

    worst = 0.0
    for found in rerun.rerun(arguments.study, arguments.what, arguments.deep, arguments.cores):
        if isinstance(found, str):
            print(f"note: {found}")
        else:
            worst = max(worst, found.difference)
            print(f"{found.name}: {'the same bytes' if found.same else f'numbers differ by {found.difference:.2g} of the largest'}")
    if worst > arguments.tolerance:
        print(f"error: {arguments.what} differs by {worst:.2g}, more than the tolerance of {arguments.tolerance:g}")
        return 1
    return 0


def _export(arguments: argparse.Namespace) -> int:
    try:
        from pqag.audit import export
    except ImportError as error:
        raise UserError(f"export needs the package {error.name}, which `make setup` installs: run it with .venv/bin/python") from None
    folder, number, left_out = export.export(arguments.study, arguments.output, arguments.all, arguments.force)
    print(f"{folder}: {number} files{f'; {left_out} other files of the study left out, --all includes them' if left_out else ''}")
    return 0


def _html(arguments: argparse.Namespace) -> int:
    text, faults = html.page(arguments.study)
    output = arguments.output or arguments.study / "audit.html"
    files.write_text(output, text)
    print(f"{output}: {faults or 'no'} fault{'s' * (faults != 1)} in the study")
    return 0


def _study(text: str) -> Path:
    """Return the folder of a study given by its name or its folder."""
    named = Path("results", text)
    return Path(text) if "/" in text or (Path(text).is_dir() and not named.is_dir()) else named


def _study_of(what: str) -> Path:
    """Return the study that contains the file ``what``, or the default study."""
    parts = Path(os.path.abspath(what)).parts
    inside = "results" in parts[:-2] and Path(what).exists()
    return Path(*parts[: len(parts) - parts[::-1].index("results") + 1]) if inside else DEFAULT


def _go_home(arguments: argparse.Namespace) -> None:
    """Change to the folder where the workflow ran: paths in records are relative to it."""
    folder = Path(os.path.abspath(arguments.study))
    home = folder.parents[1] if folder.parent.name == "results" else Path.cwd()
    if not home.is_dir():
        return
    if Path(getattr(arguments, "what", "")).is_file():
        arguments.what = os.path.relpath(arguments.what, home)
    if home != Path.cwd() and getattr(arguments, "output", None):
        arguments.output = arguments.output.absolute()
    os.chdir(home)
    arguments.study = Path(os.path.relpath(folder))


class _Parser(argparse.ArgumentParser):
    """Reports a mistake in one sentence."""

    def error(self, message: str):
        raise UserError(f"{message}; see `{self.prog} --help`")


def main(arguments: list[str] | None = None) -> int:
    """Run one verb and return the exit status: 0 all is well, 1 a fault or a difference, 2 a mistake in the call."""
    parser = _Parser(prog="audit", description="Check and trace the results of a study.")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, run, words: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=words, description=words)
        added.set_defaults(run=run)
        return added

    def study(to: argparse.ArgumentParser, name: str = "study", **options) -> None:
        to.add_argument(name, type=_study, help="the study's folder or name (results/default)", **options)

    added = verb("verify", _verify, "Check every byte, the chain to the raw data, config and code.")
    study(added, nargs="?", default=DEFAULT)
    added.add_argument("--settings", metavar="SHA256", help="the sha256 of study.json according to the study that runs")
    added = verb("why", _why, "Show where a number or a file comes from.")
    added.add_argument("what", help="a cell (table1:aod/vgg16/24/ADC) or a file")
    study(added, "--study")
    added = verb("rerun", _rerun, "Compute a result again with the recorded code and settings in a clean worktree, and compare.")
    added.add_argument("what", help="a cell or a file, as for why")
    added.add_argument("--deep", action="store_true", help="compute everything between the fetched images and the result again")
    added.add_argument("--cores", type=int, default=1, help="jobs at once (1)")
    added.add_argument("--tolerance", type=float, default=1e-6, help="largest relative difference allowed (1e-6)")
    study(added, "--study")
    added = verb("diff", _diff, "Show what differs between two studies.")
    study(added)
    study(added, "other")
    added = verb("export", _export, "Write the study as a folder to deposit, a Workflow Run RO-Crate.")
    study(added, nargs="?", default=DEFAULT)
    added.add_argument("--output", type=Path, help="the folder to write (default: crate in the study)")
    added.add_argument("--all", action="store_true", help="also include images, weights, features and codebooks")
    added.add_argument("--force", action="store_true", help="export the study even if verify finds faults")
    added = verb("html", _html, "Write a page that shows the tables and, for every number, the chain back to the raw files.")
    study(added, nargs="?", default=DEFAULT)
    added.add_argument("--output", type=Path, help="the page to write (default: audit.html in the study)")
    try:
        parsed = parser.parse_args(arguments)
        if parsed.study is None:
            parsed.study = _study_of(parsed.what)
        if "other" not in parsed:
            _go_home(parsed)
        return parsed.run(parsed)
    except UserError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(f"error: this needs the package {error.name}, which `make setup` installs: run it with .venv/bin/python", file=sys.stderr)
        return 2


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # so that `audit why … | head` is no error
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # for characters that the locale cannot show
    sys.exit(main())

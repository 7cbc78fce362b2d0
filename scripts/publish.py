"""Copy results of a study to a folder that is kept with the project, `publish.py STUDY FOLDER FILE ...`; the rule `publish` calls it.

FILEs are the tables and figures to show; they come with their records, and the study is verified first. README.md of the folder shows them,
and names the commit and the digest that verified them. It has no record, but it is a function of the other files of the folder, and of the
cards in zoo/ (tested).
"""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pqag import files
from pqag.audit import verify
from pqag.errors import UserError
from pqag.job import records
from pqag.names import is_of_zoo, model_name
from pqag.study.scores import recipe


def commits(folder: Path) -> set[str]:
    """The commits at which the files with a record in ``folder`` were made; of changed files, with a note."""
    found = (records.read(path)["predicate"]["buildDefinition"]["internalParameters"]["git"] for path in folder.rglob(f"*{records.SUFFIX}"))
    return {f"{git['commit']}{' with changed files' * bool(git['dirty'])}" for git in found}


def page(folder: Path) -> str:
    """README.md of a published study, from its other files in ``folder``."""
    study, digest = files.read_json(folder / "study.json"), files.sha256(folder / "MANIFEST.sha256")
    count = len((folder / "MANIFEST.sha256").read_text(encoding="utf-8").splitlines())
    configs = " ".join(study["configfiles"])
    command = f"snakemake {'/'.join(folder.parts[-3:])} --cores 2 --configfile {configs}"
    lines = [
        f"# Results of the study {study['study']}",
        f"Written by `{command}` at commit {', '.join(sorted(commits(folder)))}. `python3 scripts/audit.py verify {study['study']}` found"
        f" no fault in the {count} files of the study; the sha256 of its list of files, MANIFEST.sha256, is `{digest}`.",
        "| victim | network | width | weights |\n|---|---|---|---|\n" + "\n".join(_victim(name, study) for name in study["models"]),
        " ".join(map(_images, study["datasets"], study["datasets"].values())) + f" Seeds: {', '.join(map(str, study['seeds']))}.",
    ]
    if (readings := folder / "ambiguity.md").exists():
        lines += ["## Readings of what the paper leaves open", "![mAP under each reading](ambiguity.png)"]
        lines.append(readings.read_text(encoding="utf-8").replace("\n## ", "\n### ").rstrip())
    if (beside := folder / "beside_paper.md").exists() and "|" in (text := beside.read_text(encoding="utf-8")):  # a cell of the paper
        lines += ["## Beside the paper", text.replace("\n## ", "\n### ").rstrip()]
        lines.append("![Differences from the paper, in points](beside_paper.png)")
    if (claims := folder / "claims.md").exists():
        lines += ["## The paper's claims", claims.read_text(encoding="utf-8").rstrip()]
    for path in sorted(folder.glob("tables/*.txt")):
        lines.append(f"## Table {path.stem.removeprefix('table')}\n\n```\n{path.read_text(encoding='utf-8').rstrip()}\n```")
    figures = [f"![{path.stem}](figures/{path.name})" for path in sorted(folder.glob("figures/*.png"))]
    lines += ["## Figures", *figures] if figures else []
    return "\n\n".join(lines) + "\n"


def _victim(name: str, study: Mapping[str, Any]) -> str:
    """The line of a victim in the table of them all."""
    model = study["models"][name]
    trained = model["weights"] or (f"those of {model['like']}" if model["like"] else f"{model['training']['epochs']} epochs")
    if is_of_zoo(trained) and (epochs := recipe(study, name).get("epochs")):  # code lengths can have different ones
        trained += f" ({epochs} epochs)"
    return f"| {model_name(name)} | {model['network']} | {model['width']:g} | {trained} |"


def _images(name: str, dataset: Mapping[str, Any]) -> str:
    """What the study made of a data set, in a sentence."""
    size = f"{dataset['image_size']} pixels on a side" if dataset["image_size"] else "their own size"
    return f"Images of {name} have {size}; {dataset['queries']} of them are queries."


def main(study: Path, folder: Path, shown: list[Path]) -> None:
    """Copy ``shown`` and their records from ``study`` to ``folder``; raises UserError where the study is not what its records say."""
    faults, _, found = verify.verify(study)
    if faults:
        raise UserError(f"{study} has {len(faults)} faults; the first is {faults[0]}")
    kept = [study / "study.json", study / "MANIFEST.sha256", *shown]
    for path in dict.fromkeys([*kept, *(Path(found.made_by[str(path)]) for path in kept)]):
        target = folder / path.relative_to(study)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    files.write_text(folder / "README.md", page(folder))


if __name__ == "__main__":
    try:
        main(Path("results", sys.argv[1]), Path(sys.argv[2]), [Path(name) for name in sys.argv[3:]])
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")

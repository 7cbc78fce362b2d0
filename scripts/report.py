"""Write the report of a study, `report.py STUDY.json REPORT.zip FILE ...`, by Snakemake's own reporter: of what is there, running nothing.

Called by the rule `report` from the folder that holds results/. The files are those to be shown: they are complete, while other jobs of
the run may be under way. It has no record: it tells how long jobs took, so it is another file each time.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from pqag import files

study, target, *shown = map(Path, sys.argv[1:])
root = Path(__file__).resolve().parents[1]
with tempfile.TemporaryDirectory() as folder:
    config = {key: value for key, value in files.read_json(study).items() if key not in ("configfiles", "overrides")}
    Path(folder, "config.json").write_text(json.dumps(config), encoding="utf-8")
    made = Path(folder, target.name)
    options = ["--configfile", f"{folder}/config.json", "--workflow-profile", "none", "--report", str(made), "--", *map(str, shown)]
    subprocess.run([sys.executable, "-m", "snakemake", "--snakefile", str(root / "Snakefile"), *options], check=True)
    files.write_bytes(target, made.read_bytes())

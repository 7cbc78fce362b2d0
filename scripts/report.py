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
from pqag.study.settings import as_config

study, target, *shown = map(Path, sys.argv[1:])
snakefile = Path(__file__).resolve().parents[1] / "Snakefile"
try:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(as_config(files.read_json(study))), encoding="utf-8")
        made = Path(folder, target.name)
        options = ["--configfile", f"{folder}/config.json", "--workflow-profile", "none", "--report", str(made), "--", *map(str, shown)]
        if subprocess.run([sys.executable, "-m", "snakemake", "--snakefile", str(snakefile), *options]).returncode:
            sys.exit("error: Snakemake's reporter fails, for the reason that stands above in this log")
        files.write_bytes(target, made.read_bytes())
except OSError as error:
    sys.exit(f"error: {target} cannot be written: {error}")

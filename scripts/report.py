"""Write the report of a study with Snakemake's reporter, `report.py STUDY.json REPORT.zip FILE ...`, from existing files; runs no job.

The rule `report` calls it from the folder that contains results/. FILEs are the files to show: they are complete, although other jobs of
the run may still be running. The report has no record: it contains run times, so it differs each time.
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

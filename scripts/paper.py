"""All tables and figures in one PDF."""

import shutil
import tempfile
from pathlib import Path

from pqag import files
from pqag.job.step import log, step
from pqag.show import paper

with step(snakemake) as settings, tempfile.TemporaryDirectory() as folder:
    for path in (*snakemake.input.tables, *snakemake.input.figures):
        shutil.copy(path, folder)
    tables, figures = ([Path(path).name for path in paths] for paths in (snakemake.input.tables, snakemake.input.figures))
    pdf, words = paper.set_in(folder, paper.document(settings["study"], settings["models"], tables, figures))
    log.info("%s", words)
    files.write_bytes(snakemake.output[0], pdf)

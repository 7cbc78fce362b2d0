"""List every file of the study in the format of ``sha256sum --check``, from the top folder of the workflow."""

from pqag import files
from pqag.job.step import step

with step(snakemake):
    files.write_text(snakemake.output[0], "".join(f"{files.sha256(path)}  {path}\n" for path in sorted(snakemake.input)))

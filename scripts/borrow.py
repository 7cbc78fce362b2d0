"""Copy the weights of another model of the study."""

from pathlib import Path

from pqag import files
from pqag.job.step import step

with step(snakemake):
    for source, target in (
        (snakemake.input.weights, snakemake.output.weights),
        (snakemake.input.history, snakemake.output.history),
    ):
        files.write_bytes(target, Path(source).read_bytes())

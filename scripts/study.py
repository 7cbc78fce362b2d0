"""Write down the study as it was understood: every key with its value, and the sha256 of the files it was read from."""

from pqag import files
from pqag.job.step import step

with step(snakemake) as settings:
    files.write_json(snakemake.output[0], {key: value for key, value in settings.items() if key != "code"})

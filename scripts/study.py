"""Write the resolved study: every key with its value, and the sha256 of the config files."""

from pqag import files
from pqag.job.step import step

with step(snakemake) as settings:
    files.write_json(snakemake.output[0], {key: value for key, value in settings.items() if key != "code"})

"""What queries made for one family of networks cost another, beside what they cost in the paper."""

from pqag import files
from pqag.job.step import step
from pqag.show import tables

with step(snakemake) as settings:
    rows = tables.tidy(map(files.read_json, snakemake.input.metrics), int(snakemake.wildcards.table.removeprefix("table")))
    drops = tables.drops_beside_paper(rows, settings["attacks"])
    files.write_text(snakemake.output[0], drops.to_csv(index=False, lineterminator="\n"))

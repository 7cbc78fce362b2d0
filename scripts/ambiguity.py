"""Put the readings of the paper side by side: as CSV, as a page, and as a picture."""

from pqag import files
from pqag.job.step import step
from pqag.show import ambiguity, figures

with step(snakemake):
    rows = ambiguity.tidy(map(files.read_json, snakemake.input.readings))
    files.write_text(snakemake.output.csv, rows.to_csv(index=False, lineterminator="\n"))
    files.write_text(snakemake.output.page, ambiguity.page(rows))
    figures.save(figures.readings(rows), snakemake.output.pdf, snakemake.output.png)

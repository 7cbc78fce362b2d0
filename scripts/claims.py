"""Hold what the text of the paper claims against the scores of a study: as CSV and as a page."""

from pqag import files
from pqag.job.step import step
from pqag.show import claims

with step(snakemake) as settings:
    numbers = [int(table.removeprefix("table")) for table, count in settings["scores"].items() for _ in range(count)]
    rows = claims.measured(zip(numbers, map(files.read_json, snakemake.input.metrics), strict=True), settings["counterparts"])
    files.write_text(snakemake.output.csv, rows.to_csv(index=False, lineterminator="\n"))
    files.write_text(snakemake.output.page, claims.page(rows))

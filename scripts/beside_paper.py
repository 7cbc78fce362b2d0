"""Write every cell of a study that the paper has too, beside the paper's: as CSV, as a page, and as a picture."""

import pandas as pd

from pqag import files, storage
from pqag.job.step import step
from pqag.show import beside_paper, figures

with step(snakemake):
    titles = storage.titles(snakemake.input.images)
    rows = pd.concat([pd.read_csv(path) for path in snakemake.input.tables], ignore_index=True)
    files.write_text(snakemake.output.csv, rows.to_csv(index=False, lineterminator="\n"))
    files.write_text(snakemake.output.page, beside_paper.page(rows, titles))
    panels = beside_paper.panels(rows, titles)
    figure = figures.differences({name: beside_paper.grid(part, "difference") for name, part in panels.items()})
    figures.save(figure, snakemake.output.pdf, snakemake.output.png)

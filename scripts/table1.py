"""Table 1: the white-box attacks, as tidy CSV, as LaTeX, as text, and beside the paper's numbers."""

import itertools
import textwrap

from pqag import storage, tables
from pqag.step import step

with step(snakemake) as settings:
    metrics = [storage.read_json(path) for path in snakemake.input.metrics]
    attributes = [storage.read_attributes(path) for path in snakemake.input.images]
    titles = {one["dataset"]: one["title"] for one in attributes}
    trained = itertools.product(settings["datasets"], settings["widths"], settings["seeds"])
    accuracies = tables.mean_accuracies(((dataset, model), path) for (dataset, model, _), path in zip(trained, snakemake.input.histories))

    rows = tables.tidy(metrics, table=1)
    layout = tables.in_paper_layout(rows, titles)
    caption = tables.caption("White-box attacks: mAP (%)", metrics, titles, settings["widths"], accuracies, settings["attacks"])
    storage.write_text(snakemake.output.csv, rows.to_csv(index=False, lineterminator="\n"))
    storage.write_text(snakemake.output.tex, tables.as_latex(layout, caption, "tab:white-box"))
    storage.write_text(snakemake.output.text, textwrap.fill(f"Table 1. {caption}", 100) + f"\n\n{tables.as_text(layout)}\n")
    compared = tables.against_paper(rows, settings["attacks"])
    storage.write_text(snakemake.output.paper, compared.to_csv(index=False, lineterminator="\n"))

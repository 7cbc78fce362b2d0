"""Table 1: the white-box attacks, as tidy CSV, as LaTeX, as text, and beside the paper's numbers."""

import textwrap

from pqag import storage, tables
from pqag.step import step

with step(snakemake):
    metrics = [storage.read_json(path) for path in snakemake.input.metrics]
    attributes = [storage.read_attributes(path) for path in snakemake.input.images]
    titles = {one["dataset"]: one["title"] for one in attributes}
    rows = tables.tidy(metrics, table=1)
    layout = tables.in_paper_layout(rows, titles)
    caption = tables.caption("White-box attacks: mAP (%)", metrics, titles)
    storage.write_text(snakemake.output.csv, rows.to_csv(index=False, lineterminator="\n"))
    storage.write_text(snakemake.output.tex, tables.as_latex(layout, caption, "tab:white-box"))
    storage.write_text(snakemake.output.text, textwrap.fill(f"Table 1. {caption}", 100) + f"\n\n{tables.as_text(layout)}\n")
    storage.write_text(snakemake.output.paper, tables.against_paper(rows).to_csv(index=False, lineterminator="\n"))

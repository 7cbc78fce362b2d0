"""Table 1: the white-box attacks, as tidy CSV, as LaTeX, as text, beside the paper's numbers, and its cells with their sources."""

import itertools
import textwrap

from pqag import cells, files, storage, tables
from pqag.step import step

with step(snakemake) as settings:
    metrics = {path: files.read_json(path) for path in snakemake.input.metrics}
    attributes = [storage.read_attributes(path) for path in snakemake.input.images]
    titles = {one["dataset"]: one["title"] for one in attributes}
    histories = {}
    for (dataset, model, _), path in zip(itertools.product(titles, settings["widths"], settings["seeds"]), snakemake.input.histories):
        histories.setdefault((dataset, model), []).append(path)

    table1 = cells.Cells("table1")
    rows = tables.tidy(metrics.values(), table=1)
    caption = tables.caption("White-box attacks: mAP (%)", table1, metrics, titles, histories, settings, snakemake.output.record)
    marked = tables.with_cells(rows, metrics, table1, settings["bits"], snakemake.output.record)
    layout = tables.in_paper_layout(marked, titles)
    files.write_text(snakemake.output.csv, rows.to_csv(index=False, lineterminator="\n"))
    files.write_text(snakemake.output.tex, tables.as_latex(layout, caption, "tab:white-box", table1))
    files.write_json(snakemake.output.cells, tables.listing(table1, [*titles.values(), *tables.MODEL_NAMES.values(), *settings["attacks"]]))
    text = f"{textwrap.fill(f'Table 1. {table1.plain(caption)}', 100)}\n\n{tables.as_text(layout, table1)}\n"
    files.write_text(snakemake.output.text, text)
    compared = tables.against_paper(rows, settings["attacks"])
    files.write_text(snakemake.output.paper, compared.to_csv(index=False, lineterminator="\n"))

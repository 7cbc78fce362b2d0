"""Plot a panel of a table of transfer as a heat map, from the rows of the table."""

import pandas as pd

from pqag import storage
from pqag.job.step import step
from pqag.names import attack_name
from pqag.show import figures, tables

with step(snakemake):
    titles = storage.titles(snakemake.input.images)
    rows, values, clean = tables.transfer_grid(pd.read_csv(snakemake.input.table), snakemake.wildcards.panel)
    first = rows.iloc[0]
    attack = attack_name(first["attack"])
    names = (list(dict.fromkeys(rows[end])) for end in ("source", "target"))
    figure = figures.heat_map(values, *names, f"{attack} queries, {titles[first['dataset']]}, {first['where']}", clean)
    figures.save(figure, snakemake.output.pdf, snakemake.output.png)

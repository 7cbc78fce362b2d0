"""Plot a panel of a table from its rows: of a table of transfer as a heat map, of Table 5 clean mAP against mAP under attack, of Table 6
mAP against the cost of attacks."""

import pandas as pd

from pqag import storage
from pqag.job.step import step
from pqag.names import attack_name
from pqag.show import figures, tables

with step(snakemake):
    titles = storage.titles(snakemake.input.images)
    table, panel = pd.read_csv(snakemake.input.table), snakemake.wildcards.panel
    if snakemake.wildcards.table == "table5":
        figure = figures.systems(tables.strongest(table[table["dataset"] == panel]), f"Systems, {titles[panel]}")
    elif snakemake.wildcards.table == "table6":
        own = table[(table["dataset"] == panel) & table["passes"].notna()]
        figure = figures.costs(own, f"Attacks, {titles[panel]}")
    else:
        rows, values, clean = tables.transfer_grid(table, panel)
        first = rows.iloc[0]
        attack = attack_name(first["attack"])
        names = (list(dict.fromkeys(rows[end])) for end in ("source", "target"))
        figure = figures.heat_map(values, *names, f"{attack} queries, {titles[first['dataset']]}, {first['where']}", clean)
    figures.save(figure, snakemake.output.pdf, snakemake.output.png)

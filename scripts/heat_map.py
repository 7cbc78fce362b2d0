"""A panel set of Table 3 or Table 4 as a heat map, from the rows of the table."""

import pandas as pd

from pqag import figures
from pqag.retrieval import DISTANCES
from pqag.step import step

with step(snakemake):
    rows = pd.read_csv(snakemake.input[0])
    rows = rows[rows["dataset"] == snakemake.wildcards.panel] if snakemake.wildcards.table == "table4" else rows
    if snakemake.wildcards.table == "table3":
        rows = rows[rows["dataset"] + "_" + rows["target_model"] == snakemake.wildcards.panel]
        of_source, of_target, name = "source_bits", "target_bits", "{} bits".format
    else:
        of_source, of_target, name = "source_model", "target_model", figures.MODEL_NAMES.get
    clean, attacked = (rows[(rows["attack"] == "clean") == is_clean] for is_clean in (True, False))
    sources, targets = (list(dict.fromkeys(attacked[key])) for key in (of_source, of_target))
    values, above = {}, {}
    for kind in DISTANCES:
        wide = attacked[attacked["distance"] == kind].pivot(index=of_source, columns=of_target, values="map")
        values[kind] = wide.loc[sources, targets].to_numpy()
        above[kind] = clean[clean["distance"] == kind].set_index(of_target)["map"].loc[targets].to_numpy()
    [attack] = attacked["attack"].unique()
    what = figures.ATTACK_NAMES.get(attack, attack)
    where = figures.MODEL_NAMES[rows["target_model"].iloc[0]] if of_source == "source_bits" else f"{rows['target_bits'].iloc[0]} bits"
    title = f"{what} queries, {rows['dataset'].iloc[0]}, {where}"
    figure = figures.heat_map(values, list(map(name, sources)), list(map(name, targets)), title, above)
    figures.save(figure, snakemake.output.pdf, snakemake.output.png)

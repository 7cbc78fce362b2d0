"""Plot mAP against the strength of each attack, as a figure and as CSV."""

import pandas as pd

from pqag import files, storage
from pqag.job.step import step
from pqag.names import model_name
from pqag.show import figures

with step(snakemake) as settings:
    sweeps = [files.read_json(path) for path in snakemake.input.sweeps]
    rows = pd.DataFrame([point for one in sweeps for point in one["points"]])
    shares = ["map", "ci_low", "ci_high"]
    rows[shares] *= 100
    files.write_text(snakemake.output.csv, rows.to_csv(index=False, lineterminator="\n"))
    floor, chance = (100 * sweeps[0][f"map_{name}"] for name in ("floor", "chance"))
    victim = f"{model_name(snakemake.wildcards.model)}, {settings['bits']} bits"
    dataset = storage.titles([snakemake.input.images])[snakemake.wildcards.dataset]
    title = f"{dataset}, {victim}, {sweeps[0]['queries']} queries"
    figures.save(figures.sweep(rows, floor, chance, title, settings["attacks"]), snakemake.output.pdf, snakemake.output.png)

"""Figure 5: precision-recall curves of the clean queries and of every attack on one victim, by SDC and by ADC."""

import numpy as np

from pqag import files, retrieval, storage
from pqag.job.step import step
from pqag.names import model_name
from pqag.show import figures

with step(snakemake) as settings:
    metrics = {one["attack"]: one for one in map(files.read_json, snakemake.input.metrics)}
    clean = metrics["clean"]
    dataset = storage.titles([snakemake.input.images])[snakemake.wildcards.dataset]
    for kind in retrieval.DISTANCES:
        curves = {attack: np.array(one[kind]["precision"]) for attack, one in metrics.items()}
        title = f"{dataset}, {model_name(snakemake.wildcards.model)}, {settings['bits']} bits, {kind}"
        figure = figures.precision_recall(curves, np.array(clean["recall"]), title, clean["map_chance"], settings["attacks"])
        figures.save(figure, *snakemake.output[kind])

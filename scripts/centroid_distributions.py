"""Figure 3: the centroid distribution of the first sub-vector before and after each attack, over all queries and for single queries."""

import numpy as np

from pqag import codebooks, files, quantizer, retrieval, storage
from pqag.job.step import step
from pqag.names import model_name
from pqag.show import figures

with step(snakemake) as settings:
    codebook = codebooks.read(snakemake.input.codebook)
    features = {"clean": storage.read_hdf5(snakemake.input.clean, "features")}
    features |= {name: storage.read_hdf5(path, "query/features") for name, path in zip(settings["attacks"], snakemake.input.attacked)}
    first = {name: quantizer.soft_assignment(codebook.rotated(one), codebook.codewords)[:, 0] for name, [one] in features.items()}
    before, after = (files.read_json(path)["ADC"]["average_precision"] for path in snakemake.input.metrics)
    chosen = retrieval.at_quantiles_of_loss(before, after)
    shown = {name: np.stack([quantizer.mean_by_rank(p, first["clean"]), *p[chosen]]) for name, p in first.items()}
    singles = [f"query {q} ({quantile:.0%})" for q, quantile in zip(chosen, retrieval.QUANTILES)]
    dataset = storage.titles([snakemake.input.images])[snakemake.wildcards.dataset]
    title = f"{dataset}, {model_name(snakemake.wildcards.model)}, {settings['bits']} bits, first sub-vector"
    titles = [f"mean of {len(first['clean'])} queries", *singles]
    figure = figures.centroid_distributions(shown.pop("clean"), shown, titles, title, settings["attacks"])
    figures.save(figure, snakemake.output.pdf, snakemake.output.png)

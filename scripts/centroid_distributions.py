"""Figure 3: the centroid distribution of the first sub-vector before and after each attack, over all queries and of single ones."""

import numpy as np

from pqag import figures, files, quantizer, retrieval, storage
from pqag.step import step

QUANTILES = (0.25, 0.5, 0.75)

with step(snakemake) as settings:
    [codewords] = storage.read_hdf5(snakemake.input.codebook, "codewords")

    def distribution(path):
        [features] = storage.read_hdf5(path, "features")
        return quantizer.soft_assignment(features, codewords)[:, 0]

    clean = distribution(snakemake.input.clean)
    attacked = {name: distribution(path) for name, path in zip(settings["attacks"], snakemake.input.attacked)}
    before, after = (files.read_json(path)["ADC"]["average_precision"] for path in snakemake.input.metrics)
    chosen = retrieval.at_quantiles_of_loss(before, after, QUANTILES)
    # The mean of each rank and not of each codeword, since every query has another peak.
    order = np.argsort(-clean, axis=1, kind="stable")

    def panels(p):
        return np.stack([np.take_along_axis(p, order, 1).mean(0), *p[chosen]])

    titles = [f"mean of {len(clean)} queries", *(f"query {q} ({quantile:.0%})" for q, quantile in zip(chosen, QUANTILES))]
    title = f"{snakemake.wildcards.dataset}, {figures.MODEL_NAMES[snakemake.wildcards.model]}, {settings['bits']} bits, first sub-vector"
    figure = figures.centroid_distributions(
        panels(clean), {name: panels(p) for name, p in attacked.items()}, titles, title, settings["attacks"]
    )
    figures.save(figure, snakemake.output.pdf, snakemake.output.png)

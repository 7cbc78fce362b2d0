"""Figure 1: one query, its perturbation, the adversarial query, and what both retrieve."""

from pqag import codebooks, files, retrieval, storage
from pqag.job.step import step
from pqag.names import attack_name, model_name
from pqag.show import figures

COUNT = 5
AMPLIFICATION = 10

with step(snakemake) as settings:
    gallery, gallery_labels, queries, labels = storage.read_hdf5(
        snakemake.input.images, "database/images", "database/labels", "query/images", "query/labels"
    )
    adversarial, attacked = storage.read_hdf5(snakemake.input.attacked[0], "query/images", "query/features")
    [clean] = storage.read_hdf5(snakemake.input.clean, "features")
    codebook = codebooks.read(snakemake.input.codebook)
    before, after = (files.read_json(path)["ADC"]["average_precision"] for path in snakemake.input.metrics)
    [q] = retrieval.at_quantiles_of_loss(before, after, [0.5])
    shown = [queries[q], adversarial[q]]
    for features in (clean, attacked):
        [items] = codebooks.nearest(codebook, features[[q]], COUNT, "ADC")
        shown += [gallery[items], (gallery_labels[items] & labels[q]).any(1)]
    attack = attack_name(settings["attack"])
    victim = f"{model_name(snakemake.wildcards.model)}, {settings['bits']} bits"
    dataset = storage.titles([snakemake.input.images])[snakemake.wildcards.dataset]
    title = f"{attack} on {victim}, {dataset}, query {q} (50%)"
    figures.save(figures.perturbation(*shown, AMPLIFICATION, title), snakemake.output.pdf, snakemake.output.png)

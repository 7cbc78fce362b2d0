"""Figure 4: what queries retrieve first, clean and after each attack."""

from pqag import codebooks, files, retrieval, storage
from pqag.job.step import step
from pqag.names import attack_name, model_name
from pqag.show import figures

COUNT = 10

with step(snakemake) as settings:
    gallery, gallery_labels, queries, labels = storage.read_hdf5(
        snakemake.input.images, "database/images", "database/labels", "query/images", "query/labels"
    )
    codebook = codebooks.read(snakemake.input.codebook)
    before, after = (files.read_json(path)["ADC"]["average_precision"] for path in snakemake.input.metrics)
    chosen = retrieval.at_quantiles_of_loss(before, after)
    groups = [(f"query {q} ({quantile:.0%})", []) for q, quantile in zip(chosen, retrieval.QUANTILES)]
    sets = {"clean": (queries, *storage.read_hdf5(snakemake.input.clean, "features"))}
    for name, path in zip(settings["attacks"], snakemake.input.attacked):
        sets[name] = storage.read_hdf5(path, "query/images", "query/features")
    for name, (images, features) in sets.items():
        retrieved = codebooks.nearest(codebook, features[chosen], COUNT, "ADC")
        for (_, rows), q, items in zip(groups, chosen, retrieved):
            relevant = (gallery_labels[items] & labels[q]).any(1)
            rows.append((attack_name(name), images[q], gallery[items], relevant))
    dataset = storage.titles([snakemake.input.images])[snakemake.wildcards.dataset]
    title = f"{dataset}, {model_name(snakemake.wildcards.model)}, {settings['bits']} bits, ADC"
    figures.save(figures.retrieval_sheet(groups, title), snakemake.output.pdf, snakemake.output.png)

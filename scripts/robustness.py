"""Jointly trained networks beside the same networks pretrained: are they less robust, as the paper says?"""

from pqag import files
from pqag.job.step import step
from pqag.show import tables

with step(snakemake) as settings:
    names = tables.network_names({model: settings["networks"][model] for model in settings["counterparts"]})
    metrics = tables.renamed({path: files.read_json(path) for path in snakemake.input.metrics}, names)
    joint = tables.tidy(metrics.values(), int(snakemake.wildcards.table.removeprefix("table")))
    pretrained = tables.tidy(map(files.read_json, snakemake.input.pretrained), 1)
    pairs = {names[model]: other for model, other in settings["counterparts"].items() if other}
    compared = tables.robustness(joint, pretrained, pairs, settings["attacks"])
    files.write_text(snakemake.output[0], compared.to_csv(index=False, lineterminator="\n"))

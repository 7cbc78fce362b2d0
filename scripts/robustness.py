"""Jointly trained networks beside the same networks pretrained: are they less robust, as the paper says?"""

from pqag import files
from pqag.job.step import step
from pqag.show import tables

with step(snakemake) as settings:
    counterparts = settings["counterparts"]
    of_paper = tables.in_the_paper(settings)
    names = tables.network_names(of_paper)
    joint = tables.renamed({path: files.read_json(path) for path in snakemake.input.metrics}, names).values()
    pretrained = [files.read_json(path) for path in snakemake.input.pretrained]
    pairs = {names[model]: other for model, other in counterparts.items() if other}
    networks = {names[model]: network for model, network in of_paper.items()}

    number = int(snakemake.wildcards.table.removeprefix("table"))

    def compared(seeds: list[int]):
        mine, theirs = ([one for one in metrics if one["seed"] in seeds] for metrics in (joint, pretrained))
        return tables.robustness(tables.tidy(mine, number), tables.tidy(theirs, 1), pairs, settings["attacks"], networks)

    found = tables.with_spread(compared(settings["seeds"]), [compared([seed]) for seed in settings["seeds"]])
    files.write_text(snakemake.output[0], found.to_csv(index=False, lineterminator="\n"))

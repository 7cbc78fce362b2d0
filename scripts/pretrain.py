"""Train one backbone; checkpointed every epoch, so that a killed job goes on where it was."""

from pqag import checkpoints, files, training, training_run
from pqag.devices import torch_device
from pqag.job.step import progress, step

with step(snakemake) as settings:
    model, seed = snakemake.wildcards.model, int(snakemake.wildcards.seed)
    recipe = training_run.recipe_of(settings)
    data = training_run.read(snakemake.input[0], torch_device(settings))
    network = training_run.new_network(settings, data, seed)
    objective = training.classification(network, recipe, data.multilabel)
    with training_run.resumable(snakemake.output.weights, [model, seed, settings], data, recipe) as run:
        with progress(run.epochs * run.batches, f"training {model}", len(run.rows) * run.batches) as bar:
            for epoch, checkpoint in training.train(network, objective, data, recipe, seed, run.checkpoint, bar.update):
                bar.set_postfix_str(run.save(epoch, checkpoint))
        files.write_text(snakemake.output.history, run.history())
        checkpoints.save_network(snakemake.output.weights, network, settings["network"], settings["width"], network.head.out_features)

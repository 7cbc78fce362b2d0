"""Train one backbone; checkpointed every epoch, so that a killed job goes on where it was."""

from functools import partial

from pqag import checkpoints, training, training_run
from pqag.devices import torch_device
from pqag.job.step import step

with step(snakemake) as settings:
    model, seed = snakemake.wildcards.model, int(snakemake.wildcards.seed)
    recipe = training_run.recipe_of(settings)
    data = training_run.read(snakemake.input[0], torch_device(settings))
    network = training_run.new_network(settings, data, seed)
    objective = training.classification(network, recipe, data.multilabel)
    start = partial(training.train, network, objective, data.images, data.labels, data.test_images, data.test_labels, recipe, seed)
    weights = snakemake.output.weights
    training_run.finish(start, weights, snakemake.output.history, [model, seed, settings], data, recipe)
    checkpoints.save_network(weights, network, settings["network"], settings["width"], network.head.out_features)
    training_run.checkpoint_of(weights).unlink()

"""Train a network of the user's, as ``pretrain.py`` trains ours; a step of its own, so that no training of ours depends on its checks."""

import torch

from pqag import checkpoints, files, networks, training, training_run, user_code, victims
from pqag.devices import torch_device
from pqag.job.step import came_from, progress, step

with step(snakemake) as settings:
    model, seed, name = snakemake.wildcards.model, int(snakemake.wildcards.seed), settings["network"]
    recipe = training_run.recipe_of(settings)
    data = training_run.read(snakemake.input[0], torch_device(settings))
    few, classes = networks.pixels(torch.from_numpy(data.images[:4]), data.image_size), data.labels.shape[1]
    torch.manual_seed(seed)
    network = victims.to_train(user_code.function(name, settings["brought"][name]), name, few, classes).to(data.labels.device)
    came_from(name, settings["brought"][name])
    objective = training.classification(network, recipe, data.multilabel)
    with training_run.resumable(snakemake.output.weights, [model, seed, settings], data, recipe) as run:
        with progress(run.epochs * run.batches, f"training {model}", len(run.rows) * run.batches) as bar:
            for epoch, checkpoint in training.train(network, objective, data, recipe, seed, run.checkpoint, bar.update):
                bar.set_postfix_str(run.save(epoch, checkpoint))
        files.write_text(snakemake.output.history, run.history())
        checkpoints.save_network(snakemake.output.weights, network, name, settings["width"], classes)

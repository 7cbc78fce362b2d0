"""Train one backbone together with its codebook; checkpointed every epoch, so that a killed job goes on where it was."""

from dataclasses import fields
from functools import partial

import faiss

from pqag import checkpoints, files, pqn, storage, training, training_run
from pqag.devices import torch_device
from pqag.errors import UserError
from pqag.job.step import progress, step

with step(snakemake) as settings:
    faiss.omp_set_num_threads(1)  # sums over another number of threads differ in their last bits
    model, bits, seed = snakemake.wildcards.model, int(snakemake.wildcards.bits), int(snakemake.wildcards.seed)
    recipe = training_run.recipe_of(settings)
    joint = pqn.Joint(**{field.name: settings[field.name] for field in fields(pqn.Joint)})
    data = training_run.read(snakemake.input[0], torch_device(settings))
    if len(data.images) < joint.codewords:
        need = f"{bits} bits in {joint.subspaces} sub-spaces need {joint.codewords} codewords"
        raise UserError(f"bits: {need}, more than the {len(data.images)} training images that those of {model} are learned from")
    network = pqn.ProductQuantizationNetwork(training_run.new_network(settings, data, seed), joint).to(data.labels.device)
    if network.begins_at(recipe) == recipe.epochs:
        raise UserError(f"pqn.warm_up takes the only epoch of {model}, which leaves none for its codebook: set it to 0, or train longer")
    objective = network.objective(recipe, data.multilabel)
    begin = partial(network.begin, recipe=recipe, images=data.images, seed=seed)
    backbone, title = network.backbone, f"{model}, {bits} bits"
    with training_run.resumable(snakemake.output.weights, [title, seed, settings], data, recipe) as run:
        with progress(run.epochs * run.batches, f"training {title}", len(run.rows) * run.batches) as bar:
            for epoch, checkpoint in training.train(network, objective, data, recipe, seed, run.checkpoint, bar.update, begin):
                bar.set_postfix_str(run.save(epoch, checkpoint))
        files.write_text(snakemake.output.history, run.history())
        storage.write_hdf5(snakemake.output.codewords, {"codewords": network.codewords().detach().cpu().numpy()})
        checkpoints.save_network(snakemake.output.weights, backbone, settings["network"], settings["width"], backbone.head.out_features)

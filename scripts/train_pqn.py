"""Train one backbone together with its codebook; checkpointed every epoch, so that a killed job goes on where it was."""

from dataclasses import fields
from functools import partial

import faiss

from pqag import checkpoints, pqn, storage, training, training_run
from pqag.devices import torch_device
from pqag.errors import UserError
from pqag.job.step import step

with step(snakemake) as settings:
    faiss.omp_set_num_threads(1)  # sums over another number of threads differ in their last bits
    model, bits, seed = snakemake.wildcards.model, int(snakemake.wildcards.bits), int(snakemake.wildcards.seed)
    recipe = training_run.recipe_of(settings)
    joint = pqn.Joint(**{field.name: settings[field.name] for field in fields(pqn.Joint)})
    data = training_run.read(snakemake.input[0], torch_device(settings))
    if len(data.images) < joint.codewords:
        need = f"{bits} bits in {joint.subspaces} sub-spaces need {joint.codewords} codewords"
        raise UserError(f"bits: {need}, more than the {len(data.images)} training images that those of {model} are learned from")
    network = pqn.ProductQuantizationNetwork(training_run.new_network(settings, data, seed), joint).to(data.images.device)
    objective = network.objective(recipe, data.multilabel)
    begin = partial(network.begin, recipe=recipe, images=data.images, seed=seed)
    start = partial(
        training.train, network, objective, data.images, data.labels, data.test_images, data.test_labels, recipe, seed, on_epoch=begin
    )
    weights, backbone = snakemake.output.weights, network.backbone
    training_run.finish(start, weights, snakemake.output.history, [f"{model}, {bits} bits", seed, settings], data, recipe)
    storage.write_hdf5(snakemake.output.codewords, {"codewords": network.codewords().detach().cpu().numpy()})
    checkpoints.save_network(weights, backbone, settings["network"], settings["width"], backbone.head.out_features)
    training_run.checkpoint_of(weights).unlink()

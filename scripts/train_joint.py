"""Train one network together with its codebook; checkpointed every epoch, so that a killed job goes on where it was."""

from functools import partial

import faiss

from pqag import checkpoints, codebooks, files, joint, names, storage, training, training_run
from pqag.devices import torch_device
from pqag.errors import UserError
from pqag.job.step import progress, step

with step(snakemake) as settings:
    faiss.omp_set_num_threads(1)  # sums over another number of threads differ in their last bits
    model, bits, seed = snakemake.wildcards.model, int(snakemake.wildcards.bits), int(snakemake.wildcards.seed)
    recipe, start = training_run.recipe_of(settings), snakemake.input.get("start") or None
    data = training_run.read(snakemake.input.images, torch_device(settings))
    network = joint.network(settings, data, bits, seed, start)
    if settings["method"] == names.PQN and network.begins_at(recipe) == recipe.epochs:
        raise UserError(f"pqn.warm_up takes the only epoch of {model}, which leaves none for its codebook: set it to 0, or train longer")
    objective = network.objective(recipe, data.multilabel)
    begin = partial(network.begin, recipe=recipe, images=data.images, seed=seed, image_size=data.image_size)
    title, begun = f"{model}, {bits} bits", [files.sha256(start)] if start else []
    with training_run.resumable(snakemake.output.weights, [title, seed, settings, *begun], data, recipe) as run:
        with progress(run.epochs * run.batches, f"training {title}", len(run.rows) * run.batches) as bar:
            for epoch, checkpoint in training.train(network, objective, data, recipe, seed, run.checkpoint, bar.update, begin):
                bar.set_postfix_str(run.save(epoch, checkpoint))
        begin(recipe.epochs)
        files.write_text(snakemake.output.history, run.history())
        words = network.codewords().detach().cpu().numpy()
        trained = codebooks.Codebook(words, None, None, None, network.encoder, network.logits)
        storage.write_hdf5(snakemake.output.codewords, *codebooks.arrays(trained))
        trunk = network.backbone if settings["method"] == names.PQN else network.backbone.trunk
        classes = getattr(getattr(trunk, "head", None), "out_features", None)
        checkpoints.save_network(snakemake.output.weights, network.backbone, settings["network"], settings["width"], classes)

"""Adopt a network with weights of the user, or with weights and a codebook of the zoo: check it, and measure its accuracy if it classifies
the images."""

from pathlib import Path

from pqag import checkpoints, files, names, networks, storage, training, training_run, user_code, victims
from pqag.devices import torch_device
from pqag.errors import UserError
from pqag.job.step import came_from, log, step

with step(snakemake) as settings:
    device = torch_device(settings)
    name, weights, digests = settings["network"], settings["weights"], settings.get("brought", {})
    images, labels = next(training_run.held_out(snakemake.input[0], device))
    downloaded, path = None, weights
    if names.is_of_zoo(weights or ""):
        path = str(user_code.file_of(weights))
        card = Path(path).with_name("card.json")  # which has the record of the training
        came_from(f"{weights.partition('/')[0]}/card.json", files.sha256(card))
    if "codewords" in settings:
        network, codewords = victims.joint(name, settings["width"], path, images.shape[-1])
        if codewords.shape[:2] != (settings["subspaces"], settings["codewords"]):
            study = f"{settings['codewords']} codewords in {settings['subspaces']} sub-spaces"
            raise UserError(f"{weights} has {codewords.shape[1]} codewords in {codewords.shape[0]} sub-spaces, but the study needs {study}")
        storage.write_hdf5(snakemake.output.codewords, {"codewords": codewords})
    elif names.is_torchvision(name):
        network, downloaded = victims.of_torchvision(name, path)
    elif names.is_entry_point(name):
        network = victims.by_user(user_code.function(name, digests[name]), name)
        if path:
            victims.put_weights(network, victims.read_weights(path, name, settings["width"]), path, name)
    else:
        network = victims.ours(name, settings["width"], path, images.shape[-1])
    for brought, digest in digests.items():
        came_from(brought, digest)
    if downloaded:
        came_from(f"{name} {weights}", files.sha256(downloaded))

    few = networks.pixels(images[:4])
    size = victims.check(network.to(device), few, name)
    classes = victims.classes_of(network, few)
    log.info("features of %d numbers, %s classes", size, classes)
    rows = ["test_accuracy"]
    # Where test images have classes of their own, a network that was trained on the others is no classifier of them.
    if classes == labels.shape[1] and "unseen" not in storage.read_attributes(snakemake.input[0]):
        rows.append(repr(training.accuracy(network, training_run.held_out(snakemake.input[0], device))))
    files.write_text(snakemake.output.history, "\n".join([*rows, ""]))
    checkpoints.save_network(snakemake.output.weights, network.cpu(), name, settings["width"], classes)

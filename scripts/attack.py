"""Make adversarial queries against one victim, their features on it, and a report of the attack's health."""

from pqag import attacks, checkpoints, codebooks, files, networks, storage
from pqag.step import log, progress, step, torch_device

BATCH = 250

with step(snakemake) as settings:
    device = torch_device(settings)
    images, labels, ids = storage.read_hdf5(snakemake.input.images, "query/images", "query/labels", "query/ids")
    codebook = codebooks.read(snakemake.input.codebook)
    network = checkpoints.load_network(snakemake.input.weights, settings.get("brought"))
    attack = attacks.from_settings(settings)
    steps = -(-len(images) // BATCH) * attack.iterations
    with progress(steps, f"{snakemake.wildcards.attack} on {snakemake.wildcards.model}") as bar:
        adversarial, health = attacks.attack(
            network, codebook.codewords, images, ids, attack, int(snakemake.wildcards.seed), device, BATCH, bar.update, codebook.rotation
        )
    log.info("%s", health)
    files.write_json(snakemake.output.health, health)
    features = networks.extract(network, adversarial, device)
    arrays = {"images": adversarial, "features": features, "labels": labels, "ids": ids}
    storage.write_hdf5(snakemake.output.images, {f"query/{name}": array for name, array in arrays.items()})

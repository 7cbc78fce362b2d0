"""The figure of attacks that keep no ball: mAP against the mean l2 norm of the change, on one data set."""

import numpy as np
import pandas as pd

from pqag import files, retrieval, storage
from pqag.job.step import step
from pqag.show import distortion, figures

with step(snakemake) as settings:
    given, curves = snakemake.input, []
    images, ids = storage.read_hdf5(given.images, "query/images", "query/ids")
    clean = {one["target_model"]: one for one in map(files.read_json, given.clean)}
    for path, one in zip(given.attacked, map(files.read_json, given.metrics), strict=True):
        changed, own = storage.read_hdf5(path, "query/images", "query/ids")
        if not np.array_equal(own, ids[: len(own)]):
            raise ValueError(f"{path} has other queries than the first {len(own)} of {given.images}")
        sizes = distortion.l2(changed, images[: len(own)])
        for kind in retrieval.DISTANCES:
            before = clean[one["target_model"]][kind]["average_precision"][: len(own)]
            curve = distortion.curve(sizes, before, one[kind]["average_precision"])
            curves.append(curve.assign(model=one["target_model"], attack=one["attack"], distance=kind))
    rows = pd.concat(curves, ignore_index=True)[["model", "attack", "distance", "attacked", "queries", "l2_max", "l2_mean", "map"]]
    files.write_text(snakemake.output.csv, rows.to_csv(index=False, lineterminator="\n"))
    title = f"Smallest changes, {storage.titles([given.images])[snakemake.wildcards.dataset]}, {settings['bits']} bits"
    figures.save(figures.distortion(rows, title), snakemake.output.pdf, snakemake.output.png)

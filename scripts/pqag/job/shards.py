"""How a large job is split over several: a shard is a whole number of batches, so that no bit of a result depends on how many there are.

Each shard makes files of its own, which the job that joins them reads and Snakemake then deletes. Needs only the standard library.
"""

import re
from collections.abc import Mapping

from pqag.names import BATCH_SIZES

#: In the names of a shard's files.
_NAME = re.compile(r"\.shard\d+of\d+\.[^/]+$")


def is_shard(path: str) -> bool:
    """Whether a file is one of a shard, by its name."""
    return _NAME.search(path) is not None


def number(rule: str, wanted: int, count: int | None) -> int:
    """Shards of a job of ``rule`` on ``count`` images: ``wanted``, or as many as there are batches; None where nobody has counted yet."""
    return wanted if count is None else min(wanted, -(-count // BATCH_SIZES[rule]))


def in_words(wildcards: Mapping[str, str]) -> str:
    """Which shard a job is, to be added to a title; nothing for a job that is not split."""
    return f", shard {wildcards['shard']} of {wildcards['shards']}" if wildcards.get("shard") else ""

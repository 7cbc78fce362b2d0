"""How a large job is split over several: a shard is a whole number of batches, so that no bit of a result depends on how many there are.

What a shard made is a file of its own, which the job that joins them looks at and Snakemake then deletes. Needs the standard library alone.
"""

import re
from collections.abc import Mapping

#: Images at once, of each rule that can be split. Results depend on it in their last bits.
BATCH = {"attack": 250, "extract": 500}

#: In the names of a shard's files.
_NAME = re.compile(r"\.shard\d+of\d+\.[^/]+$")


def is_shard(path: str) -> bool:
    """Whether a file is one of a shard, by its name."""
    return _NAME.search(path) is not None


def number(rule: str, wanted: int, count: int | None) -> int:
    """Shards of a job of ``rule`` on ``count`` images: ``wanted``, or as many as there are batches; None where nobody has counted yet."""
    return wanted if count is None else min(wanted, -(-count // BATCH[rule]))


def share(rule: str, count: int, wildcards: Mapping[str, str]) -> slice:
    """The part of ``count`` images that a job does: with the wildcards ``shard``, from 1 on, and ``shards`` its batches, else all of them.

    The batches go to the shards in order and as evenly as may be; a shard is empty where there are more shards than batches.
    """
    if not wildcards.get("shard"):
        return slice(0, count)
    shard, shards, batches = int(wildcards["shard"]), int(wildcards["shards"]), -(-count // BATCH[rule])
    begin, end = (min(count, batches * i // shards * BATCH[rule]) for i in (shard - 1, shard))
    return slice(begin, end)


def in_words(wildcards: Mapping[str, str]) -> str:
    """Which shard a job is, to be added to a title; nothing for a job that is not split."""
    return f", shard {wildcards['shard']} of {wildcards['shards']}" if wildcards.get("shard") else ""

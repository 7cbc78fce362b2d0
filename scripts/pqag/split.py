"""Splits a data set into training, database and query images, and assigns images to shards."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pqag.errors import UserError
from pqag.names import BATCH_SIZES


@dataclass(frozen=True)
class Split:
    """The three parts of a study as sorted row numbers of ``Raw``, int64 (N,)."""

    train: np.ndarray
    database: np.ndarray
    query: np.ndarray


def split(
    official: int,
    total: int,
    train: int | None,
    database: int | None,
    queries: int,
    seed: int,
    database_from: str = "test",
    validation: bool = False,
) -> Split:
    """Draw queries and database without overlap from the test images, and training images, by ``seed``.

    PQ-AG, Datasets: "the test set is randomly divided into 9000 images as a database and 1000 images as queries". Of the ``total`` images
    the first ``official`` are training images; ``train`` of these are used for training (None: all). The database is drawn from the test
    images that are no queries, or, with ``database_from`` "all", from those and all training images (None: all of them). With
    ``validation`` queries and database are drawn from the training images, which are then not used for training, and the test images are
    not used at all. Raises UserError if the request exceeds the number of images.
    """
    if validation:
        return _validation(official, train, database or 0, queries, seed)
    tests = total - official
    if train is not None and train > official:
        raise UserError(f"{train} training images were requested, but there are {official}")
    drawn = official + np.random.default_rng(seed).permutation(tests)
    query, rest = drawn[:queries], drawn[queries:]
    if database_from == "all":
        rest = np.random.default_rng([seed, 2]).permutation(np.concatenate([rest, np.arange(official)]))
    wanted = f"{queries} queries and {'some' if database is None else database} database images were requested"
    if queries > tests or len(rest) < (database or 1):
        raise UserError(f"{wanted}, but there are {tests} test images" + f" and {official} training images" * (database_from == "all"))
    train_ids = np.arange(official)
    if train is not None:
        train_ids = np.random.default_rng([seed, 1]).permutation(official)[:train]
    parts = Split(*(np.sort(ids).astype(np.int64) for ids in (train_ids, rest[:database], query)))
    assert not np.isin(parts.query, np.concatenate([parts.train, parts.database])).any(), "queries must be new"
    return parts


def _validation(official: int, train: int | None, database: int, queries: int, seed: int) -> Split:
    held = database + queries
    if held + (train or 1) > official:
        wanted = f"{queries} queries, {database} database and {train or 'some'} training images were requested for validation"
        raise UserError(f"{wanted}, but there are {official} training images")
    drawn = np.random.default_rng([seed, 3]).permutation(official)
    rest = drawn[held:] if train is None else drawn[held : held + train]
    return Split(*(np.sort(ids).astype(np.int64) for ids in (rest, drawn[queries:held], drawn[:queries])))


def copies(some: np.ndarray, others: np.ndarray, hashes: np.ndarray) -> list[tuple[int, int]]:
    """Return the rows of ``some`` with the hash of another row of ``others``, each with the first such row; ``hashes`` are those of all."""
    where: dict[bytes, list[int]] = {}
    for row in others.tolist():
        where.setdefault(hashes[row], []).append(row)
    pairs = ((row, next((other for other in where.get(hashes[row], ()) if other != row), None)) for row in some.tolist())
    return [(row, other) for row, other in pairs if other is not None]


def share(rule: str, count: int, wildcards: Mapping[str, str]) -> slice:
    """Return the part of ``count`` images for a job: its batches if it has the wildcards ``shard`` (from 1) and ``shards``, else all.

    The batches go to the shards in order and as evenly as possible; a shard is empty if there are more shards than batches.
    """
    if not wildcards.get("shard"):
        return slice(0, count)
    shard, shards, batches = int(wildcards["shard"]), int(wildcards["shards"]), -(-count // BATCH_SIZES[rule])
    begin, end = (min(count, batches * i // shards * BATCH_SIZES[rule]) for i in (shard - 1, shard))
    return slice(begin, end)

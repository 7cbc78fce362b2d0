"""Reads and writes codebooks: the codewords of a victim, the rotation applied before them, and the codes of its database."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pqag import storage


@dataclass(frozen=True)
class Codebook:
    """The codebook of a victim.

    codewords: float32 (M, K, D/M). codes: codes of the database, unsigned (N, M). ids: ids of its images, (N,). rotation: orthogonal,
    float32 (D, D), or None if features are not rotated.
    """

    codewords: np.ndarray
    codes: np.ndarray
    ids: np.ndarray
    rotation: np.ndarray | None = None

    def rotated(self, features: np.ndarray) -> np.ndarray:
        """Return features (N, D) in the space of the codewords, (N, D). Call this before any comparison with codewords."""
        return features if self.rotation is None else features @ self.rotation.T


def read(path: str | Path) -> Codebook:
    """Read a codebook written by ``write``."""
    optional = ["rotation"] if "rotation" in storage.dataset_names(path) else []
    return Codebook(*storage.read_hdf5(path, "codewords", "codes", "ids", *optional))


def write(path: str | Path, codebook: Codebook, objective: float, empty: list[int]) -> None:
    """Write a codebook and the quality of its fit, see ``pqag.quantizer.Fit``."""
    arrays = {"codewords": codebook.codewords, "codes": codebook.codes, "ids": codebook.ids}
    if codebook.rotation is not None:
        arrays["rotation"] = codebook.rotation
    storage.write_hdf5(path, arrays, {"objective": objective, "empty": empty})

"""Codebooks as files: the codewords of a victim, the rotation that comes before them, and the codes of its database."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pqag import storage


@dataclass(frozen=True)
class Codebook:
    """What a victim quantizes by.

    codewords: float32 (M, K, D/M). codes: of the database, unsigned (N, M). ids: of its images, (N,). rotation: orthogonal, float32 (D, D),
    or None where features are cut into sub-vectors as they are.
    """

    codewords: np.ndarray
    codes: np.ndarray
    ids: np.ndarray
    rotation: np.ndarray | None = None

    def rotated(self, features: np.ndarray) -> np.ndarray:
        """Features (N, D) in the space of the codewords, (N, D): whatever is compared with codewords goes through here."""
        return features if self.rotation is None else features @ self.rotation.T


def read(path: str | Path) -> Codebook:
    """The codebook that ``write`` wrote."""
    optional = ["rotation"] if "rotation" in storage.dataset_names(path) else []
    return Codebook(*storage.read_hdf5(path, "codewords", "codes", "ids", *optional))


def write(path: str | Path, codebook: Codebook, objective: float, empty: list[int]) -> None:
    """Write a codebook and how well it fits, see ``pqag.quantizer.Fit``."""
    arrays = {"codewords": codebook.codewords, "codes": codebook.codes, "ids": codebook.ids}
    if codebook.rotation is not None:
        arrays["rotation"] = codebook.rotation
    storage.write_hdf5(path, arrays, {"objective": objective, "empty": empty})

"""Reads and writes codebooks, and retrieves with them: the one place where it matters how a victim finds codes, see ``pqag.encoders``."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pqag import encoders, quantizer, retrieval, storage
from pqag.errors import UserError
from pqag.names import ENCODERS, FULL_LENGTH


@dataclass(frozen=True)
class Codebook:
    """The codebook of a victim.

    codewords: float32 (M, K, D/M). codes: codes of the database, unsigned (N, M). ids: ids of its images, (N,). rotation: orthogonal,
    float32 (D, D), or None if features are not rotated. encoder: one of ``names.ENCODERS``; with one of ``names.FULL_LENGTH`` codewords are
    (M, K, D) and reconstructions their sums. logits: of the encoder "argmax", float32 (M, K, D/M + 1), see ``encoders.assignment_logits``.
    """

    codewords: np.ndarray
    codes: np.ndarray
    ids: np.ndarray
    rotation: np.ndarray | None = None
    encoder: str = "nearest"
    logits: np.ndarray | None = None

    def rotated(self, features: np.ndarray) -> np.ndarray:
        """Return features (N, D) in the space of the codewords, (N, D). Call this before any comparison with codewords.

        Beside full-length codewords they are repeated, (N, M D); where logits assign codes they become soft representations.
        """
        turned = features if self.rotation is None else features @ self.rotation.T
        if self.encoder in FULL_LENGTH:
            return np.tile(turned, (1, len(self.codewords)))
        return turned if self.logits is None else encoders.soft(turned, self.codewords, self.logits)


def encode(codebook: Codebook, features: np.ndarray) -> np.ndarray:
    """Codes (N, M) of features (N, D), which are not rotated."""
    turned = features if codebook.rotation is None else features @ codebook.rotation.T
    return encoders.encode(turned, codebook.codewords, codebook.encoder, codebook.logits)


def placed(codebook: Codebook, codes: np.ndarray) -> np.ndarray:
    """Reconstructions of ``codes`` (N, M) in the space of the codewords, as ``Codebook.rotated`` gives features."""
    found = encoders.decode(codes, codebook.codewords, codebook.encoder)
    return np.tile(found, (1, len(codebook.codewords))) if codebook.encoder in FULL_LENGTH else found


def _hooks(codebook: Codebook, features: np.ndarray) -> dict[str, np.ndarray]:
    """What ``retrieval`` is told of codes that are not those of the nearest codewords."""
    if codebook.encoder == "nearest":
        return {}
    known = {"quantized": placed(codebook, encode(codebook, features))}
    return known | ({"offsets": encoders.offsets(codebook.codes, codebook.codewords)} if codebook.encoder in FULL_LENGTH else {})


def evaluate(codebook: Codebook, features: np.ndarray, labels: np.ndarray, database_labels: np.ndarray) -> dict:
    """Score query ``features`` (Q, D), not rotated, on the database of a codebook, as ``retrieval.evaluate`` does; labels are multi-hot."""
    queries, hooks = codebook.rotated(features), _hooks(codebook, features)
    return retrieval.evaluate(queries, labels, codebook.codewords, codebook.codes, database_labels, **hooks)


def evaluate_farthest(codebook: Codebook, features: np.ndarray, labels: np.ndarray, database_labels: np.ndarray) -> dict:
    """The same for queries replaced by the reconstructions of their farthest codes, see ``encoders.farthest``."""
    codes = encoders.farthest(encode(codebook, features), codebook.codewords, codebook.encoder)
    queries, hooks = placed(codebook, codes), _hooks(codebook, features)
    if hooks:
        hooks["quantized"] = queries
    return retrieval.evaluate(queries, labels, codebook.codewords, codebook.codes, database_labels, **hooks)


def distances(codebook: Codebook, features: np.ndarray, kind: str) -> np.ndarray:
    """Squared distances, float64 (Q, N), of ``features`` (Q, D), not rotated, to every item, as ``retrieval.distances`` gives them."""
    queries, hooks = codebook.rotated(features), _hooks(codebook, features)
    found = retrieval.distances(queries, codebook.codes, codebook.codewords, kind, **hooks)
    if codebook.encoder in FULL_LENGTH:  # each of the M tables adds the square of the query
        repeated = hooks["quantized"] if kind == "SDC" else queries
        found -= (repeated**2).sum(1, keepdims=True) * (1 - 1 / len(codebook.codewords))
    return found


def nearest(codebook: Codebook, features: np.ndarray, count: int, kind: str) -> np.ndarray:
    """The ``count`` nearest items, int64 (Q, count), of ``features`` (Q, D), not rotated, as ``retrieval.nearest`` gives them."""
    queries, hooks = codebook.rotated(features), _hooks(codebook, features)
    return retrieval.nearest(queries, codebook.codewords, codebook.codes, count, kind, **hooks)


def arrays(codebook: Codebook | quantizer.Fit) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The codewords and how codes are found, as arrays and attributes of an HDF5 file; of the usual kind the codewords alone."""
    found = {"codewords": codebook.codewords} | ({} if codebook.logits is None else {"logits": codebook.logits})
    return found, ({} if codebook.encoder == "nearest" else {"encoder": codebook.encoder})


def read(path: str | Path) -> Codebook:
    """Read a codebook written by ``write``; raises UserError if it is damaged, or finds codes in a way that is not known."""
    codes, ids = storage.read_hdf5(path, "codes", "ids")
    rotation = storage.read_hdf5(path, "rotation")[0] if "rotation" in storage.dataset_names(path) else None
    return replace(read_trained(path), codes=codes, ids=ids, rotation=rotation)


def read_trained(path: str | Path) -> Codebook:
    """Read codewords that were trained with a network: a codebook without a database. Raises UserError as ``read`` does."""
    [codewords] = storage.read_hdf5(path, "codewords")
    encoder = storage.read_attributes(path).get("encoder", "nearest")
    if encoder not in ENCODERS:
        raise UserError(f"{path} finds codes by {encoder!r}, which is none of {', '.join(ENCODERS)}")
    logits = storage.read_hdf5(path, "logits")[0] if encoder == "argmax" else None
    return Codebook(codewords, None, None, None, encoder, logits)


def write(path: str | Path, codebook: Codebook, objective: float, empty: list[int]) -> None:
    """Write a codebook and the quality of its fit, see ``pqag.quantizer.Fit``."""
    own, attributes = arrays(codebook)
    found = own | {"codes": codebook.codes, "ids": codebook.ids}
    if codebook.rotation is not None:
        found["rotation"] = codebook.rotation
    storage.write_hdf5(path, found, {"objective": objective, "empty": empty} | attributes)

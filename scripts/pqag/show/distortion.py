"""How mAP falls with the size of changes, for attacks that look for the smallest one."""

from collections.abc import Sequence

import numpy as np
import pandas as pd


def l2(changed: np.ndarray, images: np.ndarray) -> np.ndarray:
    """The l2 norm of each change, float64 (N,), of uint8 images (N, 3, H, W) with pixels taken as 0 ... 1."""
    changes = (one.astype(np.float64) - clean for one, clean in zip(changed, images, strict=True))
    return np.array([np.linalg.norm(change) / 255 for change in changes])


def curve(sizes: np.ndarray, before: Sequence[float | None], after: Sequence[float | None]) -> pd.DataFrame:
    """mAP (%) against the mean size of the changes, as more and more queries are attacked, those with the smallest change first.

    sizes (N,) of the changes, 0 where the attack found none; before, after: the average precision of each query without and with its
    change, None where no database item is relevant: such queries are left out. The first row has no attacked query, the last all for which
    there is a change. Columns: ``attacked`` of the ``queries``, ``l2_max`` of their changes, ``l2_mean`` over all queries, of which the
    others count as 0, and ``map``.
    """
    values = np.array([before, after], dtype=np.float64)  # None becomes NaN
    known = ~np.isnan(values).any(0)
    sizes, (before, after) = np.asarray(sizes)[known], values[:, known]
    count, order = len(sizes), np.argsort(sizes, kind="stable")
    order = order[sizes[order] > 0]
    sizes, gains = sizes[order], (after - before)[order]
    return pd.DataFrame(
        {
            "attacked": np.arange(len(sizes) + 1),
            "queries": count,
            "l2_max": np.concatenate([[0.0], sizes]),
            "l2_mean": np.concatenate([[0.0], np.cumsum(sizes)]) / count,
            "map": 100 * (before.sum() + np.concatenate([[0.0], np.cumsum(gains)])) / count,
        }
    )

"""Readings of what the paper leaves open, side by side."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from pqag.codebooks import Codebook
from pqag.names import attack_name

#: The attacks whose order the paper finds, from the strongest.
ATTACKS = ("aod", "apd", "basic")


def peak(queries: np.ndarray, codewords: np.ndarray, temperature: float) -> float:
    """How peaked the soft assignment of ``queries``, float (N, D), is: the mean largest probability of Eq. 7 over queries and sub-spaces,
    times K, the number of codewords. 1 is the uniform distribution, K all on one. ``codewords`` (M, K, D/M)."""
    subspaces, count, size = codewords.shape
    similarities = np.einsum("nmd,mkd->nmk", queries.reshape(len(queries), subspaces, size).astype(float), codewords.astype(float))
    scaled = (similarities - similarities.max(2, keepdims=True)) / temperature
    return float(count * (1 / np.exp(scaled).sum(2)).mean())


def items_of_codewords(codebook: Codebook, labels: np.ndarray) -> np.ndarray:
    """How many database items of each class have each codeword, float (M, K, C); ``labels`` of the database, multi-hot (N, C)."""
    items = np.zeros((*codebook.codewords.shape[:2], labels.shape[1]))
    for m, counts in enumerate(items):
        np.add.at(counts, codebook.codes[:, m], labels)
    return items


def neighbours_of_one_class(codebook: Codebook, labels: np.ndarray) -> float:
    """The share of codewords whose nearest other codeword in the sub-space stands for the same class: that of most database items of it.

    ``labels`` of the database, multi-hot (N, C). Codewords of no item are left out.
    """
    same = []
    for words, counts in zip(codebook.codewords.astype(float), items_of_codewords(codebook, labels)):
        used = np.flatnonzero(counts.any(1))
        distances = ((words[used, None] - words[None, used]) ** 2).sum(2)
        np.fill_diagonal(distances, np.inf)
        if len(used) > 1:
            classes = counts[used].argmax(1)
            same += (classes == classes[distances.argmin(1)]).tolist()
    return float(np.mean(same)) if same else float("nan")


def tidy(readings: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """One row a cell from the JSON files of readings: the reading, its title, the accuracy of the network, and the columns of Table 1."""
    frames = []
    for one in readings:
        rows = pd.DataFrame(one["rows"])
        numbers = ["map", "ci_low", "ci_high", "target_bits"]
        rows[numbers] = rows[numbers].apply(pd.to_numeric)
        [accuracy] = set(one["accuracy"].values())
        frames.append(rows.assign(reading=one["reading"], title=one["title"], accuracy=100 * float(accuracy)))
    columns = ["reading", "title", "accuracy", "dataset", "target_model", "target_bits", "distance", "attack", "map", "ci_low", "ci_high"]
    return pd.concat(frames, ignore_index=True)[columns]


def order(maps: Mapping[str, float], intervals: Mapping[str, tuple[float, float]]) -> str:
    """The attacks of the paper from the lowest mAP to the highest, joined by < or, where their intervals overlap, by ~."""
    ranked = sorted(maps, key=maps.get)
    text = attack_name(ranked[0])
    for one, other in zip(ranked, ranked[1:]):
        apart = intervals[one][1] < intervals[other][0]
        text += f" {'<' if apart else '~'} {attack_name(other)}"
    return text


def page(rows: pd.DataFrame) -> str:
    """A table in Markdown for each code length and distance, a line a reading; ``rows`` are of ``tidy``."""
    parts = []
    for (bits, distance), part in rows.groupby(["target_bits", "distance"], sort=False):
        heads = ["reading", "accuracy", "Clean", *(attack_name(attack) for attack in ATTACKS[::-1]), "order"]
        lines = [f"## {bits} bits, {distance}", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        for title, cells in part.groupby("title", sort=False):
            by_attack = cells.set_index("attack")
            maps = {attack: float(by_attack.loc[attack, "map"]) for attack in ATTACKS if attack in by_attack.index}
            intervals = {attack: tuple(by_attack.loc[attack, ["ci_low", "ci_high"]].astype(float)) for attack in maps}
            shown = [f"{maps[attack]:.1f}" if attack in maps else "--" for attack in ATTACKS[::-1]]
            line = [title, f"{cells['accuracy'].iloc[0]:.1f}", f"{by_attack.loc['clean', 'map']:.1f}", *shown, order(maps, intervals)]
            lines.append(f"| {' | '.join(line)} |")
        parts.append("\n".join(lines))
    words = "mAP in percent. `<`: the 95 % intervals over queries are apart; `~`: they overlap."
    return "\n\n".join([words, *parts]) + "\n"

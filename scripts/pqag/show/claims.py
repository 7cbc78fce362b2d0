"""What the text of the paper claims, beside what its own tables say and what a study measures.

A claim is a number computed from mAP values, and what it must be for the claim to hold. Intervals are by the bootstrap over queries, which
are the same in every cell: each resample gives the mAP of all cells, and from them the number.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pqag.names import family
from pqag.retrieval import DISTANCES
from pqag.show.tables import KEYS, paper

#: Resamples of the queries.
DRAWS = 2000
#: Statistics take mAP (%) by cell, float (cells, samples) with an index of ``KEYS``, and give float (samples,), NaN if cells are missing.
Statistic = Callable[[pd.DataFrame], np.ndarray]


class Claim(NamedTuple):
    """``text``: what the paper says. ``measured``: the number that ``statistic`` gives. ``least`` or ``most``: what it must reach, or not
    exceed, for the claim to hold. ``target``: the target of the workflow that computes the cells. ``of_curves``: the statistic takes the
    precision at each recall instead, float (cells, L), and gives one number."""

    name: str
    text: str
    measured: str
    statistic: Statistic
    target: str
    least: float = -np.inf
    most: float = np.inf
    of_curves: bool = False


def _cells(maps: pd.DataFrame, **wanted: Any) -> pd.DataFrame:
    """The cells with these keys, which leave the index."""
    kept = np.ones(len(maps), bool)
    for key, value in wanted.items():
        kept &= maps.index.get_level_values(key) == value
    return maps[kept].droplevel(list(wanted))


def _drop(maps: pd.DataFrame) -> np.ndarray:
    clean, basic = (_cells(maps, table=1, distance="SDC", attack=attack) for attack in ("clean", "basic"))
    return 100 * (1 - basic / clean).mean().to_numpy()


def _below(first: str, second: str) -> Statistic:
    """The share (%) of the cells of Table 1 in which one attack leaves a lower mAP than another."""

    def share(maps: pd.DataFrame) -> np.ndarray:
        one, other = (_cells(maps, table=1, attack=attack) for attack in (first, second))
        return 100 * (one < other).mean().to_numpy()

    return share


def _beside_pretrained(maps: pd.DataFrame, attacks: Iterable[str]) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    """For each attack the cells of Table 2, and those of the same network in Table 1."""
    pairs = []
    for attack in attacks:
        joint, pretrained = (_cells(maps, table=table, attack=attack).droplevel("training") for table in (2, 1))
        pairs.append((joint, pretrained.reindex(joint.index)))
    return pairs


def _joint_gain(maps: pd.DataFrame) -> np.ndarray:
    [(joint, pretrained)] = _beside_pretrained(maps, ["clean"])
    return (joint - pretrained).mean().to_numpy()


def _joint_below(maps: pd.DataFrame) -> np.ndarray:
    pairs = _beside_pretrained(maps, ["basic", "apd", "aod"])
    joint, pretrained = (pd.concat(side) for side in zip(*pairs))
    return 100 * (joint < pretrained)[pretrained.notna().all(axis=1)].mean().to_numpy()


def _between_lengths(maps: pd.DataFrame) -> np.ndarray:
    """Mean distance, in points, from the mAP of queries made for another code length to that of the queries made for the victim's own."""
    attacked = maps[(maps.index.get_level_values("table") == 3) & (maps.index.get_level_values("attack") != "clean")]
    is_own = attacked.index.get_level_values("source_bits") == attacked.index.get_level_values("target_bits")
    own = attacked[is_own].droplevel("source_bits")
    others = attacked[~is_own]
    return (others - own.reindex(others.index.droplevel("source_bits")).to_numpy()).abs().mean().to_numpy()


def _between_networks(source: str | None, target: str | None) -> Statistic:
    """Relative fall of mAP (%) in the blocks of Table 4 from one family to another, or between all different ones; by SDC and ADC."""

    def fall(maps: pd.DataFrame) -> np.ndarray:
        rows = maps[maps.index.get_level_values("table") == 4]
        ends = [rows.index.get_level_values(f"{end}_model").map(family) for end in ("source", "target")]
        attack = rows.index.get_level_values("attack")
        falls = []
        for distance in DISTANCES:
            here = rows.index.get_level_values("distance") == distance
            for one, other in dict.fromkeys(zip(*ends)):
                if (one, other) != (source, target) if source else one == other:
                    continue
                block = here & (ends[0] == one) & (ends[1] == other) & (attack != "clean")
                clean = rows[here & (ends[1] == other) & (attack == "clean")].mean()
                falls.append(100 * (1 - rows[block].mean() / clean))
        return np.mean(falls, axis=0) if falls else np.full(maps.shape[1], np.nan)

    return fall


def _rising(curves: pd.DataFrame) -> np.ndarray:
    """The share (%) of the curves of adversarial queries of Table 1 at the shortest code whose precision rises with recall on the whole:
    whose rank correlation with it is positive (Spearman)."""
    ours = curves[(curves.index.get_level_values("table") == 1) & (curves.index.get_level_values("attack") != "clean")]
    bits = ours.index.get_level_values("target_bits")
    ranks = ours[bits == min(bits, default=0)].rank(axis=1).to_numpy()
    correlation = [np.corrcoef(np.arange(len(one)), one)[0, 1] for one in ranks]
    return np.array([100 * np.mean(np.array(correlation) > 0) if correlation else np.nan])


#: In the order of the paper.
CLAIMS = (
    Claim("basic", "Even the Basic attack lowers mAP by 57.7 % on average.", "mean relative fall by SDC, %", _drop, "table1", least=57.7),
    Claim("apd", "APD beats Basic everywhere.", "cells of Table 1 in which it does, %", _below("apd", "basic"), "table1", least=100),
    Claim("aod", "AOD beats APD in most settings.", "cells of Table 1 in which it does, %", _below("aod", "apd"), "table1", least=50),
    Claim(
        "curves",
        "Precision-recall curves of adversarial queries rise.",
        "curves at 16 bits that rise, %",
        _rising,
        "table1",
        least=100,
        of_curves=True,
    ),
    Claim("joint_clean", "Joint training retrieves better.", "mean gain of clean mAP, points", _joint_gain, "table2", least=0),
    Claim(
        "joint",
        "Jointly trained networks are even less robust.",
        "attacked cells of Table 2 below those of Table 1, %",
        _joint_below,
        "table2",
        least=50,
    ),
    Claim(
        "bits",
        "Queries transfer between code lengths: the values are really close.",
        "mean distance from the victim's own queries, points",
        _between_lengths,
        "table3",
        most=2,
    ),
    Claim(
        "resnets", "Within the ResNets mAP falls by 68.5 %.", "relative fall, %", _between_networks("resnet", "resnet"), "table4", least=68
    ),
    Claim("vggs", "Within the VGGs mAP falls by 51.6 %.", "relative fall, %", _between_networks("vgg", "vgg"), "table4", least=51),
    Claim("families", "Between the families mAP falls by 24.9 %.", "relative fall, %", _between_networks(None, None), "table4", least=24),
)


def _key(metrics: Mapping[str, Any], table: int, distance: str) -> tuple:
    return (table, *(metrics[key] for key in KEYS[1:-2]), distance, metrics["attack"])


def _of_cells(values: Mapping[tuple, list]) -> pd.DataFrame:
    """Means over seeds, (cells, ...), by cell."""
    index = pd.MultiIndex.from_tuples(list(values), names=KEYS)
    return pd.DataFrame(np.stack([np.mean(seeds, axis=0) for seeds in values.values()]), index)


def measured(scores: Iterable[tuple[int, Mapping[str, Any]]], counterparts: Mapping[str, str | None]) -> pd.DataFrame:
    """Every claim of ``CLAIMS`` held against ``scores``, pairs of the number of a table and the contents of a metrics.json of it.
    ``counterparts``: the pretrained model that each jointly trained one of Table 2 is held against.

    The columns: claim, ours with its 95 % interval (low, high; NaN for curves), the same number from the paper's own tables (``paper``),
    seeds, and verdict: holds, does not hold, or open where the interval has both, or where the study lacks the cells.
    """
    precision: dict[tuple, list] = {}
    by_query: dict[tuple, list] = {}
    for table, one in scores:
        if table == 2 and (other := counterparts.get(one["target_model"])):
            one = one | {"training": one["target_model"], "source_model": other, "target_model": other}
        for distance in DISTANCES:
            key = _key(one, table, distance)
            by_query.setdefault(key, []).append(np.array(one[distance]["average_precision"], float))
            precision.setdefault(key, []).append(one[distance]["precision"])
    maps = []
    for dataset in dict.fromkeys(key[1] for key in by_query):
        cells = _of_cells({key: seeds for key, seeds in by_query.items() if key[1] == dataset}).dropna(axis=1)
        draws = np.random.default_rng(0).multinomial(cells.shape[1], np.full(cells.shape[1], 1 / cells.shape[1]), DRAWS)
        weights = np.vstack([np.ones(cells.shape[1]), draws]) / cells.shape[1]
        maps.append(pd.DataFrame(100 * cells.to_numpy() @ weights.T, cells.index))
    ours, curves = pd.concat(maps), _of_cells(precision)
    printed = paper()
    theirs = printed[printed["dataset"].isin(ours.index.unique("dataset"))].set_index(KEYS)[["map"]]
    rows = []
    for claim in CLAIMS:
        number, *resampled = claim.statistic(curves if claim.of_curves else ours)
        low, high = np.quantile(resampled, [0.025, 0.975]) if resampled and np.isfinite(number) else (np.nan, np.nan)
        said = np.nan if claim.of_curves else float(claim.statistic(theirs)[0])
        seeds = max((len(seeds) for key, seeds in by_query.items() if key[0] == int(claim.target.removeprefix("table"))), default=0)
        row = {"claim": claim.name, "ours": number, "low": low, "high": high, "paper": said, "seeds": seeds}
        rows.append(row | {"verdict": verdict(claim, number, low, high)})
    return pd.DataFrame(rows)


def verdict(claim: Claim, number: float, low: float, high: float) -> str:
    """``holds``, ``does not hold``, ``open`` where the interval from ``low`` to ``high`` has both, or ``cannot be tested here``."""
    if not np.isfinite(number):
        return "cannot be tested here"
    ends = [number] if not np.isfinite(low) else [low, high]
    holds = {claim.least <= end <= claim.most for end in ends}
    return "open" if len(holds) > 1 else "holds" if holds == {True} else "does not hold"


def page(rows: pd.DataFrame) -> str:
    """The claims as a table in Markdown; ``rows`` are of ``measured``."""
    lines = [
        "| the paper's text | measured | holds if | the paper's tables | ours (95 % interval) | seeds | verdict | target |",
        "|---" * 8 + "|",
    ]
    for claim, row in zip(CLAIMS, rows.itertuples(), strict=True):
        wanted = f"at least {claim.least:g}" if np.isfinite(claim.least) else f"at most {claim.most:g}"
        theirs = f"{row.paper:.1f}" if np.isfinite(row.paper) else "--"
        interval = f" ({row.low:.1f} to {row.high:.1f})" if np.isfinite(row.low) else ""
        ours = f"{row.ours:.1f}{interval}" if np.isfinite(row.ours) else "--"
        cells = [claim.text, claim.measured, wanted, theirs, ours, str(row.seeds), row.verdict, f"`{claim.target}`"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"

"""The tables: tidy rows from metrics, LaTeX in the paper's layout, and the comparison with the paper's own numbers."""

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pqag.names import METHOD_NAMES, QUANTIZER_NAMES, TRAINED, attack_name, family, family_name, model_name
from pqag.retrieval import DISTANCES, bootstrap_interval
from pqag.show import verdicts
from pqag.show.cells import MACRO, Cells, escape_latex, standard_deviation

#: What identifies a cell; names and values as in ``paper_tables.csv``.
KEYS = ["table", "dataset", "training", "source_model", "target_model", "source_bits", "target_bits", "distance", "attack"]
COLUMNS = [*KEYS, "map", "map_worst", "map_best", "ci_low", "ci_high", "queries", "seeds", "map_sd"]


@dataclass(frozen=True)
class Layout:
    """A kind of table: ``title``, what it shows, in which {attack} and {bits} are filled in; its ``label`` in LaTeX; the columns of
    ``_shown`` that name its rows (``down``) and its columns (``across``). Where the distance is in neither, both stand in one field."""

    title: str
    label: str
    down: tuple[str, ...]
    across: tuple[str, ...]


#: By the number of the table.
LAYOUTS = {
    1: Layout("White-box attacks: mAP (%)", "tab:white-box", ("distance", "attack"), ("dataset", "model", "bits")),
    2: Layout("White-box attacks on jointly trained networks: mAP (%)", "tab:joint", ("distance", "attack"), ("dataset", "model", "bits")),
    3: Layout(
        "{attack} queries made for one code length (down) on another (across): mAP (%), SDC / ADC",
        "tab:bits-transfer",
        ("model", "made_for_bits"),
        ("dataset", "bits"),
    ),
    4: Layout(
        "{attack} queries made for one network (down) on another (across), {bits} bits: mAP (%)",
        "tab:model-transfer",
        ("distance", "made_for"),
        ("dataset", "model"),
    ),
    5: Layout("Systems: mAP (%) under white-box attacks", "tab:systems", ("model", "attack"), ("dataset", "bits", "distance")),
    6: Layout("Attacks at {bits} bits: mAP (%)", "tab:attacks", ("model", "attack"), ("dataset", "column")),
}


def paper() -> pd.DataFrame:
    """The 252 mAP values printed in the paper, in percent, with their cells' keys."""
    return pd.read_csv(Path(__file__).with_name("paper_tables.csv"), comment="#")


def tidy(metrics: Iterable[dict], table: int) -> pd.DataFrame:
    """One row a cell from the contents of metrics.json files, unrounded, in percent.

    Seeds of the same cell become one row: the means over the seeds, the sample standard deviation of ``map`` over them (``map_sd``, NaN for
    a single seed), and the bootstrap interval over queries of each query's mean over the seeds (the queries are the same for every seed).
    """
    cells: dict[tuple, list[dict]] = {}
    for one in metrics:
        for distance in DISTANCES:
            key = (table, *(one[k] for k in KEYS[1:-2]), distance, one["attack"])
            cells.setdefault(key, []).append(one[distance] | {"queries": one["queries"]})
    rows = []
    for key, seeds in cells.items():
        means = {name: float(np.mean([s[name] for s in seeds])) for name in ("map", "map_worst", "map_best")}
        low, high = seeds[0]["ci_low"], seeds[0]["ci_high"]
        if len(seeds) > 1:
            per_query = np.array([s["average_precision"] for s in seeds], dtype=float)
            low, high = bootstrap_interval(per_query.mean(0))
        spread = standard_deviation([s["map"] for s in seeds]) if len(seeds) > 1 else math.nan
        shares = means | {"ci_low": low, "ci_high": high, "map_sd": spread}
        percent = {name: 100 * value for name, value in shares.items()}
        rows.append(dict(zip(KEYS, key)) | percent | {"queries": seeds[0]["queries"], "seeds": len(seeds)})
    return pd.DataFrame(rows, columns=COLUMNS)


#: The attacks of the paper (Implementations: perturbation within 8 of 255, learning rate 0.01 of the unit range, 5 iterations).
PAPER_ATTACKS = {name: {"loss": name, "method": "pgd", "epsilon": 8.0, "step": 2.55, "iterations": 5} for name in ("basic", "apd", "aod")}


def against_paper(rows: pd.DataFrame, attacks: dict[str, dict], networks: Mapping[str, str] = {}) -> pd.DataFrame:
    """Ours, the paper's and the difference (percentage points) for every row that the paper prints too; no rows where it prints none.

    ``attacks`` gives the settings of each: one that bears the name of an attack of the paper but has other settings is not compared.
    ``networks``: the network whose values of the paper a model is compared with, where that is not its name.
    """
    same = [name for name, known in PAPER_ATTACKS.items() if attacks.get(name, {}).items() >= known.items()]
    theirs = ["clean", *(name for name in same if "restarts" not in attacks[name])]
    own = rows.loc[rows["attack"].isin(theirs), [*KEYS, "map"]]
    ends = ["source_model", "target_model"]
    both = own.replace({end: dict(networks) for end in ends}).merge(paper(), how="left", on=KEYS, suffixes=("_ours", "_paper"))
    both[ends] = own[ends].to_numpy()
    both = both[both["map_paper"].notna()].reset_index(drop=True)
    both["difference"] = both["map_ours"] - both["map_paper"]
    return both.rename(columns={"map_ours": "ours", "map_paper": "paper"})


def as_in_the_paper(rows: pd.DataFrame, quantizers: Mapping[str, str]) -> pd.DataFrame:
    """Those ``rows`` whose victims are quantized as in the paper: by PQN if they are jointly trained, otherwise by PQ. ``quantizers`` by
    model, as the table calls it."""
    return rows[rows["target_model"].map(quantizers) == rows["training"].map({"joint": "pqn", "pretrained": "pq"})]


def in_the_paper(settings: Mapping[str, Any]) -> dict[str, str]:
    """The network of each jointly trained model of a table that the paper has too, PQN; every other stands for itself."""
    return {one: settings["networks"][one] if settings["quantizers"][one] == "pqn" else one for one in settings.get("counterparts", {})}


def network_names(networks: Mapping[str, str]) -> dict[str, str]:
    """What a table of jointly trained models calls them, whose ``networks`` are given by model: after the network, as the paper does, where
    only one has it."""
    once = [network for network in networks.values() if list(networks.values()).count(network) == 1]
    return {model: network if network in once else model for model, network in networks.items()}


def renamed(metrics: Mapping[str, dict], names: Mapping[str, str]) -> dict[str, dict]:
    """The contents of metrics.json files, by path, with other names for their models."""
    ends = ("source_model", "target_model")
    return {path: one | {end: names.get(one[end], one[end]) for end in ends} for path, one in metrics.items()}


def robustness(
    joint: pd.DataFrame,
    pretrained: pd.DataFrame,
    counterparts: Mapping[str, str | None],
    attacks: dict,
    networks: Mapping[str, str] = {},
) -> pd.DataFrame:
    """Jointly trained models beside their counterparts: mean mAP (%) over code lengths and distances, a row a data set, model and attack.

    ``joint`` and ``pretrained`` are rows of ``tidy``, ``counterparts`` the pretrained model that a model is held against, both as the rows
    call them; ``attacks`` and ``networks`` as in ``against_paper``. ``comparisons`` is the number of (code length, distance); in ``lower``
    of them the jointly trained one has the lower mAP. ``joint_drop`` and ``pretrained_drop``, 100 (1 - attacked / clean) of the means. The
    row of the attack "all" takes all attacks together. ``paper_...``: the same of the paper's Tables 2 and 1; NaN where it has not all of
    them.
    """
    keys = ["dataset", "attack", "target_bits", "distance"]
    if not any(counterparts.values()):
        return pd.DataFrame(columns=["dataset", "model", "counterpart", "attack"])
    pairs = []
    for model, other in counterparts.items():
        mine, theirs = (rows[rows["target_model"] == name][[*keys, "map"]] for rows, name in ((joint, model), (pretrained, other)))
        pairs.append(mine.merge(theirs, on=keys, suffixes=("_joint", "_pretrained")).assign(model=model, counterpart=other))
    both = pd.concat(pairs, ignore_index=True)

    printed = against_paper(joint, attacks, networks)[["target_model", *keys, "paper"]].rename(columns={"target_model": "model"})
    both = both.merge(printed, on=["model", *keys], how="left").assign(network=lambda rows: rows["model"].replace(dict(networks)))
    table1 = paper().query("table == 1 and training == 'pretrained'").rename(columns={"target_model": "network", "map": "paper_1"})
    both = both.merge(table1[["network", *keys, "paper_1"]], on=["network", *keys], how="left")
    found = []
    for (dataset, model), of_model in both.groupby(["dataset", "model"], sort=False):
        attacked = of_model[of_model["attack"] != "clean"]
        parts = [*of_model.groupby("attack", sort=False), ("all", attacked)]
        clean = of_model[of_model["attack"] == "clean"]
        for attack, part in parts:
            row = {"dataset": dataset, "model": model, "counterpart": part["counterpart"].iloc[0], "attack": attack}
            columns = {"": ("map_joint", "map_pretrained"), "paper_": ("paper", "paper_1")}
            for prefix, (one, other) in columns.items():
                whole = not part[[one, other]].isna().any(axis=None)
                lower = int((part[one] < part[other]).sum()) if whole else math.nan
                row |= {f"{prefix}comparisons": len(part) if whole else math.nan, f"{prefix}lower": lower}
                for name, column in (("joint", one), ("pretrained", other)):
                    mean = part[column].mean() if whole else math.nan
                    row |= {f"{prefix}{name}": mean, f"{prefix}{name}_drop": 100 * (1 - mean / clean[column].mean())}
            found.append(row)
    return pd.DataFrame(found).astype({"comparisons": int, "lower": int} | {f"paper_{name}": "Int64" for name in ("comparisons", "lower")})


def with_spread(compared: pd.DataFrame, of_seeds: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """``compared``, a result of ``robustness``, with the sample standard deviations of the means over the seeds, NaN for a single seed.

    ``of_seeds`` are the same of each seed.
    """
    several = len(of_seeds) > 1 and len(compared)
    names = ("joint", "pretrained")
    return compared.assign(**{f"{name}_sd": np.std([one[name] for one in of_seeds], 0, ddof=1) if several else math.nan for name in names})


def robustness_in_words(path: str, cells: Cells, titles: Mapping[str, str], alone: Sequence[str] = ()) -> str:
    """The rows of ``robustness``, which are in the file ``path`` of ``cells``, as the answer to the paper on Table 2.

    Of the models ``alone``, which have no counterpart, that is said.
    """
    rows, sentences = cells.contents[path], []

    def number(place: int, column: str, spec: str = ".1f") -> str:
        name = "/".join(rows[place][key] for key in ("dataset", "model", "attack"))
        return cells.put(f"robustness/{name}/{column}", [(path, f"{place}/{column}")], spec)

    for place, row in enumerate(rows):
        one, other = (
            number(place, name) + (f" ± {number(place, f'{name}_sd')}" if row[f"{name}_sd"] else "") for name in ("joint", "pretrained")
        )
        if row["attack"] == "clean":
            begin = f"{titles[row['dataset']]}, {model_name(row['model'])} jointly trained against pretrained"
            sentences.append(f"{begin}, mean mAP over code lengths and distances: clean {one} against {other}")
        elif row["attack"] != "all":
            drops = f"relative drop {number(place, 'joint_drop')} against {number(place, 'pretrained_drop')} %"
            sentences.append(f"{attack_name(row['attack'])} {one} against {other} ({drops})")
        else:
            count = f"{number(place, 'lower', '.0f')} of {number(place, 'comparisons', '.0f')} comparisons"
            theirs = ""
            if row["paper_lower"]:
                theirs = f" (paper: {number(place, 'paper_lower', '.0f')} of {number(place, 'paper_comparisons', '.0f')})"
            sentences[-1] += f". Under attack the jointly trained network has the lower mAP in {count}{theirs}."
    claim = "The paper finds that jointly trained models are even less robust than pretrained ones."
    missing = "no pretrained one of the same network, width, recipe of training and sub-spaces to compare"
    if not sentences:
        return f"{claim} This study has {missing}."
    others = f" For {', '.join(map(model_name, alone))} the study has {missing}." if alone else ""
    return f"{claim} " + ", ".join(sentences).replace("., ", ". ") + others


def transfer_grid(rows: pd.DataFrame, panel: str) -> tuple[pd.DataFrame, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A panel from the rows of a table of transfer: between code lengths "<data set>_<model>", between networks "<data set>".

    Gives its rows of attacked queries; mAP (%), float (R, C), by distance, of queries made for one (r) on another (c), in the order of the
    table; and mAP (%) of the clean queries, float (C,), by distance. The columns ``source`` and ``target`` of the rows name r and c for a
    reader, by code length or network; ``where`` names what all have in common, the network or the code length.
    """
    [table] = rows["table"].unique()
    between_bits = "made_for_bits" in LAYOUTS[table].down
    key = rows["dataset"] + "_" + rows["target_model"] if between_bits else rows["dataset"]
    rows = rows[key == panel]
    names = {f"{end}_{what}": rows[f"{end}_{what}"].map(show) for end in ("source", "target") for what, show in _ENDS.items()}
    what, common = ("bits", "model") if between_bits else ("model", "bits")
    rows = rows.assign(source=names[f"source_{what}"], target=names[f"target_{what}"], where=names[f"target_{common}"])
    clean, attacked = (rows[(rows["attack"] == "clean") == is_clean] for is_clean in (True, False))
    sources, targets = (list(dict.fromkeys(attacked[end])) for end in ("source", "target"))
    grids, above = {}, {}
    for kind in DISTANCES:
        wide = attacked[attacked["distance"] == kind].pivot(index="source", columns="target", values="map")
        grids[kind] = wide.loc[sources, targets].to_numpy()
        above[kind] = clean[clean["distance"] == kind].set_index("target")["map"].loc[targets].to_numpy()
    return attacked, grids, above


#: How a reader is told what queries were made for, or are scored on.
_ENDS = {"bits": "{} bits".format, "model": model_name}

#: In the place of a family, for the mean between all different ones; no name of a model has a hyphen.
_BETWEEN = "between-families"


def family_drops(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean relative drop of mAP in percent, 100 (1 - attacked / clean), for each family of Table 4's sources against each of its victims.

    As the text of the paper averages (section Black-Box Attack: 68.5, 51.6 and 24.9): ``attacked`` is the mean over the block, with the
    victims' own queries in it (``others_attacked`` and ``others_drop`` leave those out: NaN where nothing is left), ``clean`` the mean over
    the victims. A row a data set, distance and block, then the mean of all blocks between different families (``_BETWEEN`` twice).
    """
    rows = rows.assign(source=rows["source_model"].map(family), target=rows["target_model"].map(family))
    clean, attacked = rows[rows["attack"] == "clean"], rows[rows["attack"] != "clean"]
    found = []
    for (dataset, distance, source, target), block in attacked.groupby(["dataset", "distance", "source", "target"], sort=False):
        its = clean[(clean["dataset"] == dataset) & (clean["distance"] == distance) & (clean["target"] == target)]["map"].mean()
        others = block[block["source_model"] != block["target_model"]]["map"].mean()
        values = {"clean": its, "attacked": block["map"].mean(), "others_attacked": others}
        found.append({"dataset": dataset, "distance": distance, "source_family": source, "target_family": target} | values)
    blocks = pd.DataFrame(found)
    for name in ("", "others_"):
        blocks[f"{name}drop"] = 100 * (1 - blocks[f"{name}attacked"] / blocks["clean"])
    between = blocks[blocks["source_family"] != blocks["target_family"]]
    means = between.groupby(["dataset", "distance"], sort=False).mean(numeric_only=True).reset_index()
    return pd.concat([blocks, means.assign(source_family=_BETWEEN, target_family=_BETWEEN)], ignore_index=True)[list(blocks.columns)]


def drops_beside_paper(rows: pd.DataFrame, attacks: dict[str, dict]) -> pd.DataFrame:
    """``family_drops`` with a column ``paper``: the same of the paper's numbers, NaN for a data set of which it lacks a row."""
    keys = ["dataset", "distance", "source_family", "target_family"]
    theirs = against_paper(rows, attacks).rename(columns={"paper": "map"})
    whole = [name for name, group in theirs.groupby("dataset") if len(group) == (rows["dataset"] == name).sum()]
    drops = family_drops(rows).assign(paper=math.nan)
    if whole:
        printed = family_drops(theirs[theirs["dataset"].isin(whole)]).set_index(keys)["drop"]
        drops["paper"] = [printed.get(tuple(key), math.nan) for key in drops[keys].itertuples(index=False)]
    return drops


def drops_in_words(path: str, cells: Cells, titles: Mapping[str, str]) -> str:
    """The rows of ``drops_beside_paper``, which are in the file ``path`` of ``cells``, in a sentence a data set and distance."""
    blocks: dict[tuple[str, str], list[str]] = {}
    for place, row in enumerate(cells.contents[path]):
        source, target = row["source_family"], row["target_family"]
        if source != target:
            continue
        name = f"drop/{row['dataset']}/{row['distance']}/{source}/{target}"
        text = cells.put(name, [(path, f"{place}/drop")], ".1f")
        extra = [f"paper {cells.put(f'{name}/paper', [(path, f'{place}/paper')], '.1f')}"] if row["paper"] else []
        if source != _BETWEEN and row["others_drop"]:
            extra.append(f"{cells.put(f'{name}/others', [(path, f'{place}/others_drop')], '.1f')} without a victim's own queries")
        what = "between families" if source == _BETWEEN else f"{family_name(source)} on {family_name(target)}"
        block = blocks.setdefault((row["dataset"], row["distance"]), [])
        block.append(f"{what} {text}" + (f" ({', '.join(extra)})" if extra else ""))
    return " ".join(
        f"Mean relative drop of mAP (%), {titles[dataset]}, {distance}: {', '.join(block)}."
        for (dataset, distance), block in blocks.items()
    )


def in_paper_layout(rows: pd.DataFrame, titles: Mapping[str, str]) -> pd.DataFrame:
    """mAP as in the paper's table of the same number (``LAYOUTS``), in the order of ``rows``; those are of ``with_cells``, so that numbers
    are marks. ``titles`` by data set.
    """
    [table] = rows["table"].unique()
    down, across = (list(keys) for keys in (LAYOUTS[table].down, LAYOUTS[table].across))
    frame = pd.DataFrame(
        {
            "distance": rows["distance"],
            "attack": rows["attack"].map(attack_name),
            "dataset": rows["dataset"].map(titles),
            "model": rows["target_model"].map(model_name),
            "bits": rows["bits"],
            "made_for_bits": rows["made_for_bits"].where(rows["attack"] != "clean", attack_name("clean")),
            "made_for": rows["source_model"].map(model_name).where(rows["attack"] != "clean", attack_name("clean")),
            "map": rows["map"],
        }
    )
    if "distance" not in down + across:
        frame["map"] = frame.groupby(down + across, sort=False)["map"].transform(" / ".join)
        frame = frame.drop_duplicates(down + across)
    wide = frame.set_index(down + across)["map"].unstack(across)
    lines, columns = ({tuple(key): None for key in frame[keys].itertuples(index=False)} for keys in (down, across))
    blocks = list(dict.fromkeys(block for block, _ in lines))
    lines = sorted(lines, key=lambda line: blocks.index(line[0]))
    return wide.reindex(index=pd.MultiIndex.from_tuples(lines), columns=pd.MultiIndex.from_tuples(columns))


def with_cells(rows: pd.DataFrame, metrics: Mapping[str, dict], cells: Cells, bits: Sequence[int], record: str) -> pd.DataFrame:
    """``rows`` with the mark of a cell in place of every mAP, and of its standard deviation behind it where there are several seeds; and
    with columns ``bits`` and ``made_for_bits``, the code lengths of victim and source, to head columns and rows with.

    ``metrics`` are the files they were made of, by path; ``bits`` are those of the settings, which ``record`` holds. All are files of
    ``cells``.
    """
    sources: dict[tuple, list[tuple[str, str]]] = {}
    for path, one in metrics.items():
        for distance in DISTANCES:
            sources.setdefault((*(one[k] for k in KEYS[1:-2]), distance, one["attack"]), []).append((path, f"/{distance}/map"))
    marks = []
    for row in rows[KEYS[1:]].itertuples(index=False):
        source = (
            "" if row.source_model == row.target_model and row.source_bits == row.target_bits else f"{row.source_model}/{row.source_bits}/"
        )
        trained = "" if row.training == "pretrained" else f"{row.training}/"
        name = f"{row.dataset}/{trained}{row.attack}/{source}{row.target_model}/{row.target_bits}/{row.distance}"
        mark = cells.put(name, sources[tuple(row)], ".1f", 100)
        if len(sources[tuple(row)]) > 1:
            mark += f" ± {cells.put(f'{name}/sd', sources[tuple(row)], '.1f', 100, statistic='standard deviation')}"
        marks.append(mark)
    heads = {b: f"{cells.put(f'bits/{b}', [(record, f'{_SETTINGS}/bits/{i}')], 'd')} bits" for i, b in enumerate(bits)}
    return rows.assign(map=marks, bits=rows["target_bits"].map(heads), made_for_bits=rows["source_bits"].map(heads))


def strongest(rows: pd.DataFrame) -> pd.DataFrame:
    """Of the rows of Table 5 the mAP (%) of ``clean`` queries, and ``attacked``, the lowest of any attack, and ``floor``, of the farthest
    codes; a row for each distance, model and code length."""
    keys = ["distance", "target_model", "target_bits"]
    special = rows["attack"].isin(["clean", "farthest"])
    clean, floor = (rows[rows["attack"] == name].set_index(keys)["map"] for name in ("clean", "farthest"))
    attacked = rows[~special].groupby(keys, sort=False)["map"].min()
    return pd.DataFrame({"clean": clean, "attacked": attacked, "floor": floor}).reindex(clean.index).reset_index()


#: Points of mAP by which an attack at a raised temperature is much stronger than at its own; by which a system may stay behind plain PQ.
MUCH, BEHIND = 5, 2
#: What APD and AOD take the softmax of where codes are not the nearest codewords: with the codewords of Eq. 7, and with own scores.
SEEN = {
    "dpq": ("inner products of the soft representation", "the logits"),
    "rq": ("inner products with full-length codewords", "the scores of a beam of one, where retrieval has a beam of five"),
    "cq": ("inner products with full-length codewords", "the scores of a codeword beside those of all other tables"),
}
SEEN["dtq"] = SEEN["cq"]


def with_systems(
    rows: pd.DataFrame,
    marked: pd.DataFrame,
    metrics: Mapping[str, dict],
    healths: Mapping[str, dict],
    attacks: Mapping[str, dict],
    cells: Cells,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """``rows`` of Table 5 with the columns ``distinct_codes`` of the database and ``zero_gradients``, the share of exact zeros in the first
    gradient of the attack (%); and ``marked``, see ``with_cells``, with a row of each for every victim.

    ``metrics`` are the files of the scores, by path, ``healths`` those of the attacks, in the order of their metrics. The row of zero
    gradients is that of the first of ``attacks`` with the loss APD, or else of the first. All are files of ``cells``.
    """
    keys = ["dataset", "target_model", "target_bits", "attack"]

    def key(one: Mapping[str, Any]) -> tuple:
        return tuple(one[name] for name in keys)

    codes, zeros = {}, {}
    attacked = [one for one in metrics.values() if one["attack"] in attacks]
    for path, one in metrics.items():
        codes.setdefault(key(one), []).append(path)
    for path, one in zip(healths, attacked, strict=True):
        if healths[path]["zero_gradients"] is not None:
            zeros.setdefault(key(one), []).append(path)
    own = [tuple(row) for row in rows[keys].to_numpy()]
    rows = rows.assign(
        distinct_codes=[float(np.mean([metrics[path]["distinct_database_codes"] for path in codes[one]])) for one in own],
        zero_gradients=[100 * float(np.mean([healths[path]["zero_gradients"] for path in zeros.get(one, [])] or [np.nan])) for one in own],
    )
    shown = next((name for name, attack in attacks.items() if attack["loss"] == "apd"), next(iter(attacks)))
    extra = []
    for row in marked[(marked["attack"] == "clean") & (marked["distance"] == DISTANCES[0])].itertuples(index=False):
        victim = f"{row.dataset}/{row.target_model}/{row.target_bits}"
        sources = [(path, "/distinct_database_codes") for path in codes[row.dataset, row.target_model, row.target_bits, "clean"]]
        extra.append(row._asdict() | {"attack": "Distinct codes", "map": cells.put(f"codes/{victim}", sources, ".0f")})
        if paths := zeros.get((row.dataset, row.target_model, row.target_bits, shown)):
            mark = cells.put(f"zeros/{victim}", [(path, "/zero_gradients") for path in paths], ".1f", 100)
            extra.append(row._asdict() | {"attack": f"Zero gradients, {attack_name(shown)} (%)", "map": mark})
    return rows, pd.concat([marked, pd.DataFrame(extra)], ignore_index=True)


def systems_in_words(rows: pd.DataFrame, marked: pd.DataFrame, settings: Mapping[str, Any], setting: Callable[..., str]) -> str:
    """What a reader must know of Table 5: where an attack is much stronger than one that differs alone in a lower temperature, or in a
    distribution that is not that of the victim's own scores; which systems stay behind plain product quantization on clean queries (SDC);
    what APD and AOD use where codes are not the nearest codewords. ``rows`` are of ``tidy``, ``marked`` the same with marks."""
    keys, sentences = ["dataset", "target_model", "target_bits", "distance", "attack"], []
    values = {tuple(key): value for *key, value in rows[[*keys, "map"]].to_numpy()}
    marks = {tuple(key): mark for *key, mark in marked[[*keys, "map"]].to_numpy()}
    lengths = dict(zip(marked["target_bits"], marked["bits"]))
    for one, other in itertools.permutations(settings["attacks"], 2):
        cool, hot = settings["attacks"][one], settings["attacks"][other]
        hotter = cool | {"temperature": hot["temperature"]} == hot and cool["temperature"] < hot["temperature"]
        if not hotter and not (cool != hot and cool | {"distribution": "own"} == hot):
            continue
        stronger = [
            f"{model_name(key[1])} at {lengths[key[2]]} by {key[3]} ({marks[(*key[:4], other)]} instead of {marks[key]})"
            for key, value in values.items()
            if key[4] == one and values[(*key[:4], other)] < value - MUCH
        ]
        found = "by more than five points stronger for no system"
        if stronger:
            reason = "saturation" if hotter else "a gradient of other scores"
            found = f"by more than five points stronger for {', '.join(stronger)}: {reason} passed for robustness to {attack_name(one)}"
        how = "on the scores by which the victim chooses codes"
        if hotter:
            how = f"at temperature {setting(f'temperature/{other}', hot['temperature'], 'attacks', other, 'temperature')}"
        sentences.append(f"{attack_name(other)}, which is {attack_name(one)} {how}, is {found}.")
    plain = next((model for model, quantizer in settings["quantizers"].items() if quantizer == "pq"), None)
    clean = DISTANCES[0], "clean"
    behind = [
        f"{model_name(key[1])} at {lengths[key[2]]} ({marks[(*key[:3], DISTANCES[1], 'clean')]})"
        for key, value in values.items()
        if plain and key[3:] == clean and value < values[key[0], plain, key[2], *clean] - BEHIND
    ]
    if behind:
        how = f"more than two points below that of {model_name(plain)} (in brackets by {DISTANCES[1]}, which quantizes no query)"
        sentences.append(f"Of clean queries the mAP by {DISTANCES[0]} is {how} for {', '.join(behind)}.")
    others = {model_name(model): SEEN[method] for model, method in settings["quantizers"].items() if method in SEEN}
    if others:
        used = "; ".join(f"{scores} for {model}" for model, (scores, _) in others.items())
        sentences.append(f"Codes have no gradient. APD and AOD use {used}.")
    if others and any(attack.get("distribution") == "own" for attack in settings["attacks"].values()):
        used = "; ".join(f"{scores} for {model}" for model, (_, scores) in others.items())
        sentences.append(f"Attacks on own scores use {used}.")
    return " ".join(sentences)


def passes(attack: Mapping[str, Any], health: Mapping[str, Any]) -> int:
    """What an attack costs: passes of an image through the network. A look at a loss with its gradient is three, a request one, and
    what was trained costs one pass of a query: that of a generator itself does not count."""
    if attack["method"] in TRAINED:
        return 1
    return health.get("requests") or attack.get("restarts", 1) * 3 * (len(health["loss"]) - 1)


def with_attacks(
    rows: pd.DataFrame,
    marked: pd.DataFrame,
    metrics: Mapping[str, dict],
    healths: Mapping[str, dict],
    attacks: Mapping[str, dict],
    titles: Mapping[str, str],
    cells: Cells,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """``rows`` of Table 6 with what is known of each attack on its own victim, and the layout of the table.

    The columns are ``t_map`` (%) of targeted attacks; ``passes``, see above; ``requests`` to a black box; ``change_mean`` in grey levels;
    ``codes_changed`` and ``zero_gradients`` (%); and ``verdict``. ``marked`` is as from ``with_cells``; ``metrics`` are the files of the
    scores, by path, ``healths`` those of the attacks, in the order of their metrics; ``titles`` by data set. All are files of ``cells``.
    """
    ends = ["dataset", "source_model", "target_model", "attack"]
    scored, fared = {}, {}
    for path, one in metrics.items():
        scored.setdefault(tuple(one[key] for key in ends), []).append(path)
    own = (one for one in metrics.values() if one["attack"] in attacks and one["source_model"] == one["target_model"])
    for path, one in zip(healths, own, strict=True):
        fared.setdefault(tuple(one[key] for key in ends), []).append(path)

    def mean(paths: Iterable[str], value: Callable[[dict], float | None], of: Mapping[str, dict] = healths) -> float:
        found = [value(of[path]) for path in paths]
        return math.nan if None in found or not found else float(np.mean(found))

    def said(paths: Iterable[str], attack: Mapping[str, Any]) -> str:
        return " / ".join(dict.fromkeys(verdicts.verdict(healths[path], attack["loss"]) for path in paths))

    more = []
    for *key, distance in rows[[*ends, "distance"]].itertuples(index=False):
        paths, attack = fared.get(tuple(key), []), attacks.get(key[-1], {})
        shares = {name: 100 * mean(paths, lambda one, name=name: one[name]) for name in ("codes_changed", "zero_gradients")}
        target = mean(scored[tuple(key)], lambda one, kind=distance: one["target"][kind]["map"] if "target" in one else None, metrics)
        more.append(
            {"t_map": 100 * target, "passes": mean(paths, lambda one, attack=attack: passes(attack, one))}
            | {"requests": mean(paths, lambda one: one.get("requests")), "change_mean": mean(paths, lambda one: one["change_mean"])}
            | shares
            | {"verdict": said(paths, attack)}
        )
    marks = {tuple(key): mark for *key, mark in marked[[*ends, "distance", "map"]].itertuples(index=False)}
    columns: dict[tuple[str, str], dict[tuple[str, str], str]] = {}

    def put(column: str, text: str, key: tuple[str, str, str, str]) -> None:
        dataset, model, _, attack = key
        columns.setdefault((titles[dataset], column), {})[model_name(model), attack_name(attack)] = text

    for key in dict.fromkeys(marked[ends].itertuples(index=False, name=None)):
        dataset, model, on, attack = key
        victims = [one for other, one, *_ in fared if other == dataset]
        if on not in victims or on != model:  # on the other network; of its clean queries in the line of those of every victim
            text = " / ".join(marks[(*key, distance)] for distance in DISTANCES)
            for victim in dict.fromkeys(victims if attack == "clean" else [model]):
                put(f"On {model_name(on)}", text, (dataset, victim, on, attack))
            continue
        found = _columns_of_attack(key, scored[key], fared.get(key, []), metrics, healths, cells)
        found |= {"Verdict": said(fared[key], attacks[attack])} if key in fared else {}
        for column, text in found.items():
            put(column, f"{marks[(*key, column)]}{text}" if column in DISTANCES else text, key)
    lines = list(dict.fromkeys(line for column in columns.values() for line in column))
    order = ["SDC", "ADC", "t-mAP", *(f"On {model_name(one)}" for one in rows["target_model"].unique())]
    order += ["Requests", "Change", "Zeros", "Codes", "Queries", "Verdict"]
    known = [(title, column) for title in titles.values() for column in order if (title, column) in columns]
    layout = pd.DataFrame([[columns[column].get(line, math.nan) for column in known] for line in lines])
    layout.index, layout.columns = pd.MultiIndex.from_tuples(lines), pd.MultiIndex.from_tuples(known)
    return rows.assign(**pd.DataFrame(more, index=rows.index)), layout


def _columns_of_attack(
    key: tuple[str, str, str, str],
    scored: Sequence[str],
    fared: Sequence[str],
    metrics: Mapping[str, dict],
    healths: Mapping[str, dict],
    cells: Cells,
) -> dict[str, str]:
    """The columns of Table 6 for an attack on its own victim, or for the clean queries, from the files of its seeds; for a distance the
    interval of its mAP, where there is one seed."""
    dataset, model, _, attack = key
    name, found = f"{dataset}/{model}/{attack}", {}
    for kind in DISTANCES:
        found[kind] = ""
        if len(scored) == 1:
            ends = [cells.put(f"{name}/{kind}/{end}", [(scored[0], f"/{kind}/ci_{end}")], ".1f", 100) for end in ("low", "high")]
            found[kind] = f" [{', '.join(ends)}]"
    if all("target" in metrics[path] for path in scored):
        pointers = [(kind, [(path, f"/target/{kind}/map") for path in scored]) for kind in DISTANCES]
        found["t-mAP"] = " / ".join(cells.put(f"{name}/{kind}/target", sources, ".1f", 100) for kind, sources in pointers)
    found["Queries"] = cells.put(f"{name}/queries", [(path, "/queries") for path in scored], ".0f")
    if fared:
        numbers = {"Requests": ("requests", ".0f", 1), "Change": ("change_mean", ".2f", 1)}
        numbers |= {"Zeros": ("zero_gradients", ".1f", 100), "Codes": ("codes_changed", ".1f", 100)}
        for column, (pointer, spec, scale) in numbers.items():
            if all(healths[path].get(pointer) is not None for path in fared):
                found[column] = cells.put(f"{name}/{pointer}", [(path, f"/{pointer}") for path in fared], spec, scale)
    return found


#: What the columns of Table 6 are, for its caption.
ATTACKS_IN_WORDS = (
    "In brackets the interval of the mean over queries. t-mAP: with the labels of the target; of it, and on another network, by SDC / ADC. "
    "Requests: how often a black box was asked for an image. Change: mean of a pixel, in grey levels. Zeros: share of exact zeros in the "
    "first gradient (%), Codes: of the queries whose code changed (%). Rows with fewer queries attack the first ones of the split."
)


def caption(
    what: str,
    cells: Cells,
    metrics: Mapping[str, dict],
    titles: Mapping[str, str],
    histories: Mapping[tuple[str, str, str], Sequence[str]],
    settings: Mapping[str, Any],
    record: str,
    names: Mapping[str, str] = {},
) -> str:
    """What a reader must know to read the table, every number a mark of ``cells``: protocol, sizes, floor and chance of each data set,
    networks and their accuracy on held-out images after the last epoch, where they are classifiers; attacks, seeds.

    ``metrics`` by path; ``titles`` by data set; ``histories``, paths of training.csv, one a seed, by (data set, model, training);
    ``settings`` those of the rule (``widths``, ``networks``, ``quantizers``, ``attacks``, ``seeds``, ``pqn``), which ``record``, the path
    of the table's own record, holds; ``names``, what the table calls its models, where that is not their name. All files are files of
    ``cells``.
    """
    setting = functools.partial(setting_of, cells, record)

    def shown(model: str) -> str:
        return model_name(names.get(model, model))

    sentences = [f"{what}, averaged over the whole ranking and over the orders of tied items."]
    for dataset, title in titles.items():
        first = next(path for path, one in metrics.items() if one["dataset"] == dataset)
        queries, database = (cells.put(f"{dataset}/{key}", [(first, f"/{key}")], "d") for key in ("queries", "database"))
        floor, chance = (cells.put(f"{dataset}/{key}", [(first, f"/map_{key}")], ".1f", 100) for key in ("floor", "chance"))
        accuracies = []
        for (name, model, training), paths in histories.items():
            if name == dataset and all(cells.contents[path] for path in paths):  # a network that is no classifier has none
                pretrained = training == "pretrained"
                identity = f"{dataset}/accuracy/{model}" if pretrained else f"{dataset}/accuracy/{model}/{training}"
                mark = cells.put(identity, [(path, "-1/test_accuracy") for path in paths], ".1f", 100)
                if pretrained:
                    accuracies.append(f"{shown(model)} {mark}")
                else:
                    place = settings["bits"].index(int(training.removeprefix("joint")))
                    bits = cells.put(f"{identity}/bits", [(record, f"{_SETTINGS}/bits/{place}")], "d")
                    accuracies.append(f"{shown(model)} trained for {bits} bits {mark}")
        measured = f"; accuracy of the networks (%): {', '.join(accuracies)}" if accuracies else ""
        sentences.append(f"{title}: {queries} queries, {database} database images, worst possible {floor}, chance {chance}{measured}.")
    for model, network in settings["networks"].items():
        quantizer = settings["quantizers"][model]
        if (network != model and model not in names) or quantizer != "pq":
            built = "" if names.get(model) == network else f"network {model_name(network)}, "
            how = pqn_in_words(model, settings["pqn"][model], setting) if model in settings.get("pqn", {}) else ""
            if model in settings.get("joint", {}):
                how = joint_in_words(model, settings["joint"][model], setting)
            sentences.append(f"{shown(model)}: {built}quantizer {QUANTIZER_NAMES.get(quantizer, quantizer)}{how}.")
    narrow = [
        f"{shown(model)} {setting(f'width/{model}', width, 'widths', model)}" for model, width in settings["widths"].items() if width != 1
    ]
    if narrow:
        sentences.append(f"Channels of the networks as a share of the original's: {', '.join(narrow)}.")
    balls: dict[tuple, list[str]] = {}
    for name, attack in settings["attacks"].items():
        keys = ("epsilon", "iterations", "step", "method", "restarts", "budget", "items", "distance", "discriminator")
        balls.setdefault((*map(attack.get, keys), "budget" in attack and attack["loss"]), []).append(name)
    for values, names in balls.items():
        shown = zip(("epsilon", "iterations", "step"), values)
        epsilon, iterations, step = (setting(f"{key}/{names[0]}", value, "attacks", names[0], key) for key, value in shown)
        words, attack = ", ".join(attack_name(name) for name in names), settings["attacks"][names[0]]
        method = "" if values[3] == "pgd" else f" by {METHOD_NAMES.get(values[3], values[3])}"
        best = f", the best of {setting(f'restarts/{names[0]}', values[4], 'attacks', names[0], 'restarts')} starts" if values[4] else ""
        steps = f"{iterations} step{'s' * (values[1] > 1)} of {step}{method}{best}"
        if values[3] == "universal":
            steps = f"one change for all, trained in {iterations} passes of training images with steps from {step}"
        if values[3] == "uaa_gan":
            judge = ", with a discriminator" if attack["discriminator"] else ""
            steps = f"one step of {step}{method}, whose generator was trained in {iterations} passes of training images{judge}"
        if values[5]:
            budget, items = (setting(f"{key}/{names[0]}", attack[key], "attacks", names[0], key) for key in ("budget", "items"))
            unseen = ", without their distances" if attack["loss"] == "ranks" else ""
            steps += f", in up to {budget} requests, which return the first {items} items by {attack['distance']}{unseen}"
        sentences.append(f"{words}: pixels within {epsilon} grey levels, {steps}.")
    by_name = named_targets(settings["attacks"])
    for name, target in ((name, attack["target"]) for name, attack in settings["attacks"].items() if "target" in attack):
        aim = by_name.get(name, "given database images")
        if isinstance(number := target["class"], int):
            aim = f"the class {setting(f'target/{name}', number, 'attacks', name, 'target', 'class')}"
        sentences.append(f"{attack_name(name)} is targeted: it leads queries to {aim}.")
    seeds = [setting(f"seed/{seed}", seed, "seeds", i) for i, seed in enumerate(settings["seeds"])]
    sentences.append(f"Seed {seeds[0]}." if len(seeds) == 1 else f"Mean ± standard deviation over seeds {', '.join(seeds)}.")
    return " ".join(sentences)


def named_targets(attacks: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """What a caption calls the target of each attack whose target is the name of a class, which may hold digits."""
    classes = {name: attack["target"]["class"] for name, attack in attacks.items() if "target" in attack}
    return {name: f"the class {one}" for name, one in classes.items() if isinstance(one, str)}


def setting_of(cells: Cells, record: str, name: str, value: float, *path: str | int) -> str:
    """The mark of a setting of a table, which is at ``path`` of the settings in its ``record``."""
    return cells.put(name, [(record, "/".join((_SETTINGS, *map(str, path))))], "d" if isinstance(value, int) else "g")


def pqn_in_words(model: str, pqn: Mapping[str, Any], setting: Callable[..., str]) -> str:
    """How a model was trained with its codebook; ``setting`` makes the mark of a number from its name, its value and its place."""

    def number(key: str) -> str:
        return setting(f"pqn/{model}/{key}", pqn[key], "pqn", model, key)

    margin = f", margin {number('margin')}" if pqn["loss"] == "hinge" else ""
    parts = "every sub-vector" if pqn["intra_normalisation"] else "the whole vector"
    beside = f" and {number('classification')} times the classification loss" if pqn["classification"] else ""
    begin = f", after a share of {number('warm_up')} of the epochs with the classification loss alone" if pqn["warm_up"] else ""
    return f" ({pqn['loss']} triplet loss{margin}{beside}{begin}; alpha {number('alpha')}; {parts} normalised)"


def joint_in_words(model: str, joint: Mapping[str, Any], setting: Callable[..., str]) -> str:
    """The same for the methods that begin with a trained network."""
    epochs, rate, weight, *rest = (setting(f"joint/{model}/{key}", value, "joint", model, key) for key, value in joint.items())
    terms = dict(zip(list(joint)[3:], rest))
    quantization = f", {terms['quantization']} times its quantization term" if "quantization" in terms else ""
    return f" ({epochs} epochs from the trained network, learning rate {rate}, {weight} times the classification loss{quantization})"


#: Where a record keeps the settings of its job.
_SETTINGS = "/predicate/buildDefinition/externalParameters/settings"


def record_with(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a table reads of its own record, which is written after it: the settings, at their place."""
    return {"predicate": {"buildDefinition": {"externalParameters": {"settings": settings}}}}


def as_text(layout: pd.DataFrame, cells: Cells) -> str:
    """The layout for a terminal."""
    plain = layout.map(cells.plain, na_action="ignore")
    plain.index, plain.columns = (pd.MultiIndex.from_tuples([tuple(map(cells.plain, key)) for key in keys]) for keys in layout.axes)
    return plain.to_string(na_rep="--")


#: A field of a table: its text and how many columns it spans.
Field = tuple[str, int]
MISSING = "--"


def fields(layout: pd.DataFrame) -> tuple[list[list[Field]], list[list[list[Field]]]]:
    """The lines of the header, and those of the body in groups: a name that goes on is one field that spans columns in the header, and
    stands in the first line of its group in the body."""
    heads, levels = layout.index.nlevels, layout.columns.nlevels
    header = []
    for level in range(levels):
        # only names above the last are shared, and only by neighbours that share those above them too
        keys = [(place if level == levels - 1 else None, *name[: level + 1]) for place, name in enumerate(layout.columns)]
        header.append([("", 1)] * heads + [(key[-1], len(list(run))) for key, run in itertools.groupby(keys)])
    groups = []
    for block, lines in itertools.groupby(zip(layout.index, layout.to_numpy()), key=lambda line: line[0][0]):
        texts = [[*names, *(MISSING if pd.isna(value) else value for value in values)] for (_, *names), values in lines]
        groups.append([[(text, 1) for text in ("" if number else block, *line)] for number, line in enumerate(texts)])
    return header, groups


def as_latex(layout: pd.DataFrame, caption: str, label: str, cells: Cells) -> str:
    """The layout, with marks for numbers, as a ``table`` environment for the booktabs package; names and caption are escaped."""

    def field(text: str, span: int) -> str:
        return escape_latex(text) if span == 1 else f"\\multicolumn{{{span}}}{{c}}{{{escape_latex(text)}}}"

    def lines(rows: list[list[Field]]) -> str:
        return "".join(f"{' & '.join(itertools.starmap(field, row))} \\\\\n" for row in rows)

    caption = " ".join(caption.split())  # a blank line would end the paragraph, and with it the caption
    header, groups = fields(layout)
    body = "\\midrule\n".join(map(lines, [header, *groups]))
    columns = "l" * layout.index.nlevels + "r" * len(layout.columns)
    return cells.latex(
        f"% needs \\usepackage{{booktabs}}\n{MACRO}\n\\begin{{table}}\n\\centering\n\\small\n"
        f"\\caption{{{escape_latex(caption)}}}\n\\label{{{label}}}\n"
        f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{body}\\bottomrule\n\\end{{tabular}}\n\\end{{table}}\n"
    )


def listing(cells: Cells, names: Iterable[str], layout: pd.DataFrame, caption: str) -> dict[str, Any]:
    """What ``audit`` reads, as plain values for a JSON file: the cells; the names that hold digits (data sets, models, attacks), as LaTeX
    prints them; and the layout, see ``pqag.show.cells``."""

    def plain(rows: list[list[Field]]) -> list[list[dict[str, Any]]]:
        return [[{"text": cells.pieces("–" if text == MISSING else text), "span": span} for text, span in row] for row in rows]

    header, groups = fields(layout)
    table = {"caption": cells.pieces(caption), "heads": layout.index.nlevels, "header": plain(header), "groups": list(map(plain, groups))}
    listed = sorted({escape_latex(name) for name in names if any(c.isdigit() for c in name)})
    return {"cells": cells.entries, "names": listed, "table": table}

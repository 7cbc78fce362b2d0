"""The tables: tidy rows from metrics, LaTeX in the paper's layout, and the comparison with the paper's own numbers."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pqag.names import METHOD_NAMES, QUANTIZER_NAMES, attack_name, family, family_name, model_name
from pqag.retrieval import DISTANCES, bootstrap_interval
from pqag.show.cells import MACRO, Cells, read, standard_deviation

#: What identifies a cell; names and values as in ``paper_tables.csv``.
KEYS = ["table", "dataset", "training", "source_model", "target_model", "source_bits", "target_bits", "distance", "attack"]
COLUMNS = [*KEYS, "map", "map_worst", "map_best", "ci_low", "ci_high", "queries", "seeds", "map_sd"]


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


def against_paper(rows: pd.DataFrame, attacks: dict[str, dict]) -> pd.DataFrame:
    """Ours, the paper's and the difference (percentage points) for every row that the paper prints too; no rows where it prints none.

    ``attacks`` gives the settings of each: one that bears the name of an attack of the paper but has other settings is not compared.
    """
    theirs = ["clean", *(name for name, known in PAPER_ATTACKS.items() if attacks.get(name, {}).items() >= known.items())]
    both = rows.loc[rows["attack"].isin(theirs), [*KEYS, "map"]].merge(paper(), on=KEYS, suffixes=("_ours", "_paper"))
    both["difference"] = both["map_ours"] - both["map_paper"]
    return both.rename(columns={"map_ours": "ours", "map_paper": "paper"})


def as_in_the_paper(rows: pd.DataFrame, quantizers: Mapping[str, str]) -> pd.DataFrame:
    """Those ``rows`` whose victims are quantized as in the paper's table of their number; ``quantizers`` by model. All of Table 2 are,
    under whatever names it shows its models: no other quantizer than pqn is trained with the network."""
    return rows[(rows["table"] == 2) | (rows["target_model"].map(quantizers) == "pq")]


def network_names(networks: Mapping[str, str]) -> dict[str, str]:
    """What Table 2 calls its models, whose ``networks`` are given by model: after the network, as the paper does, where only one has it."""
    once = [network for network in networks.values() if list(networks.values()).count(network) == 1]
    return {model: network if network in once else model for model, network in networks.items()}


def renamed(metrics: Mapping[str, dict], names: Mapping[str, str]) -> dict[str, dict]:
    """The contents of metrics.json files, by path, with other names for their models."""
    ends = ("source_model", "target_model")
    return {path: one | {end: names.get(one[end], one[end]) for end in ends} for path, one in metrics.items()}


def robustness(joint: pd.DataFrame, pretrained: pd.DataFrame, counterparts: Mapping[str, str | None], attacks: dict) -> pd.DataFrame:
    """Jointly trained models beside their counterparts: mean mAP (%) over code lengths and distances, a row a data set, model and attack.

    ``joint`` and ``pretrained`` are rows of ``tidy``, ``counterparts`` the pretrained model that a model is held against, both as the rows
    call them; ``attacks`` as in ``against_paper``. ``comparisons`` is the number of (code length, distance); in ``lower`` of them the
    jointly trained one has the lower mAP. ``joint_drop`` and ``pretrained_drop``, 100 (1 - attacked / clean) of the means. The row of the
    attack "all" takes all attacks together. ``paper_...``: the same of the paper's Tables 2 and 1; NaN where it has not all of them.
    """
    keys = ["dataset", "attack", "target_bits", "distance"]
    if not any(counterparts.values()):
        return pd.DataFrame(columns=["dataset", "model", "counterpart", "attack"])
    pairs = []
    for model, other in counterparts.items():
        mine, theirs = (rows[rows["target_model"] == name][[*keys, "map"]] for rows, name in ((joint, model), (pretrained, other)))
        pairs.append(mine.merge(theirs, on=keys, suffixes=("_joint", "_pretrained")).assign(model=model, counterpart=other))
    both = pd.concat(pairs, ignore_index=True)

    printed = against_paper(joint, attacks)[["target_model", *keys, "paper"]].rename(columns={"target_model": "model"})
    both = both.merge(printed, on=["model", *keys], how="left")
    table1 = paper().query("table == 1 and training == 'pretrained'").rename(columns={"target_model": "model", "map": "paper_1"})
    both = both.merge(table1[["model", *keys, "paper_1"]], on=["model", *keys], how="left")
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


def robustness_in_words(table: pd.DataFrame, path: str, cells: Cells, titles: Mapping[str, str], alone: Sequence[str] = ()) -> str:
    """``table`` (of ``robustness``), written to ``path``, as the answer to the paper on Table 2; every number is a mark of ``cells``.

    Of the models ``alone``, which have no counterpart, that is said.
    """

    def number(row: Any, column: str, spec: str = ".1f") -> str:
        return cells.put(f"robustness/{row.dataset}/{row.model}/{row.attack}/{column}", [(path, f"{row.Index}/{column}")], spec)

    sentences = []
    for row in table.itertuples():
        one, other, title = number(row, "joint"), number(row, "pretrained"), titles[row.dataset]
        if row.attack == "clean":
            begin = f"{title}, {model_name(row.model)} jointly trained against pretrained, mean mAP over code lengths and distances"
            sentences.append(f"{begin}: clean {one} against {other}")
        elif row.attack != "all":
            drops = f"relative drop {number(row, 'joint_drop')} against {number(row, 'pretrained_drop')} %"
            sentences.append(f"{attack_name(row.attack)} {one} against {other} ({drops})")
        else:
            count = f"{number(row, 'lower', '.0f')} of {number(row, 'comparisons', '.0f')} comparisons"
            theirs = ""
            if not pd.isna(row.paper_lower):
                theirs = f" (paper: {number(row, 'paper_lower', '.0f')} of {number(row, 'paper_comparisons', '.0f')})"
            sentences[-1] += f". Under attack the jointly trained network has the lower mAP in {count}{theirs}."
    claim = "The paper finds that jointly trained models are even less robust than pretrained ones."
    missing = "no pretrained one of the same network, width, recipe of training and sub-spaces to compare"
    if table.empty:
        return f"{claim} This study has {missing}."
    others = f" For {', '.join(map(model_name, alone))} the study has {missing}." if alone else ""
    return f"{claim} " + ", ".join(sentences).replace("., ", ". ") + others


def transfer_grid(rows: pd.DataFrame, panel: str) -> tuple[pd.DataFrame, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A panel of Table 3 ("<data set>_<model>") or Table 4 ("<data set>") from the rows of the table.

    Gives its rows of attacked queries; mAP (%), float (R, C), by distance, of queries made for one (r) on another (c), in the order of the
    table; and mAP (%) of the clean queries, float (C,), by distance. The columns ``source`` and ``target`` of the rows name r and c for a
    reader, by code length or network.
    """
    [table] = rows["table"].unique()
    key = rows["dataset"] + "_" + rows["target_model"] if table == 3 else rows["dataset"]
    rows = rows[key == panel]
    for end in ("source", "target"):
        names = rows[f"{end}_bits"].map("{} bits".format) if table == 3 else rows[f"{end}_model"].map(model_name)
        rows = rows.assign(**{end: names})
    clean, attacked = (rows[(rows["attack"] == "clean") == is_clean] for is_clean in (True, False))
    sources, targets = (list(dict.fromkeys(attacked[end])) for end in ("source", "target"))
    grids, above = {}, {}
    for kind in DISTANCES:
        wide = attacked[attacked["distance"] == kind].pivot(index="source", columns="target", values="map")
        grids[kind] = wide.loc[sources, targets].to_numpy()
        above[kind] = clean[clean["distance"] == kind].set_index("target")["map"].loc[targets].to_numpy()
    return attacked, grids, above


def family_drops(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean relative drop of mAP in percent, 100 (1 - attacked / clean), for each family of Table 4's sources against each of its victims.

    As the text of the paper averages (section Black-Box Attack: 68.5, 51.6 and 24.9): ``attacked`` is the mean over the block, with the
    victims' own queries in it (``others_attacked`` and ``others_drop`` leave those out: NaN where nothing is left), ``clean`` the mean over
    the victims. A row a data set, distance and block, then the mean of all blocks between different families ("other", "other").
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
    return pd.concat([blocks, means.assign(source_family="other", target_family="other")], ignore_index=True)[list(blocks.columns)]


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


def drops_in_words(drops: pd.DataFrame, path: str, cells: Cells, titles: Mapping[str, str]) -> str:
    """``drops`` (``family_drops``, with ``paper`` beside each ``drop``, NaN where the paper has none), written to ``path``, in a sentence
    a data set and distance; every number a mark of ``cells``."""

    def words(row: Any) -> str:
        name = f"drop/{row.dataset}/{row.distance}/{row.source_family}/{row.target_family}"
        text = f"{cells.put(name, [(path, f'{row.Index}/drop')], '.1f')}"
        extra = [f"paper {cells.put(f'{name}/paper', [(path, f'{row.Index}/paper')], '.1f')}"] if not math.isnan(row.paper) else []
        if row.source_family == row.target_family != "other" and not math.isnan(row.others_drop):
            extra.append(f"{cells.put(f'{name}/others', [(path, f'{row.Index}/others_drop')], '.1f')} without a victim's own queries")
        what = (
            "between families" if row.source_family == "other" else f"{family_name(row.source_family)} on {family_name(row.target_family)}"
        )
        return f"{what} {text}" + (f" ({', '.join(extra)})" if extra else "")

    shown = drops[(drops["source_family"] == drops["target_family"])]
    return " ".join(
        f"Mean relative drop of mAP (%), {titles[dataset]}, {distance}: {', '.join(words(row) for row in block.itertuples())}."
        for (dataset, distance), block in shown.groupby(["dataset", "distance"], sort=False)
    )


def in_paper_layout(rows: pd.DataFrame, titles: Mapping[str, str]) -> pd.DataFrame:
    """mAP as in the paper's table of the same number, in the order of ``rows``; those are of ``with_cells``, so that numbers are marks.

    Tables 1 and 2 have (distance, attack) down and (data set, model, bits) across. Table 3 has (model, bits that the queries were made
    for) down and (data set, bits of the victim) across, with SDC / ADC in each cell. Table 4 has (distance, model that the queries were
    made for) down and (data set, victim) across. ``titles`` by data set.
    """
    [table] = rows["table"].unique()
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
    if table == 3:
        keys = ["dataset", "model", "bits", "made_for_bits"]
        frame["map"] = frame.groupby(keys, sort=False)["map"].transform(" / ".join)
        frame = frame.drop_duplicates(keys)
    down, across = _LAYOUTS[table]
    wide = frame.set_index(down + across)["map"].unstack(across)
    lines, columns = ({tuple(key): None for key in frame[keys].itertuples(index=False)} for keys in (down, across))
    blocks = list(dict.fromkeys(block for block, _ in lines))
    lines = sorted(lines, key=lambda line: blocks.index(line[0]))
    return wide.reindex(index=pd.MultiIndex.from_tuples(lines), columns=pd.MultiIndex.from_tuples(columns))


_LAYOUTS = {
    1: (["distance", "attack"], ["dataset", "model", "bits"]),
    2: (["distance", "attack"], ["dataset", "model", "bits"]),
    3: (["model", "made_for_bits"], ["dataset", "bits"]),
    4: (["distance", "made_for"], ["dataset", "model"]),
}


def with_cells(rows: pd.DataFrame, metrics: Mapping[str, dict], cells: Cells, bits: Sequence[int], record: str) -> pd.DataFrame:
    """``rows`` with the mark of a cell in place of every mAP, and of its standard deviation behind it where there are several seeds; and
    with columns ``bits`` and ``made_for_bits``, the code lengths of victim and source, to head columns and rows with.

    ``metrics`` are the files they were made of, by path; ``bits`` are those of the settings, which ``record`` will hold.
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
    heads = {b: f"{cells.put(f'bits/{b}', [(record, f'{_SETTINGS}/bits/{i}')], 'd', value=b)} bits" for i, b in enumerate(bits)}
    return rows.assign(map=marks, bits=rows["target_bits"].map(heads), made_for_bits=rows["source_bits"].map(heads))


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
    of the table's own record, will hold; ``names``, what the table calls its models, where that is not their name.
    """

    def setting(name: str, value: float, *path: str | int) -> str:
        return cells.put(name, [(record, "/".join((_SETTINGS, *map(str, path))))], "d" if isinstance(value, int) else "g", value=value)

    def shown(model: str) -> str:
        return model_name(names.get(model, model))

    sentences = [f"{what}, averaged over the whole ranking and over the orders of tied items."]
    for dataset, title in titles.items():
        first = next(path for path, one in metrics.items() if one["dataset"] == dataset)
        queries, database = (cells.put(f"{dataset}/{key}", [(first, f"/{key}")], "d") for key in ("queries", "database"))
        floor, chance = (cells.put(f"{dataset}/{key}", [(first, f"/map_{key}")], ".1f", 100) for key in ("floor", "chance"))
        accuracies = []
        for (name, model, training), paths in histories.items():
            if name == dataset and all(map(read, paths)):  # a network that is no classifier has none
                pretrained = training == "pretrained"
                identity = f"{dataset}/accuracy/{model}" if pretrained else f"{dataset}/accuracy/{model}/{training}"
                mark = cells.put(identity, [(path, "-1/test_accuracy") for path in paths], ".1f", 100)
                if pretrained:
                    accuracies.append(f"{shown(model)} {mark}")
                else:
                    place = settings["bits"].index(int(training.removeprefix("joint")))
                    bits = cells.put(f"{identity}/bits", [(record, f"{_SETTINGS}/bits/{place}")], "d", value=settings["bits"][place])
                    accuracies.append(f"{shown(model)} trained for {bits} bits {mark}")
        measured = f"; accuracy of the networks (%): {', '.join(accuracies)}" if accuracies else ""
        sentences.append(f"{title}: {queries} queries, {database} database images, worst possible {floor}, chance {chance}{measured}.")
    for model, network in settings["networks"].items():
        quantizer = settings["quantizers"][model]
        if (network != model and model not in names) or quantizer != "pq":
            built = "" if names.get(model) == network else f"network {model_name(network)}, "
            how = pqn_in_words(model, settings["pqn"][model], setting) if quantizer == "pqn" else ""
            sentences.append(f"{shown(model)}: {built}quantizer {QUANTIZER_NAMES.get(quantizer, quantizer)}{how}.")
    narrow = [
        f"{shown(model)} {setting(f'width/{model}', width, 'widths', model)}" for model, width in settings["widths"].items() if width != 1
    ]
    if narrow:
        sentences.append(f"Channels of the networks as a share of the original's: {', '.join(narrow)}.")
    balls: dict[tuple, list[str]] = {}
    for name, attack in settings["attacks"].items():
        balls.setdefault(tuple(attack[key] for key in ("epsilon", "iterations", "step", "method")), []).append(name)
    for values, names in balls.items():
        shown = zip(("epsilon", "iterations", "step"), values)
        epsilon, iterations, step = (setting(f"{key}/{names[0]}", value, "attacks", names[0], key) for key, value in shown)
        words = ", ".join(attack_name(name) for name in names)
        method = "" if values[3] == "pgd" else f" by {METHOD_NAMES.get(values[3], values[3])}"
        sentences.append(f"{words}: pixels within {epsilon} grey levels, {iterations} step{'s' * (values[1] > 1)} of {step}{method}.")
    seeds = [setting(f"seed/{seed}", seed, "seeds", i) for i, seed in enumerate(settings["seeds"])]
    sentences.append(f"Seed {seeds[0]}." if len(seeds) == 1 else f"Mean ± standard deviation over seeds {', '.join(seeds)}.")
    return " ".join(sentences)


def pqn_in_words(model: str, pqn: Mapping[str, Any], setting: Callable[..., str]) -> str:
    """How a model was trained with its codebook; ``setting`` makes the mark of a number from its name, its value and its place."""

    def number(key: str) -> str:
        return setting(f"pqn/{model}/{key}", pqn[key], "pqn", model, key)

    margin = f", margin {number('margin')}" if pqn["loss"] == "hinge" else ""
    parts = "every sub-vector" if pqn["intra_normalisation"] else "the whole vector"
    beside = f" and {number('classification')} times the classification loss" if pqn["classification"] else ""
    begin = f", after a share of {number('warm_up')} of the epochs with the classification loss alone" if pqn["warm_up"] else ""
    return f" ({pqn['loss']} triplet loss{margin}{beside}{begin}; alpha {number('alpha')}; {parts} normalised)"


#: Where a record keeps the settings of its job.
_SETTINGS = "/predicate/buildDefinition/externalParameters/settings"


def as_text(layout: pd.DataFrame, cells: Cells) -> str:
    """The layout for a terminal."""
    plain = layout.map(cells.plain, na_action="ignore")
    plain.index, plain.columns = (pd.MultiIndex.from_tuples([tuple(map(cells.plain, key)) for key in keys]) for keys in layout.axes)
    return plain.to_string(na_rep="--")


def as_latex(layout: pd.DataFrame, caption: str, label: str, cells: Cells) -> str:
    """The layout, with marks for numbers, as a ``table`` environment for the booktabs package; names and caption are escaped."""
    caption = " ".join(caption.split())  # a blank line would end the paragraph, and with it the caption
    body = (
        layout.style.format(na_rep="--")
        .format_index(escape_latex, axis=0)
        .format_index(escape_latex, axis=1)
        .to_latex(hrules=True, multirow_align="naive", multicol_align="c", column_format="ll" + "r" * len(layout.columns))
    )
    head, lines = body.split("\\midrule\n")
    first, *others = lines.splitlines(keepends=True)
    # a rule before each further block: pandas prints the name of a block in its first line alone
    lines = first + "".join("\\midrule\n" + line if re.match(r"[^ &\\]", line) else line for line in others)
    body = f"{head}\\midrule\n{lines}"
    return cells.latex(
        f"% needs \\usepackage{{booktabs}}\n{MACRO}\n\\begin{{table}}\n\\centering\n\\small\n"
        f"\\caption{{{escape_latex(caption)}}}\n\\label{{{label}}}\n{body}\\end{{table}}\n"
    )


def listing(cells: Cells, names: Iterable[str]) -> dict[str, Any]:
    """The cells as plain values for a JSON file, with the names that hold digits (data sets, models, attacks), as LaTeX prints them."""
    return {"cells": cells.entries, "names": sorted({escape_latex(name) for name in names if any(c.isdigit() for c in name)})}


def escape_latex(text: str) -> str:
    """``text`` with LaTeX's special characters made printable, so that no name can be a command."""
    return text.translate(_LATEX)


_LATEX = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)

"""The tables: tidy rows from metrics, LaTeX in the paper's layout, and the comparison with the paper's own numbers."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pqag.cells import MACRO, Cells
from pqag.retrieval import DISTANCES, bootstrap_interval

#: What identifies a cell; names and values as in ``paper_tables.csv``.
KEYS = ["table", "dataset", "training", "source_model", "target_model", "source_bits", "target_bits", "distance", "attack"]
COLUMNS = [*KEYS, "map", "map_worst", "map_best", "ci_low", "ci_high", "queries", "seeds"]
MODEL_NAMES = {
    "alexnet": "AlexNet",
    "vgg11": "VGG11",
    "vgg13": "VGG13",
    "vgg16": "VGG16",
    "resnet18": "ResNet18",
    "resnet34": "ResNet34",
    "resnet50": "ResNet50",
}
ATTACK_NAMES = {"clean": "Clean", "basic": "Basic", "apd": "APD", "aod": "AOD"}


def paper() -> pd.DataFrame:
    """The 252 mAP values printed in the paper, in percent, with their cells' keys."""
    return pd.read_csv(Path(__file__).with_name("paper_tables.csv"), comment="#")


def tidy(metrics: Iterable[dict], table: int) -> pd.DataFrame:
    """One row a cell from the contents of metrics.json files, unrounded, in percent.

    Seeds of the same cell become one row: the means over the seeds, and the bootstrap interval over queries of each query's mean over the
    seeds (the queries are the same for every seed).
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
        shares = means | {"ci_low": low, "ci_high": high}
        percent = {name: 100 * value for name, value in shares.items()}
        rows.append(dict(zip(KEYS, key)) | percent | {"queries": seeds[0]["queries"], "seeds": len(seeds)})
    return pd.DataFrame(rows, columns=COLUMNS)


#: The attacks of the paper (Implementations: perturbation within 8 of 255, learning rate 0.01 of the unit range, 5 iterations).
PAPER_ATTACKS = {name: {"loss": name, "epsilon": 8.0, "step": 2.55, "iterations": 5} for name in ("basic", "apd", "aod")}


def against_paper(rows: pd.DataFrame, attacks: dict[str, dict]) -> pd.DataFrame:
    """Ours, the paper's and the difference (percentage points) for every row that the paper prints too; no rows where it prints none.

    ``attacks`` gives the settings of each: one that bears the name of an attack of the paper but has other settings is not compared.
    """
    theirs = ["clean", *(name for name, known in PAPER_ATTACKS.items() if attacks.get(name, {}).items() >= known.items())]
    both = rows.loc[rows["attack"].isin(theirs), [*KEYS, "map"]].merge(paper(), on=KEYS, suffixes=("_ours", "_paper"))
    both["difference"] = both["map_ours"] - both["map_paper"]
    return both.rename(columns={"map_ours": "ours", "map_paper": "paper"})


def in_paper_layout(rows: pd.DataFrame, titles: Mapping[str, str]) -> pd.DataFrame:
    """mAP with (distance, attack) down and (data set, model, bits) across, in the order of ``rows``: the layout of the paper's Table 1.

    ``rows`` are those of ``with_cells``, so that numbers are marks; ``titles`` by data set.
    """
    frame = pd.DataFrame(
        {
            "distance": rows["distance"],
            "attack": rows["attack"].map(lambda a: ATTACK_NAMES.get(a, a)),
            "dataset": rows["dataset"].map(titles),
            "model": rows["target_model"].map(MODEL_NAMES),
            "bits": rows["bits"],
            "map": rows["map"],
        }
    )
    down, across = ["distance", "attack"], ["dataset", "model", "bits"]
    wide = frame.set_index(down + across)["map"].unstack(across)
    order = {tuple(key): None for key in frame[across].itertuples(index=False)}
    lines = sorted({tuple(key): None for key in frame[down].itertuples(index=False)}, key=lambda key: DISTANCES.index(key[0]))
    return wide.reindex(index=pd.MultiIndex.from_tuples(lines), columns=pd.MultiIndex.from_tuples(order))


def with_cells(rows: pd.DataFrame, metrics: Mapping[str, dict], cells: Cells, bits: Sequence[int], record: str) -> pd.DataFrame:
    """``rows`` with the mark of a cell in place of every mAP, and a column ``bits`` to head columns with.

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
        marks.append(cells.put(name, sources[tuple(row)], ".1f", 100))
    heads = {b: f"{cells.put(f'bits/{b}', [(record, f'{_SETTINGS}/bits/{i}')], 'd', value=b)} bits" for i, b in enumerate(bits)}
    return rows.assign(map=marks, bits=rows["target_bits"].map(heads))


def caption(
    what: str,
    cells: Cells,
    metrics: Mapping[str, dict],
    titles: Mapping[str, str],
    histories: Mapping[tuple[str, str], Sequence[str]],
    settings: Mapping[str, Any],
    record: str,
) -> str:
    """What a reader must know to read the table, every number a mark of ``cells``: protocol, sizes, floor and chance of each data set,
    networks and their accuracy on held-out images after the last epoch, attacks, seeds.

    ``metrics`` by path; ``titles`` by data set; ``histories``, paths of training.csv, one a seed, by (data set, model); ``settings`` those
    of the rule (``widths``, ``attacks``, ``seeds``), which ``record``, the path of the table's own record, will hold.
    """

    def setting(name: str, value: float, *path: str | int) -> str:
        return cells.put(name, [(record, "/".join((_SETTINGS, *map(str, path))))], "d" if isinstance(value, int) else "g", value=value)

    sentences = [f"{what}, averaged over the whole ranking and over the orders of tied items."]
    for dataset, title in titles.items():
        first = next(path for path, one in metrics.items() if one["dataset"] == dataset)
        queries, database = (cells.put(f"{dataset}/{key}", [(first, f"/{key}")], "d") for key in ("queries", "database"))
        floor, chance = (cells.put(f"{dataset}/{key}", [(first, f"/map_{key}")], ".1f", 100) for key in ("floor", "chance"))
        accuracies = []
        for (name, model), paths in histories.items():
            if name == dataset:
                mark = cells.put(f"{dataset}/accuracy/{model}", [(path, "-1/test_accuracy") for path in paths], ".1f", 100)
                accuracies.append(f"{MODEL_NAMES[model]} {mark}")
        sentences.append(
            f"{title}: {queries} queries, {database} database images, worst possible {floor}, chance {chance}; "
            f"accuracy of the networks (%): {', '.join(accuracies)}."
        )
    narrow = [
        f"{MODEL_NAMES[model]} {setting(f'width/{model}', width, 'widths', model)}"
        for model, width in settings["widths"].items()
        if width != 1
    ]
    if narrow:
        sentences.append(f"Channels of the networks as a share of the original's: {', '.join(narrow)}.")
    balls: dict[tuple, list[str]] = {}
    for name, attack in settings["attacks"].items():
        balls.setdefault(tuple(attack[key] for key in ("epsilon", "iterations", "step")), []).append(name)
    for values, names in balls.items():
        shown = zip(("epsilon", "iterations", "step"), values)
        epsilon, iterations, step = (setting(f"{key}/{names[0]}", value, "attacks", names[0], key) for key, value in shown)
        words = ", ".join(ATTACK_NAMES.get(name, name) for name in names)
        sentences.append(f"{words}: pixels within {epsilon} grey levels, {iterations} steps of {step}.")
    seeds = [setting(f"seed/{seed}", seed, "seeds", i) for i, seed in enumerate(settings["seeds"])]
    sentences.append(f"Seed {seeds[0]}." if len(seeds) == 1 else f"Mean over seeds {', '.join(seeds)}.")
    return " ".join(sentences)


#: Where a record keeps the settings of its job.
_SETTINGS = "/predicate/buildDefinition/externalParameters/settings"


def as_text(layout: pd.DataFrame, cells: Cells) -> str:
    """The layout for a terminal."""
    plain = layout.map(cells.plain, na_action="ignore")
    plain.columns = pd.MultiIndex.from_tuples([tuple(map(cells.plain, key)) for key in layout.columns])
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
    second = body.index(f"\n{DISTANCES[1]} &") + 1
    body = body[:second] + "\\midrule\n" + body[second:]
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

"""The tables: tidy rows from metrics, LaTeX in the paper's layout, and the comparison with the paper's own numbers."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

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


def in_paper_layout(rows: pd.DataFrame, titles: dict[str, str]) -> pd.DataFrame:
    """mAP with (distance, attack) down and (data set, model, bits) across, in the order of ``rows``: the layout of the paper's Table 1."""
    frame = pd.DataFrame(
        {
            "distance": rows["distance"],
            "attack": rows["attack"].map(lambda a: ATTACK_NAMES.get(a, a)),
            "dataset": rows["dataset"].map(titles),
            "model": rows["target_model"].map(MODEL_NAMES),
            "bits": rows["target_bits"].map("{} bits".format),
            "map": rows["map"],
        }
    )
    down, across = ["distance", "attack"], ["dataset", "model", "bits"]
    wide = frame.set_index(down + across)["map"].unstack(across)
    order = {tuple(key): None for key in frame[across].itertuples(index=False)}
    lines = sorted({tuple(key): None for key in frame[down].itertuples(index=False)}, key=lambda key: DISTANCES.index(key[0]))
    return wide.reindex(index=pd.MultiIndex.from_tuples(lines), columns=pd.MultiIndex.from_tuples(order))


def caption(
    what: str,
    metrics: list[dict],
    titles: dict[str, str],
    widths: dict[str, float],
    accuracies: dict[tuple[str, str], float],
    attacks: dict[str, dict],
) -> str:
    """What a reader must know to read the table: protocol, sizes, floor and chance of each data set, networks, attacks, seeds.

    ``titles`` by data set, ``widths`` by model, ``accuracies`` in [0, 1] by (data set, model), ``attacks`` the settings of each by name.
    """
    sentences = [f"{what}, averaged over the whole ranking and over the orders of tied items."]
    for dataset, title in titles.items():
        own = [one for one in metrics if one["dataset"] == dataset]
        known = ", ".join(f"{MODEL_NAMES[model]} {100 * value:.1f}" for (name, model), value in accuracies.items() if name == dataset)
        sentences.append(
            f"{title}: {own[0]['queries']} queries, {own[0]['database']} database images, worst possible {100 * own[0]['map_floor']:.1f}, "
            f"chance {100 * own[0]['map_chance']:.1f}; accuracy of the networks (%): {known}."
        )
    narrow = [f"{MODEL_NAMES[model]} {width:g}" for model, width in widths.items() if width != 1]
    if narrow:
        sentences.append(f"Channels of the networks as a share of the original's: {', '.join(narrow)}.")
    balls: dict[tuple, list[str]] = {}
    for name, attack in attacks.items():
        balls.setdefault((attack["epsilon"], attack["step"], attack["iterations"]), []).append(ATTACK_NAMES.get(name, name))
    for (epsilon, step, iterations), names in balls.items():
        sentences.append(f"{', '.join(names)}: pixels within {epsilon:g} of 255, {iterations} steps of {step:g}.")
    seeds = sorted({one["seed"] for one in metrics})
    sentences.append(f"Seed {seeds[0]}." if len(seeds) == 1 else f"Mean over seeds {', '.join(map(str, seeds))}.")
    return " ".join(sentences)


def mean_accuracies(histories: Iterable[tuple[tuple[str, str], str | Path]]) -> dict[tuple[str, str], float]:
    """Accuracy on held-out images after the last epoch, in [0, 1], by (data set, model), mean over the files that bear the same pair.

    ``histories`` are such pairs with the path of a training.csv (``pqag.training.Epoch``, one line an epoch).
    """
    finals: dict[tuple[str, str], list[float]] = {}
    for key, path in histories:
        finals.setdefault(key, []).append(float(pd.read_csv(path)["test_accuracy"].iloc[-1]))
    return {key: float(np.mean(values)) for key, values in finals.items()}


def as_text(layout: pd.DataFrame) -> str:
    """The layout for a terminal, one decimal."""
    return layout.to_string(float_format="{:.1f}".format)


def as_latex(layout: pd.DataFrame, caption: str, label: str) -> str:
    """The layout as a ``table`` environment for the booktabs package, one decimal; names and caption are escaped."""
    count = len(layout.columns)
    caption = " ".join(caption.split())  # a blank line would end the paragraph, and with it the caption
    body = (
        layout.style.format("{:.1f}", escape="latex", na_rep="--")
        .format_index(escape="latex", axis=0)
        .format_index(escape="latex", axis=1)
        .to_latex(hrules=True, multirow_align="naive", multicol_align="c", column_format="ll" + "r" * count)
    )
    second = body.index(f"\n{DISTANCES[1]} &") + 1
    body = body[:second] + "\\midrule\n" + body[second:]
    return (
        "% needs \\usepackage{booktabs}\n\\begin{table}\n\\centering\n\\small\n"
        f"\\caption{{{escape_latex(caption)}}}\n\\label{{{label}}}\n{body}\\end{{table}}\n"
    )


def escape_latex(text: str) -> str:
    """``text`` with LaTeX's special characters made printable, so that no name can be a command."""
    return text.translate(_LATEX)


_LATEX = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)

"""A study beside the paper: ours, the paper's and the difference, for every cell that both have."""

from collections.abc import Mapping

import pandas as pd

from pqag.names import attack_name, model_name

#: The shares of cells that lie within so many points of the paper are counted.
POINTS = (2, 5, 10)
#: What heads the rows and the columns of a table here: columns of ``_headed``.
_ENDS = {1: (("distance", "attack"), ("model", "bits")), 2: (("distance", "attack"), ("model", "bits"))}
_ENDS |= {3: (("model", "made_for_bits"), ("distance", "bits")), 4: (("made_for",), ("distance", "model"))}


def _headed(rows: pd.DataFrame) -> pd.DataFrame:
    """``rows`` with columns for the reader."""
    clean = rows["attack"] == "clean"
    return rows.assign(
        attack=rows["attack"].map(attack_name),
        model=rows["target_model"].map(model_name),
        bits=rows["target_bits"].map("{} bits".format),
        made_for_bits=rows["source_bits"].map("made for {} bits".format).where(~clean, attack_name("clean")),
        made_for=rows["source_model"].map(lambda name: f"made for {model_name(name)}").where(~clean, attack_name("clean")),
    )


def grid(rows: pd.DataFrame, value: str) -> pd.DataFrame:
    """The column ``value`` of ``rows``, those of one table and data set, as a table like the paper's, with heads as texts."""
    [table] = rows["table"].unique()
    headed = _headed(rows)
    frame = headed.pivot(index=list(_ENDS[table][0]), columns=list(_ENDS[table][1]), values=value)
    for axis, keys in enumerate(_ENDS[table]):  # in the order of the rows, but what has the same first head together
        heads = [tuple(one) for one in headed[list(keys)].drop_duplicates().to_numpy()]
        firsts = list(dict.fromkeys(head[0] for head in heads))
        heads.sort(key=lambda head: firsts.index(head[0]))
        frame = frame.reindex(heads if len(keys) > 1 else firsts, axis=axis)
    return frame.set_axis(map(_joined, frame.index), axis=0).set_axis(map(_joined, frame.columns), axis=1)


def _joined(heads: str | tuple[str, ...]) -> str:
    return heads if isinstance(heads, str) else " ".join(heads)


def panels(rows: pd.DataFrame, titles: Mapping[str, str]) -> dict[str, pd.DataFrame]:
    """The ``rows`` of each table and data set, by a heading; ``titles`` by data set."""
    return {f"Table {table}, {titles[dataset]}": part for (table, dataset), part in rows.groupby(["table", "dataset"], sort=False)}


def shares(rows: pd.DataFrame) -> pd.DataFrame:
    """For each table, and for all: the number of cells, the share (%) of them that lie within each of ``POINTS`` of the paper, and the
    mean of the differences and of their absolute values, in points."""
    parts = {**{f"Table {table}": part for table, part in rows.groupby("table")}, "all": rows}
    found = []
    for name, part in parts.items():
        distance = part["difference"].abs()
        within = {f"within {points}": 100 * (distance <= points).mean() for points in POINTS}
        found.append({"cells": name, "number": len(part)} | within | {"mean": part["difference"].mean(), "mean absolute": distance.mean()})
    return pd.DataFrame(found)


def _markdown(frame: pd.DataFrame) -> str:
    """A table of texts in Markdown, headed by its columns."""
    lines = [list(frame.columns), ["---"] * len(frame.columns), *frame.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page(rows: pd.DataFrame, titles: Mapping[str, str]) -> str:
    """All of it in Markdown. ``rows`` are those of ``tables.against_paper`` of every table; ``titles`` by data set."""
    if rows.empty:
        return "The study has no cell that the paper has.\n"
    formats = dict.fromkeys(["cells", "number"], "{}") | {"mean": "{:+.1f}", "mean absolute": "{:.1f}"}
    counted = shares(rows)
    text = counted.apply(lambda column: column.map(formats.get(column.name, "{:.0f} %").format))
    parts = ["mAP in percent: ours, the paper's, and the difference in points.", _markdown(text)]
    for heading, part in panels(rows, titles).items():
        cell = [f"{one.ours:.1f} / {one.paper:.1f} ({one.difference:+.1f})" for one in part.itertuples()]
        shown = grid(part.assign(cell=cell), "cell").fillna("")
        parts += [f"## {heading}", _markdown(shown.rename_axis(index="", columns=None).reset_index())]
    return "\n\n".join(parts) + "\n"

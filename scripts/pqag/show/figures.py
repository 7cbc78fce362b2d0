"""The figures: matplotlib figures from arrays and tidy rows, for print, alike in every study and byte for byte the same whenever saved.

Nothing here needs a display or pyplot, and matplotlib's global settings neither change nor matter: every function works under ``_STYLE``
on top of matplotlib's defaults. Texts are printed as they are; a name such as ``a_$b$`` is never read as mathematics.
"""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator, StrMethodFormatter

from pqag.files import atomic
from pqag.names import attack_name, model_name
from pqag.retrieval import DISTANCES

#: Width in inches of one column and of the whole page of the paper's layout.
COLUMN, PAGE = 3.3, 7.0
#: Colours that the colour-blind tell apart (Okabe & Ito 2008), without the yellow, which is too pale for a line on white.
PALETTE = {
    "black": "#000000",
    "orange": "#E69F00",
    "sky blue": "#56B4E9",
    "green": "#009E73",
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "purple": "#CC79A7",
}
#: The border and cross of an irrelevant image; no attack of the paper has this colour.
IRRELEVANT = PALETTE["vermillion"]

_STYLE = {
    "font.family": "sans-serif",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "figure.titlesize": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.handlelength": 2.8,  # with a marker at both ends, so that the dashes between them are seen
    "legend.numpoints": 2,
    "legend.columnspacing": 1.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "text.parse_math": False,
    "text.usetex": False,
    "pdf.fonttype": 42,  # TrueType: text of a PDF can be searched and edited
    "figure.constrained_layout.w_pad": 0.04,
    "figure.constrained_layout.h_pad": 0.04,
}
#: To be put before a function: it then works under ``_STYLE``. Saving does too, as matplotlib makes ticks only when it draws.
_styled = style.context(["default", _STYLE])

_METADATA = {"pdf": {"CreationDate": None, "Creator": None, "Producer": None}, "png": {"Software": None}}

_STANDARD = {
    "clean": {"color": PALETTE["green"], "linestyle": "-", "marker": "o"},
    "basic": {"color": PALETTE["blue"], "linestyle": (0, (4, 1.5)), "marker": "s"},
    "apd": {"color": PALETTE["orange"], "linestyle": (0, (5, 1.2, 1, 1.2)), "marker": "^"},
    "aod": {"color": PALETTE["black"], "linestyle": (0, (9, 2)), "marker": "D"},
}
_COLORS = [PALETTE[name] for name in ("purple", "sky blue", "vermillion")]
_DASHES = [(0, (2, 1)), (0, (7, 1.2, 1, 1.2, 1, 1.2)), (0, (3, 1, 3, 1, 1, 1)), (0, (6, 3))]
_MARKERS = ["v", "P", "X", "<", ">"]
_CHANCE = {"color": "0.3", "linewidth": 0.9, "linestyle": ":", "zorder": 1.5}
_FLOOR = {"color": "0.3", "linewidth": 0.7, "linestyle": "-", "zorder": 1.5}
_APART = 1.25  # where the cells begin below the row of the clean queries, in heights of a row
_LINE = 0.15  # inches from one line of text to the next
_AXES = {"epsilon": "Perturbation bound \u03b5 (grey levels)", "iterations": "Iterations"}


class Row(NamedTuple):
    """One query and what it retrieves: a label, images uint8 (3, H, W) and (n, 3, H, W), nearest first, and which of them are relevant."""

    label: str
    query: np.ndarray
    retrieved: np.ndarray
    relevant: np.ndarray


@_styled
def save(figure: Figure, *paths: str | Path) -> None:
    """Write ``figure`` to each path, in the format of its suffix, .pdf or .png (200 dpi), atomically.

    The same figure gives the same bytes, in any process: dates and versions are left out.
    """
    kinds = [Path(path).suffix.removeprefix(".") for path in paths]
    for path, kind in zip(paths, kinds):
        if kind not in _METADATA:
            raise ValueError(f"a figure is written as .pdf or .png, which {path} is not")
    for path, kind in zip(paths, kinds):
        with atomic(path) as part:
            figure.savefig(part, format=kind, dpi=200, bbox_inches="tight", pad_inches=0.03, metadata=_METADATA[kind])


def attack_style(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour, line style and marker of each attack, as keywords of ``Axes.plot``.

    "clean" and the attacks of the paper look the same in every study, the others by their order among ``names`` without these; the first
    60 others are all different. Pass all attacks of a study, then each looks the same in all its figures.
    """
    names = list(dict.fromkeys(names))
    others = [name for name in names if name not in _STANDARD]
    cycles = {"color": _COLORS, "linestyle": _DASHES, "marker": _MARKERS}
    extra = {name: {key: cycle[i % len(cycle)] for key, cycle in cycles.items()} for i, name in enumerate(others)}
    return {name: dict((_STANDARD | extra)[name]) for name in names}


@_styled
def precision_recall(
    curves: Mapping[str, np.ndarray], recall: np.ndarray, title: str, chance: float, attacks: Sequence[str] = ()
) -> Figure:
    """Precision against recall, a line an attack, one column wide (Figure 5 of the paper has four such panels).

    ``curves``: precision float (L,) in [0, 1] at ``recall`` (L,), by attack, "clean" among them; ``chance``: the precision of a random
    ranking. ``attacks``: all of the study, see ``attack_style``.
    """
    recall = np.asarray(recall, dtype=float)
    curves = {name: _array(f"the precision of {name}", values, recall.shape) for name, values in _some("curves", curves).items()}
    if any(not ((values >= 0) & (values <= 1)).all() for values in [recall, np.array([chance]), *curves.values()]):
        raise ValueError("recall, precision and chance must be shares, from 0 to 1")
    figure, grid = _panels(title, 1, 1, COLUMN, 2.3)
    axes = grid[0, 0]
    axes.axhline(chance, label=f"Chance ({chance:.2f})", **_CHANCE)
    styles = attack_style([*attacks, *curves])
    for i, (name, values) in enumerate(curves.items()):
        # Markers of different lines at different places, and drawn whole where a line runs along the edge.
        axes.plot(recall, values, label=attack_name(name), **styles[name], markevery=(3 + 4 * i % 16, 16), clip_on=False)
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=np.arange(6) / 5, yticks=np.arange(6) / 5, xlabel="Recall", ylabel="Precision")
    _legend(figure, [*axes.lines[1:], axes.lines[0]])
    return _laid_out(figure)


@_styled
def centroid_distributions(
    clean: np.ndarray, attacked: Mapping[str, np.ndarray], titles: Sequence[str], title: str = "", attacks: Sequence[str] = ()
) -> Figure:
    """The probabilities of Eq. 7 over the codewords of a sub-space, before and after each attack (Figure 3).

    ``clean`` float (P, K) and ``attacked`` float (P, K) by attack: P distributions over K codewords, a row of panels each, headed by
    ``titles`` (P,); a column of panels an attack. Codewords are sorted by falling clean probability, in each row anew. A row has one
    vertical axis, from 0 only where that leaves the differences visible: at temperature 1 all probabilities are nearly 1/K.
    """
    clean = np.asarray(clean, dtype=float)
    if clean.ndim != 2 or not clean.size:
        raise ValueError(f"clean must be probabilities of shape (P, K), not {clean.shape}")
    attacked = {name: _array(f"the distribution of {name}", values, clean.shape) for name, values in _some("attacked", attacked).items()}
    if len(titles) != len(clean):
        raise ValueError(f"there are {len(clean)} distributions, but {len(titles)} titles")
    count, columns = len(clean), len(attacked)
    width = max(PAGE, 1.7 * columns) if columns > 1 else COLUMN
    heads = [_wrap(attack_name(name), 0.8 * width / columns) for name in attacked]
    rank = _wrap(f"Rank of the codeword (K = {clean.shape[1]})", 0.9 * width / columns)
    height = 0.35 + 1.55 * count + _LINE * (max(map(_lines, heads)) + _lines(rank) - 1)
    figure, grid = _panels(title, count, columns, width, height, sharex=True, sharey="row")
    styles = attack_style(["clean", *attacks, *attacked])
    lines = {}
    for p, row in enumerate(grid):
        limits = _limits(np.stack([clean[p], *(values[p] for values in attacked.values())]))
        for axes, (name, values) in zip(row, attacked.items()):
            lines |= _distribution(axes, clean[p], values[p], name, styles, limits)
        row[0].set_ylabel(f"{_wrap(titles[p], 1.6)}\nprobability")
    for first, last, head in zip(grid[0], grid[-1], heads):
        first.set_title(head)
        last.set_xlabel(rank)
    _legend(figure, [*lines.values(), grid[0, 0].lines[0]])
    return _laid_out(figure)


def _distribution(axes: Axes, clean: np.ndarray, attacked: np.ndarray, name: str, styles: dict, limits: tuple[float, float]) -> dict:
    """Probabilities float (K,) before and after the attack ``name``, by falling ``clean``; gives what was drawn, for the legend."""
    order, count = np.argsort(-clean, kind="stable"), len(clean)
    look = styles[name] | ({} if count <= 32 else {"marker": ""})  # more would hide the line
    edges, color = np.arange(count + 1) + 0.5, styles["clean"]["color"]
    filled = axes.stairs(clean[order], edges, baseline=limits[0], fill=True, color=color, alpha=0.4, lw=0, label=attack_name("clean"))
    axes.axhline(1 / count, label=f"Uniform, 1/K = {1 / count:.4g}", **_CHANCE)
    (line,) = axes.plot(edges[:-1] + 0.5, attacked[order], label=attack_name(name), drawstyle="steps-mid", lw=0.9, ms=2.5, **look)
    axes.set(xlim=(0.5, count + 0.5), ylim=limits)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, prune="lower"))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.ticklabel_format(style="plain", useOffset=False)
    axes.label_outer()
    return {"clean": filled, name: line}


@_styled
def retrieval_sheet(groups: Sequence[tuple[str, Sequence[Row]]], title: str = "") -> Figure:
    """Queries and the images that they retrieve first, a line each (Figure 4).

    ``groups``: a heading ("" for none) and its lines, each a ``Row`` or such a tuple, with the same H, W and n in all. Irrelevant images
    have a vermillion border, and a cross for those who cannot see the colour.
    """
    rows = [Row(*row) for _, group in groups for row in group]
    if not rows:
        raise ValueError("there is nothing to show: groups holds no row")
    pixels, count = np.shape(rows[0].query), len(rows[0].retrieved)
    for row in rows:
        _check_images(row, pixels, count)
    left = 0.1 + max(_inches(row.label, 1.2) for row in rows)
    pitch = min(0.64, (PAGE - left - _GAP) / (count + 1))
    size = pitch - _SPACE
    columns = left + pitch + _GAP + pitch * np.arange(count)
    axes, y = _canvas(max(columns[-1] + size, 2.8), title)
    for x, text in zip([left, *columns], ["query", *range(1, count + 1)]):
        axes.text(x + size / 2, y, str(text), ha="center", va="top")
    y += _LINE + 0.04
    for heading, group in groups:
        if heading:
            text = _wrap(heading, columns[-1])
            axes.text(0, y + 0.04, text, va="top", weight="bold")
            y += 0.08 + _LINE * _lines(text)
        for row in group:
            y = _sheet_row(axes, Row(*row), left, columns, y, size) + _SPACE
    return _finish(axes, y)


def _sheet_row(axes: Axes, row: Row, left: float, columns: np.ndarray, y: float, size: float) -> float:
    """Draw a row from ``y`` down: the query at ``left`` with its label before it, the others at ``columns`` (n,); gives where it ends."""
    label, height = _wrap(row.label, 1.2), _height(row.query, size)
    whole = max(height, _LINE * _lines(label))
    axes.text(left - 0.1, y + whole / 2, label, ha="right", va="center")
    top = y + (whole - height) / 2
    _image(axes, row.query, left, top, size)
    _retrieved(axes, row, columns, top, size)
    return y + whole


@_styled
def perturbation(
    query: np.ndarray,
    adversarial: np.ndarray,
    retrieved_clean: np.ndarray,
    relevant_clean: np.ndarray,
    retrieved_adversarial: np.ndarray,
    relevant_adversarial: np.ndarray,
    amplification: float,
    title: str = "",
) -> Figure:
    """Query + perturbation = adversarial query, and what both retrieve (Figure 1).

    Images uint8: ``query`` and ``adversarial`` (3, H, W), ``retrieved_...`` (n, 3, H, W), nearest first, with ``relevant_...`` bool (n,).
    The perturbation is drawn ``amplification`` times as large around mid-grey (128), cut to 0 ... 255.
    """
    rows = [
        Row("retrieved by the query", query, retrieved_clean, relevant_clean),
        Row("retrieved by the adversarial query", adversarial, retrieved_adversarial, relevant_adversarial),
    ]
    for row in rows:
        _check_images(row, np.shape(query), len(retrieved_clean))
    axes, y = _canvas(PAGE, title)
    y += _LINE
    left, bottom = _sum(axes, query, adversarial, amplification, y)
    pitch = min(0.64, (PAGE - left + _SPACE) / len(retrieved_clean))
    columns, size = left + pitch * np.arange(len(retrieved_clean)), pitch - _SPACE
    for row in rows:
        axes.text(left, y - 0.05, row.label, va="baseline")
        _retrieved(axes, row, columns, y, size)
        y += _height(query, size) + 0.12 + _LINE
    return _finish(axes, max(y - _LINE, bottom), left)


def _sum(axes: Axes, query: np.ndarray, adversarial: np.ndarray, amplification: float, y: float) -> tuple[float, float]:
    """Draw query + perturbation = adversarial query below ``y``, the captions above; gives where to go on to the right, and the bottom."""
    size, sign = 1.15, 0.3
    difference = adversarial.astype(int) - query.astype(int)
    shown = np.clip(np.rint(128 + amplification * difference), 0, 255).astype(np.uint8)
    captions = ["query", f"perturbation \u00d7 {amplification:g}", "adversarial query"]
    height = _height(query, size)
    for i, (image, caption) in enumerate(zip((query, shown, adversarial), captions)):
        x = i * (size + sign)
        axes.text(x + size / 2, y - 0.05, caption, ha="center", va="baseline")
        _image(axes, image, x, y, size)
        if i:
            axes.text(x - sign / 2, y + height / 2, "+="[i - 1], ha="center", va="center", size=14)
    axes.text(1.5 * size + sign, y + height + 0.05, f"(at most {np.abs(difference).max()} of 255)", ha="center", va="top")
    return 3 * size + 2 * sign + 0.35, y + height + 0.1 + _LINE


@_styled
def sweep(rows: pd.DataFrame, floor: float, chance: float, title: str, attacks: Sequence[str] = ()) -> Figure:
    """mAP against the strength of the attacks: a row of panels a distance, a column an axis.

    ``rows`` with the columns axis ("epsilon", in grey levels, or "iterations"), value, attack, distance ("SDC" or "ADC") and map (percent),
    one row a point. ``floor`` and ``chance``: mAP (percent) of the worst possible ranking and of a random one. No figure of the paper.
    """
    _check_sweep(rows)
    names = list(_some("rows", dict.fromkeys(rows["attack"])))
    across, down = ([key for key in known if key in set(rows[column])] for column, known in (("axis", _AXES), ("distance", DISTANCES)))
    width = PAGE if len(across) > 1 else COLUMN
    figure, grid = _panels(title, len(down), len(across), width, 0.5 + 1.6 * len(down), sharey=True, sharex="col")
    styles = attack_style([*attacks, *names])
    for (i, j), axes in np.ndenumerate(grid):
        here = rows[(rows["distance"] == down[i]) & (rows["axis"] == across[j])]
        for name in names:
            points = here[here["attack"] == name].sort_values("value")
            axes.plot(points["value"], points["map"], label=attack_name(name), **styles[name], clip_on=False)
        axes.axhline(chance, label=f"Chance ({chance:.1f})", **_CHANCE)
        axes.axhline(floor, label=f"Worst possible ({floor:.1f})", **_FLOOR)
        axes.set_ylim(0, 1.04 * max(rows["map"].max(), chance, floor))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.label_outer()
    for j, axis in enumerate(across):
        _strength_axis(grid[-1, j], axis, rows.loc[rows["axis"] == axis, "value"])
    for i, distance in enumerate(down):
        grid[i, 0].set_ylabel(f"mAP (%), {distance}")
    _legend(figure, list(grid[0, 0].lines))
    return _laid_out(figure)


def _check_sweep(rows: pd.DataFrame) -> None:
    """Raise ValueError unless these are rows for ``sweep``."""
    if missing := [name for name in ("axis", "value", "attack", "distance", "map") if name not in rows]:
        raise ValueError(f"the rows of a sweep lack the column {missing[0]}")
    for column, known in (("axis", _AXES), ("distance", DISTANCES)):
        if unknown := sorted(set(rows[column]) - set(known)):
            raise ValueError(f"unknown {column} {unknown[0]!r}: known are {', '.join(known)}")
    if rows.duplicated(["axis", "value", "attack", "distance"]).any():
        raise ValueError("the rows of a sweep hold two values for the same point")


def _strength_axis(axes: Axes, axis: str, values: Iterable[float]) -> None:
    """Label, and ticks at the ``values`` but those too near; iterations are compared by their ratios, hence logarithmic."""
    values = np.unique(values)
    logarithmic = axis == "iterations" and values[0] > 0
    places = np.log(values) if logarithmic else values
    lengths = [len(f"{value:g}") for value in values]
    kept = [0]
    for i in range(1, len(values)):
        if places[i] - places[kept[-1]] >= np.ptp(places) * (0.01 + 0.0135 * (lengths[i] + lengths[kept[-1]])):
            kept.append(i)
    axes.set(xlabel=_AXES[axis], xscale="log" if logarithmic else "linear")
    axes.xaxis.set(
        major_locator=FixedLocator(values[kept]),
        minor_locator=NullLocator(),
        major_formatter=FuncFormatter(lambda value, _: f"{value:g}"),  # the formatter for logarithms would write powers of 10
    )


@_styled
def heat_map(
    values: Mapping[str, np.ndarray],
    row_names: Sequence[str],
    column_names: Sequence[str],
    title: str,
    clean: Mapping[str, np.ndarray] | None = None,
    fmt: str = ".1f",
) -> Figure:
    """How well the queries made for one system attack another (Tables 3 and 4), a panel a distance, all with the same colours.

    ``values``: mAP in percent, float (R, C), by distance: row r are the queries made for ``row_names[r]``, column c the victim
    ``column_names[c]``. ``clean``: mAP of the clean queries, float (C,), by distance, drawn above. NaN leaves a cell blank and grey.
    """
    shape = (len(_some("row_names", row_names)), len(_some("column_names", column_names)))
    values = {name: _array(f"the mAP of {name}", array, shape) for name, array in _some("values", values).items()}
    clean = {name: _array(f"the clean mAP of {name}", array, shape[1:]) for name, array in (clean or {}).items()}
    if clean and clean.keys() != values.keys():
        raise ValueError(f"clean must have the distances {', '.join(values)}, not {', '.join(clean)}")
    rows, columns = ([_wrap(model_name(name), 1.2) for name in names] for names in (row_names, column_names))
    longest, widest = (max(_inches(name, 1.2) for name in names) for names in (rows, columns))
    cell = np.clip((PAGE - 1.3 - longest) / (shape[1] * len(values)), 0.37, 0.55)
    below = 0.15 + 0.75 * widest if widest > cell else _LINE  # turned if they are too wide
    size = (1.3 + longest + cell * shape[1] * len(values), 0.95 + below + 0.27 * (shape[0] + _APART * bool(clean)))
    figure, grid = _panels(title, 1, len(values), *size, sharey=True)
    known = np.concatenate([array.ravel() for array in (*values.values(), *clean.values())])
    norm = Normalize(0, np.nanmax(known, initial=1))
    for axes, distance in zip(grid[0], values):
        if clean:
            _cells(axes, clean[distance][None], 0.0, norm, fmt)
        mesh = _cells(axes, values[distance], _APART * bool(clean), norm, fmt)
        axes.set(title=distance, xlabel="Victim")
        _name_cells(axes, rows, columns, bool(clean), widest > cell)
    grid[0, 0].set_ylabel("Queries made for")
    bar = figure.colorbar(mesh, ax=list(grid[0]), label="mAP (%)", aspect=15, ticks=MaxNLocator(5))
    bar.outline.set_visible(False)
    return _laid_out(figure)


@_styled
def systems(rows: pd.DataFrame, title: str) -> Figure:
    """Clean mAP against the mAP under the strongest attack, a point a model and code length, a panel a distance; rows of
    ``tables.strongest``, at least one. A line goes down from a point to the mAP of the farthest codes."""
    if rows.empty:
        raise ValueError("rows must not be empty")
    figure, grid = _panels(title, 1, len(DISTANCES), PAGE, 3.2, sharey=True)
    models, bits = (list(dict.fromkeys(rows[key])) for key in ("target_model", "target_bits"))
    colours, markers, fills = [*PALETTE.values()], ["o", "s", "^", *_MARKERS], ["full", "none", "left", "right"]
    # Seven colours; the models after these have them again with points that are not full.
    looks = {model: {"color": colours[i % 7], "fillstyle": fills[i // 7 % 4]} for i, model in enumerate(models)}
    for axes, distance in zip(grid[0], DISTANCES):
        for row in rows[rows["distance"] == distance].itertuples():
            look = looks[row.target_model]
            axes.plot([row.clean] * 2, [row.floor, row.attacked], color=look["color"], linewidth=0.5, alpha=0.5)
            marker = markers[bits.index(row.target_bits) % len(markers)]
            axes.plot(row.clean, row.attacked, marker=marker, **look, linestyle="none", gid=f"{row.target_model}/{row.target_bits}")
        axes.set(title=distance, xlabel="mAP of clean queries (%)")
    grid[0, 0].set_ylabel("mAP under the strongest attack (%)")
    grid[0, 0].set_ylim(bottom=0)
    named = [Line2D([], [], **looks[model], marker="o", linewidth=0.5, label=model_name(model)) for model in models]
    named += [
        Line2D([], [], color="0.3", marker=markers[i % len(markers)], linestyle="none", label=f"{count} bits")
        for i, count in enumerate(bits)
    ]
    with mpl.rc_context({"legend.numpoints": 1}):  # no line joins these
        _legend(figure, named)
    return _laid_out(figure)


@_styled
def costs(rows: pd.DataFrame, title: str) -> Figure:
    """mAP against the cost of attacks, in passes through the network: a point an attack and victim, a panel a distance.

    ``rows`` of Table 6 on their own victims, at least one, with the columns distance, target_model, attack, passes and map (percent).
    """
    if rows.empty:
        raise ValueError("rows must not be empty")
    figure, grid = _panels(title, 1, len(DISTANCES), PAGE, 3.2, sharey=True)
    models, attacks = (list(dict.fromkeys(rows[key])) for key in ("target_model", "attack"))
    # Points have no dashes to tell them apart: seven colours and eight markers make 56 pairs.
    looks = ({"color": [*PALETTE.values()][i % 7], "marker": ["o", "s", "D", *_MARKERS][i % 8]} for i in range(len(attacks)))
    styles = {name: {key: _STANDARD[name][key] for key in look} if name in _STANDARD else look for name, look in zip(attacks, looks)}
    fills = ["full", "none", "left", "right"]
    for axes, distance in zip(grid[0], DISTANCES):
        for row in rows[rows["distance"] == distance].itertuples():
            fill, identity = fills[models.index(row.target_model) % len(fills)], f"{row.target_model}/{row.attack}"
            axes.plot(row.passes, row.map, **styles[row.attack], fillstyle=fill, linestyle="none", gid=identity)
        axes.set(title=distance, xlabel="Passes through the network for a query", xscale="log")
        axes.xaxis.set(major_formatter=StrMethodFormatter("{x:,.0f}"), minor_formatter=NullFormatter())
    grid[0, 0].set_ylabel("mAP (%)")
    grid[0, 0].set_ylim(bottom=0)
    named = [Line2D([], [], **styles[name], linestyle="none", label=attack_name(name)) for name in attacks]
    named += [
        Line2D([], [], color="0.3", marker="o", fillstyle=fills[i % len(fills)], linestyle="none", label=model_name(model))
        for i, model in enumerate(models)
    ]
    with mpl.rc_context({"legend.numpoints": 1}):
        _legend(figure, named)
    return _laid_out(figure)


@_styled
def distortion(rows: pd.DataFrame, title: str) -> Figure:
    """mAP against the mean l2 norm of the changes, a line an attack and victim, a panel a distance.

    ``rows``: curves of ``pqag.show.distortion``, at least one, with the columns model, attack, distance, attacked, queries, l2_mean and map
    (percent).
    """
    if rows.empty:
        raise ValueError("rows must not be empty")
    figure, grid = _panels(title, 1, len(DISTANCES), PAGE, 3.0, sharey=True)
    lines = {}
    for (model, attack), curve in rows.groupby(["model", "attack"], sort=False):
        found = f"{curve['attacked'].max()} of {curve['queries'].max()} queries"
        lines[model, attack] = f"{attack_name(attack)} on {model_name(model)} ({found})"
    styles = attack_style(lines.values())
    for axes, distance in zip(grid[0], DISTANCES):
        for (model, attack), label in lines.items():
            chosen = rows[(rows["model"] == model) & (rows["attack"] == attack) & (rows["distance"] == distance)]
            axes.plot(chosen["l2_mean"], chosen["map"], **styles[label], label=label, markevery=0.1, gid=f"{model}/{attack}")
        axes.set(title=distance, xlabel="Mean l2 norm of the change (pixels of 0 to 1)", xlim=(0, None))
    grid[0, 0].set_ylabel("mAP (%)")
    grid[0, 0].set_ylim(bottom=0)
    _legend(figure, grid[0, 0].lines)
    return _laid_out(figure)


@_styled
def differences(panels: Mapping[str, pd.DataFrame]) -> Figure:
    """How far mAP lies from the paper's, in points: a panel each, with its title, of cells float (R, C) between their heads.

    Panels stand side by side where the page is wide enough. Colours end at 30 points to either side. Without panels the figure says so.
    """
    cell, line, gap = 0.42, 0.2, 0.25  # inches
    left = {name: 0.15 + max(_inches(row, PAGE) for row in panel.index) for name, panel in panels.items()}
    head = 0.3 + 0.75 * max((_inches(column, PAGE) for panel in panels.values() for column in panel), default=0)
    places, x, y, below = {}, 0.0, 0.0, 0.0
    for name, panel in panels.items():
        width, height = left[name] + cell * panel.shape[1], head + line * panel.shape[0] + gap
        if x and x + width > PAGE:
            x, y, below = 0.0, y + below, 0.0
        places[name] = x + left[name], y + head, cell * panel.shape[1], line * panel.shape[0]
        x, below = x + width + gap, max(below, height)
    high = y + below or 0.5
    figure = Figure(figsize=(PAGE, high))
    if not panels:
        figure.text(0.5, 0.5, "No cell that the paper has", ha="center", va="center")
    for name, (x, y, width, height) in places.items():
        axes, panel = figure.add_axes((x / PAGE, 1 - (y + height) / high, width / PAGE, height / high)), panels[name]
        _cells(axes, panel.to_numpy(float).round() + 0.0, 0.0, Normalize(-30, 30), "+.0f", "RdBu_r")  # + 0.0: no -0
        _name_cells(axes, list(panel.index), list(panel.columns), False, True)
        axes.tick_params(axis="x", top=False, labeltop=True, labelbottom=False)
        for label in axes.get_xticklabels():
            label.set(ha="left", va="bottom")
        figure.text((x - left[name]) / PAGE, 1 - (y - head + 0.05) / high, name, va="top", size=9)
    return figure


@_styled
def readings(rows: pd.DataFrame) -> Figure:
    """mAP by SDC of the clean queries and under each attack of the paper, a line a reading, a panel a code length; rows of
    ``pqag.show.ambiguity.tidy``. Bars are 95 % intervals over queries."""
    rows = rows[rows["distance"] == DISTANCES[0]]
    titles, bits = (list(_some("rows", dict.fromkeys(rows[key]))) for key in ("title", "target_bits"))
    names = [_wrap(title, 2.4) for title in titles]
    pitch = 0.04 + _LINE * max(map(_lines, names))
    figure, grid = _panels("", 1, len(bits), PAGE, max(1.5, 0.6 + pitch * len(titles)), sharey=True)
    styles = {name: {key: look[key] for key in ("color", "marker")} for name, look in _STANDARD.items()}
    for axes, count in zip(grid[0], bits):
        for name, look in styles.items():
            part = rows[(rows["target_bits"] == count) & (rows["attack"] == name)]
            places, values = [titles.index(title) for title in part["title"]], part["map"].to_numpy(float)
            ends = np.abs(part[["ci_low", "ci_high"]].to_numpy(float) - values[:, None]).T
            axes.errorbar(values, places, xerr=ends, elinewidth=0.8, linestyle="none", **look)
        axes.set(title=f"{count} bits", xlabel="mAP (%), SDC", xlim=(0, 100))
        axes.xaxis.set_major_locator(FixedLocator(range(0, 101, 20)))
        axes.set_ylim(len(titles) - 0.5, -0.5)
    grid[0, 0].set_yticks(range(len(titles)), names)
    named = [
        Line2D([], [], color=look["color"], marker=look["marker"], linestyle="none", label=attack_name(name))
        for name, look in styles.items()
    ]
    with mpl.rc_context({"legend.numpoints": 1}):
        _legend(figure, named)
    return _laid_out(figure)


def _name_cells(axes: Axes, rows: Sequence[str], columns: Sequence[str], clean: bool, turned: bool) -> None:
    """Names beside the cells, those of the columns ``turned`` or not, and no lines."""
    first = _APART * clean
    turn = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if turned else {}
    axes.set_xticks(np.arange(len(columns)) + 0.5, columns, **turn)
    axes.set_yticks([*([0.5] if clean else []), *(first + np.arange(len(rows)) + 0.5)], [*([attack_name("clean")] if clean else []), *rows])
    axes.set(xlim=(0, len(columns)), ylim=(first + len(rows), 0))
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)


def _cells(axes: Axes, values: np.ndarray, top: float, norm: Normalize, fmt: str, colours: str = "cividis"):
    """Coloured cells, float (R, C), from ``top`` down, each with its number in black or white, whichever contrasts more."""
    colors = mpl.colormaps[colours].with_extremes(bad="0.85")
    rows, columns = values.shape
    # Quadrilaterals, as viewers of a PDF would blur so small an image.
    mesh = axes.pcolormesh(
        np.arange(columns + 1), top + np.arange(rows + 1), np.ma.masked_invalid(values), cmap=colors, norm=norm, edgecolor="w", lw=0.8
    )
    for (r, c), value in np.ndenumerate(values):
        if np.isfinite(value):
            ink = "black" if contrast(colors(norm(value)), "black") > contrast(colors(norm(value)), "white") else "white"
            text = format(value, fmt if value else fmt.lstrip("+"))  # 0, not +0
            axes.text(c + 0.5, top + r + 0.5, text, ha="center", va="center", color=ink, size=7.5)
    return mesh


def contrast(first, second) -> float:
    """Contrast of two colours, 1 (none) to 21 (black on white); from 4.5 on, small text is legible (WCAG 2.1, section 1.4.3)."""
    dark, light = sorted(_luminance(color) for color in (first, second))
    return (light + 0.05) / (dark + 0.05)


def _luminance(color) -> float:
    """Relative luminance of an sRGB colour, 0 to 1."""
    share = np.array(to_rgb(color))
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


# Panels


def _panels(title: str, rows: int, columns: int, width: float, height: float, **shared) -> tuple[Figure, np.ndarray]:
    """A figure of this size in inches with panels (rows, columns), laid out so that nothing overlaps."""
    text = _wrap(title, width, 9)
    figure = Figure(figsize=(width, height + _LINE * (_lines(text) - 1)), layout="constrained")
    if text:
        figure.suptitle(text)
    return figure, figure.subplots(rows, columns, squeeze=False, **shared)


def _legend(figure: Figure, handles: list) -> None:
    """A legend below the panels, where it hides nothing, in as many columns as fit; the figure grows by it."""
    width = figure.get_figwidth()
    labels = [_wrap(handle.get_label(), width - 0.8) for handle in handles]
    for columns in range(len(labels), 0, -1):
        parts = np.array_split(labels, columns)  # as matplotlib does
        if sum(0.57 + max(_inches(label, width) for label in part) for part in parts) <= width - 0.1:
            break
    figure.set_figheight(figure.get_figheight() + 0.1 + _LINE * sum(map(_lines, parts[0])))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def _laid_out(figure: Figure) -> Figure:
    """``figure``, its layout fixed: laid out anew whenever drawn, it would depend on what was drawn before, and at which resolution.

    For the same reason no axis may have matplotlib's own choice of ticks, which depends on the space that is left.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def _limits(values: np.ndarray) -> tuple[float, float]:
    """Limits of an axis on which the differences of the ``values``, none negative, are seen: from 0 if they make up half of it."""
    low, high = values.min(), values.max()
    margin = 0.08 * (high - low) or 0.1 * high
    return (0.0 if low < high / 2 else low - margin), high + margin


# Images, on axes whose unit is the inch, downwards

_SPACE = 0.09  # between images, which holds two borders
_GAP = 0.15  # more of it after the query


def _canvas(width: float, title: str) -> tuple[Axes, float]:
    """Bare axes ``width`` inches wide and a little, for borders, with the title on top; and the ordinate at which to go on."""
    figure = Figure(figsize=(width + 0.06, 1))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-0.03, width + 0.03), autoscale_on=False)
    axes.set_axis_off()
    text = _wrap(title, width, 9)
    axes.text(width / 2, 0.03, text, ha="center", va="top", size=9)
    return axes, 0.03 + (0.17 * _lines(text) + 0.05 if text else 0)


def _finish(axes: Axes, y: float, x: float = 0.0) -> Figure:
    """The figure of a canvas filled down to ``y``, with the key to the borders under it."""
    size = 0.11
    axes.add_patch(Rectangle((x + 0.02, y + 0.06), size, size, fill=False, edgecolor=IRRELEVANT, linewidth=1.6, gid="key"))
    _cross(axes, x + 0.02 + size / 2, y + 0.06 + size / 2, "key")
    axes.text(x + 0.21, y + 0.06 + size / 2, "irrelevant: shares no label with the query", va="center_baseline")
    y += 0.06 + size + 0.05
    axes.set_ylim(y, 0)
    axes.figure.set_figheight(y)
    return axes.figure


def _height(image: np.ndarray, width: float) -> float:
    """The height at which the pixels of an image (3, H, W) of this width are square."""
    return width * image.shape[1] / image.shape[2]


def _image(axes: Axes, image: np.ndarray, x: float, y: float, width: float) -> None:
    """An image uint8 (3, H, W) with square pixels and its upper left corner at (x, y)."""
    height = _height(image, width)
    # "none" gives a PDF the pixels themselves; each is made of 4 by 4, as viewers blur images of which they draw a pixel larger than a dot.
    pixels = image.transpose(1, 2, 0).repeat(4, axis=0).repeat(4, axis=1)
    axes.imshow(pixels, extent=(x, x + width, y + height, y), aspect="auto", interpolation="none")
    axes.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor="0.7", linewidth=0.4))  # an image may be white


def _retrieved(axes: Axes, row: Row, columns: np.ndarray, y: float, width: float) -> None:
    """The retrieved images of a row, at the abscissae ``columns`` (n,), and what marks the irrelevant ones."""
    height = _height(row.query, width)
    for x, image, relevant in zip(columns, row.retrieved, row.relevant):
        _image(axes, image, x, y, width)
        if not relevant:
            axes.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=IRRELEVANT, linewidth=2.2, gid="irrelevant"))
            _cross(axes, x + width - 0.07, y + 0.07, "irrelevant")


def _cross(axes: Axes, x: float, y: float, gid: str) -> None:
    """A small cross with a white rim, visible on any image."""
    axes.add_line(Line2D([x], [y], marker="X", markersize=6, markerfacecolor=IRRELEVANT, markeredgecolor="w", markeredgewidth=0.6, gid=gid))


def _check_images(row: Row, pixels: tuple[int, ...], count: int) -> None:
    """Raise ValueError unless the images of a row have ``pixels`` (3, H, W) and the retrieved ones are ``count``."""
    wanted = {"query": pixels, "retrieved": (count, *pixels), "relevant": (count,)}
    if len(pixels) != 3 or pixels[0] != 3:
        raise ValueError(f"the query of {row.label!r} must be an image of shape (3, H, W), not {pixels}")
    for name, shape in wanted.items():
        array = np.asarray(getattr(row, name))
        dtype = np.dtype(bool if name == "relevant" else np.uint8)
        if array.shape != shape or array.dtype != dtype:
            raise ValueError(f"{name} of {row.label!r} must be {dtype} of shape {shape}, not {array.dtype} of {array.shape}")
    if not count:
        raise ValueError(f"no image is retrieved by {row.label!r}")


# Small things


def _array(what: str, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """``values`` as float64, or ValueError unless they have this shape."""
    array = np.asarray(values, dtype=float)
    if array.shape != shape:
        raise ValueError(f"{what} must be of shape {shape}, not {array.shape}")
    return array


def _some(what: str, values: Any) -> Any:
    """``values`` unless there are none."""
    if len(values) == 0:
        raise ValueError(f"there is nothing to draw: {what} is empty")
    return values


def _wrap(text: str, inches: float, size: float = 8) -> str:
    """``text`` in lines that fit into ``inches``; a character is taken for 0.62 of the font ``size`` (points)."""
    return textwrap.fill(text, max(1, int(inches * 72 / (0.62 * size))))


def _inches(text: str, inches: float) -> float:
    """The width in inches of the longest line of ``text`` wrapped to ``inches``."""
    return max(map(len, _wrap(text, inches).split("\n"))) * 0.62 * 8 / 72


def _lines(text: str) -> int:
    """How many lines ``text`` has."""
    return 1 + text.count("\n")

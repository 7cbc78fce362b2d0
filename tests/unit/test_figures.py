"""Figures: what is drawn is what was given, legible, told apart without colours, and saved byte for byte the same."""

import itertools
import sys

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image

from pqag import files
from pqag.show import figures
from pqag.show.figures import Row

ATTACKS = ["clean", "basic", "apd", "aod"]
RECALL = np.arange(1, 101) / 100
LONG = "a_name_$x$_of_" + 46 * "y"  # sixty characters, as many as the config allows
HOSTILE = ["_hidden", "a_b", "$x^2$", r"\frac", LONG]


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).integers(0, 256, shape, dtype=np.uint8)


def probabilities(rows=2, codewords=16, scale=0.02, seed=0) -> np.ndarray:
    raw = np.exp(scale * np.random.default_rng(seed).normal(size=(rows, codewords)))
    return raw / raw.sum(1, keepdims=True)


def curves(names=ATTACKS, seed=0) -> dict:
    rng = np.random.default_rng(seed)
    return {name: rng.random(100) for name in names}


def distributions(names=ATTACKS[1:], title="A title", **options):
    attacked = {name: probabilities(seed=i, **options) for i, name in enumerate(names, start=1)}
    return figures.centroid_distributions(probabilities(**options), attacked, ["mean over 1,000 queries", "query 17"], title)


def row(label="Clean", relevant=(True, False, True), size=(32, 32)) -> Row:
    return Row(label, images(3, *size), images(len(relevant), 3, *size), np.array(relevant, dtype=bool))


def sheet(labels=("Clean", "AOD"), title="A title"):
    group = [row(label, np.arange(10) % 3 > i % 2) for i, label in enumerate(labels)]
    return figures.retrieval_sheet([("Query 3: sneaker", group), ("Query 5: dress", group)], title)


def perturbation(title="A title", amplification=8, **changes):
    query, adversarial = images(3, 32, 32), images(3, 32, 32) // 2
    named = {"query": query, "adversarial": adversarial, "retrieved_clean": images(5, 3, 32, 32), "relevant_clean": np.ones(5, bool)}
    named |= {"retrieved_adversarial": images(5, 3, 32, 32), "relevant_adversarial": np.arange(5) > 3}
    return figures.perturbation(**(named | changes), amplification=amplification, title=title)


def sweep_rows(names=ATTACKS[1:]) -> pd.DataFrame:
    points = [("epsilon", e) for e in (0, 1, 2, 4, 8, 16)] + [("iterations", i) for i in (1, 2, 5, 10, 20, 50)]
    keys = itertools.product(points, names, ("SDC", "ADC"))
    lines = [(axis, value, attack, distance, 80.0 - value - i / 10) for i, ((axis, value), attack, distance) in enumerate(keys)]
    return pd.DataFrame(lines, columns=["axis", "value", "attack", "distance", "map"])


NETWORKS = ["resnet18", "resnet34", "resnet50", "vgg11", "vgg13", "vgg16", "alexnet"]


def heat(names=NETWORKS, title="A title", clean=True, **options):
    rng, n = np.random.default_rng(0), len(names)
    values = {distance: 100 * rng.random((n, n)) for distance in ("SDC", "ADC")}
    above = {distance: 80 + 20 * rng.random(n) for distance in values} if clean else None
    return figures.heat_map(values, names, names, title, above, **options)


def readings_rows(titles):
    keys = itertools.product(titles, (16, 24), ("SDC", "ADC"), ("clean", "basic", "apd", "aod"))
    lines = [(*key, 50.0 + i % 40, 48.0 + i % 40, 53.0 + i % 40) for i, key in enumerate(keys)]
    return pd.DataFrame(lines, columns=["title", "target_bits", "distance", "attack", "map", "ci_low", "ci_high"])


def differences_of(names):
    return pd.DataFrame(np.linspace(-40, 40, len(names) ** 2).reshape(len(names), -1), names, names)


def systems_rows(names):
    keys = itertools.product(("SDC", "ADC"), names, (16, 24, 36))
    lines = [(*key, 80.0 - i / 10, 40.0 + i, 6.0) for i, key in enumerate(keys)]
    return pd.DataFrame(lines, columns=["distance", "target_model", "target_bits", "clean", "attacked", "floor"])


def costs_rows(names):
    keys = itertools.product(("SDC", "ADC"), ("alexnet", "x"), names)
    lines = [(*key, 15.0 * 4 ** (i % len(names)), 40.0 + i) for i, key in enumerate(keys)]
    return pd.DataFrame(lines, columns=["distance", "target_model", "attack", "passes", "map"])


def distortion_rows(names):
    keys = itertools.product(("SDC", "ADC"), names, ("cw_l2", "mine"), range(20))
    lines = [(*key, 20, 0.1 * key[3], 80.0 - key[3]) for key in keys]
    return pd.DataFrame(lines, columns=["distance", "model", "attack", "attacked", "queries", "l2_mean", "map"])


KINDS = {
    "precision_recall, hostile": lambda: figures.precision_recall(curves([*ATTACKS, *HOSTILE]), RECALL, LONG + " and more words", 0.1),
    "centroid_distributions, one": lambda: distributions(["aod"], codewords=256),
    "centroid_distributions, hostile": lambda: distributions(HOSTILE, LONG, codewords=64, scale=1),
    "retrieval_sheet, hostile": lambda: sheet(HOSTILE, LONG),
    "perturbation": lambda: perturbation(LONG),
    "sweep, hostile": lambda: figures.sweep(sweep_rows(HOSTILE), 5.2, 10.1, LONG),
    "sweep, one axis": lambda: figures.sweep(sweep_rows().query("axis == 'iterations'"), 5.2, 10.1, "A title"),
    "systems": lambda: figures.systems(systems_rows(NETWORKS[:6]), "A title"),
    "systems, hostile": lambda: figures.systems(systems_rows(HOSTILE), LONG),
    "costs": lambda: figures.costs(costs_rows(ATTACKS), "A title"),
    "costs, hostile": lambda: figures.costs(costs_rows(HOSTILE), LONG),
    "distortion": lambda: figures.distortion(distortion_rows(["alexnet", "x"]), "A title"),
    "distortion, hostile": lambda: figures.distortion(distortion_rows(HOSTILE), LONG),
    "differences": lambda: figures.differences({f"Table {i}": differences_of(NETWORKS[:count]) for i, count in enumerate((4, 3, 7))}),
    "differences, hostile": lambda: figures.differences({LONG[:60]: differences_of(HOSTILE[:4])}),
    "differences, none": lambda: figures.differences({}),
    "readings": lambda: figures.readings(readings_rows(["The default", "Temperature 10"])),
    "readings, hostile": lambda: figures.readings(readings_rows(HOSTILE)),
    "heat_map": heat,
    "heat_map, hostile": lambda: heat(HOSTILE[:4], LONG, clean=False),
}


def draw(figure):
    """``figure`` as it is drawn with 100 dots an inch, so that the extents of its parts are known."""
    FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    return figure


@pytest.fixture(scope="module", params=KINDS)
def drawn(request):
    return draw(KINDS[request.param]())


def texts(figure) -> list[Text]:
    """Every text that is seen; matplotlib keeps more, such as those of ticks beyond an axis."""
    found = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    for axes in figure.axes:
        found += [child for child in axes.get_children() if isinstance(child, Text)]
        for axis in (axes.xaxis, axes.yaxis) if axes.axison else ():
            low, high = sorted(axis.get_view_interval())
            ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            found += [axis.label, axis.offsetText, *(tick.label1 for tick in ticks)]
    return [text for text in found if text.get_visible() and text.get_text()]


def words(figure) -> list[str]:
    return [text.get_text() for text in texts(figure)]


def overlap(first, second, slack=1.0) -> bool:
    """Whether two boxes have more in common than ``slack`` pixels (of 100 an inch) in both directions."""
    return all(
        min(high1, high2) - max(low1, low2) > slack
        for (low1, high1), (low2, high2) in ((first.intervalx, second.intervalx), (first.intervaly, second.intervaly))
    )


def test_no_text_is_cut_off_and_letters_are_of_the_size_of_print(drawn):
    for text in texts(drawn):
        inside = text.get_window_extent()
        assert inside.x0 >= -2 and inside.y0 >= -2, text
        assert inside.x1 <= drawn.bbox.x1 + 2 and inside.y1 <= drawn.bbox.y1 + 2, text
    assert {text.get_fontsize() for text in texts(drawn) if text.get_text() not in "+="} <= {7.5, 8, 9}
    assert drawn.get_figwidth() <= max(figures.PAGE, 1.7 * len(drawn.axes) / 2) + 0.1
    assert all(axes.bbox.width >= 50 and axes.bbox.height >= 50 for axes in drawn.axes if axes.get_label() != "<colorbar>")


def test_no_text_lies_on_another_or_on_an_image(drawn):
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts(drawn) if not text.get_rotation() % 90]
    # Turned names of columns have boxes that overlap where they do not.
    for (name, first), (other, second) in itertools.combinations(boxes, 2):
        assert not overlap(first, second), (name, other)
    for image in (image for axes in drawn.axes for image in axes.images):
        assert not any(overlap(text.get_window_extent(), image.get_window_extent()) for text in texts(drawn))


def test_no_legend_or_caption_lies_on_a_panel(drawn):
    panels = [axes for axes in drawn.axes if axes.axison]
    outside = [*drawn.legends, *drawn.texts, *(text for axes in panels for text in (axes.title, axes.xaxis.label, axes.yaxis.label))]
    for axes, other in itertools.product(panels, outside):
        assert not overlap(other.get_window_extent(), axes.get_window_extent()), other


def test_names_are_printed_as_they_are_and_never_as_mathematics(drawn, request):
    """Drawing would fail where matplotlib reads mathematics. A long name goes on in the next line."""
    assert not any(text.get_parse_math() for text in texts(drawn))
    kind, found = request.node.callspec.params["drawn"], "\0".join(words(drawn)).replace("\n", "")
    names = HOSTILE if "hostile" in kind else [LONG] if kind == "perturbation" else []
    assert all(name in found for name in names)


def test_names_of_the_paper_are_printed_as_there_and_others_as_given_even_if_another_line_has_that_name():
    names = ["aod", "uniform", "chance", "floor"]
    pictures = [figures.precision_recall(curves(names), RECALL, "", 0.1), distributions(names), figures.sweep(sweep_rows(names), 5, 10, "")]
    for figure in pictures:
        legend = [text.get_text() for text in figure.legends[0].get_texts()]
        assert len(set(legend)) == len(legend) > 4
        assert {"AOD", *names[1:]} < set(legend) and "aod" not in words(figure)
    assert {"ResNet18", "VGG11", "AlexNet", LONG} <= {word.replace("\n", "") for word in words(heat([*NETWORKS[::3], LONG]))}


MAKE = """
import sys
import numpy as np
from pqag.show import figures

rng = np.random.default_rng(0)
pictures = rng.integers(0, 256, (4, 3, 8, 8), dtype=np.uint8)
made = [
    figures.precision_recall({name: rng.random(100) for name in ("clean", "aod", "mine")}, np.arange(1, 101) / 100, "Title", 0.1),
    figures.retrieval_sheet([("Heading", [("Clean", pictures[0], pictures[1:], np.array([True, False, True]))])], "Title"),
]
for i, figure in enumerate(made):
    figures.save(figure, f"{sys.argv[1]}/{i}.pdf", f"{sys.argv[1]}/{i}.png")
print("matplotlib.pyplot" in sys.modules)
"""


def contents(folder) -> dict:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_two_processes_write_the_same_bytes(python, tmp_path, monkeypatch):
    for name in "12":
        (tmp_path / name).mkdir()
    monkeypatch.setenv("PYTHONHASHSEED", "1")
    assert python(MAKE, tmp_path / "1", capture_output=True, text=True).stdout == "False\n", "pyplot is not needed"
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "2")])
    exec(MAKE, {})
    first = contents(tmp_path / "1")
    assert list(first) == ["0.pdf", "0.png", "1.pdf", "1.png"]
    assert first == contents(tmp_path / "2")


@pytest.mark.parametrize("make", [lambda: distributions(["aod"]), lambda: heat(["16 bits", "24 bits"], clean=False)])
def test_saving_again_changes_nothing(tmp_path, make):
    figure = make()
    figures.save(figure, tmp_path / "a.pdf", tmp_path / "a.png")
    figures.save(figure, tmp_path / "b.png", tmp_path / "b.pdf")
    figures.save(make(), tmp_path / "c.png")
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()
    assert len({(tmp_path / f"{name}.png").read_bytes() for name in "abc"}) == 1


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    for name, figure in (("sheet", sheet(("Clean", "AOD"))), ("distributions", distributions(["aod"]))):
        figures.save(figure, folder / f"{name}.pdf", folder / f"{name}.png")
    return folder


def test_what_is_and_is_not_in_a_saved_file(saved):
    pdf = (saved / "distributions.pdf").read_bytes()
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf
    for word in (b"atplotlib", b"CreationDate", b"Producer", b"Software", mpl.__version__.encode()):
        assert word not in pdf + (saved / "distributions.png").read_bytes()
    with Image.open(saved / "sheet.png") as image:
        assert image.info["dpi"] == pytest.approx((200, 200), rel=1e-3)
        assert 6.5 * 200 < image.width <= 7.2 * 200
    # The sheet has 4 rows of 1 + 10 images, each pixel of which is drawn as 4 by 4.
    assert (saved / "sheet.pdf").read_bytes().count(b"/Height 128") == 44


def test_settings_of_the_user_neither_matter_nor_change(saved, tmp_path):
    hostile = {"font.size": 30, "text.usetex": True, "savefig.dpi": 30, "pdf.fonttype": 3, "axes.facecolor": "r", "xtick.labelsize": 3}
    with mpl.rc_context(hostile):
        figures.save(distributions(["aod"]), tmp_path / "distributions.pdf", tmp_path / "distributions.png")
        assert {key: mpl.rcParams[key] for key in hostile} == hostile
    for name, content in contents(tmp_path).items():
        assert content == (saved / name).read_bytes()


def test_saving_is_atomic_and_refuses_other_formats_first(tmp_path, monkeypatch):
    figure = heat(["a"])
    with pytest.raises(ValueError, match=r"written as \.pdf or \.png, which .*a\.svg is not"):
        figures.save(figure, tmp_path / "a.png", tmp_path / "a.svg")
    monkeypatch.setattr(files.os, "replace", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        figures.save(figure, tmp_path / "a.png")
    assert contents(tmp_path) == {}


def look(artist) -> tuple:
    """Colour and dashes of a line, these in its own widths."""
    offset, dashes = artist._unscaled_dash_pattern
    return to_hex(artist.get_color()), offset, tuple(dashes or ())


def wanted(style) -> tuple:
    dashes = () if style["linestyle"] == "-" else tuple(style["linestyle"][1])
    return to_hex(style["color"]), 0, dashes


def test_attacks_of_the_paper_look_the_same_in_every_study_and_no_two_alike():
    alone = {name: figures.attack_style([name])[name] for name in ATTACKS}
    assert figures.attack_style(["mine", *reversed(ATTACKS), "other"]).items() >= alone.items()
    assert alone["clean"]["color"] == figures.PALETTE["green"] and alone["clean"]["linestyle"] == "-"
    assert figures.IRRELEVANT not in {style["color"] for style in alone.values()}
    alone["aod"]["color"] = "red"
    assert figures.attack_style(["aod"])["aod"]["color"] == figures.PALETTE["black"], "a change does not reach the next"
    assert figures.attack_style(["a", "aod", "b", "a"])["b"] == figures.attack_style(["a", "b"])["b"]
    assert list(figures.attack_style(["a", "aod", "b", "a"])) == ["a", "aod", "b"]
    styles = figures.attack_style([*ATTACKS, *(f"other{i}" for i in range(60))])
    assert len({str(style) for style in styles.values()}) == 64
    first = list(styles.values())[:7]
    for key in ("color", "linestyle", "marker"):
        assert len({str(style[key]) for style in first}) == 7, "the first seven differ in each, hence also in black and white"


def lab(color, matrix) -> np.ndarray:
    """CIE L*a*b* of an sRGB colour as seen through ``matrix`` (3, 3) on linear RGB."""
    share = np.array(to_rgb(color))
    linear = np.clip(np.array(matrix) @ np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4), 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(np.maximum(to_xyz @ linear / to_xyz.sum(1), 1e-3))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


# Machado, Oliveira & Fernandes 2009, severity 1.
VISION = {
    "usual": np.eye(3),
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
}


@pytest.mark.parametrize("vision", VISION)
def test_the_colours_of_the_paper_can_be_told_apart(vision):
    """A difference of 2.3 is just noticeable; lines are thin, so ten times as much is asked for."""
    colors = [style["color"] for style in figures.attack_style(ATTACKS).values()]
    for first, second in itertools.combinations(colors, 2):
        assert np.linalg.norm(lab(first, VISION[vision]) - lab(second, VISION[vision])) > 23


def test_an_attack_looks_the_same_in_every_kind_of_figure():
    names, study = ["clean", "aod", "mine"], ["early", "aod", "mine"]
    styles = figures.attack_style(study)
    precision = figures.precision_recall(curves(names), RECALL, "", 0.1, study)
    attacked = {name: probabilities(seed=1) for name in names[1:]}
    centroids = figures.centroid_distributions(probabilities(), attacked, ["a", "b"], "", study)
    swept = figures.sweep(sweep_rows(names[1:]), 5, 10, "", study)
    for figure in (precision, centroids, swept):
        for name, label in (("aod", "AOD"), ("mine", "mine")):
            lines = [line for axes in figure.axes for line in axes.lines if line.get_label() == label]
            lines += [h for h, text in zip(figure.legends[0].legend_handles, figure.legends[0].get_texts()) if text.get_text() == label]
            assert len(lines) >= 2
            assert {look(line) for line in lines} == {wanted(styles[name])}
            assert {line.get_marker() for line in lines} == {styles[name]["marker"]}
    clean = figures.attack_style(["clean"])["clean"]["color"]
    assert to_hex(precision.axes[0].lines[1].get_color()) == clean.lower()
    assert all(to_hex(axes.patches[0].get_facecolor()) == clean.lower() for axes in centroids.axes)


def test_precision_recall_draws_what_was_given():
    given = curves()
    figure = figures.precision_recall(given, RECALL, "CIFAR-10", 0.125)
    (axes,) = figure.axes
    chance, *lines = axes.lines
    for line, values in zip(lines, given.values(), strict=True):
        np.testing.assert_array_equal(line.get_xydata(), np.stack([RECALL, values], axis=1))
    assert set(chance.get_ydata()) == {0.125}
    assert axes.get_xlim() == axes.get_ylim() == (0, 1)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["Clean", "Basic", "APD", "AOD", "Chance (0.12)"]
    assert {"CIFAR-10", "Recall", "Precision"} <= set(words(figure))
    assert len({line.get_markevery() for line in lines}) == 4, "markers of different attacks are not at one place"


def test_distributions_draw_what_was_given_sorted_by_the_clean_one():
    """Equal probabilities keep their order."""
    clean = np.array([[0.2, 0.5, 0.3], [0.3, 0.4, 0.3]])
    attacked = {"apd": np.array([[0.1, 0.2, 0.7], [0.4, 0.4, 0.2]]), "aod": np.array([[0.3, 0.3, 0.4], [0.1, 0.8, 0.1]])}
    axes = np.reshape(figures.centroid_distributions(clean, attacked, ["a", "b"]).axes, (2, 2))
    for row_axes, order, p in ((axes[0], [1, 2, 0], 0), (axes[1], [1, 0, 2], 1)):
        for one, name in zip(row_axes, attacked):
            np.testing.assert_array_equal(one.patches[0].get_data().values, clean[p][order])
            np.testing.assert_array_equal(one.lines[1].get_xydata(), np.stack([[1, 2, 3], attacked[name][p][order]], axis=1))
            np.testing.assert_allclose(one.lines[0].get_ydata(), 1 / 3)
    assert [one.get_title() for one in axes[0]] == ["APD", "AOD"]
    assert [one.get_ylabel() for one in axes[:, 0]] == ["a\nprobability", "b\nprobability"]


@pytest.mark.parametrize(("scale", "codewords"), [(1e-4, 16), (1e-6, 256), (0, 16), (30, 256)])
def test_differences_are_seen_and_numbers_are_plain(scale, codewords):
    figure = distributions(scale=scale, codewords=codewords)
    for row_axes in np.reshape(figure.axes, (2, 3)):
        values = np.concatenate([v for axes in row_axes for v in (axes.patches[0].get_data().values, axes.lines[1].get_ydata())])
        axes = row_axes[0]
        low, high = axes.get_ylim()
        assert low <= values.min() and values.max() <= high
        assert np.ptp(values) >= 0.4 * (high - low) or scale == 0
        assert axes.yaxis.offsetText.get_text() == ""
    assert {f"Uniform, 1/K = {1 / codewords:.4g}", f"Rank of the codeword (K = {codewords})"} <= set(words(figure))
    labels = [label.get_text() for axes in figure.axes[::3] for label in axes.get_yticklabels()]
    assert len(labels) >= 4
    assert all("e" not in label and float(label) < 1.3 for label in labels)
    assert len({float(label) for label in labels[: len(labels) // 2]}) == len(labels) // 2, "no two ticks have one number"


def marks(axes) -> tuple[list, list]:
    """The boxes (x0, x1, y0, y1) with the border of an irrelevant image, and the places of the crosses."""
    borders = [patch for patch in axes.patches if isinstance(patch, Rectangle) and patch.get_gid() == "irrelevant"]
    assert all(to_hex(border.get_edgecolor()) == figures.IRRELEVANT.lower() and border.get_linewidth() > 2 for border in borders)
    others = [patch for patch in axes.patches if patch.get_gid() is None]
    assert figures.IRRELEVANT.lower() not in {to_hex(patch.get_edgecolor()) for patch in others}
    crosses = [line for line in axes.lines if line.get_gid() == "irrelevant"]
    assert {cross.get_marker() for cross in crosses} <= {"X"}
    boxes = [(b.get_x(), b.get_x() + b.get_width(), b.get_y(), b.get_y() + b.get_height()) for b in borders]
    return boxes, [tuple(cross.get_xydata()[0]) for cross in crosses]


def extent(image) -> tuple:
    x0, x1, bottom, top = image.get_extent()
    return x0, x1, top, bottom


def shown(artist) -> np.ndarray:
    """The image (3, H, W), of which every pixel is drawn as a square of 4 by 4."""
    fine = np.asarray(artist.get_array()).transpose(2, 0, 1)
    coarse = fine[:, ::4, ::4]
    np.testing.assert_array_equal(coarse.repeat(4, axis=1).repeat(4, axis=2), fine)
    return coarse


def check_marks(axes, retrieved, relevant):
    """Borders and crosses are exactly at the irrelevant ones of the ``retrieved`` images, artists in the order of ``relevant``."""
    boxes, crosses = marks(axes)
    wrong = [extent(image) for image, good in zip(retrieved, relevant, strict=True) if not good]
    np.testing.assert_allclose(boxes, wrong)
    assert len(crosses) == len(wrong)
    for (x, y), (x0, x1, y0, y1) in zip(crosses, wrong):
        assert (x0 + x1) / 2 < x < x1 and y0 < y < (y0 + y1) / 2, "in the upper right corner"


def test_sheet_shows_the_images_and_marks_the_irrelevant_ones():
    rows = [row("Clean", (True, False, True)), row("AOD", (False, False, True))]
    figure = figures.retrieval_sheet([("Query 3", rows[:1]), ("Query 5", rows[1:])], "A title")
    (axes,) = figure.axes
    given = [image for one in rows for image in (one.query, *one.retrieved)]
    for drawn, image in zip(axes.images, given, strict=True):
        np.testing.assert_array_equal(shown(drawn), image)
        assert drawn.get_interpolation() in ("none", "nearest")
    retrieved = [image for i, image in enumerate(axes.images) if i % 4]
    check_marks(axes, retrieved, np.concatenate([one.relevant for one in rows]))
    assert {"A title", "query", "1", "2", "3", "Query 3", "Query 5", "Clean", "AOD"} <= set(words(figure))
    assert any("irrelevant" in word for word in words(figure)), "the key to the borders"


def test_the_query_stands_at_the_left_with_a_gap_and_rows_below_each_other():
    axes = sheet().axes[0]
    (_, end, *_), (first, first_end, *_), (second, *_) = (extent(image) for image in axes.images[:3])
    assert first - end > 2 * (second - first_end) > 0
    boxes = np.reshape([extent(image) for image in axes.images], (4, 11, 4))
    assert (np.ptp(boxes[:, :, 0], axis=0) < 1e-9).all() and (np.ptp(boxes[:, :, 2], axis=1) < 1e-9).all()
    assert (np.diff(boxes[:, 0, 2]) > 0).all()
    bare, full = (figures.retrieval_sheet([(heading, [row()])], title) for heading, title in (("", ""), ("Heading", "Title")))
    assert full.get_figheight() - bare.get_figheight() > 0.3 and "" not in words(bare), "no room for what is not there"


@pytest.mark.parametrize("size", [(64, 32), (20, 50)])
def test_pixels_are_square(size):
    one = row(size=size)
    changed = figures.perturbation(one.query, one.query, one.retrieved, one.relevant, one.retrieved, one.relevant, 4)
    for figure in (figures.retrieval_sheet([("", [one])]), changed):
        for image in figure.axes[0].images:
            window = image.get_window_extent()
            assert window.height / window.width == pytest.approx(size[0] / size[1])


def test_perturbation_by_hand():
    query = np.full((3, 2, 2), 100, np.uint8)
    adversarial, expected = query.copy(), np.full((3, 2, 2), 128)
    adversarial[0, 0, 0], adversarial[1, 0, 1] = 103, 92
    expected[0, 0, 0], expected[1, 0, 1] = 128 + 60, 0  # 128 - 160 is cut
    nearest = {"retrieved_clean": images(5, 3, 2, 2), "retrieved_adversarial": images(5, 3, 2, 2)[::-1]}
    (axes,) = (figure := perturbation(query=query, adversarial=adversarial, amplification=20, **nearest)).axes
    seen = [shown(image) for image in axes.images]
    np.testing.assert_array_equal(seen, [query, expected, adversarial, *nearest["retrieved_clean"], *nearest["retrieved_adversarial"]])
    check_marks(axes, axes.images[3:], [True] * 5 + [False] * 4 + [True])
    assert {"+", "=", "perturbation \u00d7 20", "(at most 8 of 255)", "query", "adversarial query"} <= set(words(figure))


def test_sweep_draws_what_was_given():
    rows = sweep_rows().sample(frac=1, random_state=0)
    figure = figures.sweep(rows, 5.25, 10.5, "A title")
    for axes, (distance, axis) in zip(figure.axes, itertools.product(("SDC", "ADC"), ("epsilon", "iterations")), strict=True):
        *lines, chance, floor = axes.lines
        assert len(lines) == 3
        here = rows[(rows["axis"] == axis) & (rows["distance"] == distance)].sort_values("value")
        for line, name in zip(lines, dict.fromkeys(rows["attack"])):
            np.testing.assert_array_equal(line.get_xydata(), here.loc[here["attack"] == name, ["value", "map"]])
        assert set(chance.get_ydata()) == {10.5} and set(floor.get_ydata()) == {5.25}
        assert axes.get_ylim()[0] == 0
    ticks = [[label.get_text() for label in axes.get_xticklabels()] for axes in figure.axes[2:]]
    assert ticks == [["0", "1", "2", "4", "8", "16"], ["1", "2", "5", "10", "20", "50"]]
    assert {"mAP (%), SDC", "mAP (%), ADC", "Iterations", "Chance (10.5)", "Worst possible (5.2)"} <= set(words(figure))


@pytest.mark.parametrize("values", [[5], [0, 5, 50], [0.5, 1, 1.5, 2, 16], range(1, 51), [1, 100, 120, 1000]])
def test_ticks_are_legible_whatever_the_values(values):
    axis = "epsilon" if 0.5 in values or 0 in values else "iterations"
    rows = pd.DataFrame({"axis": axis, "value": list(values), "attack": "aod", "distance": "SDC", "map": 50.0})
    figure = draw(figures.sweep(rows, 5, 10, ""))
    assert len(figure.axes) == 1
    boxes = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
    assert not any(overlap(first, second, 0) for first, second in itertools.combinations(boxes, 2))
    assert {label.get_text() for label in figure.axes[0].get_xticklabels()} <= {f"{value:g}" for value in values}


def cells(axes) -> dict:
    """The text of each cell by (row from the top, column), the row of the clean queries being number 0."""
    found = [text for text in axes.texts if text.get_text()]
    heights = sorted({text.get_position()[1] for text in found})
    return {(heights.index(text.get_position()[1]), int(text.get_position()[0])): text for text in found}


def test_differences_are_printed_as_points_with_a_sign_unless_they_round_to_zero():
    panel = pd.DataFrame([[-0.3, 12.4], [-30, np.nan]], ["SDC Clean", "SDC Basic"], ["AlexNet", "VGG16"])
    axes = draw(figures.differences({"Table 1": panel})).axes[0]
    assert [text.get_text() for text in axes.texts] == ["0", "+12", "-30"]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(panel.index)


def test_heat_map_prints_and_colours_what_was_given():
    values = {"SDC": np.array([[10.04, 20.06], [30, 40], [50, 60]]), "ADC": np.array([[1, 2], [3, 4], [5, 100.0]])}
    clean = {"SDC": np.array([80, 90.25]), "ADC": np.array([70, 75.0])}
    figure = figures.heat_map(values, ["resnet18", "x", "vgg16"], ["resnet18", "vgg11"], "A title", clean)
    *panels, bar = figure.axes
    for axes, name in zip(panels, values, strict=True):
        above, below = axes.collections
        np.testing.assert_array_equal(above.get_array(), clean[name][None])
        np.testing.assert_array_equal(below.get_array(), values[name])
        assert {(mesh.norm.vmin, mesh.norm.vmax) for mesh in axes.collections} == {(0, 100)}, "one scale for all"
        table = np.concatenate([clean[name][None], values[name]])
        assert {place: text.get_text() for place, text in cells(axes).items()} == {k: f"{v:.1f}" for k, v in np.ndenumerate(table)}
        assert axes.get_title() == name and axes.get_xlabel() == "Victim"
        assert [label.get_text() for label in axes.get_xticklabels()] == ["ResNet18", "VGG11"]
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["Clean", "ResNet18", "x", "VGG16"]
    assert panels[0].get_ylabel() == "Queries made for" and bar.get_ylabel() == "mAP (%)"


def test_the_clean_row_is_set_apart_and_the_names_stand_at_their_rows():
    axes = heat(["a", "b"]).axes[0]
    above, below = (mesh.get_coordinates()[:, 0, 1] for mesh in axes.collections)
    assert above.tolist() == [0, 1] and below[0] > 1.2
    assert axes.get_yticks().tolist() == [0.5, below[0] + 0.5, below[0] + 1.5]
    assert axes.yaxis_inverted()


def test_numbers_are_legible_on_every_colour_and_a_cell_that_is_not_there_is_blank_and_grey():
    assert figures.contrast("black", "white") == pytest.approx(21) and figures.contrast("white", "white") == 1
    assert figures.contrast("#777777", "white") == figures.contrast("white", "#777777") == pytest.approx(4.48, abs=0.01)
    values, names = np.linspace(0, 100, 64).reshape(8, 8), list("abcdefgh")
    axes = figures.heat_map({"SDC": values}, names, names, "").axes[0]
    (mesh,) = axes.collections
    for (r, c), text in cells(axes).items():
        assert figures.contrast(text.get_color(), mesh.cmap(mesh.norm(values[r, c]))) >= 4.5
    values = np.array([[np.nan, 20.0], [30.0, 40.6]])
    axes = figures.heat_map({"SDC": values}, ["a", "b"], ["a", "b"], "", fmt=".0f").axes[0]
    assert {place: text.get_text() for place, text in cells(axes).items()} == {(0, 1): "20", (1, 0): "30", (1, 1): "41"}
    (mesh,) = axes.collections
    mesh.update_scalarmappable()
    np.testing.assert_allclose(mesh.get_facecolor()[0][:3], 0.85)
    draw(figures.heat_map({"SDC": np.full((2, 2), np.nan)}, ["a", "b"], ["a", "b"], ""))


def sheet_with(**change):
    return figures.retrieval_sheet([("", [row()._replace(**change)])])


def precision(values):
    return figures.precision_recall({"aod": values}, RECALL, "", 0.1)


def swept(change):
    return figures.sweep(change(sweep_rows()), 5, 10, "")


ONES, P = {"SDC": np.ones((2, 3))}, probabilities()
distribution, transfer = figures.centroid_distributions, figures.heat_map
REFUSED = [
    (lambda: precision(np.ones(99)), r"the precision of aod must be of shape \(100,\), not \(99,\)"),
    *((lambda value=value: precision(np.full(100, value)), "from 0 to 1") for value in (1.5, np.nan, -0.1)),
    (lambda: distribution(P, {"aod": P[:, :8]}, ["a", "b"]), r"distribution of aod must be of shape \(2, 16\), not \(2, 8\)"),
    (lambda: distribution(P, {"aod": P}, ["a"]), "2 distributions, but 1 titles"),
    (lambda: sheet_with(query=images(32, 32)), r"the query of 'Clean' must be an image of shape \(3, H, W\), not \(32, 32\)"),
    (lambda: sheet_with(retrieved=images(3, 3, 32, 31)), r"retrieved of 'Clean' must be uint8 of shape \(3, 3, 32, 32\)"),
    (lambda: sheet_with(retrieved=images(0, 3, 32, 32), relevant=np.ones(0, bool)), "no image is retrieved by 'Clean'"),
    (lambda: figures.retrieval_sheet([("Query 3", [])]), "groups holds no row"),
    (lambda: perturbation(adversarial=images(3, 16, 16)), "query of 'retrieved by the adversarial query' must be"),
    (lambda: swept(lambda rows: rows.drop(columns="map")), "lack the column map"),
    (lambda: swept(lambda rows: pd.concat([rows, rows[:1]])), "two values for the same point"),
    (lambda: swept(lambda rows: rows.assign(axis="steps")), "unknown axis 'steps': known are epsilon, iterations"),
    (lambda: swept(lambda rows: rows.assign(distance=rows["distance"].str.lower())), "unknown distance 'adc': known are SDC, ADC"),
    (lambda: transfer(ONES, ["a", "b", "c"], ["a", "b"], ""), r"the mAP of SDC must be of shape \(3, 2\), not \(2, 3\)"),
    (lambda: transfer(ONES, ["a", "b"], ["a", "b", "c"], "", {"ADC": np.ones(3)}), "clean must have the distances SDC, not ADC"),
    (lambda: transfer({}, ["a"], ["b"], ""), "nothing to draw: values is empty"),
]


@pytest.mark.parametrize(("make", "sentence"), REFUSED, ids=[sentence for _, sentence in REFUSED])
def test_wrong_arrays_and_rows_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_a_point_of_an_attack_stands_at_its_cost_and_map():
    rows = costs_rows(["basic", "nes"])
    for axes, distance in zip(figures.costs(rows, "").axes, ("SDC", "ADC")):
        points = {line.get_gid(): (*line.get_xdata(), *line.get_ydata()) for line in axes.lines}
        own = rows[rows["distance"] == distance].itertuples()
        assert points == {f"{row.target_model}/{row.attack}": (row.passes, row.map) for row in own} and axes.get_xscale() == "log"
    with pytest.raises(ValueError, match="rows must not be empty"):
        figures.costs(rows[:0], "")


def test_the_points_of_up_to_56_attacks_all_look_different():
    lines = figures.costs(costs_rows([f"attack{i}" for i in range(52)] + ATTACKS), "").axes[0].lines
    looks = {line.get_gid().partition("/")[2]: (line.get_color(), line.get_marker()) for line in lines}
    assert len({looks[f"attack{i}"] for i in range(52)}) == 52 and looks["aod"] == ("#000000", "D")


def test_a_point_of_a_system_stands_at_its_clean_and_attacked_map():
    rows = systems_rows(["alexnet", "x"])
    sdc, adc = figures.systems(rows, "").axes
    for axes, distance in ((sdc, "SDC"), (adc, "ADC")):
        points = {line.get_gid(): line for line in axes.lines if line.get_gid()}
        assert len(points) == 6
        for row in rows[rows["distance"] == distance].itertuples():
            point = points[f"{row.target_model}/{row.target_bits}"]
            assert (*point.get_xdata(), *point.get_ydata()) == (row.clean, row.attacked)
    with pytest.raises(ValueError, match="rows must not be empty"):
        figures.systems(rows[:0], "")

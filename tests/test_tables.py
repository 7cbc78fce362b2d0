"""Tables against cells read from the paper by hand, hand-made metrics, and pdflatex."""

import io
import os
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pqag import config, tables

ATTACKS = {name: config.Attack(loss=name).model_dump() for name in config.LOSSES}
TITLES = {"cifar10": "CIFAR-10", "nuswide": "NUS-WIDE"}
HOSTILE = [r"\input{/etc/passwd}", "a_b & 50%", "$x$ #1 ~ ^ {}", "}\\end{document}", "ADC", r"\\", "%"]


def metrics(sdc=(0.5, 0.7), adc=(0.2, 0.4), **changes) -> dict:
    """The contents of a metrics.json with these average precisions: bounds 0.1 around their mean, interval from least to greatest."""
    scores = {}
    for kind, values in {"SDC": sdc, "ADC": adc}.items():
        known = [value for value in values if value is not None]
        mean = sum(known) / len(known)
        scores[kind] = {
            "map": mean,
            "map_worst": mean - 0.1,
            "map_best": mean + 0.1,
            "ci_low": min(known),
            "ci_high": max(known),
            "average_precision": list(values),
        }
    cell = {
        "dataset": "cifar10",
        "training": "pretrained",
        "source_model": "alexnet",
        "target_model": "alexnet",
        "source_bits": 16,
        "target_bits": 16,
        "attack": "clean",
        "seed": 0,
        "queries": len(sdc),
        "database": 9000,
        "map_floor": 0.0518,
        "map_chance": 0.1009,
    }
    return cell | scores | changes


def layout_of(*cells: dict, titles: dict[str, str] = TITLES) -> pd.DataFrame:
    return tables.in_paper_layout(tables.tidy(cells, table=1), titles)


def white_box() -> list[dict]:
    """The cells of a small Table 1: 2 data sets x 2 models x 2 code lengths x 2 attacks."""
    return [
        metrics(dataset=dataset, source_model=model, target_model=model, source_bits=bits, target_bits=bits, attack=attack)
        for dataset in TITLES
        for model in ("alexnet", "vgg16")
        for bits in (16, 36)
        for attack in ("clean", "aod")
    ]


# The paper's numbers


@pytest.mark.parametrize(
    ("table", "dataset", "source", "target", "distance", "attack", "printed"),
    [
        (1, "cifar10", "alexnet 16", "alexnet 16", "SDC", "clean", 81.0),
        (1, "cifar10", "vgg16 36", "vgg16 36", "ADC", "aod", 7.4),
        (1, "cifar10", "vgg16 16", "vgg16 16", "ADC", "basic", 18.0),
        (1, "nuswide", "alexnet 36", "alexnet 36", "ADC", "apd", 28.3),
        (1, "nuswide", "alexnet 36", "alexnet 36", "ADC", "aod", 28.5),
        (1, "nuswide", "vgg16 24", "vgg16 24", "SDC", "basic", 34.7),
        (2, "cifar10", "alexnet 16", "alexnet 16", "SDC", "clean", 87.9),
        (2, "cifar10", "alexnet 36", "alexnet 36", "ADC", "apd", 5.7),
        (3, "cifar10", "alexnet 36", "alexnet 16", "ADC", "aod", 19.2),
        (3, "cifar10", "vgg16 24", "vgg16 36", "SDC", "aod", 8.3),
        (4, "cifar10", "vgg16 16", "resnet34 16", "ADC", "aod", 60.8),
        (4, "cifar10", "resnet18 16", "vgg11 16", "SDC", "aod", 66.9),
        (4, "cifar10", "resnet50 16", "resnet50 16", "SDC", "clean", 87.1),
    ],
)
def test_cells_read_from_the_paper_by_hand(table, dataset, source, target, distance, attack, printed):
    (source_model, source_bits), (target_model, target_bits) = source.split(), target.split()
    training = "joint" if table == 2 else "pretrained"
    key = (table, dataset, training, source_model, target_model, int(source_bits), int(target_bits), distance, attack)
    assert tables.paper().set_index(tables.KEYS)["map"].loc[key] == printed


def test_the_papers_values_are_252_and_none_twice():
    # Table 1: 2 data sets x 2 models x 3 lengths x 2 distances x 4 attacks = 96. Table 2: 3 x 2 x 4 = 24.
    # Table 3: 2 models x (3 clean + 3 x 3) x 2 = 48. Table 4: (6 clean + 6 x 6) x 2 = 84.
    rows = tables.paper()
    assert rows.groupby("table").size().to_dict() == {1: 96, 2: 24, 3: 48, 4: 84}
    assert list(rows.columns) == [*tables.KEYS, "map"]
    assert not rows.duplicated(tables.KEYS).any()
    assert rows["map"].between(5.7, 89.7).all()


@pytest.mark.parametrize(("table", "shared"), [(3, 24), (4, 4)])
def test_an_experiment_printed_in_two_tables_has_one_value(table, shared):
    """Table 3 repeats Table 1's clean and AOD values of CIFAR-10 (2 models x 3 lengths x 2 x 2), Table 4 those of VGG16 at 16 bits."""
    rows = tables.paper()
    both = rows[rows["table"] == 1].merge(rows[rows["table"] == table], on=tables.KEYS[1:])
    assert len(both) == shared
    assert (both["map_x"] == both["map_y"]).all()


# Tidy rows


def test_tidy_by_hand():
    # map (0.5 + 0.7)/2 and (0.2 + 0.4)/2, as percent.
    rows = tables.tidy([metrics()], table=1)
    names = "table,dataset,training,source_model,target_model,source_bits,target_bits,distance,attack"
    assert ",".join(rows.columns) == f"{names},map,map_worst,map_best,ci_low,ci_high,queries,seeds"
    key = [1, "cifar10", "pretrained", "alexnet", "alexnet", 16, 16]
    assert rows.iloc[:, :9].to_numpy().tolist() == [[*key, "SDC", "clean"], [*key, "ADC", "clean"]]
    assert rows.iloc[0, 9:].tolist() == pytest.approx([60, 50, 70, 50, 70, 2, 1])
    assert rows.iloc[1, 9:].tolist() == pytest.approx([30, 20, 40, 20, 40, 2, 1])


def test_tidy_means_over_seeds_by_hand():
    # SDC: maps 0.6 and 0.2, mean 0.4; bounds 0.3 and 0.5. Each query's mean over the seeds is 0.4, so the interval has no width.
    # ADC: maps 0.2 and 0.4, mean 0.3. The queries' means are (0.1 + 0.1)/2 = 0.1 and (0.3 + 0.7)/2 = 0.5; the bootstrap mean of two values
    # is either of them with probability 1/4 each.
    cells = [metrics(sdc=(0.5, 0.7), adc=(0.1, 0.3)), metrics(sdc=(0.3, 0.1), adc=(0.1, 0.7), seed=1)]
    sdc, adc = tables.tidy(cells, table=1).iloc[:, 9:].to_numpy().tolist()
    assert sdc == pytest.approx([40, 30, 50, 40, 40, 2, 2])
    assert adc == pytest.approx([30, 20, 40, 10, 50, 2, 2])


def test_tidy_leaves_queries_without_relevant_items_out_of_the_interval():
    cells = [metrics(sdc=(0.2, None, 0.6), seed=seed) for seed in (0, 1)]
    row = tables.tidy(cells, table=1).iloc[0]
    assert row[["ci_low", "ci_high", "queries"]].tolist() == pytest.approx([20, 60, 3])


def test_tidy_interval_is_no_wider_for_seeds_that_agree():
    """The interval is over queries: two seeds with the same values have that of one, not that of twice as many queries."""
    values = tuple(np.random.default_rng(0).random(200))
    rows = tables.tidy([metrics(sdc=values, seed=seed) for seed in (0, 1)], table=1)
    half = 100 * 1.96 * np.std(values) / np.sqrt(200)
    low, high = rows.loc[0, ["ci_low", "ci_high"]]
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dataset", "nuswide"),
        ("training", "joint"),
        ("source_model", "vgg16"),
        ("target_model", "vgg16"),
        ("source_bits", 24),
        ("target_bits", 24),
        ("attack", "apd"),
    ],
)
def test_every_key_tells_cells_apart(name, value):
    rows = tables.tidy([metrics(), metrics(**{name: value})], table=1)
    assert rows[name].tolist() == [metrics()[name]] * 2 + [value] * 2
    assert rows["seeds"].tolist() == [1] * 4


def test_tidy_of_seeds_in_any_order_keeps_the_order_of_cells():
    cells = [metrics(attack="clean"), metrics(attack="aod"), metrics(attack="clean", seed=1), metrics(attack="aod", seed=1)]
    rows = tables.tidy(iter(cells), table=3)
    assert rows[["attack", "distance"]].to_numpy().tolist() == [[a, d] for a in ("clean", "aod") for d in ("SDC", "ADC")]
    assert rows["table"].tolist() == [3] * 4


def test_tidy_of_nothing_has_the_columns():
    assert list(tables.tidy([], table=1).columns) == tables.COLUMNS


@given(st.lists(st.floats(0, 1, exclude_min=True), min_size=1, max_size=5))
def test_csv_round_trip_is_unrounded(values):
    rows = tables.tidy([metrics(sdc=(value,), attack=f"attack {i}") for i, value in enumerate(values)], table=1)
    assert rows["map"].tolist()[::2] == [100 * value for value in values]
    again = pd.read_csv(io.StringIO(rows.to_csv(index=False)))
    pd.testing.assert_frame_equal(again, rows, check_exact=True, check_dtype=False)


# Beside the paper


def test_difference_from_the_paper_by_hand():
    # The paper prints 81.0 (SDC) and 81.3 (ADC) for the clean queries of AlexNet on CIFAR-10 at 16 bits, 12.3 and 10.2 for AOD.
    cells = [metrics(sdc=(0.8,), adc=(0.82,)), metrics(sdc=(0.123,), adc=(0.1,), attack="aod")]
    rows = tables.against_paper(tables.tidy(cells, table=1), ATTACKS)
    assert list(rows.columns) == [*tables.KEYS, "ours", "paper", "difference"]
    assert rows["paper"].tolist() == [81.0, 81.3, 12.3, 10.2]
    assert rows["ours"].tolist() == pytest.approx([80, 82, 12.3, 10])
    assert rows["difference"].tolist() == pytest.approx([-1, 0.7, 0, -0.2])


@pytest.mark.parametrize("change", [{"dataset": "synthetic"}, {"target_bits": 24}, {"training": "joint"}, {"attack": "fgsm"}])
def test_cells_the_paper_does_not_print_have_no_row(change):
    assert tables.against_paper(tables.tidy([metrics(**change)], table=1), ATTACKS).empty
    assert len(tables.against_paper(tables.tidy([metrics(**change), metrics()], table=1), ATTACKS)) == 2


@pytest.mark.parametrize("change", [{"loss": "apd"}, {"iterations": 30}, {"epsilon": 16}, {"step": 1}])
def test_an_attack_with_other_settings_than_the_papers_is_not_compared(change):
    cells = [metrics(), metrics(attack="aod"), metrics(attack="apd")]
    attacks = ATTACKS | {"aod": ATTACKS["aod"] | change}
    assert tables.against_paper(tables.tidy(cells, table=1), attacks)["attack"].tolist() == ["clean", "clean", "apd", "apd"]


def test_the_same_cell_of_another_table_is_another_cell():
    """The jointly trained model is Table 2's alone: 87.9 there for the cell that is 81.0 in Table 1."""
    assert tables.against_paper(tables.tidy([metrics(training="joint")], table=2), ATTACKS)["paper"].tolist() == [87.9, 87.8]


# Layout


def test_layout_by_hand():
    cells = [
        metrics(target_bits=36, attack="clean", sdc=(0.1,), adc=(0.2,)),
        metrics(target_bits=36, attack="aod", sdc=(0.3,), adc=(0.4,)),
        metrics(target_bits=16, attack="clean", sdc=(0.5,), adc=(0.6,)),
        metrics(target_bits=16, attack="aod", sdc=(0.7,), adc=(0.8,)),
    ]
    layout = layout_of(*cells)
    assert layout.index.tolist() == [("SDC", "Clean"), ("SDC", "AOD"), ("ADC", "Clean"), ("ADC", "AOD")]
    assert layout.columns.tolist() == [("CIFAR-10", "AlexNet", "36 bits"), ("CIFAR-10", "AlexNet", "16 bits")]
    np.testing.assert_allclose(layout.to_numpy(), [[10, 50], [30, 70], [20, 60], [40, 80]])


def test_layout_is_in_the_order_of_the_rows():
    layout = layout_of(*white_box())
    across = [(d, m, b) for d in ("CIFAR-10", "NUS-WIDE") for m in ("AlexNet", "VGG16") for b in ("16 bits", "36 bits")]
    assert layout.columns.tolist() == across
    assert layout_of(*reversed(white_box())).columns.tolist() == across[::-1]


def test_layout_keeps_the_names_of_unknown_attacks():
    assert layout_of(metrics(attack="mine")).index.tolist() == [("SDC", "mine"), ("ADC", "mine")]


def test_every_network_has_a_name():
    assert set(tables.MODEL_NAMES) == set(config.NETWORKS)


def test_text_has_one_decimal():
    # 0.12345 and 0.999 of 1: 12.3 and 99.9 percent.
    text = tables.as_text(layout_of(metrics(sdc=(0.12345,), adc=(0.999,))))
    assert re.findall(r"\d+\.\d+", text) == ["12.3", "99.9"]


# Caption


def test_caption_by_hand():
    widths, accuracies = {"alexnet": 0.5, "vgg16": 1.0}, {("cifar10", "alexnet"): 0.844, ("cifar10", "vgg16"): 0.9}
    attacks = ATTACKS | {"strong": ATTACKS["aod"] | {"iterations": 30}}
    assert tables.caption("mAP (%)", [metrics()], {"cifar10": "CIFAR-10"}, widths, accuracies, attacks) == (
        "mAP (%), averaged over the whole ranking and over the orders of tied items. "
        "CIFAR-10: 2 queries, 9000 database images, worst possible 5.2, chance 10.1; accuracy of the networks (%): "
        "AlexNet 84.4, VGG16 90.0. "
        "Channels of the networks as a share of the original's: AlexNet 0.5. "
        "Basic, APD, AOD: pixels within 8 of 255, 5 steps of 2.55. strong: pixels within 8 of 255, 30 steps of 2.55. Seed 0."
    )


def test_caption_names_every_seed_and_data_set():
    cells = [metrics(seed=seed, dataset=dataset) for seed in (16, 9) for dataset in TITLES]
    caption = tables.caption("mAP", cells, TITLES, {"vgg16": 1.0}, {}, ATTACKS)
    assert caption.endswith("Mean over seeds 9, 16.")
    assert "share" not in caption
    assert "CIFAR-10: 2 queries" in caption
    assert "NUS-WIDE: 2 queries" in caption


# LaTeX


def test_latex_of_one_cell_by_hand():
    assert tables.as_latex(layout_of(metrics(sdc=(0.5,), adc=(0.25,))), "50 % & more", "tab:one").splitlines() == [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        r"\small",
        r"\caption{50 \% \& more}",
        r"\label{tab:one}",
        r"\begin{tabular}{llr}",
        r"\toprule",
        r" &  & CIFAR-10 \\",
        r" &  & AlexNet \\",
        r" &  & 16 bits \\",
        r"\midrule",
        r"SDC & Clean & 50.0 \\",
        r"\midrule",
        r"ADC & Clean & 25.0 \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]


def test_latex_rows_are_as_wide_as_the_columns_declared():
    lines = tables.as_latex(layout_of(*white_box()), "", "tab:wide").splitlines()
    assert r"\begin{tabular}{llrrrrrrrr}" in lines
    for line in lines[lines.index(r"\toprule") : lines.index(r"\bottomrule")]:
        if line.endswith(r"\\"):
            spans = sum(int(span) - 1 for span in re.findall(r"\\multicolumn\{(\d+)\}", line))
            assert line.count("&") + 1 + spans == 10


@pytest.mark.parametrize("name", HOSTILE)
def test_latex_rules_stand_before_the_numbers_and_between_the_distances(name):
    latex = tables.as_latex(layout_of(metrics(attack=name), titles={"cifar10": name}), name, "tab:hostile")
    lines = [line for line in latex.splitlines() if line.startswith((r"\toprule", r"\midrule", r"\bottomrule", "SDC &", "ADC &"))]
    assert [line.split()[0] for line in lines] == [r"\toprule", r"\midrule", "SDC", r"\midrule", "ADC", r"\bottomrule"]


@pytest.mark.parametrize("command", [r"\input", r"\end{document}", "$x$"])
def test_no_name_is_a_command(command):
    latex = tables.as_latex(layout_of(metrics(attack=command), titles={"cifar10": command}), command, "tab:hostile")
    assert command not in latex


def test_escape_by_hand():
    assert tables.escape_latex("a_b & 50%") == r"a\_b \& 50\%"
    assert tables.escape_latex("$x$ #1 ~ ^ {}") == r"\$x\$ \#1 \textasciitilde{} \textasciicircum{} \{\}"
    assert tables.escape_latex(r"\input{/etc/passwd}") == r"\textbackslash{}input\{/etc/passwd\}"


@given(st.text(alphabet="ab \\{}$&#^_%~"))
def test_escape_can_be_read_back(text):
    """A reader that knows the nine escapes and nothing else finds the text again, and no special character outside an escape."""
    known = {"textbackslash{}": "\\", "textasciitilde{}": "~", "textasciicircum{}": "^"} | {c: c for c in "&%$#_{}"}
    escape = "|".join(map(re.escape, known))
    escaped = tables.escape_latex(text)
    assert re.fullmatch(rf"(?:\\(?:{escape})|[ab ])*", escaped)
    assert re.sub(rf"\\({escape})", lambda found: known[found[1]], escaped) == text


def test_pdflatex_compiles_the_table(tmp_path):
    """With every hostile name as attack, data set and caption at once; no file is read but LaTeX's own."""
    if shutil.which("pdflatex") is None or subprocess.run(["kpsewhich", "booktabs.sty"], stdout=subprocess.DEVNULL).returncode:
        assert "REQUIRE_LATEX" not in os.environ, "pdflatex with booktabs is wanted here, but not installed"
        pytest.skip("pdflatex with booktabs is not installed (Debian: texlive-latex-recommended)")
    cells = [metrics(dataset=f"data{i}", attack=name) for i, _ in enumerate(HOSTILE) for name in HOSTILE]
    layout = layout_of(*white_box(), *cells, titles=TITLES | {f"data{i}": name for i, name in enumerate(HOSTILE)})
    table = tables.as_latex(layout, " ".join(HOSTILE), "tab:hostile")
    document = f"\\documentclass{{article}}\n\\usepackage{{booktabs}}\n\\begin{{document}}\n{table}\\end{{document}}\n"
    (tmp_path / "table.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "-recorder", "table.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "table.pdf").stat().st_size > 1000
    assert "passwd" not in (tmp_path / "table.fls").read_text()


def test_accuracies_are_of_the_last_epoch_and_means_over_the_seeds(tmp_path):
    for name, last in {"a": 0.5, "b": 0.75, "c": 0.9}.items():
        (tmp_path / f"{name}.csv").write_text(f"epoch,test_accuracy\n0,0.125\n1,{last}\n")
    vgg, alexnet = ("cifar10", "vgg16"), ("cifar10", "alexnet")
    histories = [(vgg, tmp_path / "a.csv"), (vgg, str(tmp_path / "b.csv")), (alexnet, tmp_path / "c.csv")]
    assert tables.mean_accuracies(histories) == {vgg: 0.625, alexnet: 0.9}

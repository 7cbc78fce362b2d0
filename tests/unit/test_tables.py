"""Tables against cells read from the paper by hand, and hand-made metrics."""

import csv
import functools
import io
import itertools
import math

import numpy as np
import pandas as pd
import pytest

from pqag import names
from pqag.show import tables
from pqag.show.cells import Cells, escape_latex, faults, faults_of_latex, faults_of_layout
from pqag.study import model as config

ATTACKS = {name: config.Attack(loss=name).model_dump(exclude={*config.ADDED, "distribution"}) for name in ("basic", "apd", "aod")}
TITLES = {"cifar10": "CIFAR-10", "nuswide": "NUS-WIDE"}
HOSTILE = [r"\input{/etc/passwd}", "a_b & 50%", "$x$ #1 ~ ^ {}", "}\\end{document}", "ADC", r"\\", "%"]


def metrics(sdc=(0.5, 0.7), adc=(0.2, 0.4), **changes) -> dict:
    """The contents of a metrics.json with these average precisions: bounds 0.1 around their mean, interval from least to greatest."""
    scores = {}
    for kind, values in {"SDC": sdc, "ADC": adc}.items():
        known = [value for value in values if value is not None]
        mean = sum(known) / len(known)
        bounds = {"map_worst": mean - 0.1, "map_best": mean + 0.1, "ci_low": min(known), "ci_high": max(known)}
        scores[kind] = {"map": mean, "average_precision": list(values)} | bounds
    cell = {"dataset": "cifar10", "training": "pretrained", "source_model": "alexnet", "target_model": "alexnet", "attack": "clean"}
    cell |= {"source_bits": 16, "target_bits": 16, "seed": 0, "queries": len(sdc), "database": 9000}
    cell |= {"map_floor": 0.0518, "map_chance": 0.1009}
    return cell | scores | changes


def made(*metrics: dict, titles: dict[str, str] = TITLES, number: int = 1) -> tuple[pd.DataFrame, Cells]:
    """A table of metrics from ``0.json``, ``1.json``, …: its layout, with marks for numbers, and its cells."""
    by_path = {f"{i}.json": one for i, one in enumerate(metrics)}
    bits = sorted({one["target_bits"] for one in metrics})
    cells = Cells(f"table{number}", by_path | {"record": tables.record_with({"bits": bits})})
    return tables.in_paper_layout(tables.with_cells(tables.tidy(metrics, number), by_path, cells, bits, "record"), titles), cells


def all_faults(cells: Cells) -> list[str]:
    """What is wrong with cells beside the files of the table, by the eyes of the audit."""
    return [fault for entry in cells.entries if (fault := faults(entry, cells.contents.__getitem__))]


def as_read(frame: pd.DataFrame) -> list[dict[str, str]]:
    """A table of numbers as ``cells.read`` gives it once it is written as CSV."""
    return list(csv.DictReader(io.StringIO(frame.to_csv(index=False))))


def heads(layout: pd.DataFrame, cells: Cells) -> list[tuple[str, ...]]:
    return [tuple(map(cells.plain, column)) for column in layout.columns]


def white_box() -> list[dict]:
    """The cells of a small Table 1: 2 data sets x 2 models x 2 code lengths x 2 attacks."""
    cells = itertools.product(TITLES, ("alexnet", "vgg16"), (16, 36), ("clean", "aod"))
    names = ("dataset", "source_model", "target_model", "source_bits", "target_bits", "attack")
    return [metrics(**dict(zip(names, (data, model, model, bits, bits, attack)))) for data, model, bits, attack in cells]


@pytest.mark.parametrize(
    ("table", "dataset", "source", "target", "distance", "attack", "printed"),
    [
        (1, "cifar10", "alexnet 16", "alexnet 16", "SDC", "clean", 81.0),
        (1, "cifar10", "vgg16 36", "vgg16 36", "ADC", "aod", 7.4),
        (1, "nuswide", "alexnet 36", "alexnet 36", "ADC", "aod", 28.5),
        (1, "nuswide", "vgg16 24", "vgg16 24", "SDC", "basic", 34.7),
        (2, "cifar10", "alexnet 36", "alexnet 36", "ADC", "apd", 5.7),
        (3, "cifar10", "alexnet 36", "alexnet 16", "ADC", "aod", 19.2),
        (3, "cifar10", "vgg16 24", "vgg16 36", "SDC", "aod", 8.3),
        (4, "cifar10", "vgg16 16", "resnet34 16", "ADC", "aod", 60.8),
        (4, "cifar10", "resnet18 16", "vgg11 16", "SDC", "aod", 66.9),
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
    # Table 3 repeats Table 1's clean and AOD values of CIFAR-10 (2 models x 3 lengths x 2 x 2), Table 4 those of VGG16 at 16 bits.
    for table, shared in ((3, 24), (4, 4)):
        both = rows[rows["table"] == 1].merge(rows[rows["table"] == table], on=tables.KEYS[1:])
        assert len(both) == shared and (both["map_x"] == both["map_y"]).all()


def test_tidy_by_hand():
    # map (0.5 + 0.7)/2 and (0.2 + 0.4)/2, as percent.
    rows = tables.tidy([metrics()], table=1)
    names = "table,dataset,training,source_model,target_model,source_bits,target_bits,distance,attack"
    assert ",".join(rows.columns) == f"{names},map,map_worst,map_best,ci_low,ci_high,queries,seeds,map_sd"
    key = [1, "cifar10", "pretrained", "alexnet", "alexnet", 16, 16]
    assert rows.iloc[:, :9].to_numpy().tolist() == [[*key, "SDC", "clean"], [*key, "ADC", "clean"]]
    assert rows.iloc[0, 9:].tolist() == pytest.approx([60, 50, 70, 50, 70, 2, 1, math.nan], nan_ok=True)
    assert rows.iloc[1, 9:].tolist() == pytest.approx([30, 20, 40, 20, 40, 2, 1, math.nan], nan_ok=True)


def test_tidy_means_over_seeds_by_hand():
    # SDC: maps 0.6 and 0.2, mean 0.4; bounds 0.3 and 0.5. Each query's mean over the seeds is 0.4, so the interval has no width. The sample
    # deviation of two values is their distance over the root of 2.
    # ADC: maps 0.2 and 0.4, mean 0.3. The queries' means are (0.1 + 0.1)/2 = 0.1 and (0.3 + 0.7)/2 = 0.5; the bootstrap mean of two values
    # is either of them with probability 1/4 each.
    cells = [metrics(sdc=(0.5, 0.7), adc=(0.1, 0.3)), metrics(sdc=(0.3, 0.1), adc=(0.1, 0.7), seed=1)]
    sdc, adc = tables.tidy(cells, table=1).iloc[:, 9:].to_numpy().tolist()
    assert sdc == pytest.approx([40, 30, 50, 40, 40, 2, 2, 40 / 2**0.5])
    assert adc == pytest.approx([30, 20, 40, 10, 50, 2, 2, 20 / 2**0.5])


@pytest.mark.parametrize("name", tables.KEYS[1:-2] + ["attack"])
def test_every_key_tells_cells_apart(name):
    other = 24 if name.endswith("bits") else "another"
    rows = tables.tidy([metrics(), metrics(**{name: other})], table=1)
    assert rows[name].tolist() == [metrics()[name]] * 2 + [other] * 2
    assert rows["seeds"].tolist() == [1] * 4


def test_tidy_keeps_the_order_of_cells_and_leaves_queries_without_relevant_items_out_of_the_interval():
    cells = [metrics(attack="clean"), metrics(attack="aod"), metrics(attack="clean", seed=1), metrics(attack="aod", seed=1)]
    rows = tables.tidy(iter(cells), table=3)
    assert rows[["attack", "distance"]].to_numpy().tolist() == [[a, d] for a in ("clean", "aod") for d in ("SDC", "ADC")]
    assert rows["table"].tolist() == [3] * 4
    assert list(tables.tidy([], table=1).columns) == tables.COLUMNS
    cells = [metrics(sdc=(0.2, None, 0.6), seed=seed) for seed in (0, 1)]
    row = tables.tidy(cells, table=1).iloc[0]
    assert row[["ci_low", "ci_high", "queries"]].tolist() == pytest.approx([20, 60, 3])


def test_csv_round_trip_is_unrounded():
    values = [1 / 3, 0.1 + 0.2, 2**-40, 1.0]
    rows = tables.tidy([metrics(sdc=(value,), attack=f"attack {i}") for i, value in enumerate(values)], table=1)
    assert rows["map"].tolist()[::2] == [100 * value for value in values]
    again = pd.read_csv(io.StringIO(rows.to_csv(index=False)))
    pd.testing.assert_frame_equal(again, rows, check_exact=True, check_dtype=False)


def test_difference_from_the_paper_by_hand():
    # The paper prints 81.0 (SDC) and 81.3 (ADC) for the clean queries of AlexNet on CIFAR-10 at 16 bits, 12.3 and 10.2 for AOD.
    cells = [metrics(sdc=(0.8,), adc=(0.82,)), metrics(sdc=(0.123,), adc=(0.1,), attack="aod")]
    rows = tables.against_paper(tables.tidy(cells, table=1), ATTACKS)
    assert list(rows.columns) == [*tables.KEYS, "ours", "paper", "difference"]
    assert rows["paper"].tolist() == [81.0, 81.3, 12.3, 10.2]
    assert rows["ours"].tolist() == pytest.approx([80, 82, 12.3, 10])
    assert rows["difference"].tolist() == pytest.approx([-1, 0.7, 0, -0.2])
    # The jointly trained model is Table 2's alone: 87.9 there for the cell that is 81.0 in Table 1. Of two such models of one network, each
    # is compared; other models of the table, which the paper lacks, are not.
    cells = [metrics(training="joint", source_model=name, target_model=name, sdc=(0.9,), adc=(0.8,)) for name in ("a", "b", "vgg13", "c")]
    rows = tables.against_paper(tables.tidy(cells, table=2), ATTACKS, {"a": "alexnet", "b": "alexnet", "vgg13": "vgg13", "c": "resnet18"})
    assert rows[["source_model", "target_model", "distance", "ours", "paper", "difference"]].values.tolist() == [
        [name, name, kind, ours, paper, pytest.approx(ours - paper)]
        for name in "ab"
        for kind, ours, paper in (("SDC", 90, 87.9), ("ADC", 80, 87.8))
    ]


@pytest.mark.parametrize("change", [{"dataset": "synthetic"}, {"target_bits": 24}, {"training": "joint"}, {"attack": "fgsm"}])
def test_cells_the_paper_does_not_print_have_no_row(change):
    assert tables.against_paper(tables.tidy([metrics(**change)], table=1), ATTACKS).empty
    assert len(tables.against_paper(tables.tidy([metrics(**change), metrics()], table=1), ATTACKS)) == 2


@pytest.mark.parametrize("change", [{"loss": "apd"}, {"iterations": 30}, {"epsilon": 16}, {"step": 1}, {"restarts": 2}])
def test_an_attack_with_other_settings_than_the_papers_is_not_compared(change):
    cells = [metrics(), metrics(attack="aod"), metrics(attack="apd")]
    attacks = ATTACKS | {"aod": ATTACKS["aod"] | change}
    assert tables.against_paper(tables.tidy(cells, table=1), attacks)["attack"].tolist() == ["clean", "clean", "apd", "apd"]


def identities(cells: Cells) -> dict[str, list[tuple[str, str]]]:
    return {entry["id"]: [(source["file"], source["pointer"]) for source in entry["sources"]] for entry in cells.entries}


def test_every_number_is_a_cell_with_its_source_and_a_mean_over_seeds_has_one_a_seed():
    _, cells = made(metrics(sdc=(0.5, 0.7), adc=(0.12345,)))
    assert identities(cells) == {
        "table1:cifar10/clean/alexnet/16/SDC": [("0.json", "/SDC/map")],
        "table1:cifar10/clean/alexnet/16/ADC": [("0.json", "/ADC/map")],
        "table1:bits/16": [("record", "/predicate/buildDefinition/externalParameters/settings/bits/0")],
    }
    shown = [(entry["text"], entry["format"], entry["scale"]) for entry in cells.entries]
    assert shown == [("60.0", ".1f", 100), ("12.3", ".1f", 100), ("16", "d", 1)]
    assert [entry["value"] for entry in cells.entries] == pytest.approx([60, 12.345, 16])
    assert all_faults(cells) == []
    # (0.3 + 0.6 + 0.6) / 3 = 0.5, and a sample variance of (0.04 + 0.01 + 0.01) / 2 = 0.03, whose root is 0.1732
    layout, cells = made(*(metrics(sdc=(value,), seed=seed) for seed, value in enumerate((0.3, 0.6, 0.6))))
    sources = [(f"{i}.json", "/SDC/map") for i in range(3)]
    assert identities(cells)["table1:cifar10/clean/alexnet/16/SDC"] == sources
    assert layout.map(cells.plain).iloc[0, 0] == "50.0 ± 17.3"
    assert identities(cells)["table1:cifar10/clean/alexnet/16/SDC/sd"] == sources


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "cifar10/clean/alexnet/16/SDC"),
        ({"dataset": "nuswide", "attack": "aod_strong"}, "nuswide/aod_strong/alexnet/16/SDC"),
        ({"training": "joint"}, "cifar10/joint/clean/alexnet/16/SDC"),
        ({"source_bits": 24}, "cifar10/clean/alexnet/24/alexnet/16/SDC"),
        ({"source_model": "vgg16"}, "cifar10/clean/vgg16/16/alexnet/16/SDC"),
        ({"source_model": "vgg16", "source_bits": 24, "training": "joint"}, "cifar10/joint/clean/vgg16/24/alexnet/16/SDC"),
    ],
)
def test_a_cell_is_named_by_what_tells_it_from_others(changes, name):
    _, cells = made(metrics(**changes))
    assert cells.entries[0]["id"] == f"table1:{name}"


def test_layout_by_hand():
    values = ((36, "clean", 0.1, 0.2), (36, "aod", 0.3, 0.4), (16, "clean", 0.5, 0.6), (16, "aod", 0.7, 0.8))
    layout, cells = made(*(metrics(target_bits=bits, attack=attack, sdc=(sdc,), adc=(adc,)) for bits, attack, sdc, adc in values))
    assert layout.index.tolist() == [("SDC", "Clean"), ("SDC", "AOD"), ("ADC", "Clean"), ("ADC", "AOD")]
    assert heads(layout, cells) == [("CIFAR-10", "AlexNet", "36 bits"), ("CIFAR-10", "AlexNet", "16 bits")]
    assert layout.map(cells.plain).to_numpy().tolist() == [["10.0", "50.0"], ["30.0", "70.0"], ["20.0", "60.0"], ["40.0", "80.0"]]
    across = [(d, m, b) for d in ("CIFAR-10", "NUS-WIDE") for m in ("AlexNet", "VGG16") for b in ("16 bits", "36 bits")]
    assert heads(*made(*white_box())) == across
    assert heads(*made(*reversed(white_box()))) == across[::-1]
    assert set(names.MODEL_NAMES) == set(names.NETWORKS)


def test_text_has_one_decimal_and_a_dash_where_there_is_no_cell():
    # 0.12345 and 0.999 of 1: 12.3 and 99.9 percent.
    text = tables.as_text(*made(metrics(sdc=(0.12345,), adc=(0.999,))))
    lines = [line.split() for line in text.splitlines()]
    assert lines == [["CIFAR-10"], ["AlexNet"], ["16", "bits"], ["SDC", "Clean", "12.3"], ["ADC", "Clean", "99.9"]]
    layout, cells = made(metrics(), metrics(target_bits=36, attack="aod"))
    shown = [line.split()[-2:] for line in tables.as_text(layout, cells).splitlines()[3:]]
    assert shown == [["60.0", "--"], ["--", "60.0"], ["30.0", "--"], ["--", "30.0"]]
    assert tables.as_latex(layout, "", "tab:holes", cells).count("& --") == 4
    groups = tables.listing(cells, [], layout, "")["table"]["groups"]
    assert [[field["text"] for field in row].count(["–"]) for group in groups for row in group] == [1] * 4


def caption(metrics, titles, accuracies=(), widths=(), attacks=ATTACKS, seeds=(0,), networks=(), quantizers=(), **joint) -> tuple:
    """The caption of a table of these metrics, with marks, and its cells."""
    by_path, read, histories = {f"{i}.json": one for i, one in enumerate(metrics)}, {}, {}
    for i, (key, values) in enumerate(dict(accuracies).items()):
        histories[key] = [f"{i}.{seed}.csv" for seed, _ in enumerate(values)]
        for path, value in zip(histories[key], values):
            read[path] = [] if value is None else [{"test_accuracy": "0.125"}, {"test_accuracy": str(value)}]
    settings = {"widths": dict(widths), "networks": dict(networks), "quantizers": dict(quantizers)}
    settings |= {"attacks": attacks, "seeds": list(seeds), "bits": [16, 24], "pqn": joint.get("pqn", {})}
    cells = Cells("table1", by_path | read | {"record": tables.record_with(settings)})
    text = tables.caption("mAP (%)", cells, by_path, titles, histories, settings, "record", joint.get("names", {}))
    assert all_faults(cells) == [], "every number is what its source says"
    return text, cells


def test_caption_by_hand():
    attacks = ATTACKS | {"strong": ATTACKS["aod"] | {"iterations": 30}}
    accuracies = {("cifar10", "alexnet", "pretrained"): [0.844], ("cifar10", "vgg16", "pretrained"): [0.9]}
    text, cells = caption([metrics()], {"cifar10": "CIFAR-10"}, accuracies, {"alexnet": 0.5, "vgg16": 1.0}, attacks)
    assert cells.plain(text) == (
        "mAP (%), averaged over the whole ranking and over the orders of tied items. "
        "CIFAR-10: 2 queries, 9000 database images, worst possible 5.2, chance 10.1; accuracy of the networks (%): "
        "AlexNet 84.4, VGG16 90.0. "
        "Channels of the networks as a share of the original's: AlexNet 0.5. "
        "Basic, APD, AOD: pixels within 8 grey levels, 5 steps of 2.55. strong: pixels within 8 grey levels, 30 steps of 2.55. Seed 0."
    )
    of_data = [f"cifar10/{key}" for key in ("queries", "database", "floor", "chance", "accuracy/alexnet", "accuracy/vgg16")]
    of_attacks = [f"{key}/{name}" for name in ("basic", "strong") for key in ("epsilon", "iterations", "step")]
    assert list(identities(cells)) == [f"table1:{name}" for name in [*of_data, "width/alexnet", *of_attacks, "seed/0"]]
    assert faults_of_latex(cells.latex(escape_latex(text)), cells.entries, ["CIFAR-10", "VGG16"]) == []


def test_a_caption_names_the_target_of_an_attack_and_no_digit_of_it_is_taken_for_a_number():
    attacks = {name: ATTACKS["aod"] | {"target": {"class": one, "items": None}} for name, one in (("p2p", "type 3"), ("dhta", None))}
    text, cells = caption([metrics()], {"cifar10": "CIFAR-10"}, {}, {}, attacks)
    assert "P2P is targeted: it leads queries to the class type 3. DHTA is targeted: it leads queries to given database" in text
    of_targets = tables.named_targets(attacks).values()
    assert faults_of_latex(cells.latex(escape_latex(text)), cells.entries, ["CIFAR-10", "VGG16", "P2P", *of_targets]) == []


def test_caption_tells_of_other_networks_quantizers_and_methods():
    attacks = {"basic": ATTACKS["basic"]} | {name: ATTACKS["aod"] | {"method": name} for name in ("fgsm", "momentum_pgd")}
    attacks["fgsm"] |= {"iterations": 1, "step": 8}
    attacks["own"] = ATTACKS["aod"] | {"method": "mine:run"}
    attacks["dhta"] = ATTACKS["aod"] | {"loss": "dhta", "target": {"class": 3, "items": None}}
    attacks["thorough"] = ATTACKS["aod"] | {"method": "apgd", "iterations": 100, "step": 16, "restarts": 3}
    attacks["for_all"] = ATTACKS["basic"] | {"method": "universal"}
    attacks["generated"] = ATTACKS["basic"] | {"method": "uaa_gan", "step": 8, "discriminator": False}
    attacks["judged"] = attacks["generated"] | {"discriminator": True}
    attacks["asks"] = ATTACKS["basic"] | {"method": "square", "loss": "ranks", "iterations": 98, "step": 16, "items": 7, "distance": "SDC"}
    attacks["asks"] |= {"budget": 100}
    networks = {"vgg16": "vgg16", "fine": "vgg16", "mine": "a.b:net", "alexnet_opq": "alexnet"}
    quantizers = {"vgg16": "pq", "fine": "pq", "mine": "mine:fit", "alexnet_opq": "opq"}
    text, cells = caption([metrics()], {"cifar10": "CIFAR-10"}, {}, {}, attacks, networks=networks, quantizers=quantizers)
    assert cells.plain(text).endswith(
        "worst possible 5.2, chance 10.1. fine: network VGG16, quantizer PQ. mine: network a.b:net, quantizer mine:fit. "
        "alexnet_opq: network AlexNet, quantizer OPQ. Basic, DHTA: pixels within 8 grey levels, 5 steps of 2.55. "
        "fgsm: pixels within 8 grey levels, 1 step of 8 by FGSM. momentum_pgd: pixels within 8 grey levels, 5 steps of "
        "2.55 by momentum PGD. own: pixels within 8 grey levels, 5 steps of 2.55 by mine:run. "
        "thorough: pixels within 8 grey levels, 100 steps of 16 by APGD, the best of 3 starts. "
        "for_all: pixels within 8 grey levels, one change for all, trained in 5 passes of training images with steps from 2.55. "
        "generated: pixels within 8 grey levels, one step of 8 by UAA-GAN, whose generator was trained in 5 passes of training images. "
        "judged: pixels within 8 grey levels, one step of 8 by UAA-GAN, whose generator was trained in 5 passes of training images, with a "
        "discriminator. "
        "asks: pixels within 8 grey levels, 98 steps of 16 by Square, in up to 100 requests, which return the first 7 items by SDC, "
        "without their distances. "
        "DHTA is targeted: it leads queries to the class 3. Seed 0."
    )


def test_caption_tells_how_networks_were_trained_with_their_codebooks():
    pqn = {"alpha": 5.0, "loss": "hinge", "margin": 0.5, "intra_normalisation": True, "classification": 2.0, "warm_up": 0.25}
    bare = {"alpha": 20.0, "loss": "sigmoid", "margin": 0.5, "intra_normalisation": False, "classification": 0.0, "warm_up": 0.0}
    networks = {"joint": "alexnet", "bare": "vgg16", "alexnet": "alexnet"}
    text, cells = caption(
        [metrics()],
        {"cifar10": "CIFAR-10"},
        {("cifar10", "joint", "joint16"): [0.5], ("cifar10", "joint", "joint24"): [0.6], ("cifar10", "alexnet", "pretrained"): [0.7]},
        {"joint": 0.5, "alexnet": 0.5},
        networks=networks,
        quantizers={"joint": "pqn", "bare": "pqn", "alexnet": "pq"},
        pqn={"joint": pqn, "bare": bare},
        names={"joint": "alexnet", "bare": "vgg16", "alexnet": "pretrained AlexNet"},
    )
    assert cells.plain(text).endswith(
        "chance 10.1; accuracy of the networks (%): AlexNet trained for 16 bits 50.0, AlexNet trained for 24 bits 60.0, pretrained AlexNet "
        "70.0. AlexNet: quantizer PQN (hinge triplet loss, margin 0.5 and 2 times the classification loss, after a share of 0.25 of the "
        "epochs with the classification loss alone; alpha 5; every sub-vector normalised). "
        "VGG16: quantizer PQN (sigmoid triplet loss; alpha 20; the "
        "whole vector normalised). Channels of the networks as a share of the original's: AlexNet 0.5, pretrained AlexNet 0.5. "
        "Basic, APD, AOD: pixels within 8 grey levels, 5 steps of 2.55. Seed 0."
    )


@pytest.mark.parametrize(
    ("model", "family"),
    [("vgg16", "vgg"), ("alexnet_pqn", "alexnet"), ("resnet50_opq_8", "resnet"), ("mine_alexnet", "mine_alexnet"), ("net2", "net")],
)
def test_a_variant_belongs_to_the_family_of_its_network(model, family):
    assert names.family(model) == family


def test_one_family_alone_has_no_mean_between_families():
    cells = [
        metrics(source_model=a, target_model=b, attack=c)
        for a, b, c in [
            ("alexnet", "alexnet", "clean"),
            ("alexnet_pqn", "alexnet_pqn", "clean"),
            ("alexnet", "alexnet_pqn", "aod"),
        ]
    ]
    assert set(tables.family_drops(tables.tidy(cells, 4))["source_family"]) == {"alexnet"}


def test_table_2_names_its_models_after_their_networks():
    assert tables.network_names({"mine": "alexnet"}) == {"mine": "alexnet"}
    assert tables.network_names({"a": "alexnet", "b": "alexnet", "c": "vgg16"}) == {"a": "a", "b": "b", "c": "vgg16"}
    [renamed] = tables.renamed({"x": metrics(source_model="mine", target_model="mine")}, {"mine": "alexnet"}).values()
    assert (renamed["source_model"], renamed["target_model"]) == ("alexnet", "alexnet")
    ours = [metrics(), metrics(target_model="vgg16")] + [metrics(training="joint", target_model=name) for name in ("mine", "signs")]
    quantizers = {"mine": "pqn", "signs": "csq", "alexnet": "pq", "vgg16": "opq"}
    kept = tables.as_in_the_paper(tables.tidy(ours, 2), quantizers)
    assert kept["target_model"].tolist() == ["alexnet"] * 2 + ["mine"] * 2, "neither OPQ, nor what is trained by CSQ"
    settings = {"networks": dict.fromkeys(quantizers, "vgg11"), "quantizers": quantizers, "counterparts": {"mine": None, "signs": None}}
    assert tables.in_the_paper(settings) == {"mine": "vgg11", "signs": "signs"}


def rows_of_paper(number):
    """The paper's own AlexNet rows of Table 1 or 2, as if we had measured them."""
    rows = tables.paper()
    return rows[(rows["table"] == number) & (rows["target_model"] == "alexnet") & (rows["dataset"] == "cifar10")]


def test_the_papers_claim_from_its_own_tables():
    """18 comparisons under attack, 6 an attack; the means added up by hand from Tables 1 and 2 (AlexNet, CIFAR-10)."""
    attacks = {name: ATTACKS[name] for name in ("basic", "apd", "aod")}
    found = tables.with_spread(tables.robustness(rows_of_paper(2), rows_of_paper(1), {"alexnet": "alexnet"}, attacks), [None])
    called = rows_of_paper(2).replace("alexnet", "mine")
    again = tables.robustness(called, rows_of_paper(1), {"mine": "alexnet"}, attacks, {"mine": "alexnet"})
    assert again["paper_joint"].tolist() == found["paper_joint"].tolist() and set(again["model"]) == {"mine"}
    held, cells = found.set_index("attack"), Cells("table2", {"held.csv": as_read(found)})
    assert list(held.index) == ["clean", "basic", "apd", "aod", "all"]
    assert held.loc["clean", "joint"] == pytest.approx((87.9 + 87.8 + 89.6 + 89.4 + 89.7 + 89.5) / 6)
    assert held.loc["aod", "joint"] == pytest.approx((11.5 + 8.8 + 8.2 + 6.5 + 6.5 + 5.8) / 6)
    assert held.loc["aod", "joint_drop"] == pytest.approx(100 * (1 - 47.3 / 533.9))
    assert held.loc["all", "comparisons"] == 18 and held.loc["aod", "comparisons"] == 6
    assert held["lower"].tolist() == held["paper_lower"].tolist() and held["joint"].tolist() == held["paper_joint"].tolist()
    lower = held.loc["all", "lower"]
    assert lower == held.loc[["basic", "apd", "aod"], "lower"].sum()
    text = cells.plain(tables.robustness_in_words("held.csv", cells, TITLES))
    assert text.endswith(f"lower mAP in {lower} of 18 comparisons (paper: {lower} of 18).")


def test_the_claim_is_answered_with_the_numbers():
    joint = tables.tidy([metrics(sdc=(0.8,), adc=(0.6,)), metrics(sdc=(0.35,), adc=(0.35,), attack="aod")], 2)
    pretrained = tables.tidy([metrics(sdc=(0.8,), adc=(0.8,)), metrics(sdc=(0.4,), adc=(0.3,), attack="aod")], 1)
    held = tables.robustness(joint, pretrained.replace("alexnet", "before"), {"alexnet": "before"}, ATTACKS)
    columns = ["attack", "comparisons", "lower", "joint", "pretrained"]
    assert held[columns].values.tolist() == [["clean", 2, 1, 70, 80], ["aod", 2, 1, 35, 35], ["all", 2, 1, 35, 35]]
    assert held["joint_drop"].tolist() == [0, 50, 50] and held["pretrained_drop"].tolist() == [0, 56.25, 56.25]
    of_seeds = [held, held.assign(joint=held["joint"] + 2, pretrained=held["pretrained"] - 4)]
    spread = tables.with_spread(held, of_seeds)
    held = tables.with_spread(held, [held])
    cells = Cells("table2", {"held.csv": as_read(held), "spread.csv": as_read(spread)})
    text = tables.robustness_in_words("spread.csv", cells, {"cifar10": "CIFAR-10"})
    assert "clean 70.0 ± 1.4 against 80.0 ± 2.8, AOD 35.0 ± 1.4 against 35.0 ± 2.8 (relative" in cells.plain(text)  # 2 and 4 over sqrt(2)
    cells = Cells("table2", {"held.csv": as_read(held)})
    text = tables.robustness_in_words("held.csv", cells, {"cifar10": "CIFAR-10"})
    assert cells.plain(text) == (
        "The paper finds that jointly trained models are even less robust than pretrained ones. CIFAR-10, AlexNet jointly trained against "
        "pretrained, mean mAP over code lengths and distances: clean 70.0 against 80.0, AOD 35.0 against 35.0 (relative drop 50.0 against "
        "56.2 %). Under attack the jointly trained network has the lower mAP in 1 of 2 comparisons."
    )
    assert all_faults(cells) == []
    # Without a counterpart, the text says so.
    joint = tables.tidy([metrics(), metrics(attack="aod")], 2)
    some = tables.with_spread(tables.robustness(joint, joint, {"alexnet": "alexnet"}, ATTACKS), [None])
    none = tables.robustness(joint, tables.tidy([], 1), {"alexnet": None}, ATTACKS)
    cells = Cells("table2", {"some.csv": as_read(some), "none.csv": as_read(none)})
    assert "For VGG16 the study has no pretrained one of the same" in tables.robustness_in_words("some.csv", cells, TITLES, ["vgg16"])
    assert "This study has no pretrained one of the same network" in tables.robustness_in_words("none.csv", cells, TITLES)


def test_caption_of_several_seeds_and_data_sets():
    """Accuracies are of the last epoch (the one before has 0.125) and means over the seeds: (0.5 + 0.75) / 2 = 0.625."""
    other = {"dataset": "nuswide", "sdc": (0.5,) * 3, "database": 700, "map_floor": 0.25, "map_chance": 0.3}
    both = [metrics(seed=seed, **one) for seed in (16, 2**31 - 1) for one in ({}, other)]
    accuracies = {("cifar10", "vgg16", "pretrained"): [0.5, 0.75], ("cifar10", "alexnet", "pretrained"): [0.9, 0.9]}
    accuracies["cifar10", "mine", "pretrained"] = [None, None]  # no classifier
    attacks = {"long": ATTACKS["aod"] | {"iterations": 12_345_678, "epsilon": 8.0, "step": 0.5}}
    text, cells = caption(both, TITLES, accuracies, {"vgg16": 1.0}, attacks, seeds=(16, 2**31 - 1))
    assert cells.plain(text).endswith(
        " CIFAR-10: 2 queries, 9000 database images, worst possible 5.2, chance 10.1; accuracy of the networks (%): VGG16 62.5, AlexNet "
        "90.0. NUS-WIDE: 3 queries, 700 database images, worst possible 25.0, chance 30.0. long: pixels within 8 grey levels, 12345678 "
        "steps of 0.5. Mean ± standard deviation over seeds 16, 2147483647."
    )


def test_latex_of_one_cell_by_hand():
    layout, cells = made(metrics(sdc=(0.5,), adc=(0.25,)))
    assert tables.as_latex(layout, "50 % & more", "tab:one", cells).splitlines() == [
        r"% needs \usepackage{booktabs}",
        r"\providecommand{\cell}[2]{#2}",
        r"\begin{table}",
        r"\centering",
        r"\small",
        r"\caption{50 \% \& more}",
        r"\label{tab:one}",
        r"\begin{tabular}{llr}",
        r"\toprule",
        r" &  & CIFAR-10 \\",
        r" &  & AlexNet \\",
        r" &  & \cell{table1:bits/16}{16} bits \\",
        r"\midrule",
        r"SDC & Clean & \cell{table1:cifar10/clean/alexnet/16/SDC}{50.0} \\",
        r"\midrule",
        r"ADC & Clean & \cell{table1:cifar10/clean/alexnet/16/ADC}{25.0} \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]


def test_every_number_that_is_printed_is_a_cell():
    layout, cells = made(*white_box())
    latex = tables.as_latex(layout, "A caption.", "tab:wide-1", cells)
    listed = tables.listing(cells, ["CIFAR-10", "VGG16"], layout, "A caption of 7.")
    assert faults_of_latex(latex, listed["cells"], listed["names"]) == []
    assert faults_of_layout(listed["table"], listed["cells"], listed["names"]) == ["the number 7 was typed by hand"]


def test_names_are_shared_by_neighbours():
    """2 data sets of 2 models of 2 code lengths across; of a block down, the name stands in its first line."""
    layout, cells = made(*white_box())
    latex, table = tables.as_latex(layout, "", "tab:wide", cells).splitlines(), tables.listing(cells, [], layout, "")["table"]
    assert latex[7:9] == [r"\begin{tabular}{llrrrrrrrr}", r"\toprule"]
    assert latex[9] == r" &  & \multicolumn{4}{c}{CIFAR-10} & \multicolumn{4}{c}{NUS-WIDE} \\"
    assert latex[10].count(r"\multicolumn{2}{c}{") == 4 and latex[11].count("&") == 9
    assert (table["heads"], table["caption"]) == (2, [])
    assert [[field["span"] for field in row] for row in table["header"]] == [[1, 1, 4, 4], [1, 1, 2, 2, 2, 2], [1] * 10]
    assert table["header"][0][2]["text"] == ["CIFAR-10"] and table["header"][2][2]["text"] == [{"cell": "table1:bits/16"}, " bits"]
    assert [[row[0]["text"] for row in group] for group in table["groups"]] == [[["SDC"], []], [["ADC"], []]]
    assert table["groups"][1][1][2]["text"] == [{"cell": "table1:cifar10/aod/alexnet/16/ADC"}]


@pytest.mark.parametrize("name", [*HOSTILE, r"\input", "x^2", "~3~", r"\4", "50 % of $5 #6 {7}_8", r"\cell{a}{9}"])
def test_a_name_is_no_command_and_written_everywhere_as_it_is_listed(monkeypatch, name):
    """As attack, data set and caption; so that its digits are not taken for numbers that someone typed."""
    monkeypatch.setitem(names.ATTACK_NAMES, "hostile", name)
    layout, cells = made(metrics(attack="hostile"), titles={"cifar10": name})
    latex, listed = tables.as_latex(layout, name, "tab:hostile", cells), tables.listing(cells, [name], layout, name)
    assert latex.count(escape_latex(name)) >= 4, "caption, data set and an attack for each distance"
    assert r"\input" not in latex and r"\end{document}" not in latex and "$x$" not in latex
    assert faults_of_latex(latex, listed["cells"], listed["names"]) == []
    assert faults_of_layout(listed["table"], listed["cells"], listed["names"]) == []


def test_listing_by_hand():
    layout, cells = made(metrics())
    names = ["CIFAR-10 (50 % of it)", "NUS-WIDE", "AlexNet", "VGG16", "a_1", "VGG16", "x^2"]
    listed = tables.listing(cells, names, layout, "")
    assert listed["names"] == [r"CIFAR-10 (50 \% of it)", "VGG16", r"a\_1", r"x\textasciicircum{}2"]
    assert listed["cells"] == cells.entries and len(cells.entries) == 3


def transfer(a, b):
    """Metrics of queries made for each of two (model, bits) on each: clean 80 and 85 % by SDC, attacked 10 to 40; 1 more by ADC."""
    pairs = [(a, a, "clean", 0.8), (b, b, "clean", 0.85), (a, a, "aod", 0.1), (a, b, "aod", 0.2), (b, a, "aod", 0.3), (b, b, "aod", 0.4)]
    ends = ("source_model", "source_bits", "target_model", "target_bits")
    return [metrics(**dict(zip(ends, made_for + on)), attack=attack, sdc=(x,), adc=(x + 0.01,)) for made_for, on, attack, x in pairs]


BITS, MODELS = transfer(("vgg16", 16), ("vgg16", 36)), transfer(("vgg11", 16), ("resnet18", 16))


def test_bits_transfer_in_the_papers_layout():
    """As Table 3: the model, clean and then the length that queries were made for down, the victim's length across, SDC / ADC inside."""
    layout, cells = made(*BITS, number=3)
    assert heads(layout, cells) == [("CIFAR-10", "16 bits"), ("CIFAR-10", "36 bits")]
    lines = [tuple(map(cells.plain, line)) for line in layout.index]
    assert lines == [("VGG16", "Clean"), ("VGG16", "16 bits"), ("VGG16", "36 bits")]
    values = [["80.0 / 81.0", "85.0 / 86.0"], ["10.0 / 11.0", "20.0 / 21.0"], ["30.0 / 31.0", "40.0 / 41.0"]]
    assert layout.map(cells.plain).to_numpy().tolist() == values
    assert tables.as_text(layout, cells).splitlines()[-1].split() == ["36", "bits", "30.0", "/", "31.0", "40.0", "/", "41.0"]
    latex = tables.as_latex(layout, "", "tab:x", cells)
    assert r"\cell{table3:cifar10/aod/vgg16/16/vgg16/36/SDC}{20.0} / \cell{table3:cifar10/aod/vgg16/16/vgg16/36/ADC}{21.0}" in latex


def test_model_transfer_in_the_papers_layout():
    """As Table 4: a block a distance, clean and then the model that queries were made for down, the victim across."""
    layout, cells = made(*MODELS, number=4)
    assert heads(layout, cells) == [("CIFAR-10", "VGG11"), ("CIFAR-10", "ResNet18")]
    assert list(layout.index) == [(kind, name) for kind in ("SDC", "ADC") for name in ("Clean", "VGG11", "ResNet18")]
    assert layout.map(cells.plain).to_numpy().astype(float).tolist() == [[80, 85], [10, 20], [30, 40], [81, 86], [11, 21], [31, 41]]
    assert tables.as_latex(layout, "", "tab:x", cells).count(r"\midrule") == 2


@pytest.mark.parametrize(
    ("table", "shown", "panel", "names", "where"),
    [(3, BITS, "cifar10_vgg16", ["16 bits", "36 bits"], "VGG16"), (4, MODELS, "cifar10", ["VGG11", "ResNet18"], "16 bits")],
)
def test_a_panel_of_a_transfer_table_by_hand(table, shown, panel, names, where):
    ours = tables.tidy(shown, table)
    rows, values, clean = tables.transfer_grid(pd.concat([ours.assign(dataset="fashion_mnist", map=99), ours]), panel)
    assert list(dict.fromkeys(rows["source"])) == list(dict.fromkeys(rows["target"])) == names
    assert set(rows["where"]) == {where} and set(rows["attack"]) == {"aod"}
    np.testing.assert_allclose([values["SDC"], values["ADC"]], [[[10, 20], [30, 40]], [[11, 21], [31, 41]]])
    np.testing.assert_allclose([clean["SDC"], clean["ADC"]], [[80, 85], [81, 86]])


def test_drops_of_the_papers_table_are_those_of_its_text():
    """Section Black-Box Attack: 68.5 % within the ResNets, 51.6 % within the VGGs, 24.9 % on average between the families."""
    drops = tables.family_drops(tables.paper().query("table == 4"))
    sdc = drops[drops["distance"] == "SDC"].set_index(["source_family", "target_family"])["drop"]
    assert sdc["resnet", "resnet"] == pytest.approx(68.5, abs=0.05)
    assert sdc["vgg", "vgg"] == pytest.approx(51.6, abs=0.05)
    assert sdc["between-families", "between-families"] == pytest.approx(24.9, abs=0.06)
    assert set(drops["distance"]) == {"SDC", "ADC"} and len(drops) == 10
    rows = tables.paper().query("table == 4")
    settings = {"aod": {"loss": "aod", "method": "pgd", "epsilon": 8.0, "step": 2.55, "iterations": 5}}
    ours = tables.drops_beside_paper(rows, settings)
    assert ours["paper"].tolist() == pytest.approx(ours["drop"].tolist())
    more = pd.concat([rows, rows[rows["target_model"] == "vgg11"].assign(target_model="alexnet")])
    assert tables.drops_beside_paper(more, settings)["paper"].isna().all()
    assert tables.drops_beside_paper(rows, {"aod": settings["aod"] | {"iterations": 6}})["paper"].isna().all()
    cells = Cells("table4", {"drops.csv": as_read(ours)})
    # (36.8 + 46.0 + 30.8 + 33.8 + 38.6 + 32.7)/6 = 36.45 of (87.7 + 89.2 + 87.1)/3 = 88
    words = cells.plain(tables.drops_in_words("drops.csv", cells, TITLES))
    assert words.startswith("Mean relative drop of mAP (%), CIFAR-10, SDC: ResNet on ResNet 68.5 (paper 68.5, 58.6 without a victim's own")
    assert "between families 24.9 (paper 24.9)" in words or "between families 25.0 (paper 25.0)" in words


def block(source, target, value, attack="aod"):
    one = dict.fromkeys(tables.KEYS, 0) | {"dataset": "cifar10", "distance": "SDC", "attack": attack, "map": value}
    return one | {"source_model": source, "target_model": target}


def test_drops_by_hand():
    # Clean VGG: (80 + 60)/2 = 70. Its block: (10 + 20 + 30 + 40)/4 = 25, a drop of 1 - 25/70; without the diagonal (20 + 30)/2 = 25.
    # A network that is called "other" has only itself. Between: VGG on it (45 + 55)/2 = 50 of 50, no drop; it on VGG 35 of 70, half.
    clean = [block(*[name] * 2, value, "clean") for name, value in (("vgg11", 80), ("vgg16", 60), ("other", 50))]
    own = [block("vgg11", "vgg11", 10), block("vgg11", "vgg16", 20), block("vgg16", "vgg11", 30), block("vgg16", "vgg16", 40)]
    rest = [block("other", "other", 5), block("vgg11", "other", 45), block("vgg16", "other", 55)]
    rest += [block("other", "vgg11", 35), block("other", "vgg16", 35)]
    rows = pd.DataFrame(clean + own + rest)
    drops = tables.family_drops(rows).set_index(["source_family", "target_family"])
    by_hand = {("vgg", "vgg"): 100 * (1 - 25 / 70), ("other", "other"): 90, ("vgg", "other"): 0, ("other", "vgg"): 50}
    assert drops["drop"].to_dict() == pytest.approx(by_hand | {("between-families", "between-families"): 25})
    assert drops.loc[("vgg", "vgg"), "others_drop"] == pytest.approx(100 * (1 - 25 / 70))
    assert math.isnan(drops.loc[("other", "other"), "others_drop"])
    cells = Cells("table4", {"drops.csv": as_read(tables.family_drops(rows).assign(paper=math.nan))})
    words = cells.plain(tables.drops_in_words("drops.csv", cells, TITLES))
    assert words.endswith("SDC: VGG on VGG 64.3 (64.3 without a victim's own queries), other on other 90.0, between families 25.0.")


def test_table_6_by_hand():
    """Two attacks on a victim and on another network, one with a target, the other on a black box with fewer queries."""
    attacks = {"dhta": ATTACKS["apd"] | {"loss": "dhta", "restarts": 2}, "square": ATTACKS["apd"] | {"loss": "ranks", "method": "square"}}
    made_for = {name: {"source_model": "pq", "attack": name} for name in attacks}
    target = {"target": {kind: {"map": value} for kind, value in (("SDC", 0.25), ("ADC", 0.125))}}
    by_path = {
        "clean": metrics(source_model="pq", target_model="pq"),
        "dhta": metrics((0.1, 0.2), (0.3, 0.4), target_model="pq", **made_for["dhta"], **target),
        "square": metrics((0.4,), (0.3,), target_model="pq", **made_for["square"]),
        "other": metrics((0.9, 0.8), (0.8, 0.7), source_model="vgg16", target_model="vgg16"),
        "dhta on": metrics((0.5, 0.5), target_model="vgg16", **made_for["dhta"], **target),
        "square on": metrics((0.6,), (0.6,), target_model="vgg16", **made_for["square"]),
    }
    healths = {
        "dhta.health": {"loss": [1.0, 2, 3], "zero_gradients": 0.5, "codes_changed": 1.0, "change_mean": 2.345},
        "square.health": {"loss": [1.0, 2, 3], "zero_gradients": None, "codes_changed": 0.5, "change_mean": 4, "requests": 30},
    }
    cells = Cells("table6", by_path | healths | {"record": tables.record_with({"attacks": attacks, "bits": [16]})})
    rows = tables.tidy(by_path.values(), 6)
    marked = tables.with_cells(rows, by_path, cells, [16], "record")
    rows, layout = tables.with_attacks(rows, marked, by_path, healths, attacks, {"cifar10": "CIFAR-10"}, cells)
    own = rows[(rows["distance"] == "ADC") & (rows["target_model"] == "pq")].set_index("attack")
    assert own["passes"].tolist()[1:] == [2 * 3 * 2, 30] and math.isnan(own["passes"]["clean"]) and math.isnan(own["t_map"]["square"])
    assert own["t_map"]["dhta"] == 12.5 and own["verdict"].tolist() == ["", "starved of gradient", "sound"]
    assert rows[rows["target_model"] == "vgg16"]["passes"].isna().all()
    text = layout.map(cells.plain, na_action="ignore").fillna("-")
    assert text.index.tolist() == [("pq", "Clean"), ("pq", "DHTA"), ("pq", "Square")]
    assert {column: text["CIFAR-10"][column].tolist() for column in text["CIFAR-10"]} == {
        "SDC": ["60.0 [50.0, 70.0]", "15.0 [10.0, 20.0]", "40.0 [40.0, 40.0]"],
        "ADC": ["30.0 [20.0, 40.0]", "35.0 [30.0, 40.0]", "30.0 [30.0, 30.0]"],
        "t-mAP": ["-", "25.0 / 12.5", "-"],
        "On VGG16": ["85.0 / 75.0", "50.0 / 30.0", "60.0 / 60.0"],
        "Requests": ["-", "-", "30"],
        "Change": ["-", "2.35", "4.00"],
        "Zeros": ["-", "50.0", "-"],
        "Codes": ["-", "100.0", "50.0"],
        "Queries": ["2", "2", "1"],
        "Verdict": ["-", "starved of gradient", "sound"],
    }  # fmt: skip
    assert not all_faults(cells)
    assert "VGG16" in tables.as_latex(layout, "c", "tab:attacks", cells) and "[50.0, 70.0]" in tables.as_text(layout, cells)


def test_table_5_by_hand():
    """A system of which the hotter attack is much stronger at the second code length, and one behind plain product quantization there."""
    attacks = {name: ATTACKS["apd"] | {"temperature": hot} for name, hot in (("apd", 1), ("hot", 10))}
    attacks["own"] = attacks["apd"] | {"distribution": "own"}
    values = {("pq", 16): (0.8, 0.3, 0.29, 0.3), ("pq", 24): (0.82, 0.3, 0.28, 0.26)}
    values |= {("csq", 16): (0.79, 0.5, 0.46, 0.44), ("csq", 24): (0.7, 0.5, 0.4, 0.5)}
    by_path, healths = {}, {}
    for (model, bits), (clean, *attacked) in values.items():
        for name, value in zip(("clean", *attacks, "farthest"), (clean, *attacked, 0.06)):
            one = metrics(sdc=(value,), adc=(0.9,), source_model=model, target_model=model, source_bits=bits, target_bits=bits, attack=name)
            by_path[f"{model}{bits}{name}"] = one | {"distinct_database_codes": 100 + bits}
            if name in attacks:
                healths[f"{model}{bits}{name}.health"] = {"zero_gradients": None if name == "hot" else 0.25}
    record = tables.record_with({"attacks": attacks, "bits": [16, 24]})
    cells = Cells("table5", by_path | healths | {"record": record})
    rows = tables.tidy(by_path.values(), 5)
    marked = tables.with_cells(rows, by_path, cells, [16, 24], "record")
    rows, marked = tables.with_systems(rows, marked, by_path, healths, attacks, cells)
    assert set(rows["distinct_codes"]) == {116, 124}
    known = rows["attack"].isin(["apd", "own"])
    assert rows[known]["zero_gradients"].eq(25).all() and rows[~known]["zero_gradients"].isna().all()
    settings = {"attacks": attacks, "quantizers": {"pq": "pq", "csq": "csq"}}
    words = cells.plain(tables.systems_in_words(rows, marked, settings, functools.partial(tables.setting_of, cells, "record")))
    assert words == (
        "hot, which is APD at temperature 10, is by more than five points stronger for csq at 24 bits by SDC (40.0 instead of 50.0): "
        "saturation passed for robustness to APD. own, which is APD on the scores by which the victim chooses codes, is by more than five "
        "points stronger for csq at 16 bits by SDC (44.0 instead of 50.0): a gradient of other scores passed for robustness to APD. "
        "Of clean queries the mAP by SDC is more than two points below that of pq (in brackets "
        "by ADC, which quantizes no query) for csq at 24 bits (90.0)."
    )
    for attacks, own in (({}, ""), ({"own": {"temperature": 1, "distribution": "own"}}, " Attacks on own scores use the logits for csq.")):
        settings = {"attacks": attacks, "quantizers": {"pq": "pq", "csq": "dpq"}}
        words = cells.plain(tables.systems_in_words(rows, marked, settings, functools.partial(tables.setting_of, cells, "record")))
        seen = "Codes have no gradient. APD and AOD use inner products of the soft representation for csq."
        assert words.endswith(f"for csq at 24 bits (90.0). {seen}{own}")
    shown = tables.in_paper_layout(marked, {"cifar10": "CIFAR-10"}).map(cells.plain, na_action="ignore")
    assert [name for model, name in shown.index if model == "csq"] == [
        "Clean", "APD", "hot", "own", "Farthest codes", "Distinct codes", "Zero gradients, APD (%)"
    ]  # fmt: skip
    assert shown.iloc[:, 2].tolist()[:7] == ["82.0", "30.0", "28.0", "26.0", "6.0", "124", "25.0"]
    lowest = tables.strongest(rows)
    assert lowest[lowest["distance"] == "SDC"]["attacked"].tolist() == pytest.approx([29, 26, 44, 40])
    assert lowest["floor"].tolist()[0] == pytest.approx(6)

"""The paper's claims, held to its own tables and to numbers worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from pqag.show import claims, tables


def scores(change=0.0, queries=4, falls=()):
    """The paper's CIFAR-10 part as if measured: every query of a cell has its mAP, and ``change`` points more on half of attacked ones."""
    keys = [key for key in tables.KEYS if key != "distance"]
    printed = tables.paper().query("dataset == 'cifar10'")
    for key, cell in printed.groupby(keys, sort=False):
        of = dict(zip(keys, key))
        swing = (0 if of["attack"] == "clean" else change) * np.resize([1, -1], queries)
        precision = np.linspace(0.1, 0.2, 5)[:: -1 if of["attack"] in falls else 1]
        by_distance = {
            row.distance: {"average_precision": ((row.map + swing) / 100).tolist(), "precision": precision.tolist()}
            for row in cell.itertuples()
        }
        yield of["table"], of | by_distance


def measured(**options):
    return claims.measured(scores(**options), {}).set_index("claim")


def test_the_numbers_of_the_text_come_from_the_tables_of_the_paper():
    """57.7, 68.5, 51.6 and 24.9 in the text; the tables, rounded to one decimal, give nearly these."""
    cells = tables.paper().set_index(tables.KEYS)[["map"]]
    found = {claim.name: float(claim.statistic(cells)[0]) for claim in claims.CLAIMS if not claim.of_curves}
    wanted = {"basic": 57.7, "apd": 100, "aod": 100 * 23 / 24, "joint": 100 * 17 / 18, "resnets": 68.6, "vggs": 51.5, "families": 24.2}
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, abs=0.05)
    clean1, clean2 = (81.0 + 81.3 + 83.9 + 84.5 + 84.1 + 84.6) / 6, (87.9 + 87.8 + 89.6 + 89.4 + 89.7 + 89.5) / 6
    assert found["joint_clean"] == pytest.approx(clean2 - clean1)


def test_queries_made_for_another_length_are_compared_with_the_victims_own():
    rows = [(3, "cifar10", "pretrained", "vgg16", "vgg16", made, on, "SDC", "aod") for made in (16, 24) for on in (16, 24)]
    cells = pd.DataFrame({0: [10.0, 24.0, 13.0, 20.0]}, pd.MultiIndex.from_tuples(rows, names=tables.KEYS))
    [claim] = [one for one in claims.CLAIMS if one.name == "bits"]
    assert claim.statistic(cells).tolist() == [(4 + 3) / 2]


def test_a_study_that_measures_the_papers_numbers_confirms_it():
    rows = measured()
    printed = rows.drop("curves")
    assert np.allclose(printed["ours"], printed["paper"]) and set(rows["verdict"]) == {"holds"}
    assert np.allclose(printed["low"], printed["high"]), "all queries of a cell are alike"
    assert rows.loc["curves", "ours"] == 100 and (rows["seeds"] == 1).all()


def test_intervals_come_from_resampled_queries_and_may_leave_a_claim_open():
    rows = measured(change=30.0, queries=400)
    swing = rows.loc["basic", "high"] - rows.loc["basic", "low"]
    clean = tables.paper().query("dataset == 'cifar10' and table == 1 and attack == 'clean' and distance == 'SDC'")["map"]
    normal = 2 * 1.96 * 30 / np.sqrt(400) * (100 / clean).mean()  # all cells move together
    assert np.isclose(rows.loc["basic", "ours"], measured().loc["basic", "ours"]) and swing == pytest.approx(normal, rel=0.1)
    assert rows.loc["vggs", "verdict"] == "open"


def test_curves_that_fall_are_no_curves_that_rise():
    """AOD is one of three attacks."""
    row = measured(falls=("aod", "clean")).loc["curves"]
    assert row["ours"] == pytest.approx(200 / 3) and row["verdict"] == "does not hold"


def test_what_a_study_lacks_cannot_be_tested_there():
    rows = claims.measured((one for one in scores() if one[0] in (1, 3)), {}).set_index("claim")
    missing = ["joint_clean", "joint", "resnets", "vggs", "families"]
    assert (rows.loc[missing, "verdict"] == "cannot be tested here").all() and rows.loc["basic", "verdict"] == "holds"


def test_a_jointly_trained_network_is_held_against_its_counterpart_whatever_its_name():
    """With two of them, the second with a mAP of 0 everywhere: every attacked cell of it is below, and its clean mAP is lost."""
    found = []
    for table, one in scores():
        if table != 2:
            found.append((table, one))
            continue
        worthless = {distance: one[distance] | {"average_precision": [0.0] * 4} for distance in ("SDC", "ADC")}
        found += [(2, one | numbers | {"source_model": name, "target_model": name}) for name, numbers in (("a", {}), ("b", worthless))]
    plain, named = measured(), claims.measured(found, {"a": "alexnet", "b": None}).set_index("claim")
    pd.testing.assert_frame_equal(named.drop(columns="seeds"), plain.drop(columns="seeds"))
    both = claims.measured(found, {"a": "alexnet", "b": "alexnet"}).set_index("claim")["ours"]
    assert both["joint"] == pytest.approx((plain.loc["joint", "ours"] + 100) / 2)
    clean = tables.paper().query("dataset == 'cifar10' and table == 1 and source_model == 'alexnet' and attack == 'clean'")["map"].mean()
    assert both["joint_clean"] == pytest.approx((plain.loc["joint_clean", "ours"] - clean) / 2)
    alone = claims.measured(found, {"a": None, "b": None}).set_index("claim").loc[["joint", "joint_clean"], "verdict"]
    assert (alone == "cannot be tested here").all()


def test_verdicts():
    claim = claims.CLAIMS[0]._replace(least=50, most=np.inf)
    found = [claims.verdict(claim, *numbers) for numbers in ((60, 55, 65), (45, 40, 49), (51, 49, 53), (51, np.nan, np.nan))]
    assert found == ["holds", "does not hold", "open", "holds"]


def test_the_page_has_a_row_for_every_claim():
    lines = claims.page(measured().reset_index()).splitlines()
    assert len(lines) == len(claims.CLAIMS) + 2
    assert lines[2].split(" | ")[2:6] == ["at least 57.7", "75.4", "75.4 (75.4 to 75.4)", "1"]

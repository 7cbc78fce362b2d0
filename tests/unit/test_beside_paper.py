"""A study beside the paper, held to numbers worked out by hand."""

import pandas as pd
import pytest

from pqag.show import beside_paper

WHITE_BOX = {"table": 1, "dataset": "cifar10", "training": "pretrained", "source_model": "vgg16", "target_model": "vgg16"}
TRANSFER = WHITE_BOX | {"table": 4, "source_bits": 16, "target_bits": 16, "attack": "aod"}
ROWS = pd.DataFrame(
    [
        WHITE_BOX | {"source_bits": 16, "target_bits": 16, "distance": "SDC", "attack": "clean", "ours": 81.96, "paper": 83.6},
        WHITE_BOX | {"source_bits": 16, "target_bits": 16, "distance": "ADC", "attack": "clean", "ours": 79.0, "paper": 84.0},
        WHITE_BOX | {"source_bits": 16, "target_bits": 16, "distance": "SDC", "attack": "aod", "ours": 24.6, "paper": 13.6},
        TRANSFER | {"distance": "SDC", "source_model": "resnet18", "ours": 50.0, "paper": 52.0},
    ]
)
ROWS["difference"] = ROWS["ours"] - ROWS["paper"]


def test_shares_of_the_cells_near_the_paper():
    found = beside_paper.shares(ROWS).set_index("cells")
    assert found["number"].tolist() == [3, 1, 4] and found.index.tolist() == ["Table 1", "Table 4", "all"]
    assert found.loc["Table 1", ["within 2", "within 5", "within 10"]].tolist() == pytest.approx([100 / 3, 200 / 3, 200 / 3])
    assert found.loc["all", ["within 2", "within 5", "within 10"]].tolist() == pytest.approx([50, 75, 75])
    assert found.loc["all", ["mean", "mean absolute"]].tolist() == pytest.approx([(-1.64 - 5 + 11 - 2) / 4, (1.64 + 5 + 11 + 2) / 4])


def test_the_page_has_every_cell_with_its_difference():
    page = beside_paper.page(ROWS, {"cifar10": "CIFAR-10 (JPEG copy)"})
    assert "| all | 4 | 50 % | 75 % | 75 % | +0.6 | 4.9 |" in page
    white_box, transfer = page.split("## ")[1:]
    assert white_box.splitlines() == [
        "Table 1, CIFAR-10 (JPEG copy)",
        "",
        "|  | VGG16 16 bits |",
        "| --- | --- |",
        "| SDC Clean | 82.0 / 83.6 (-1.6) |",
        "| SDC AOD | 24.6 / 13.6 (+11.0) |",
        "| ADC Clean | 79.0 / 84.0 (-5.0) |",
        "",
    ]
    assert "|  | SDC VGG16 |" in transfer and "| made for ResNet18 | 50.0 / 52.0 (-2.0) |" in transfer
    assert beside_paper.page(ROWS[:0], {}) == "The study has no cell that the paper has.\n"

"""Where the files of a study lie, by hand."""

from pqag.names import PRETRAINED
from pqag.study import paths
from pqag.study.scores import Score

MODEL = {"network": "vgg16", "width": 1, "like": None, "weights": None, "quantizer": {"method": "pq", "subspaces": 4}}
JOINT = MODEL | {"quantizer": {"method": "pqn", "subspaces": 4}, "width": 2}
STUDY = {
    "study": "mine",
    "datasets": {"one": {}, "two": {}},
    "models": {"vgg16": MODEL, "alexnet": MODEL, "joint": JOINT},
    "attacks": {"aod": {}},
    "bits": [16, 24],
    "seeds": [3, 5],
    "tables": {
        "table1": {"models": ["vgg16"]},
        "table2": {"models": ["joint"]},
        "table3": {"models": [], "attack": "aod"},
        "table4": {"models": ["vgg16", "alexnet"], "attack": "aod", "bits": 24},
    },
    "figures": {"models": ["vgg16"], "bits": 24},
}
VGG16 = "vgg16", PRETRAINED, 16


def test_metrics_lie_in_the_folder_of_the_victim_and_are_named_after_the_queries():
    scored = [Score("clean", *VGG16, *VGG16), Score("aod", "alexnet", PRETRAINED, 24, *VGG16)]
    folders = [f"results/mine/one/vgg16-pretrained/seed{seed}/16bits/metrics" for seed in (3, 5)]
    wanted = [f"{folder}/{name}.json" for name in ("clean", "aod.alexnet-pretrained-24bits") for folder in folders]
    assert paths.metrics(STUDY | {"datasets": {"one": {}}}, scored) == wanted
    found = paths.metrics(STUDY, [Score("clean", *VGG16, *VGG16), Score("aod", *VGG16, *VGG16)])
    assert [path.split("/")[2] for path in found] == ["one"] * 4 + ["two"] * 4
    assert [path.split("/")[4] for path in found] == ["seed3", "seed5"] * 4


def test_histories_of_a_table_and_files_of_a_figure():
    assert paths.histories(STUDY | {"seeds": [3]}, "table1") == [
        f"results/mine/{dataset}/vgg16-pretrained/seed3/training.csv" for dataset in ("one", "two")
    ]
    found = paths.histories(STUDY | {"seeds": [3], "datasets": {"one": {}}}, "table2")
    assert found == [f"results/mine/one/joint-joint{bits}/seed3/training.csv" for bits in (16, 24)]
    patterns = "features/query.h5", "{bits}bits/metrics/aod.{own}-{bits}bits.json"
    assert paths.of_figure(STUDY, {"dataset": "one", "model": "vgg16"}, *patterns) == [
        "results/mine/one/vgg16-pretrained/seed3/features/query.h5",
        "results/mine/one/vgg16-pretrained/seed3/24bits/metrics/aod.vgg16-pretrained-24bits.json",
    ]
    [path] = paths.of_figure(STUDY, {"dataset": "one", "model": "joint"}, "weights.pt")
    assert path == "results/mine/one/joint-joint24/seed3/weights.pt"


def test_features_of_queries_are_the_attacks_own_or_those_of_all_other_networks():
    job = {"dataset": "two", "model": "vgg16", "training": PRETRAINED, "seed": "5", "attack": "aod", "source_bits": "24", "bits": "16"}
    own = {"source_model": "vgg16", "source_training": PRETRAINED}
    folder = "results/mine/two/vgg16-pretrained/seed5"
    assert paths.features_of_queries(STUDY, job | own) == f"{folder}/24bits/adversarial/aod.h5"
    for other in ({"source_model": "alexnet"}, {"source_training": "joint24"}):
        assert paths.features_of_queries(STUDY, job | own | other) == f"{folder}/features/aod.transfer-24bits.h5"
    job = {"dataset": "two", "model": "vgg16", "training": PRETRAINED, "seed": "5", "attack": "aod", "source_bits": "24"}
    assert paths.transferred_queries(STUDY, job) == ["results/mine/two/alexnet-pretrained/seed5/24bits/adversarial/aod.h5"]

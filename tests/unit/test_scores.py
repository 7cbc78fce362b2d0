"""What the tables are made of."""

import pytest

from pqag import files
from pqag.names import PRETRAINED, kind_of
from pqag.study import scores as study_scores
from pqag.study.model import parse_study, read_config
from pqag.study.rules import jobs
from pqag.study.scores import Score, counterpart, rows_of, scores, smallest_changes, tables, transfers, victims

MODEL = {"width": 1, "like": None, "weights": None, "training": {"epochs": 4}, "quantizer": {"method": "pq", "subspaces": 4}}
STUDY = {
    "models": {name: MODEL | {"network": name} for name in ("vgg16", "alexnet", "resnet18", "vgg11", "vgg13")},
    "datasets": {"cifar10": {}},
    "attacks": {"apd": {}, "aod": {}},
    "bits": [16, 24],
    "seeds": [0],
    "tables": {
        "table1": {"models": ["vgg16"]},
        "table2": {"models": []},
        "table3": {"models": ["alexnet"], "attack": "aod"},
        "table4": {"models": ["vgg16", "resnet18"], "attack": "apd", "bits": 24},
    },
    "figures": {"models": [], "bits": 24, "sweep": {"models": []}},
}
NONE = {"models": []}


def without(*names):
    return STUDY | {"tables": STUDY["tables"] | {name: STUDY["tables"][name] | NONE for name in names}}


def scored(attack, source, bits, target=None, target_bits=None):
    """A score of pretrained networks: white-box unless another target, or its bits, is given."""
    return (attack, source, PRETRAINED, bits, target or source, PRETRAINED, target_bits or bits)


def test_scores_of_each_table_by_hand():
    assert scores(without("table3", "table4")) == [scored(attack, "vgg16", bits) for bits in (16, 24) for attack in ("clean", "apd", "aod")]
    between_bits = [scored("aod", "alexnet", made_for, target_bits=bits) for made_for in (16, 24) for bits in (16, 24)]
    assert scores(without("table1", "table4")) == [scored("clean", "alexnet", bits) for bits in (16, 24)] + between_bits
    found, pair = scores(without("table1", "table3")), ("vgg16", "resnet18")
    between_models = [scored("apd", made_for, 24, model) for made_for in pair for model in pair]
    assert found == [scored("clean", model, 24) for model in pair] + between_models
    assert found[3]._asdict() == dict(zip(Score._fields, found[3]))
    assert Score._fields == ("attack", "source_model", "source_training", "source_bits", "model", "training", "bits")


def test_scores_of_table_6_by_hand():
    """Each victim on itself and on the other network, whose clean queries stand there once."""
    table = {"table6": {"models": ["vgg16", "alexnet"], "bits": 16, "transfer": "alexnet"}}
    found = scores(without("table1", "table3", "table4") | {"tables": table})
    own = [scored(attack, model, 16) for model in ("vgg16", "alexnet") for attack in ("clean", "apd", "aod")]
    assert found == own[:4] + [scored(attack, "vgg16", 16, "alexnet") for attack in ("apd", "aod")] + own[4:]
    # An attack that keeps no ball has a score on each victim for its figure, but no row.
    study = without("table1", "table3", "table4") | {"tables": table, "attacks": STUDY["attacks"] | {"least": {"method": "cw_l2"}}}
    assert rows_of(study, "table6") == found
    assert scores(study) == found
    assert smallest_changes(study) == [scored("least", model, 16) for model in ("vgg16", "alexnet")]
    several = [its for rule, its in jobs(study | {"seeds": [3, 4]}) if rule in ("attack", "evaluate") and its["attack"] == "least"]
    assert len(several) == 4 and all(its["seed"] == "3" for its in several)
    assert needed(study, "distortion", {}) and not needed(without() | {"tables": table}, "distortion", {})


def needed(study, rule, wildcards):
    """Whether the study has a job of the rule with these wildcards, among others."""
    given = {name: value for name, value in wildcards.items() if name not in ("dataset", "seed")}.items()
    return any(name == rule and given <= its.items() for name, its in jobs(study))


def test_what_two_tables_show_is_scored_once():
    # 6 of Table 1, 6 of Table 3, 6 of Table 4 of which 2 are Table 1's: clean and APD of VGG16 at 24 bits.
    assert len(scores(STUDY)) == len(set(scores(STUDY))) == 16
    assert not needed(without("table3"), "table", {"table": "table3"})
    assert tables(STUDY) == ["table1", "table3", "table4"] and tables(without("table3")) == ["table1", "table4"]
    added = [score for score in scores(DRAWN) if score not in scores(STUDY)]
    assert added == [scored(attack, "vgg11", 16) for attack in ("clean", "apd", "aod")]


DRAWN = STUDY | {"figures": {"models": ["vgg11"], "bits": 16, "sweep": {"models": ["vgg13"]}}}


PQN = {"quantizer": {"method": "pqn", "subspaces": 4}}
JOINT = STUDY | {
    "models": STUDY["models"] | {"mine": STUDY["models"]["alexnet"] | PQN, "other": STUDY["models"]["vgg11"] | PQN | {"width": 0.5}},
    "tables": {name: table | NONE for name, table in STUDY["tables"].items()} | {"table2": {"models": ["mine"]}},
    "figures": STUDY["figures"] | {"sweep": {"models": ["mine"]}},
}


def test_jointly_trained_networks_by_hand():
    """One network for each code length; then their counterpart, a pretrained network of the same kind."""
    attacks = ("clean", "apd", "aod")
    joint = [(attack, "mine", f"joint{bits}", bits, "mine", f"joint{bits}", bits) for bits in (16, 24) for attack in attacks]
    assert scores(JOINT) == joint + [scored(attack, "alexnet", bits) for bits in (16, 24) for attack in attacks]
    assert victims(JOINT, "table2") == [("mine", "joint16"), ("mine", "joint24"), ("alexnet", PRETRAINED)]
    assert kind_of("joint24") == "joint" and kind_of(PRETRAINED) == PRETRAINED


@pytest.mark.parametrize("key", ["network", "width", "training", "quantizer"])
def test_a_counterpart_is_the_same_but_for_its_quantizer(key):
    others = {"network": "vgg11", "width": 0.5, "training": {"epochs": 5}, "quantizer": {"method": "opq", "subspaces": 4}}
    other = JOINT["models"]["alexnet"] | {key: others[key]}
    assert counterpart(JOINT, "mine") == "alexnet" and counterpart(JOINT, "other") is None
    assert counterpart(JOINT | {"models": JOINT["models"] | {"alexnet": other}}, "mine") is None


@pytest.mark.parametrize(
    ("changed", "change", "found"),
    [
        ("cifar10_alexnet", lambda settings, images: None, "alexnet"),
        ("cifar10_alexnet", lambda settings, images: settings.update(threads=7), "alexnet"),  # as they do not have to be alike
        ("cifar10_alexnet", lambda settings, images: settings.update(label_smoothing=0.0), None),
        ("cifar10_alexnet", lambda settings, images: images.update(sha256="ab" * 32), None),
        ("cifar10_alexnet_pqn", lambda settings, images: settings.update(epochs=1), None),  # of one code length
    ],
)
def test_a_counterpart_of_weights_of_the_zoo_was_trained_alike_by_its_card(tmp_path, monkeypatch, changed, change, found):
    study = parse_study(read_config(study_scores.ZOO.parent / "config/cifar10_zoo.yaml")).resolved()
    for name in ("cifar10_alexnet", "cifar10_alexnet_pqn"):
        card = files.read_json(study_scores.ZOO / name / "card.json")
        if name == changed:
            made = card["record"].get("24bits", card["record"])["predicate"]["buildDefinition"]
            change(made["externalParameters"]["settings"], made["resolvedDependencies"][0]["digest"])
        (tmp_path / name).mkdir()
        files.write_json(tmp_path / name / "card.json", card)
    monkeypatch.setattr(study_scores, "ZOO", tmp_path)
    study_scores._recipe_of_zoo.cache_clear()
    try:
        assert counterpart(study, "alexnet_pqn") == found
        recipe = {key: value for key, value in study_scores.recipe(study, "alexnet").items() if key not in ("network", "width", "images")}
        study["models"]["alexnet"] |= {"weights": None, "training": recipe}
        assert counterpart(study, "alexnet_pqn") is None, "nothing says that the images are the same"
    finally:
        study_scores._recipe_of_zoo.cache_clear()


def test_a_jointly_trained_network_is_a_victim_like_any_other():
    """In Table 4 and the figures too. In Table 3 queries are made for other networks, since every code length has its own."""
    tables = {"table3": {"models": ["mine"], "attack": "aod"}, "table4": STUDY["tables"]["table4"] | {"models": ["mine", "vgg16"]}}
    study = JOINT | {"tables": JOINT["tables"] | tables | {"table2": NONE}, "figures": JOINT["figures"] | {"models": ["mine"]}}
    found = scores(study)
    assert ("aod", "mine", "joint16", 16, "mine", "joint24", 24) in found
    assert ("apd", "mine", "joint24", 24, "vgg16", PRETRAINED, 24) in found
    assert ("aod", "mine", "joint24", 24, "mine", "joint24", 24) in found
    transferred = transfers(study, {"attack": "aod", "source_bits": "16", "model": "mine", "training": "joint24"})
    assert transferred == [("aod", "mine", "joint16", 16, "mine", "joint24", 24)]


@pytest.mark.parametrize(
    ("study", "rule", "wildcards", "has"),
    [
        (STUDY, "table", {"table": "table1"}, True),
        (STUDY, "drops", {"table": "table4"}, True),
        (STUDY, "robustness", {"table": "table2"}, False),
        (STUDY, "pretrain", {"model": "resnet18", "seed": "0"}, True),
        (STUDY, "pretrain", {"model": "vgg11", "seed": "0"}, False),
        (STUDY, "quantize", {"model": "resnet18", "bits": "16"}, False),
        (STUDY, "attack", {"model": "resnet18", "bits": "24", "attack": "aod"}, False),
        (STUDY, "attack", {"model": "alexnet", "bits": "16", "attack": "aod"}, True),
        (STUDY, "extract_transfer", {"training": PRETRAINED} | {"attack": "apd", "source_bits": "24", "model": "resnet18"}, True),
        (STUDY, "extract_transfer", {"training": PRETRAINED} | {"attack": "aod", "source_bits": "24", "model": "alexnet"}, False),
        (STUDY, "evaluate", {"attack": "aod", "source_model": "alexnet", "source_bits": "24", "model": "alexnet", "bits": "16"}, True),
        (STUDY, "evaluate", {"attack": "aod", "source_model": "vgg16", "source_bits": "24", "model": "vgg16", "bits": "16"}, False),
        (STUDY, "evaluate_clean", {"model": "resnet18", "bits": "16"}, False),
        (DRAWN, "precision_recall", {"model": "vgg11"}, True),
        (DRAWN, "precision_recall", {"model": "vgg13"}, False),
        (DRAWN, "sweep", {"model": "vgg13", "bits": "16", "attack": "apd"}, True),
        (DRAWN, "sweep", {"model": "vgg13", "bits": "24", "attack": "apd"}, False),
        (DRAWN, "sweep", {"model": "vgg11", "bits": "16", "attack": "apd"}, False),
        (DRAWN, "pretrain", {"model": "vgg13"}, True),  # whose strength is shown, and nothing else of it
        (DRAWN, "quantize", {"model": "vgg13", "bits": "16"}, True),
        (DRAWN, "quantize", {"model": "vgg13", "bits": "24"}, False),
        (DRAWN, "heat_map", {"table": "table3", "panel": "cifar10_alexnet"}, True),
        (DRAWN, "heat_map", {"table": "table3", "panel": "cifar10_vgg16"}, False),
        (DRAWN, "heat_map", {"table": "table4", "panel": "cifar10"}, True),
        (DRAWN, "beside_paper", {}, True),
        (DRAWN, "claims", {}, True),
        (DRAWN | {"datasets": {"mine": {}}}, "beside_paper", {}, False),
        (JOINT, "train_joint", {"model": "mine", "bits": "24"}, True),
        (JOINT, "train_joint", {"model": "alexnet", "bits": "24"}, False),
        (JOINT, "encode", {"model": "mine", "training": "joint24", "bits": "24"}, True),
        (JOINT, "encode", {"model": "mine", "training": "joint24", "bits": "16"}, False),
        (JOINT, "pretrain", {"model": "alexnet", "seed": "0"}, True),
        (JOINT, "pretrain", {"model": "mine", "seed": "0"}, False),  # left from before it was trained with its codebook
        (JOINT, "sweep", {"model": "mine", "training": "joint24", "bits": "24", "attack": "apd"}, True),
        (JOINT, "sweep", {"model": "mine", "training": PRETRAINED, "bits": "24", "attack": "apd"}, False),
        (JOINT, "extract", {"model": "vgg11", "training": PRETRAINED}, False),
        (JOINT, "table", {"table": "table2"}, True),
        (JOINT, "robustness", {"table": "table2"}, True),
        (JOINT, "robustness", {"table": "table4"}, False),
    ],
)
def test_a_job_is_of_the_study_if_a_table_or_a_figure_needs_it(study, rule, wildcards, has):
    assert needed(study, rule, wildcards) is has


def test_a_model_that_lends_weights_is_of_the_study_though_no_table_shows_it():
    study = STUDY | {"models": STUDY["models"] | {"vgg16": STUDY["models"]["vgg16"] | {"like": "vgg13"}}}
    assert needed(study, "pretrain", {"model": "vgg13"}) and not needed(STUDY, "pretrain", {"model": "vgg13"})
    assert needed(study, "borrow", {"model": "vgg16"}) and not needed(study, "pretrain", {"model": "vgg11"})
    assert not needed(study, "extract", {"model": "vgg13"})


def test_a_joint_training_from_trained_weights_comes_after_these():
    hashes = STUDY["models"]["alexnet"] | {"like": "vgg16", "joint": {}, "quantizer": {"method": "csq", "subspaces": 4}}
    study = JOINT | {"models": STUDY["models"] | {"hashes": hashes}, "tables": JOINT["tables"] | {"table2": {"models": ["hashes"]}}}
    study |= {"figures": {"models": [], "bits": 16, "sweep": {"models": []}}}
    made = [
        (rule, its.get("bits")) for rule, its in jobs(study) if its.get("model") == "hashes" and rule in ("borrow", "train_joint", "encode")
    ]
    assert {("borrow", None), ("train_joint", "16"), ("train_joint", "24"), ("encode", "24")} <= set(made)

"""The configuration: defaults, limits, and the sentence that a mistake gets."""

import copy
import dataclasses
import json
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pqag import attacks, datasets, names, networks, training
from pqag.errors import UserError
from pqag.names import feature_size
from pqag.study import model as config
from pqag.study.model import parse_study
from pqag.study.settings import maker_of

ROOT = Path(__file__).parents[2]
NAN, INF = float("nan"), float("inf")

SMALL = {
    "study": "small",
    "datasets": {"synthetic": {"database": 300, "queries": 60}},
    "models": {"alexnet": {"width": 0.125}, "vgg16": {}},
    "attacks": {"basic": {"loss": "basic"}, "strong": {"loss": "apd", "epsilon": 16}},
    "bits": [16, 24],
}
DELETED = object()


def changed(path, value):
    """``SMALL`` with the value at ``path`` (keys with dots between) set, or deleted."""
    study = copy.deepcopy(SMALL)
    *above, last = path.split(".") if isinstance(path, str) else [path]
    section = study
    for key in above:
        section = section.setdefault(key, {})
    if value is DELETED:
        del section[last]
    else:
        section[last] = value
    return study


def sentence(study, origin="config.yaml"):
    """The message that ``study`` gets: one line, about ``origin``, without jargon."""
    with pytest.raises(UserError) as error:
        parse_study(study, origin)
    words = str(error.value)
    assert words.startswith(f"{origin}: ") and "\n" not in words
    for jargon in ("pydantic", "Input should", "validation error", "Value error", "Traceback", "type=", "NoneType", "dict_type", "valid "):
        assert jargon not in words, words
    return words


# ----------------------------------------------------------------------------------------------------------------- what is right


#: The defaults of a training and of an attack, by hand.
RECIPE = {"epochs": 16, "batch_size": 128, "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.0005, "label_smoothing": 0.1}
RECIPE |= {"crop": 4, "flip": True, "precision": "auto"}
CIFAR10 = {"kind": "cifar10", "source": None, "sha256": None, "train": None, "database": 9000, "database_from": "test"}
CIFAR10 |= {"queries": 1000, "split_seed": 0, "validation": False, "image_size": None}
QUANTIZER = {"method": "pq", "subspaces": 4, "iterations": 25}
OF_STUDY = QUANTIZER | {"fitted_to": "database"}
PQN = {"alpha": 5, "loss": "sigmoid", "margin": 1, "intra_normalisation": True, "classification": 1, "warm_up": 0.5}
JOINT = {"epochs": 4, "learning_rate": 0.1, "classification": 1, "quantization": None, "size": 64}
UNSET = {"network": None, "width": 1.0, "weights": None, "like": None, "pqn": dict.fromkeys(PQN), "joint": dict.fromkeys(JOINT)}
SWEEP = {"queries": 250, "epsilon": [0, 1, 2, 4, 8, 12, 16], "iterations": [1, 2, 5, 10, 20, 50]}
ATTACK = {"loss": "aod", "method": "pgd", "epsilon": 8, "step": 2.55, "iterations": 5, "random_start": True, "feature": "normalised"}
ATTACK |= {"assignment": "inner_product", "temperature": 1.0, "decay": 1.0}
ADDED = {"queries": None, "restarts": 1, "items": 1000, "distance": "ADC", "budget": 1000, "directions": 25, "probe": 4}
ADDED |= {"discriminator": False, "searches": 6}


#: A study with nothing but what is needed, and what is the same in it as checked and as resolved.
LEAST = {"study": "a", "datasets": {"cifar10": {}}, "models": {"vgg16": {}}, "attacks": {"x": {"loss": "aod"}}}
FILLED = {"study": "a", "datasets": {"cifar10": CIFAR10}, "attacks": {"x": ATTACK}, "bits": [16, 24, 36], "seeds": [0]}
FILLED |= {"quantizer": OF_STUDY, "threads": {"pretrain": 2, "attack": 1}, "device": "auto"}


def test_what_is_left_out_is_filled_in():
    assert parse_study(LEAST).model_dump() == FILLED | {
        "attacks": {"x": ATTACK | ADDED | {"distribution": "codewords", "target": {"class": None, "items": None}}},
        "models": {"vgg16": UNSET | {"training": dict.fromkeys(config.Training.model_fields), "quantizer": dict.fromkeys(OF_STUDY)}},
        "training": RECIPE,
        "pqn": PQN,
        "joint": JOINT,
        "tables": {
            "table1": {"models": None},
            "table2": {"models": None},
            "table3": {"models": None, "attack": None},
            "table4": {"models": None, "attack": None, "bits": None},
            "table5": {"models": None},
            "table6": {"models": None, "bits": None, "transfer": None},
        },
        "figures": {"models": None, "attack": None, "bits": None, "sweep": SWEEP | {"models": None}, "gallery": {"queries": 100}},
        "shards": {"attack": 1, "extract": 1},
        "readings": {},
        "anonymous": False,
    }


#: Data sets whose images are the user's, by hand.
BIRDS = CIFAR10 | {"kind": "imagefolder", "source": "birds", "database": None, "image_size": 32, "missing": 0.05}


@pytest.mark.parametrize(
    ("name", "given", "filled"),
    [
        ("my_birds", {"kind": "imagefolder", "source": "birds"}, BIRDS),
        ("my_birds", {"kind": "manifest", "source": "birds", "image_size": 224}, BIRDS | {"kind": "manifest", "image_size": 224}),
        ("imagefolder", {"source": "birds"}, BIRDS),
        ("nuswide", {"source": "birds", "database_from": "all"}, BIRDS | {"kind": "nuswide", "database_from": "all", "concepts": 10}),
        ("nus_21", {"kind": "nuswide", "source": "birds", "concepts": 21}, BIRDS | {"kind": "nuswide", "concepts": 21}),
        ("half_of_cifar", {"kind": "cifar10"}, CIFAR10),
    ],
)
def test_a_data_set_has_the_keys_of_its_kind_which_may_be_its_name(name, given, filled):
    assert parse_study(changed("datasets", {name: given})).resolved()["datasets"] == {name: filled}


def test_training_images_can_join_the_database():
    """Synthetic has 2,000 training and 1,000 test images; queries are of the latter."""
    joined = {"database_from": "all", "database": 2000, "queries": 1000}
    parse_study(changed("datasets.synthetic", joined))
    assert "1000 test images and 2000 training images" in sentence(changed("datasets.synthetic", joined | {"database": 2001}))
    assert "queries are test images" in sentence(changed("datasets.synthetic", joined | {"database": 70, "queries": 1001}))


def test_what_is_given_is_kept_and_the_mapping_left_as_it_was():
    given = changed("attacks.strong.step", 1)
    before = copy.deepcopy(given)
    study = parse_study(given)
    assert (study.attacks["strong"].epsilon, study.attacks["strong"].step, study.models["alexnet"].width) == (16, 1, 0.125)
    assert list(study.attacks) == ["basic", "strong"] and study.bits == [16, 24] and given == before


def test_what_tables_and_figures_show_where_the_study_does_not_say(tiny):
    """AOD and 16 bits wherever they stand; Table 3 and the figures follow Table 1, the sweep the first model of the figures."""
    tiny = tiny | {"bits": [24, 16], "attacks": {"aod": {"loss": "aod"}, "last": {"loss": "apd"}}, "figures": {}}
    shown = parse_study(tiny | {"tables": {"table1": {"models": ["vgg16", "alexnet"]}}}).resolved()
    assert shown["tables"]["table1"]["models"] == shown["tables"]["table3"]["models"] == ["vgg16", "alexnet"]
    assert shown["tables"]["table4"]["models"] == ["alexnet", "vgg16"]
    assert (shown["figures"]["models"], shown["figures"]["sweep"]["models"]) == (["vgg16", "alexnet"], ["vgg16"])
    assert {(shown["tables"][name]["attack"]) for name in ("table3", "table4")} == {shown["figures"]["attack"]} == {"aod"}
    assert shown["tables"]["table4"]["bits"] == shown["figures"]["bits"] == 16
    fewer = parse_study(tiny | {"bits": [8, 24], "attacks": {"first": {"loss": "aod"}, "last": {"loss": "apd"}}}).resolved()
    assert (fewer["tables"]["table4"]["attack"], fewer["tables"]["table4"]["bits"]) == ("last", 8)


def test_resolved_is_all_that_results_depend_on():
    """By hand: every default, each model with its whole recipe, and neither the study's own nor what changes no result."""
    model = {"network": "vgg16", "width": 1, "weights": None, "like": None, "training": RECIPE, "quantizer": QUANTIZER}
    assert parse_study(LEAST | {"anonymous": True}).resolved() == FILLED | {
        "quantizer": QUANTIZER,
        "models": {"vgg16": model},
        "tables": {
            "table1": {"models": ["vgg16"]},
            "table2": {"models": []},
            "table3": {"models": ["vgg16"], "attack": "x"},
            "table4": {"models": ["vgg16"], "attack": "x", "bits": 16},
            "table5": {"models": []},
            "table6": {"models": [], "bits": 16, "transfer": None},
        },
        "figures": {"models": ["vgg16"], "attack": "x", "bits": 16, "sweep": SWEEP | {"models": ["vgg16"]}, "gallery": {"queries": 100}},
    }


def test_a_model_trains_with_the_recipe_of_the_study_except_for_what_it_sets_itself():
    study = changed("models.alexnet.training", {"epochs": 3, "flip": False, "weight_decay": 0})
    study["training"] = {"epochs": 7, "crop": 2}
    models = parse_study(study).resolved()["models"]
    assert models["vgg16"]["training"] == RECIPE | {"epochs": 7, "crop": 2}
    assert models["alexnet"]["training"] == RECIPE | {"epochs": 3, "crop": 2, "weight_decay": 0, "flip": False}


@pytest.mark.parametrize(
    ("name", "pin", "left"),
    [("cifar10", None, "a"), ("cifar10", "ab" * 32, None), ("fashion_mnist", None, None), ("birds", None, "a"), ("birds", "ab" * 32, None)],
)
def test_the_source_of_images_counts_only_where_no_hash_pins_them(name, pin, left):
    """Of Fashion-MNIST the one right content is known, of CIFAR-10 it is not."""
    kind = {"kind": "imagefolder"} if name == "birds" else {}
    study = parse_study(changed("datasets", {name: kind | {"source": "a", "sha256": pin}}))
    assert study.resolved()["datasets"][name]["source"] == left
    assert study.datasets[name].source == "a", "to fetch from it all the same"


def test_resolved_is_plain_can_be_resolved_no_further_and_leaves_the_study_as_it_was():
    """``study.json`` read as a study (with its recipes) means the same study."""
    study = parse_study(changed("datasets.fashion_mnist", {"source": "a/folder"}) | {"training": {"epochs": 2}})
    before = study.model_copy(deep=True)
    resolved = study.resolved()
    assert json.loads(json.dumps(resolved)) == resolved == parse_study(resolved).resolved()
    resolved["models"]["alexnet"]["width"] = 4
    resolved["datasets"]["fashion_mnist"]["database"] = 1
    assert study == before and study.resolved() != resolved


@pytest.mark.parametrize("path", [ROOT / "config.yaml", *sorted((ROOT / "config").glob("*.yaml"))], ids=lambda path: path.name)
def test_the_shipped_studies_are_right(path):
    study = parse_study(yaml.safe_load(path.read_text(encoding="utf-8")), path.name)
    assert study.datasets and study.models and study.attacks


def test_values_at_the_limits_are_right():
    right = [
        ("datasets.synthetic.train", 1), ("datasets.synthetic.train", 2000), ("datasets.synthetic.database", 940),
        ("datasets.synthetic.split_seed", 2**31 - 1), ("datasets.synthetic.sha256", "0123456789abcdef" * 4),
        ("models.alexnet.width", 4), ("attacks.basic.epsilon", 0), ("attacks.basic.epsilon", 255), ("attacks.a1_b", {"loss": "apd"}),
        ("bits", [4, 8, 32]), ("seeds", [0, 1, 2]), ("training.label_smoothing", 0), ("training.weight_decay", 0), ("training.crop", 16),
        ("quantizer", {"subspaces": 8, "iterations": 1}), ("device", "cpu"), ("anonymous", True), ("attacks.basic.epsilon", 1),
        ("pqn", {"classification": 0, "margin": 0, "warm_up": 0}), ("figures.sweep", {"epsilon": [1], "iterations": [1], "queries": 1}),
    ]  # fmt: skip
    # Keys of an attack with a loss that uses them.
    right += [("attacks.basic", {"loss": "basic", "feature": "raw"}), ("attacks.basic", {"loss": "apd", "assignment": "euclidean"})]
    right += [("attacks.basic", {"loss": loss, "temperature": 2}) for loss in ("apd", "aod")]
    for path, value in right:
        parse_study(changed(path, value))


def test_as_many_codewords_as_database_images_are_right_and_one_more_is_not():
    """Bits 24 in 4 sub-spaces are 2^6 = 64 codewords."""
    parse_study(changed("datasets.synthetic.database", 64))
    assert "K = 64" in sentence(changed("datasets.synthetic.database", 63))


# ----------------------------------------------------------------------------------------------------------------- what is wrong

HEX = "must be a sha256: 64 hexadecimal digits in lower case"
NAMES = "a name may hold only a-z, 0-9 and _ and begins with a letter"
NETWORKS = "allowed are alexnet, vgg11, vgg13, vgg16, resnet18, resnet34, resnet50"
APGD = {"loss": "aod", "method": "apgd", "iterations": 20}
CW = {"loss": "clipped_margin", "method": "cw_l2", "iterations": 100}
P2P = {"loss": "p2p"}
NES = {"loss": "ranks", "method": "nes"}
UNIVERSAL = {"loss": "basic", "method": "universal"}
UAA_GAN = {"loss": "basic", "method": "uaa_gan"}

WRONG = [
    # (key, value, what the sentence must hold: the key, what stands there, the nearest or the allowed)
    ("study", DELETED, ["the key study is missing"]),
    ("study", None, ["study is empty", "must be a text"]),
    ("study", "My Study", ["study is 'My Study'", NAMES]),
    ("study", "a\n", ["study is 'a\\n'", NAMES]),
    ("datasets", None, ["datasets is empty", "must be a mapping"]),
    ("datasets", {}, ["datasets is empty", "at least one"]),
    ("datasets.fashionmnist", {}, ["datasets: 'fashionmnist'", "did you mean fashion_mnist?", "allowed are fashion_mnist, cifar10"]),
    ("datasets.imagenet", {"kind": "folder"}, ["datasets.imagenet.kind is 'folder'", "must be one of fashion_mnist, cifar10"]),
    ("datasets.imagenet", {"kind": None}, ["datasets.imagenet.kind is None", "must be one of fashion_mnist"]),
    ("datasets.Birds", {"kind": "imagefolder", "source": "x"}, ["datasets.Birds", NAMES]),
    ("datasets.tables", {"kind": "imagefolder", "source": "x"}, ["datasets.tables: the results have a folder of that name"]),
    ("datasets.cifar10", {"kind": "manifest", "source": "x"}, ["datasets.cifar10.kind is manifest, but cifar10 is a kind itself"]),
    ("datasets.birds", {"kind": "imagefolder"}, ["the key datasets.birds.source is missing"]),
    ("datasets.birds", {"kind": "imagefolder", "source": "x", "sise": 64}, ["datasets.birds.sise is no key", "image_size, missing"]),
    ("datasets.birds", {"kind": "imagefolder", "source": "x", "image_size": 31}, ["datasets.birds.image_size is 31", "at least 32"]),
    ("datasets.birds", {"kind": "imagefolder", "source": "x", "image_size": 513}, ["datasets.birds.image_size is 513", "at most 512"]),
    ("datasets.birds", {"kind": "imagefolder", "source": "x", "missing": 1}, ["datasets.birds.missing is 1", "less than 1"]),
    ("datasets.birds", {"kind": "imagefolder", "source": "x", "missing": -0.1}, ["datasets.birds.missing is -0.1", "at least 0"]),
    ("datasets.birds", {"kind": "imagefolder", "source": "x", "concepts": 5}, ["datasets.birds.concepts is no key"]),
    ("datasets.nuswide", {"source": "x", "concepts": 21}, ["datasets.nuswide.concepts is 21", "another name and kind: nuswide"]),
    ("datasets.nuswide", {"source": "x", "concepts": 1}, ["datasets.nuswide.concepts is 1", "at least 2"]),
    ("datasets.nuswide", {"source": "x", "concepts": 82}, ["datasets.nuswide.concepts is 82", "at most 81"]),
    ("datasets.synthetic.image_size", 16, ["datasets.synthetic.image_size is 16", "at least 32"]),
    ("datasets.synthetic.validation", 1, ["datasets.synthetic.validation is 1", "must be true or false"]),
    ("datasets.synthetic", {"validation": True, "database": 1990}, ["datasets.synthetic: for validation", "from 2000 training images"]),
    ("datasets.birds", {"kind": "imagefolder", "source": "x", "validation": True}, ["datasets.birds.database is missing: with validation"]),
    ("datasets.cifar10", {"validation": True, "database_from": "all"}, ["the database consists of training images: leave database_from"]),
    ("datasets.synthetic.database_from", "train", ["datasets.synthetic.database_from is 'train'", "'test' or 'all'"]),
    ("datasets.synthetic", None, ["datasets.synthetic is empty", "must be a mapping of keys to values"]),
    ("datasets.synthetic.sourc", "x", ["datasets.synthetic.sourc", "did you mean source?", "source, sha256, train, database"]),
    ("datasets.synthetic.source", 5, ["datasets.synthetic.source is 5", "must be a text"]),
    ("datasets.synthetic.sha256", "abc", ["datasets.synthetic.sha256 is 'abc'", HEX]),
    ("datasets.synthetic.sha256", "A" * 64, ["datasets.synthetic.sha256", HEX]),
    ("datasets.synthetic.train", 0, ["datasets.synthetic.train is 0", "at least 1"]),
    ("datasets.synthetic.train", 2001, ["datasets.synthetic.train", "there are 2000 training images", "2001"]),
    ("datasets.synthetic.train", True, ["datasets.synthetic.train is ", "a whole number"]),
    ("datasets.synthetic.database", 941, ["datasets.synthetic: ", "941", "60", "1000 test images"]),
    ("datasets.synthetic.database", DELETED, ["datasets.synthetic: ", "9000", "60", "1000 test images"]),
    ("datasets.synthetic.queries", 0, ["datasets.synthetic.queries is 0", "at least 1"]),
    ("datasets.synthetic.split_seed", -1, ["datasets.synthetic.split_seed is -1", "at least 0"]),
    ("models", {}, ["models is empty", "at least one"]),
    ("models.vgg19", {}, ["models: 'vgg19'", "did you mean vgg1", NETWORKS]),
    ("models.vgg16", 0.5, ["models.vgg16 is 0.5", "must be a mapping of keys to values"]),
    ("models.vgg16.width", 0, ["models.vgg16.width is 0", "greater than 0"]),
    ("models.vgg16.width", 4.5, ["models.vgg16.width is 4.5", "at most 4"]),
    ("models.vgg16.width", "wide", ["models.vgg16.width is 'wide'", "a number"]),
    ("models.vgg16.width", NAN, ["models.vgg16.width is nan"]),
    ("models.vgg16.depth", 3, ["models.vgg16.depth", "allowed are network, width, training, weights, like, quantizer"]),
    ("models.vgg16.training.epochs", 0, ["models.vgg16.training.epochs is 0", "at least 1"]),
    ("models.vgg16.training.epoch", 3, ["models.vgg16.training.epoch", "did you mean epochs?", "batch_size, learning_rate"]),
    ("models.vgg16.training.precision", "half", ["models.vgg16.training.precision is 'half'", "'auto', 'float32' or 'bfloat16'"]),
    ("attacks", {}, ["attacks is empty", "at least one"]),
    ("attacks.clean", {"loss": "apd"}, ["attacks.clean", "give the attack another name"]),
    ("attacks.Strong-One", {"loss": "apd"}, ["attacks.Strong-One", NAMES]),
    ("attacks.basic", None, ["attacks.basic is empty", "must be a mapping of keys to values"]),
    ("attacks.basic.loss", DELETED, ["the key attacks.basic.loss is missing"]),
    ("attacks.basic.loss", "adp", ["attacks.basic.loss: 'adp'", "did you mean apd?", "allowed are basic, apd, aod, margin"]),
    ("attacks.basic.epsilon", -1, ["attacks.basic.epsilon is -1", "at least 0"]),
    ("attacks.basic.epsilon", 255.5, ["attacks.basic.epsilon is 255.5", "at most 255"]),
    ("attacks.basic.step", 0, ["attacks.basic.step is 0", "greater than 0"]),
    ("attacks.basic.iterations", 0, ["attacks.basic.iterations is 0", "at least 1"]),
    ("attacks.basic.random_start", 1, ["attacks.basic.random_start is 1", "true or false"]),
    ("attacks.basic.feature", "normalized", ["attacks.basic.feature is 'normalized'", "'normalised' or 'raw'"]),
    ("attacks.basic.assignment", "l2", ["attacks.basic.assignment is 'l2'", "'inner_product' or 'euclidean'"]),
    ("attacks.basic.temperature", 0, ["attacks.basic.temperature is 0", "greater than 0"]),
    ("attacks.basic.eps", 8, ["attacks.basic.eps", "did you mean epsilon?", "loss, method, epsilon, step, iterations"]),
    ("bits", [], ["bits is empty", "at least one"]),
    ("bits", [16, 16], ["bits", "once", "[16, 16]"]),
    ("bits", [18], ["bits: 18", "multiple of quantizer.subspaces = 4"]),
    ("bits", [0], ["bits", "is 0", "at least 1"]),
    ("bits", [16, 65], ["bits", "is 65", "at most 64"]),
    ("bits", [16, "24"], ["bits[1] is '24'", "a whole number"]),
    ("bits", [36], ["bits: 36", "K = 512", "300 database images of datasets.synthetic"]),
    ("seeds", 0, ["seeds is 0", "a list"]),
    ("seeds", [0, 1, 0], ["seeds", "once", "[0, 1, 0]"]),
    ("training.epochs", 0, ["training.epochs is 0", "at least 1"]),
    ("training.batch_size", 1, ["training.batch_size is 1", "at least 2"]),
    ("training.learning_rate", 0, ["training.learning_rate is 0", "greater than 0"]),
    ("training.learning_rate", "1e-3", ["training.learning_rate is '1e-3'", "a number", "YAML reads 1e-3 as a text, write 0.001"]),
    ("training.weight_decay", "5.0e2", ["YAML reads 5.0e2 as a text, write 500"]),
    ("training.momentum", 0, ["training.momentum is 0", "greater than 0"]),
    ("training.weight_decay", -0.1, ["training.weight_decay is -0.1", "at least 0"]),
    ("training.label_smoothing", 1, ["training.label_smoothing is 1", "less than 1"]),
    ("training.crop", 17, ["training.crop is 17", "at most 16"]),
    ("training.optimizer", "adam", ["training.optimizer", "epochs, batch_size, learning_rate, momentum, weight_decay, label_smoothing"]),
    ("quantizer.subspaces", 3, ["quantizer.subspaces: 3", "512", "alexnet", "0.125", "1, 2, 4, 8, 16, 32, 64"]),
    ("quantizer.subspaces", 0, ["quantizer.subspaces is 0", "at least 1"]),
    ("tables.table7", {}, ["tables.table7 is no key", "allowed are table1, table2, table3, table4, table5, table6"]),
    ("tables.table2.models", ["vgg16"], ["tables.table2.models: vgg16 is not trained with its codebook", "models.vgg16.quantizer.method"]),
    ("models.vgg16.pqn", {"alpha": 2}, ["models.vgg16.pqn: only a model with the quantizer pqn uses it"]),
    ("models.vgg16.quantizer", {"method": "pqn", "subspaces": 1}, ["bits: 16 bits in 1 sub-spaces need K = 65536", "2000 training images"]),
    ("models.vgg16.joint", {"epochs": 2}, ["models.vgg16.joint: only a model with the quantizer csq, dpsh, hashnet, dqn, dpq, dtq, or a"]),
    ("joint.epochs", 0, ["joint.epochs is 0", "at least 1"]),
    ("pqn.alpha", 0, ["pqn.alpha is 0", "greater than 0"]),
    ("pqn.loss", "triplet", ["pqn.loss is 'triplet'", "'sigmoid', 'hinge' or 'softplus'"]),
    ("pqn.warm_up", 1, ["pqn.warm_up is 1", "less than 1"]),
    ("tables.table1.models", ["vgg19"], ["tables.table1.models: 'vgg19' is not known", "did you mean vgg16?", "alexnet, vgg16"]),
    ("tables.table3.models", ["vgg16", "vgg16"], ["tables.table3.models", "once"]),
    ("tables.table3.attack", "aodd", ["tables.table3.attack: 'aodd' is not known", "allowed are basic, strong"]),
    ("tables.table4.bits", 12, ["tables.table4.bits is 12", "none of `bits`", "allowed are 16"]),
    ("tables.table1.bits", 16, ["tables.table1.bits is no key", "allowed are models"]),
    ("tables", {f"table{n}": {"models": []} for n in (1, 2, 3, 4)}, ["tables: no table has a model", "at least one"]),
    ("figures.models", "vgg16", ["figures.models is 'vgg16'", "a list"]),
    ("figures.attack", "clean", ["figures.attack: 'clean' is not known"]),
    ("figures.sweep.epsilon", [], ["figures.sweep.epsilon is empty", "at least one"]),
    ("figures.sweep.epsilon", [0, 0.5], ["figures.sweep.epsilon has 0.5", "0 and 1 to 255"]),
    ("figures.sweep.iterations", [5, 5], ["figures.sweep.iterations", "once"]),
    ("figures.sweep.queries", 0, ["figures.sweep.queries is 0", "at least 1"]),
    ("threads.pretrain", 0, ["threads.pretrain is 0", "at least 1"]),
    ("device", "gpu", ["device is 'gpu'", "'auto', 'cpu' or 'cuda'"]),
    ("anonymous", 1, ["anonymous is 1", "true or false"]),
    ("devise", "cpu", ["devise", "did you mean device?", "study, datasets, models, attacks, bits, seeds, training"]),
    ("attacks.basic.temperature", INF, ["attacks.basic.temperature is inf"]),
    ("datasets.cifar10.source", "", ["datasets.cifar10.source is an empty text"]),
    (5, 5, ["5", "allowed are study, datasets"]),
    ("seeds", [2**31], ["is 2147483648", "less than 2147483648"]),
    ("seeds", [-1], ["is -1", "at least 0"]),
    ("study", True, ["study is true", "must be a text"]),
    ("datasets.synthetic.source", "a/folder", ["datasets.synthetic.source: ", "synthetic are generated"]),
    ("attacks.all", {"loss": "apd"}, ["attacks.all", "give the attack another name"]),
    ("attacks.basic.epsilon", 0.5, ["attacks.basic.epsilon is 0.5", "allowed are 0 and 1 to 255"]),
    ("attacks.basic.temperature", 2, ["attacks.basic.temperature: ", "the loss basic does not use it", "apd, aod, hag, centre"]),
    ("attacks.basic.assignment", "euclidean", ["attacks.basic.assignment: ", "the loss basic does not use it", "allowed with apd"]),
    ("attacks.basic.decay", 0.5, ["attacks.basic.decay: ", "the method pgd does not use it", "allowed with momentum_pgd"]),
    ("attacks.basic.decay", -1, ["attacks.basic.decay is -1", "at least 0"]),
    ("attacks.basic.method", "fsgm", ["attacks.basic.method: 'fsgm'", "did you mean fgsm?", "universal, uaa_gan, or a function"]),
    ("attacks.basic.method", "mine.py:run:x", ["attacks.basic.method: 'mine.py:run:x' is not known", "as module:function"]),
    ("attacks.basic.loss", "mine:", ["attacks.basic.loss: 'mine:' is not known", "distances, or a function of yours as module:function"]),
    ("attacks.basic", {"loss": "apd", "method": "fgsm", "step": 1}, ["attacks.basic.step", "as long as epsilon; leave the key out"]),
    ("attacks.basic", {"loss": "apd", "method": "fgsm", "iterations": 5}, ["attacks.basic.iterations", "fgsm is one step"]),
    ("attacks.basic.method", "apgd", ["attacks.basic.iterations is 5", "apgd halves", "at least 20, published are 100"]),
    ("attacks.basic", APGD | {"step": 1}, ["attacks.basic.step: the method apgd begins with steps of twice epsilon; leave the key out"]),
    ("attacks.basic", {"loss": "aod", "restarts": 3, "random_start": False}, ["attacks.basic.restarts: 3 of", "random_start is false"]),
    ("attacks.basic", {"loss": "basic", "distribution": "own"}, ["attacks.basic.distribution: the loss basic does not use it"]),
    ("attacks.basic", {"loss": "apd", "distribution": "own", "assignment": "euclidean"}, ["attacks.basic.assignment: with distribution"]),
    ("attacks.basic", {"loss": "dhta"}, ["attacks.basic.target is missing: the loss dhta needs one", "{class: NAME or number}"]),
    ("attacks.basic.target", {"class": 1}, ["attacks.basic.target: the loss basic does not use it; allowed with p2p, dhta"]),
    ("attacks.basic", {"loss": "mine:loss", "target": {"class": 1}}, ["attacks.basic.target: the loss mine:loss does not use it"]),
    ("attacks.basic", P2P | {"target": {"class": 1, "items": [1]}}, ["attacks.basic.target: it has both class and items"]),
    ("attacks.basic", P2P | {"target": {"clas": 1}}, ["attacks.basic.target.clas is no key: did you mean class?", "class, items"]),
    ("attacks.basic", P2P | {"target": {"class": 10}}, ["target.class is 10, but datasets.synthetic has the classes 0 to 9"]),
    ("attacks.basic", P2P | {"target": {"class": "patern 3"}}, ["datasets.synthetic has no class 'patern 3': did you mean pattern 3?"]),
    ("attacks.basic", P2P | {"target": {"class": True}}, ["target.class is True, but must be the name or the number of a class"]),
    ("attacks.basic", P2P | {"target": {"items": []}}, ["attacks.basic.target.items is empty"]),
    ("attacks.basic", NES | {"budget": 50}, ["attacks.basic.budget is 50, but one step of nes takes 51 requests", "at least 51"]),
    ("attacks.basic", NES | {"method": "square", "budget": 2}, ["attacks.basic.budget is 2", "one step of square takes 3", "at least 3"]),
    ("attacks.basic", NES | {"iterations": 7}, ["attacks.basic.iterations: the method nes takes as many steps as its budget allows"]),
    ("attacks.basic", NES | {"method": "square", "step": 7}, ["attacks.basic.step: the method square changes pixels by twice epsilon"]),
    ("attacks.basic", NES | {"loss": "aod"}, ["attacks.basic.loss is aod, but the method nes only sees", "one of ranks, distances"]),
    ("attacks.basic", NES | {"method": "pgd"}, ["attacks.basic.method is pgd, but the loss ranks is of what", "no gradient", "nes"]),
    ("attacks.basic", NES | {"restarts": 2}, ["attacks.basic.restarts: the loss ranks has a budget for one start"]),
    ("attacks.basic.items", 5, ["attacks.basic.items: the loss basic does not use it; allowed with ranks, distances"]),
    ("attacks.basic", NES | {"method": "square", "probe": 2}, ["attacks.basic.probe: the method square does not use it", "with nes"]),
    ("attacks.basic.queries", 250, ["attacks.basic.queries: only Table 6 says how many", "[] in tables.table1,", "figures.sweep"]),
    ("attacks.basic", UNIVERSAL, ["attacks.basic.method: universal is trained for one strength; set models: [] in figures.sweep"]),
    ("attacks.basic", UNIVERSAL | {"loss": "centre"}, ["attacks.basic.loss is centre, but the method universal has one change for all"]),
    ("attacks.basic", UNIVERSAL | {"loss": "hag"}, ["loss is hag, but the method universal cannot go by a loss that changes"]),
    ("attacks.basic", CW | {"iterations": 99}, ["attacks.basic.iterations is 99", "hardly any image; allowed are at least 100"]),
    ("attacks.basic", CW | {"epsilon": 8}, ["attacks.basic.epsilon: the method cw_l2 begins at the clean image, keeps no ball, and"]),
    ("attacks.basic", CW | {"random_start": True}, ["attacks.basic.random_start: the method cw_l2 begins at the clean image"]),
    ("attacks.basic", CW | {"restarts": 2}, ["attacks.basic.restarts: cw_l2 always begins at the clean image; leave the key out"]),
    ("attacks.basic", CW | {"assignment": "euclidean"}, ["attacks.basic.assignment: cw_l2 goes by the codes of retrieval; leave"]),
    ("attacks.basic", CW | {"loss": "margin"}, ["attacks.basic.loss is margin, but the method cw_l2 stops where the loss is 0"]),
    ("attacks.basic", CW, ["attacks.basic.method: cw_l2 keeps no ball, so only the figure", "tables.table1", "figures.sweep"]),
    ("attacks", {"x": CW}, ["attacks: none keeps a ball, so Table 6 would have no row; add one"]),
    ("attacks.basic", UNIVERSAL | {"restarts": 2}, ["attacks.basic.restarts: the method universal is trained once"]),
    ("attacks.basic", UAA_GAN, ["attacks.basic.method: uaa_gan is trained for one strength; set models: [] in figures.sweep"]),
    ("attacks.basic", UAA_GAN | {"loss": "p2p"}, ["attacks.basic.loss is p2p, but the method uaa_gan aims at no code; choose another"]),
    ("attacks.basic", UAA_GAN | {"loss": "hag"}, ["loss is hag, but the method uaa_gan cannot go by a loss that changes"]),
    ("attacks.basic", UAA_GAN | {"loss": "ranks"}, ["attacks.basic.method is uaa_gan, but the loss ranks is of what", "no gradient"]),
    ("attacks.basic", UAA_GAN | {"restarts": 2}, ["attacks.basic.restarts: the method uaa_gan is trained once"]),
    ("attacks.basic", UAA_GAN | {"random_start": True}, ["attacks.basic.random_start: the method uaa_gan changes an image once"]),
    ("attacks.basic", UAA_GAN | {"step": 2}, ["attacks.basic.step: the method uaa_gan changes an image once, by up to epsilon"]),
    ("attacks.basic", UNIVERSAL | {"discriminator": True}, ["attacks.basic.discriminator: the method universal does not use it"]),
    ("tables.table6.transfer", "vgg61", ["tables.table6.transfer: 'vgg61' is not known: did you mean vgg16?"]),
    ("attacks.basic.restarts", 0, ["attacks.basic.restarts is 0", "at least 1"]),
    ("attacks.strong.feature", "raw", ["attacks.strong.feature: ", "the loss apd does not use it", "allowed with basic, hag"]),
    ("attacks.basic", APGD | {"loss": "hag"}, ["attacks.basic.method: apgd compares the losses of its steps, but that of hag changes"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"method": "nes", "budget": 100}, ADDED | {"iterations": 1, "step": 2.55, "budget": 100}),
        (
            {"method": "random_groups", "directions": 3, "probe": 2},
            ADDED | {"iterations": 166, "directions": 3, "probe": 2},
        ),
        ({"method": "square", "epsilon": 4}, ADDED | {"iterations": 998, "step": 8, "epsilon": 4}),
        ({"method": "mine:run"}, ADDED),
    ],
)
def test_an_attack_on_a_black_box_has_all_keys_that_it_uses_and_the_steps_of_its_budget(changes, wanted):
    """Of 999 requests besides that of the clean image; other attacks have none of these keys."""
    unused = {"restarts", "queries", "searches", "discriminator"} | (
        {"directions", "probe"} if changes["method"] not in ("nes", "random_groups") else set()
    )
    wanted = ATTACK | {key: value for key, value in wanted.items() if key not in unused} | {"loss": "ranks", "method": changes["method"]}
    assert parse_study(LEAST | {"attacks": {"x": {"loss": "ranks"} | changes}}).resolved()["attacks"]["x"] == wanted


@pytest.mark.parametrize(
    ("path", "value", "fragments"), WRONG, ids=[f"{path}={'deleted' if v is DELETED else v}"[:40] for path, v, _ in WRONG]
)
def test_a_mistake_is_reported_with_its_key_and_what_is_allowed(path, value, fragments):
    words = sentence(changed(path, value))
    for fragment in fragments:
        assert fragment in words, words


def test_only_the_settings_of_a_generator_have_its_key():
    study = LEAST | {"attacks": {"basic": {"loss": "basic"}, "x": UAA_GAN | {"epsilon": 4}}, "figures": {"sweep": {"models": []}}}
    basic, own = parse_study(study).resolved()["attacks"].values()
    assert "discriminator" not in basic and own["discriminator"] is False and own["step"] == 4 and not own["random_start"]


def test_the_first_mistake_is_reported_and_the_others_counted():
    """But a misspelt key before the key that it leaves missing."""
    assert "did you mean study?" in sentence(changed("study", DELETED) | {"studdy": "small"})
    study = changed("training.epochs", 0)
    assert "more" not in sentence(study)
    assert sentence(study | {"device": "gpu"}).endswith("(1 more to mend after this)")
    study |= {"training": {"epochs": 0, "crop": 17}, "device": "gpu"}
    words = sentence(study, "config/cifar10.yaml")
    assert words == "config/cifar10.yaml: training.epochs is 0, but must be at least 1 (2 more to mend after this)"


@pytest.mark.parametrize(("epsilon", "step"), [(8, 16), (200, 255), (0, 2.55)])
def test_apgd_begins_with_steps_of_twice_its_radius(epsilon, step):
    study = parse_study(changed("attacks.basic", APGD | {"epsilon": epsilon})).resolved()
    assert study["attacks"]["basic"]["step"] == step and parse_study(study).resolved() == study


def test_fgsm_is_one_step_as_long_as_its_radius():
    """So that a caption tells it rightly."""
    attack = parse_study(changed("attacks.strong.method", "fgsm")).resolved()["attacks"]["strong"]
    assert (attack["epsilon"], attack["step"], attack["iterations"]) == (16, 16, 1)
    still = parse_study(changed("attacks.basic", {"loss": "apd", "method": "fgsm", "epsilon": 0})).resolved()
    assert parse_study(still).resolved() == still


OWN = {
    "fine": {"network": "vgg16", "width": 0.5, "weights": "a/vgg16.pt"},
    "imagenet": {"network": "torchvision:resnet18", "weights": "IMAGENET1K_V1"},
    "mine": {"network": "mine.net:make"},
    "mine_trained": {"network": "mine.net:make", "training": {"epochs": 3}},
    "half": {"like": "fine"},
    "mine_opq": {"like": "mine", "quantizer": {"method": "opq", "subspaces": 8}},
    "twin": {"network": "vgg16", "training": {"epochs": 2}},
    "vgg16": {"quantizer": {"method": "mine.own:fit"}},
}


def test_victims_that_users_bring():
    """Each with its network, and trained here only where it has no weights; and what they bring along, with the keys."""
    assert parse_study(SMALL).brings() == []
    given = changed("attacks.strong", {"loss": "mine:loss", "method": "a.folder.mine:run", "temperature": 2, "feature": "raw"})
    study = parse_study(given | {"models": OWN})
    models = study.resolved()["models"]
    assert list(models) == ["fine", "imagenet", "mine", "mine_trained", "half", "mine_opq", "twin", "vgg16"]
    networks = ["vgg16", "torchvision:resnet18", "mine.net:make", "mine.net:make", "vgg16", "mine.net:make", "vgg16", "vgg16"]
    assert [model["network"] for model in models.values()] == networks
    assert [name for name, model in models.items() if "training" in model] == ["mine_trained", "twin", "vgg16"]
    assert models["mine_trained"]["training"] == models["vgg16"]["training"] | {"epochs": 3}
    assert models["mine_opq"]["quantizer"] == QUANTIZER | {"method": "opq", "subspaces": 8}
    assert models["mine"]["quantizer"] == QUANTIZER and models["half"]["width"] == 0.5
    makers = ["adopt", "adopt", "adopt", "pretrain_own", "borrow", "borrow", "pretrain", "pretrain"]
    assert [maker_of(model) for model in models.values()] == makers
    assert study.brings() == [
        ("attacks.strong.loss", "mine:loss"),
        ("attacks.strong.method", "a.folder.mine:run"),
        ("models.mine.network", "mine.net:make"),
        ("models.mine_trained.network", "mine.net:make"),
        ("models.mine_opq.network", "mine.net:make"),
        ("models.vgg16.quantizer.method", "mine.own:fit"),
        ("models.fine.weights", "a/vgg16.pt"),
    ]
    assert parse_study(study.resolved()).resolved() == study.resolved()


def test_a_model_trained_with_its_codebook_is_only_in_table_2_by_default():
    models = {"alexnet": {"width": 0.125}, "joint": {"network": "alexnet", "quantizer": {"method": "pqn"}, "pqn": {"alpha": 20}}}
    resolved = parse_study(changed("models", models)).resolved()
    assert [table["models"] for table in resolved["tables"].values()] == [["alexnet"], ["joint"], ["alexnet"], ["alexnet"], [], []]
    assert resolved["figures"]["models"] == ["alexnet"]
    assert resolved["models"]["joint"]["pqn"] == PQN | {"alpha": 20} and resolved["models"]["joint"]["training"] == RECIPE
    assert "pqn" not in resolved["models"]["alexnet"] and "pqn" not in resolved
    assert parse_study(resolved).resolved() == resolved

    del models["joint"]["pqn"]
    models["joint"]["weights"] = "zoo:any"
    study = parse_study(changed("models", models))
    assert study.brings() == [("models.joint.weights", f"zoo:any/{bits}bits") for bits in study.bits]
    resolved = study.resolved()
    assert maker_of(resolved["models"]["joint"]) == "adopt_joint" and not {"pqn", "training"} & resolved["models"]["joint"].keys()
    assert parse_study(resolved).resolved() == resolved


JOINTLY, CSQ = {"method": "pqn"}, {"method": "csq"}
#: (entries of models beside those of ``OWN``, what the sentence must hold)
WRONG_VICTIMS = [
    ({"Mine": {"network": "vgg16"}}, ["models.Mine", NAMES]),
    ({"other": {}}, ["models: 'other' is not known", NETWORKS, "under another name it needs the key network, or like"]),
    ({"other": {"network": "vgg61"}}, ["models.other.network: 'vgg61' is not known", "did you mean vgg16?", "torchvision:NAME, or a"]),
    ({"alexnet": {"network": "vgg16"}}, ["models.alexnet.network is vgg16", "the name alexnet stands for that network"]),
    ({"other": {"network": "torchvision:resnet18"}}, ["models.other.weights is missing", "is not trained here"]),
    ({"other": {"network": "vgg11", "weights": ""}}, ["models.other.weights is an empty text"]),
    ({"other": {"network": "vgg11", "weights": "a.pt", "training": {"epochs": 2}}}, ["models.other.training: it is not trained here"]),
    ({"other": {"network": "a:b", "width": 0.5}}, ["models.other.width: only networks of ours have a width"]),
    ({"other": {"like": "vgg61"}}, ["models.other.like: 'vgg61' is not known", "did you mean vgg16?"]),
    ({"other": {"like": "other"}}, ["models.other.like: 'other' is not known", "allowed are fine, imagenet"]),
    ({"other": {"like": "mine_opq"}}, ["models.other.like: 'mine_opq' is not known", "did you mean mine?"]),
    ({"other": {"like": "twin", "training": {"epochs": 3}}}, ["models.other.training: its weights are those of twin"]),
    ({"other": {"like": "twin", "weights": "a.pt"}}, ["models.other.weights: its weights are those of twin"]),
    ({"other": {"like": "twin", "width": 0.5}}, ["models.other: its network and width are those of twin"]),
    ({"other": {"like": "twin", "network": "vgg11"}}, ["models.other: its network and width are those of twin"]),
    ({"other": {"like": "twin", "quantizer": {"method": "qp"}}}, ["pq, opq, rq, cq, pqn, csq, dpsh, hashnet, dqn, dpq, dtq, or"]),
    ({"other": {"like": "twin", "quantizer": {"method": "pqn"}}}, ["models.other: the quantizer pqn is trained with the network"]),
    ({"other": {"network": "vgg11", "weights": "a.pt", "quantizer": JOINTLY}}, ["models.other: the quantizer pqn", "weights out"]),
    ({"other": {"network": "vgg11", "quantizer": JOINTLY}, "twin": {"like": "other"}}, ["models.twin.like: other has other weights"]),
    ({"other": {"like": "twin", "quantizer": CSQ | {"subspaces": 3}}}, ["bits: 16 is no multiple of models.other.quantizer.subspaces = 3"]),
    ({"other": {"like": "twin", "quantizer": CSQ | {"subspaces": 1}}}, ["K = 16777216 sign patterns", "at most 65536 are allowed"]),
    ({"other": {"like": "twin", "quantizer": CSQ, "joint": {"size": 8}}}, ["models.other.joint.size: the quantizer csq does not use it"]),
    ({"other": {"like": "twin", "quantizer": {"method": "hashnet"}, "joint": {"quantization": 1}}}, ["quantization: the quantizer"]),
    *(({"other": {"like": "twin", "quantizer": {"method": method}, "joint": {"size": 30}}}, ["joint.size is 30, but must be a multiple"])
      for method in ("dqn", "dpq", "dtq")),
    ({"other": {"like": "twin", "quantizer": {"method": "cq", "subspaces": 3}}}, ["subspaces: 3 does not divide the 512 numbers"]),
    ({"other": {"like": "twin", "quantizer": {"method": "rq", "subspaces": 3}}}, ["bits: 16 is no multiple of models.other.quantizer"]),
    ({"other": {"like": "twin", "quantizer": CSQ}, "more": {"like": "other"}}, ["models.more.like: ", "allowed are"]),
    ({"other": {"network": "vgg11", "quantizer": CSQ}, "more": {"like": "other"}}, ["other has other weights", "the quantizer csq"]),
    ({"other": {"like": "twin", "quantizer": {"subspaces": 3}}}, ["models.other.quantizer.subspaces: 3 does not divide the 512 numbers"]),
    ({"other": {"like": "mine", "quantizer": {"subspaces": 3}}}, ["bits: 16 is no multiple of models.other.quantizer.subspaces = 3"]),
    ({"other": {"like": "twin", "quantizer": {"subspaces": 1}}}, ["K = 65536", "300 database images"]),
    ({"other": {"like": "twin", "quantizer": {"subspaces": 1, "fitted_to": "train"}}}, ["K = 65536", "2000 training images"]),
    ({"other": {"like": "twin", "quantizer": CSQ | {"fitted_to": "train"}}}, ["quantizer.fitted_to: the codebook of csq is trained with"]),
    ({"other": {"like": "twin", "quantizer": {"seed": 1}}}, ["models.other.quantizer.seed is no key", "method, subspaces, iterations"]),
]  # fmt: skip


@pytest.mark.parametrize(("entries", "fragments"), WRONG_VICTIMS, ids=[str(entries)[:60] for entries, _ in WRONG_VICTIMS])
def test_a_mistake_in_a_victim_is_reported(entries, fragments):
    test_a_mistake_is_reported_with_its_key_and_what_is_allowed("models", OWN | entries, fragments)


LEAVES = st.none() | st.booleans() | st.integers(-5, 300) | st.floats(allow_nan=True) | st.text(max_size=5) | st.dates()
VALUES = st.recursive(LEAVES, lambda x: st.lists(x, max_size=2) | st.dictionaries(st.text(max_size=5), x, max_size=2), max_leaves=4)
PATHS = """study datasets datasets.synthetic datasets.synthetic.sha256 models.vgg16 models.vgg16.training models.vgg16.width attacks
attacks.basic.loss bits seeds training training.flip quantizer.subspaces threads device anonymous new"""


@given(st.sampled_from(PATHS.split()), VALUES)
@settings(max_examples=60)
def test_whatever_the_file_holds_it_is_valid_or_a_user_error(path, value):
    """No traceback, ever; the key that was changed is in the sentence."""
    try:
        parse_study(changed(path, value))
    except UserError as error:
        assert path.split(".")[0] in str(error) or "quantizer" in str(error)


# ----------------------------------------------------------------------------------------------- what is written down twice is equal


def test_keys_of_an_attack_and_of_training_are_the_fields_of_their_classes():
    """But for the functions, which the names of an attack stand for, and the options of its method."""
    options = {key: users for key, (kind, users) in config.USED_BY.items() if kind == "method"}
    of_methods = {method: attacks.options_of(method) for method in (*names.METHODS, *names.BLACK_BOX, *names.TRAINED)}
    assert {method: set(found) for method, found in of_methods.items()} == {
        method: {key for key, users in options.items() if method in users} for method in of_methods
    }
    assert all(config.Attack.model_fields[key].default == value for found in of_methods.values() for key, value in found.items())
    assert {*config.Attack.model_fields, "entry_points", "options", "goals", "changes"} - options.keys() - {"target", "queries"} == {
        field.name for field in dataclasses.fields(attacks.Attack)
    }
    assert set(config.Training.model_fields) == {field.name for field in dataclasses.fields(training.Recipe)}
    assert set(config.TrainingOverride.model_fields) == set(config.Training.model_fields)


def test_class_names_are_those_of_the_known_data_sets():
    assert {name: one.classes for name, one in datasets.DATASETS.items()} == names.CLASS_NAMES


@pytest.mark.parametrize("model", names.NETWORKS)
def test_the_size_of_a_feature_is_that_of_the_network(model):
    """Against what comes out of the network, which is built without memory."""
    for width in (0.01, 0.3, 1.5):
        with torch.device("meta"):
            features = networks.build(model, 10, width).eval().features(torch.empty(2, 3, 32, 32))
        assert feature_size(model, width) == features.shape[1]


def test_reading_the_config_loads_neither_torch_nor_pandas(python):
    """It is read whenever Snakemake reads the workflow."""
    code = "import sys, pqag.study.model; print({'torch', 'pandas', 'faiss', 'h5py'} & set(sys.modules))"
    assert python(code, capture_output=True, text=True, check=True).stdout == "set()\n"


HASHES = {"like": "alexnet", "quantizer": {"method": "csq"}}


@pytest.mark.parametrize(
    ("bits", "dataset", "words"),
    [
        ([26], {}, "bits: 26 is no multiple of quantizer.subspaces = 4"),
        ([16, 52], {}, "bits: csq has no Hadamard matrix for the 52 bits of hashes; allowed are 4, 8"),
        ([4], {}, "bits: datasets.one has 10 classes, but csq has 8 centres for 4 bits; allowed are at least 8 bits"),
        (
            [16, 36],
            {"kind": "nuswide", "source": "a", "concepts": 81},
            "81 classes, but csq has 32 centres for 16 bits; allowed are at least 44",
        ),
    ],
)
def test_what_csq_has_no_centres_for_is_told_before_anything_runs(bits, dataset, words):
    models = {"alexnet": {}, "hashes": HASHES}
    study = SMALL | {"datasets": {"one": {"kind": "cifar10"} | dataset}, "models": models, "bits": bits}
    assert words in sentence(study)
    parse_study(study | {"bits": [48]})


def test_a_model_trained_from_trained_weights_has_two_recipes():
    """That of the weights, which it has from another model, a file, or its own training; and what ``joint`` says of its own epochs."""
    models = {
        "alexnet": {"width": 0.125, "training": {"epochs": 3, "crop": 2}},
        "hashes": HASHES | {"joint": {"epochs": 7}},
        "own": {"network": "mine:net", "weights": "a.pt", "training": {"crop": 1}, "quantizer": {"method": "hashnet"}},
        "alone": {"network": "vgg16", "quantizer": {"method": "dqn"}},
        "mine": {"like": "alexnet", "quantizer": {"method": "mine:method"}, "joint": {"epochs": 1}},
        "fitted": {"like": "alexnet", "quantizer": {"method": "mine:fit"}},
    }
    study = parse_study(SMALL | {"models": models})
    resolved = study.resolved()
    assert parse_study(resolved).resolved() == resolved
    joint = {name: one["joint"] for name, one in resolved["models"].items() if "joint" in one}
    rates = {"epochs": 4, "learning_rate": 0.1, "classification": 1}
    assert joint == {
        "hashes": rates | {"epochs": 7, "quantization": 1e-4},
        "own": rates,
        "alone": rates | {"quantization": 0.1, "size": 64},
        "mine": rates | {"epochs": 1, "quantization": 0.0, "size": 64},
    }
    assert resolved["models"]["hashes"]["training"] == RECIPE | {"epochs": 3, "crop": 2}
    assert resolved["models"]["own"]["training"] == RECIPE | {"crop": 1} and "training" not in resolved["models"]["fitted"]
    makers = {name: maker_of(one) for name, one in resolved["models"].items()}
    assert list(makers.values()) == ["pretrain", "borrow", "adopt", "pretrain", "borrow", "borrow"]
    assert resolved["tables"]["table2"]["models"] == ["hashes", "own", "alone", "mine"]
    assert {("models.mine.quantizer.method", "mine:method"), ("models.own.weights", "a.pt")} <= set(study.brings())
    few = {"datasets": {"cifar10": {"train": 10}}, "models": {"a": {"network": "vgg16", "weights": "a.pt", "quantizer": {"method": "dqn"}}}}
    assert "more than the 10 training images" in sentence(SMALL | few)

"""What each rule depends on: its keys of the study, and the digest of its code."""

import copy
import re
from pathlib import Path

import pytest

from pqag import additive, black_box, goals, losses, methods, names, trained
from pqag.job import provenance
from pqag.study import settings as needs
from pqag.study.model import parse_study
from pqag.study.rules import RULES, settings
from pqag.study.settings import as_config, maker_of

ROOT = Path(__file__).parents[2]

SWEEP = {"epsilon": [2, 4], "iterations": [3]}
#: Every value differs from the default and from its neighbours, so that a mix-up is seen.
STUDY = {
    "study": "small",
    "datasets": {
        "cifar10": {
            "source": "a/folder",
            "train": 30_000,
            "database": 8000,
            "queries": 500,
            "split_seed": 7,
            "validation": True,
            "image_size": 96,
        },
        "fashion_mnist": {"source": "b/folder", "sha256": "ab" * 32, "queries": 300},
        "my_scenes": {"kind": "nuswide", "source": "c/folder", "image_size": 64, "missing": 0.1, "concepts": 21, "database_from": "all"},
    },
    "models": {
        "vgg16": {"width": 0.5, "training": {"epochs": 3, "flip": False}},
        "alexnet": {"width": 0.25},
        "joint": {"network": "alexnet", "width": 0.25, "quantizer": {"method": "pqn"}, "pqn": {"margin": 0.25, "loss": "hinge"}},
        "signs": {"like": "alexnet", "quantizer": {"method": "csq"}, "joint": {"epochs": 2, "quantization": 0.5}},
    },
    "attacks": {"strong": {"loss": "apd", "epsilon": 16, "temperature": 0.5}, "basic": {"loss": "basic", "step": 1, "iterations": 9}},
    "bits": [24, 16],
    "seeds": [5, 4],
    "training": {"epochs": 20, "batch_size": 64, "crop": 2},
    "quantizer": {"subspaces": 8, "iterations": 11},
    "pqn": {"alpha": 3, "loss": "softplus", "intra_normalisation": False, "warm_up": 0.75, "classification": 0.125},
    "joint": {"learning_rate": 0.03, "classification": 0.75, "size": 32},
    "tables": {
        "table2": {"models": ["joint"]},
        "table3": {"models": ["alexnet"], "attack": "basic"},
        "table4": {"models": ["alexnet", "vgg16"], "attack": "strong"},
    },
    "figures": {"attack": "strong", "bits": 24, "sweep": {"models": ["alexnet"], **SWEEP}, "gallery": {"queries": 40}},
    "threads": {"pretrain": 6, "attack": 3},
    "device": "cpu",
}
DRAWN = {"attacks": ["strong", "basic"], "bits": 24, "seed": 5}
RECIPE = {"epochs": 20, "batch_size": 64, "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.0005, "label_smoothing": 0.1}
RECIPE |= {"crop": 2, "flip": True, "precision": "auto"}
TRAINS = RECIPE | {"network": "alexnet", "width": 0.25, "threads": 6, "device": "cpu"}
STRONG = {"loss": "apd", "method": "pgd", "epsilon": 16, "step": 2.55, "iterations": 5, "random_start": True, "decay": 1}
STRONG |= {"feature": "normalised", "assignment": "inner_product", "temperature": 0.5}
BASIC = STRONG | {"loss": "basic", "epsilon": 8, "step": 1, "iterations": 9, "temperature": 1}
PARTS = {"train": None, "database": 9000, "database_from": "test", "queries": 1000, "split_seed": 0, "validation": False}
CIFAR_PARTS = PARTS | {"train": 30_000, "database": 8000, "queries": 500, "split_seed": 7, "validation": True, "image_size": 96}
SCENES = {"kind": "nuswide", "sha256": None, "source": "c/folder", "image_size": 64, "missing": 0.1, "concepts": 21}
QUANTIZER = {"method": "pq", "subspaces": 8, "iterations": 11}
PQN = {"alpha": 3, "loss": "hinge", "margin": 0.25, "intra_normalisation": False, "classification": 0.125, "warm_up": 0.75}
SIGNS = {"epochs": 2, "learning_rate": 0.03, "classification": 0.75, "quantization": 0.5}
VICTIM = {"dataset": "cifar10", "model": "vgg16", "training": "pretrained", "seed": "5"}
SOURCE = {"source_model": "alexnet", "source_training": "pretrained", "source_bits": "24"}
#: What all tables have in common, except where they say otherwise.
DATASETS = ["cifar10", "fashion_mnist", "my_scenes"]
TABLE = {"datasets": DATASETS, "attacks": {"strong": STRONG, "basic": BASIC}, "bits": [24, 16], "seeds": [5, 4]}
VGG16, ALEXNET, JOINT = (
    {"networks": {name: of}, "widths": {name: width}, "quantizers": {name: by}}
    for name, of, width, by in (("vgg16", "vgg16", 0.5, "pq"), ("alexnet", "alexnet", 0.25, "pq"), ("joint", "alexnet", 0.25, "pqn"))
)


def of(*models):
    """What the settings of a table say of its models."""
    return {key: {name: value for model in models for name, value in model[key].items()} for key in VGG16}


WITHOUT_WIDTHS = {key: value for key, value in of(JOINT, ALEXNET).items() if key != "widths"}
DROPS = TABLE | {"victims": [["alexnet", "pretrained"], ["vgg16", "pretrained"]], "attacks": {"strong": STRONG}, "bits": [16]}
#: Of three data sets and two seeds: 2 x 2 clean and 2 x 2 x 2 attacked; half of that; 2 clean and 2 x 2 attacked, twice.
COUNTS = {"table1": 6 * 12, "table2": 6 * 6, "table3": 6 * 6, "table4": 6 * 6}
CLAIMS = {"scores": COUNTS, "datasets": DATASETS, "seeds": [5, 4], "counterparts": {"joint": "alexnet"}}
RUNS = {"threads": 3, "device": "cpu"}


@pytest.fixture(scope="module")
def study():
    """The study as the workflow passes it to ``settings``: resolved, and with the config files that it was read from."""
    return parse_study(STUDY).resolved() | {"configfiles": {"config.yaml": "cd" * 32}}


BY_HAND = [
    ("fetch", {"dataset": "cifar10"}, {"kind": "cifar10", "sha256": None, "source": "a/folder"}),
    ("fetch", {"dataset": "fashion_mnist"}, {"kind": "fashion_mnist", "sha256": "ab" * 32, "source": None}),
    ("fetch", {"dataset": "my_scenes"}, SCENES),
    ("prepare", {"dataset": "cifar10"}, CIFAR_PARTS),
    ("prepare", {"dataset": "fashion_mnist"}, PARTS | {"queries": 300, "image_size": None}),
    ("prepare", {"dataset": "my_scenes"}, PARTS | {"database": None, "database_from": "all"}),
    ("pretrain", VICTIM, TRAINS | {"epochs": 3, "flip": False, "network": "vgg16", "width": 0.5}),
    ("pretrain", VICTIM | {"model": "alexnet"}, TRAINS),
    ("pretrain_own", VICTIM | {"model": "alexnet"}, TRAINS),  # of a network of the user's, see below
    ("train_joint", VICTIM | {"model": "joint", "bits": "24"}, TRAINS | PQN | QUANTIZER | {"method": "pqn", "codewords": 8}),
    ("train_joint", VICTIM | {"model": "signs", "bits": "24"}, TRAINS | SIGNS | QUANTIZER | {"method": "csq", "codewords": 8}),
    ("encode", VICTIM | {"training": "joint24", "bits": "24"}, {}),
    ("adopt", VICTIM, {"network": "vgg16", "width": 0.5, "weights": None} | RUNS),  # of a victim that has weights, see below
    (
        "adopt_joint",
        VICTIM | {"model": "joint", "bits": "24"},
        {"network": "alexnet", "width": 0.25, "weights": "None/24bits", "subspaces": 8, "codewords": 8} | RUNS,
    ),
    ("borrow", VICTIM, {"like": None}),
    ("extract", VICTIM, RUNS),
    ("extract_shard", VICTIM | {"shard": "1", "shards": "2"}, RUNS),
    ("extract_train", VICTIM, RUNS),
    ("extract_transfer", VICTIM | {"attack": "strong", "source_bits": "16"}, RUNS | {"sources": ["alexnet-pretrained"]}),
    ("extract_transfer", VICTIM | {"attack": "basic", "source_bits": "24"}, RUNS | {"sources": []}),
    ("quantize", VICTIM | {"bits": "24"}, QUANTIZER | {"codewords": 8}),
    ("quantize", VICTIM | {"bits": "16"}, QUANTIZER | {"codewords": 4}),
    ("attack", VICTIM | {"bits": "24", "attack": "strong"}, STRONG | RUNS),
    ("attack", VICTIM | {"bits": "24", "attack": "basic"}, BASIC | RUNS),
    ("attack_shard", VICTIM | {"bits": "24", "attack": "basic", "shard": "3", "shards": "3"}, BASIC | RUNS),
    ("train_attack", VICTIM | {"bits": "24", "attack": "basic"}, BASIC | RUNS),
    ("evaluate", VICTIM | SOURCE | {"bits": "24", "attack": "strong"}, {}),
    ("evaluate_clean", VICTIM | {"bits": "24"}, {}),
    ("evaluate_farthest", VICTIM | {"bits": "24"}, {}),
    ("table", {"table": "table1"}, TABLE | of(VGG16, ALEXNET) | {"victims": [["vgg16", "pretrained"], ["alexnet", "pretrained"]]}),
    (
        "table",
        {"table": "table2"},
        TABLE
        | of(JOINT, ALEXNET)
        | {"victims": [["joint", "joint24"], ["joint", "joint16"], ["alexnet", "pretrained"]]}
        | {"pqn": {"joint": PQN}, "counterparts": {"joint": "alexnet"}},
    ),
    ("table", {"table": "table3"}, TABLE | of(ALEXNET) | {"victims": [["alexnet", "pretrained"]], "attacks": {"basic": BASIC}}),
    ("table", {"table": "table4"}, DROPS | of(ALEXNET, VGG16)),
    ("robustness", {"table": "table2"}, TABLE | WITHOUT_WIDTHS | {"counterparts": {"joint": "alexnet"}}),
    ("drops", {"table": "table4"}, DROPS),
    ("heat_map", {"table": "table4", "panel": "cifar10"}, {}),
    ("beside_paper", {}, {}),
    ("distortion", {"dataset": "cifar10"}, {"attacked": [], "bits": 16, "seed": 5}),
    ("claims", {}, CLAIMS),
    ("ambiguity", {}, {}),
    ("perturbation", VICTIM, {"attack": "strong", "bits": 24, "seed": 5}),
    *[(figure, VICTIM, DRAWN | {"attack": "strong"}) for figure in ("centroid_distributions", "retrieval_sheet")],
    ("precision_recall", VICTIM, DRAWN),
    ("sweep", VICTIM | {"bits": "24", "attack": "strong"}, STRONG | RUNS | {"sweep": SWEEP | {"queries": 250}}),
    ("figure_sweep", VICTIM, DRAWN),
    (
        "gallery",
        {},
        {key: TABLE[key] for key in ("datasets", "attacks")}
        | {"study": "small", "models": ["vgg16", "alexnet"], "attack": "strong", "bits": 24, "seed": 5, "queries": 40}
        | {"tables": {"vgg16": "table1", "alexnet": "table1"}},
    ),
    ("paper", {}, {"study": "small", "models": ["vgg16", "alexnet", "joint", "signs"]}),
    ("manifest", {}, {}),
]


@pytest.mark.parametrize(("rule", "wildcards", "by_hand"), BY_HAND, ids=[rule for rule, _, _ in BY_HAND])
def test_settings_by_hand(study, rule, wildcards, by_hand):
    """Sorted by name, with the code last, because Snakemake compares them as text."""
    got = settings(rule, wildcards, study)
    assert list(got) == [*sorted(by_hand), "code"]
    looked_up = {("additive", "pq")} if rule == "quantize" else set()
    if rule in ("attack", "attack_shard", "train_attack", "sweep"):
        looked_up = {(module, got["loss"]) for module in ("losses", "goals", "black_box")}
        looked_up |= {(module, "pgd") for module in ("methods", "black_box", *["trained"] * (rule != "sweep"))}
    own = frozenset(looked_up)
    assert got.pop("code") == provenance.code_digest(RULES[rule].path, own)
    assert got == by_hand


@pytest.mark.parametrize("rule", ["attack", "train_attack"])
def test_only_a_generator_depends_on_its_own_code(rule):
    for method in ("pgd", "universal", "uaa_gan"):
        found = provenance.reached(RULES[rule].path, RULES[rule].chosen({"loss": "basic", "method": method}))
        assert [any(path.name == f"{one}.py" and name for path, name in found) for one in ("universal", "uaa_gan")] == [
            method == "universal",
            method == "uaa_gan",
        ]


def test_an_attack_depends_on_its_own_loss_and_method_and_on_no_other(study, monkeypatch):
    """A change in AOD, in the repair of AdverTorch that PGD alone calls, and new functions; an attack of the user's has none of them."""
    brought = study["attacks"]["strong"] | {"loss": "own:loss", "method": "own:run"}
    study = study | {"attacks": study["attacks"] | {"aod": study["attacks"]["strong"] | {"loss": "aod"}, "own": brought}}
    study["attacks"]["basic"] = study["attacks"]["basic"] | {"method": "momentum_pgd"}

    def digests():
        provenance.digests.cache_clear()
        return [settings("attack", VICTIM | {"bits": "24", "attack": name}, study)["code"] for name in ("strong", "basic", "aod", "own")]

    before, read, edits = digests(), Path.read_text, {}
    monkeypatch.setattr(Path, "read_text", lambda path, **options: edits.get(path.name, str)(read(path, **options)))
    for name, edit, stale in (
        ("losses.py", lambda text: text.replace("head.log_distribution(clean).exp()", "1"), [False, False, True, False]),
        ("methods.py", lambda text: text.replace("tensor.grad = None", "pass"), [True, False, True, False]),
        ("methods.py", lambda text: text.replace("start, epsilon, epsilon, 1)", "start, epsilon, epsilon, 2)"), [False] * 4),
        ("losses.py", lambda text: f"{text}\n\ndef another():\n    pass\n", [False] * 4),
        ("losses.py", lambda text: f"{text}\nprint()\n", [True] * 4),
    ):
        edits.clear()
        edits[name] = edit
        assert edit(read(provenance.LIBRARY / name)) != read(provenance.LIBRARY / name)
        assert [one != other for one, other in zip(digests(), before)] == stale
    provenance.digests.cache_clear()


def test_study_json_holds_the_whole_study(study):
    got = settings("study", {}, study)
    assert got.pop("code") and got == study
    again = parse_study(as_config(study | {"overrides": ["bits"]})).resolved()
    assert again == {key: value for key, value in study.items() if key != "configfiles"}


def test_what_the_user_brings_is_in_the_settings_of_the_rules_that_use_it():
    """By its sha256, which the workflow puts into the study; a victim like another has its network, and another quantizer."""
    study = STUDY | {"tables": {}, "figures": {}}
    study["models"] = {
        "mine": {"network": "net:make", "weights": "w.pt"},
        "mine_opq": {"like": "mine", "quantizer": {"method": "opq"}},
        "vgg16": {"quantizer": {"method": "own:fit", "subspaces": 4, "fitted_to": "database"}},
        "trained": {"network": "net:make", "training": {"epochs": 2}},
    }
    study["attacks"] = {"own": {"loss": "own:loss", "method": "own:run"}, "aod": {"loss": "aod"}}
    digests = {"net:make": "1", "w.pt": "2", "own:fit": "3", "own:loss": "4", "own:run": "5"}
    study = parse_study(study | {"quantizer": {"fitted_to": "train"}}).resolved() | {"brought": digests}
    assert parse_study(as_config(study)).resolved() == as_config(study)
    assert [needs.fitted_to(study, name) for name in ("mine_opq", "vgg16")] == ["train", "database"]

    def brought(rule, **wildcards):
        found = settings(rule, VICTIM | {"bits": "24", "attack": "own", "model": "mine"} | wildcards, study).get("brought", {})
        assert all(digests[name] == digest for name, digest in found.items())
        return set(found)

    assert brought("adopt") == {"net:make", "w.pt"}
    assert brought("borrow", model="mine_opq") == set()
    assert brought("pretrain_own", model="trained") == {"net:make"} and maker_of(study["models"]["trained"]) == "pretrain_own"
    for model in ("mine", "mine_opq"):
        assert brought("extract", model=model) == brought("extract_transfer", model=model, source_bits="24") == {"net:make"}
        assert brought("attack", model=model) == brought("sweep", model=model) == {"net:make", "own:loss", "own:run"}
        assert brought("attack", model=model, attack="aod") == {"net:make"}
    assert brought("extract", model="vgg16") == brought("quantize") == brought("evaluate") == set()
    assert brought("quantize", model="vgg16") == {"own:fit"}
    assert [maker_of(study["models"][name]) for name in ("mine", "mine_opq", "vgg16")] == ["adopt", "borrow", "pretrain"]
    for network in ("net:make", "torchvision:resnet18"):
        model = {key: value for key, value in study["models"]["vgg16"].items() if key != "training"} | {"network": network}
        assert maker_of(model) == "adopt", "even without weights"
    assert maker_of(study["models"]["vgg16"] | {"weights": "w.pt"}) == "adopt", "a network of ours too"
    of_zoo = study["models"]["vgg16"] | {"weights": "zoo:one", "quantizer": {"method": "pqn", "subspaces": 8}}
    assert maker_of(of_zoo) == "adopt_joint"
    of_zoo = study | {"models": {"joint": of_zoo}, "brought": {"zoo:one/16bits": "16", "zoo:one/24bits": "24"}}
    assert settings("adopt_joint", {"model": "joint", "bits": "24"}, of_zoo)["brought"] == {"zoo:one/24bits": "24"}
    assert settings("quantize", {"model": "mine_opq", "bits": "24"}, study)["method"] == "opq"
    assert settings("borrow", {"model": "mine_opq"}, study)["like"] == "mine"
    with pytest.raises(KeyError):
        settings("pretrain", {"model": "mine"}, study)


def test_lists_and_sections_keep_the_order_of_the_study_which_is_left_as_it_was(study):
    got = settings("table", {"table": "table1"}, study)
    assert got["datasets"] == ["cifar10", "fashion_mnist", "my_scenes"] and got["bits"] == [24, 16] and got["seeds"] == [5, 4]
    assert list(got["attacks"]) == ["strong", "basic"] and list(got["widths"]) == ["vgg16", "alexnet"]
    before = copy.deepcopy(study)
    for rule, wildcards, _ in BY_HAND:
        settings(rule, wildcards, study)["added"] = "by the caller"
    assert study == before


ABSENT = [("no_rule", {}), ("all", {}), ("fetch", {"dataset": "synthetic"}), ("prepare", {"dataset": "synthetic"}), ("quantize", VICTIM)]
ABSENT += [("pretrain", VICTIM | {"model": "vgg11"}), ("attack", VICTIM | {"bits": "24", "attack": "aod"}), ("attack", VICTIM)]


@pytest.mark.parametrize(("rule", "wildcards"), ABSENT)
def test_what_the_study_does_not_have_is_an_error(study, rule, wildcards):
    with pytest.raises(KeyError):
        settings(rule, wildcards, study)


@pytest.mark.parametrize("bits", [8 * 65, 10**30])
def test_a_codebook_that_no_memory_holds_is_an_error_and_no_hang(study, bits):
    with pytest.raises(ValueError, match="more bits in"):
        settings("quantize", VICTIM | {"bits": str(bits)}, study)


def rules_with_a_script() -> dict[str, str]:
    """Name and script of every rule of the workflow that has one, read from the files; ``use rule`` takes over the other's script."""
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "Snakefile", *sorted((ROOT / "rules").glob("*.smk"))))
    found, used = {}, {}
    for block in re.split(r"^(?=rule |use rule |checkpoint )", text, flags=re.MULTILINE)[1:]:
        if use := re.match(r"use rule (\w+) as (\w+) with:", block):
            used[use[2]] = use[1]
        elif script := re.search(r'^    script:\n        "\.\./scripts/(\w+)\.py"$', block, re.MULTILINE):
            found[re.match(r"(?:rule|checkpoint) (\w+):", block)[1]] = script[1]
    return found | {rule: found[other] for rule, other in used.items()}


#: What a rule looks up to find others: a method that is trained looks up its loss.
THROUGH = {"train_attack": [("trained", "universal")]}


def test_rules_and_scripts_are_those_of_the_workflow():
    scripts = rules_with_a_script()
    assert set(RULES) == set(scripts) == {"study", "reading"} | {rule for rule, _, _ in BY_HAND}
    for rule, script in scripts.items():
        assert RULES[rule].path == ROOT / f"scripts/{script}.py" and RULES[rule].path.is_file()
    text = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "rules").glob("*.smk")))
    asked = set(re.findall(r'settings=settings_of\("(\w+)"\)', text))
    assert asked == {rule for rule in RULES if not RULES[rule].script} | {"adopt_joint"}
    study = parse_study(STUDY).resolved()
    for name in provenance.CHOSEN:  # a script that looks functions up says by which settings
        reached = {rule: provenance.reached(one.path, THROUGH.get(rule, ())) for rule, one in RULES.items()}
        users = {rule for rule, found in reached.items() if any(path.name == name for path, _ in found)}
        assert users == {rule for rule in RULES if name.removesuffix(".py") in {module for _, module in RULES[rule].looks_up}}
    assert all(hasattr(goals, name) == (name in names.AIMED) for name in names.LOSSES)
    assert all(hasattr(losses, name) for name in names.LOSSES) and all(hasattr(methods, name) for name in names.METHODS)
    assert all(hasattr(additive, name) for name in names.ADDITIVE) and all(hasattr(trained, name) for name in names.TRAINED)
    assert all(hasattr(black_box, name) for name in (*names.ANSWERS, *names.BLACK_BOX))
    everything = VICTIM | SOURCE | {"bits": "24", "attack": "strong"}
    for rule, other in ((rule, RULES[rule].script) for rule in RULES.keys() - asked):
        assert settings(rule, everything, study) == settings(other, everything, study)

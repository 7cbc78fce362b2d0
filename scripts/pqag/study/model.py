"""The typed model of a study's configuration: every key with its range and default, and the checks between keys.

``parse_study`` turns a mapping as read from YAML into a ``Study`` or raises UserError with one sentence. This module imports neither torch
nor pandas, since it is read whenever Snakemake reads the workflow.
"""

import datetime
import difflib
import re
import typing
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema, create_model, field_validator, model_validator

from pqag.errors import UserError
from pqag.names import (
    AIMED,
    ANSWERS,
    BLACK_BOX,
    CLASS_NAMES,
    DATASETS,
    DEEP,
    FARTHEST,
    FINE_TUNED,
    HADAMARD,
    HASHING,
    HYPERCUBE,
    KINDS,
    LEAST,
    LOSSES,
    METHODS,
    NETWORKS,
    PQN,
    QUANTIZERS,
    SCHEDULED,
    TARGETED,
    TRAINED,
    TRIPLET_LOSSES,
    UNBOUNDED,
    codewords,
    feature_size,
    is_entry_point,
    is_name_of_weights,
    is_of_zoo,
    is_torchvision,
    requests,
    steps_within,
)
from pqag.study.file import Refused, printable, read
from pqag.study.settings import maker_of

#: Keys of an attack that only some losses, or some methods, use.
USED_BY = {
    "feature": ("loss", ("basic", "hag")),
    "assignment": ("loss", ("apd", "margin", "clipped_margin", "hag")),
    "temperature": ("loss", ("apd", "aod", "hag", "centre", "p2p", "dhta")),
    "distribution": ("loss", ("apd", "aod", "margin", "clipped_margin", "hag", "centre", "p2p", "dhta")),
    "decay": ("method", ("momentum_pgd",)),
    "target": ("loss", TARGETED),
    "items": ("loss", ANSWERS),
    "distance": ("loss", ANSWERS),
    "budget": ("loss", ANSWERS),
    "directions": ("method", ("nes", "random_groups")),
    "probe": ("method", ("nes", "random_groups")),
    "searches": ("method", UNBOUNDED),
    "discriminator": ("method", ("uaa_gan",)),
}
#: Those that a loss of the user's does not use: it is given all else that losses use.
NOT_OWN = ("target", "items", "distance", "budget")
#: Keys of an attack that its settings only have where they are set or used, so that adding them made no attack stale.
ADDED = ("restarts", "queries", "target", "items", "distance", "budget", "directions", "probe", "searches", "discriminator")

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]  # a part of file names
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class _Section(BaseModel):
    """A mapping in which unknown keys are errors and values are taken as they are: "5" is no number and yes no string."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, validate_default=True)


class Dataset(_Section):
    """Where the images of a known data set come from and how they are split."""

    kind: Literal[*DATASETS]
    source: Annotated[str, Field(min_length=1)] | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    train: Annotated[int, Field(ge=1)] | None = None
    database: Annotated[int, Field(ge=1)] = 9000
    database_from: Literal["test", "all"] = "test"
    queries: Annotated[int, Field(ge=1)] = 1000
    split_seed: Seed = 0
    validation: bool = False
    image_size: Annotated[int, Field(ge=32, le=512)] | None = None


class Images(Dataset):
    """Image files of the user, see ``pqag.images``; how many there are is not known before they are read."""

    kind: Literal["imagefolder", "manifest"]
    source: Annotated[str, Field(min_length=1)]
    database: Annotated[int, Field(ge=1)] | None = None
    image_size: Annotated[int, Field(ge=32, le=512)] = 32
    missing: Annotated[float, Field(ge=0, lt=1)] = 0.05


class NusWide(Images):
    """The official release of NUS-WIDE."""

    kind: Literal["nuswide"]
    concepts: Annotated[int, Field(ge=2, le=81)] = 10


AnyDataset = Annotated[Dataset | Images | NusWide, Field(discriminator="kind")]
#: The section of each kind.
DATASET_SECTIONS = {kind: {"nuswide": NusWide}.get(kind, Dataset if kind in DATASETS else Images) for kind in KINDS}
#: Names that stand for something else among the folders of a study's results.
RESERVED = ("benchmarks", "figures", "logs", "readings", "tables")


#: Classes of every known data set.
CLASSES = 10


class Training(_Section):
    """The recipe of pretraining, see ``pqag.training``."""

    epochs: Annotated[int, Field(ge=1)] = 16
    batch_size: Annotated[int, Field(ge=2)] = 128
    learning_rate: Annotated[float, Field(gt=0)] = 0.1
    momentum: Annotated[float, Field(gt=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    crop: Annotated[int, Field(ge=0, le=16)] = 4
    flip: bool = True
    precision: Literal["auto", "float32", "bfloat16"] = "auto"


class Quantizer(_Section):
    """Product quantization: its method, M sub-spaces, iterations of k-means, the images it is fitted to; see ``pqag.quantizer``."""

    method: str = "pq"
    subspaces: Annotated[int, Field(ge=1)] = 4
    iterations: Annotated[int, Field(ge=1)] = 25
    fitted_to: Literal["database", "train"] = "database"


class Pqn(_Section):
    """How a codebook is trained with its network, see ``pqag.pqn``."""

    alpha: Annotated[float, Field(gt=0)] = 5
    loss: Literal[*TRIPLET_LOSSES] = "sigmoid"
    margin: Annotated[float, Field(ge=0)] = 1
    intra_normalisation: bool = True
    classification: Annotated[float, Field(ge=0)] = 1
    warm_up: Annotated[float, Field(ge=0, lt=1)] = 0.5


#: What ``quantization`` is unless set, by method; keys of ``Joint`` that methods do not use.
QUANTIZATION = {"csq": 1e-4, "dpsh": 0.1, "dqn": 0.1, "dpq": 0.1, "dtq": 0.1}
UNUSED = {"quantization": ("hashnet",), "size": HASHING}


class Joint(_Section):
    """How the other methods train a network with its codebook, see ``pqag.joint``."""

    epochs: Annotated[int, Field(ge=1)] = 4
    learning_rate: Annotated[float, Field(gt=0)] = 0.1
    classification: Annotated[float, Field(ge=0)] = 1
    quantization: Annotated[float, Field(ge=0)] | None = None
    size: Annotated[int, Field(ge=1)] = 64


def _optional(section: type[_Section]) -> type[_Section]:
    """The same keys, each optional: what a model sets otherwise."""
    keys = {key: (Annotated[field.annotation, Field(), *field.metadata] | None, None) for key, field in section.model_fields.items()}
    return create_model(f"{section.__name__}Override", __base__=_Section, **keys)


TrainingOverride = _optional(Training)
QuantizerOverride = _optional(Quantizer)
PqnOverride = _optional(Pqn)
JointOverride = _optional(Joint)


class Model(_Section):
    """A victim of the study: a backbone, how it comes by its weights, and how its features are quantized. Its name is the entry's."""

    network: str | None = None
    width: Annotated[float, Field(gt=0, le=4)] = 1.0
    training: TrainingOverride = TrainingOverride()
    weights: Annotated[str, Field(min_length=1)] | None = None
    like: str | None = None
    quantizer: QuantizerOverride = QuantizerOverride()
    pqn: PqnOverride = PqnOverride()
    joint: JointOverride = JointOverride()


#: What a targeted attack aims at: a class by its name or number, or database images by their ids.
Target = create_model(
    "Target",
    __base__=_Section,
    **{
        "class": (Annotated[Any, WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "null"}]})], None),
        "items": (Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None, None),
    },
)


class Attack(_Section):
    """An adversarial attack on the queries, see ``pqag.attacks``."""

    loss: str
    method: str = "pgd"
    epsilon: Annotated[float, Field(ge=0, le=255)] = 8
    step: Annotated[float, Field(gt=0, le=255)] = 2.55
    iterations: Annotated[int, Field(ge=1)] = 5
    random_start: bool = True
    restarts: Annotated[int, Field(ge=1)] = 1
    queries: Annotated[int, Field(ge=1)] | None = None
    feature: Literal["normalised", "raw"] = "normalised"
    assignment: Literal["inner_product", "euclidean"] = "inner_product"
    temperature: Annotated[float, Field(gt=0)] = 1.0
    distribution: Literal["codewords", "own"] = "codewords"
    decay: Annotated[float, Field(ge=0)] = 1.0
    target: Target = Target()
    items: Annotated[int, Field(ge=1)] = 1000
    distance: Literal["ADC", "SDC"] = "ADC"
    budget: Annotated[int, Field(ge=1)] = 1000
    directions: Annotated[int, Field(ge=1)] = 25
    probe: Annotated[float, Field(gt=0, le=255)] = 4.0
    searches: Annotated[int, Field(ge=1)] = 6
    discriminator: bool = False

    def uses(self, key: str) -> bool:
        """Whether its loss or its method is one of those of ours that a key of ``USED_BY`` is for."""
        kind, users = USED_BY.get(key, ("loss", ()))
        return getattr(self, kind) in users

    def implied(self) -> dict[str, Any]:
        """What keys are for methods that choose them; nothing for other methods.

        FGSM is one step as long as the radius, and APGD begins with steps of twice that. Square changes pixels from one end of the ball to
        the other, and methods for a black box take as many steps as their budget allows. C&W begins at the clean image, keeps no ball, and
        goes by the codes of retrieval. A generator changes an image once, by up to the radius.
        """
        if self.method in UNBOUNDED:
            return {"epsilon": 255, "random_start": False, "distribution": "own"}
        if self.method == "uaa_gan":
            return {"step": self.epsilon or self.step, "random_start": False}
        of_methods = {"fgsm": {"step": self.epsilon, "iterations": 1}, "apgd": {"step": min(2 * self.epsilon, 255)}}
        of_methods |= {"square": of_methods["apgd"]}
        if self.method in BLACK_BOX:
            return of_methods.get(self.method, {}) | {"iterations": max(1, steps_within(self.method, self.budget, self.directions))}
        return {key: value or self.step for key, value in of_methods.get(self.method, {}).items()}


class WhiteBox(_Section):
    """Tables 1, 2 and 5."""

    models: list[str] | None = None


class Transfer(WhiteBox):
    """Table 3: one attack, from every code length to every code length."""

    attack: str | None = None


class ModelTransfer(Transfer):
    """Table 4: one attack at one code length, from every network to every network."""

    bits: int | None = None


class Attacks(WhiteBox):
    """Table 6: every attack at one code length, also scored on another network."""

    bits: int | None = None
    transfer: str | None = None


class Tables(_Section):
    """What the tables show; what is left out is filled in by ``Study.shown``."""

    table1: WhiteBox = WhiteBox()
    table2: WhiteBox = WhiteBox()
    table3: Transfer = Transfer()
    table4: ModelTransfer = ModelTransfer()
    table5: WhiteBox = WhiteBox()
    table6: Attacks = Attacks()


class Sweep(_Section):
    """The figure of mAP against the strength of the attacks."""

    models: list[str] | None = None
    queries: Annotated[int, Field(ge=1)] = 250
    epsilon: Annotated[list[Annotated[float, Field(ge=0, le=255)]], Field(min_length=1)] = [0, 1, 2, 4, 8, 12, 16]
    iterations: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)] = [1, 2, 5, 10, 20, 50]


class Gallery(_Section):
    """The page that shows single queries, see ``pqag.show.gallery``."""

    queries: Annotated[int, Field(ge=1)] = 100


class Figures(_Section):
    """What the figures show; what is left out is filled in by ``Study.shown``."""

    models: list[str] | None = None
    attack: str | None = None
    bits: int | None = None
    sweep: Sweep = Sweep()
    gallery: Gallery = Gallery()


class Threads(_Section):
    """Threads that a job computes with, whatever --cores says: results are the same bits only for the same number."""

    pretrain: Annotated[int, Field(ge=1)] = 2
    attack: Annotated[int, Field(ge=1)] = 1


class Shards(_Section):
    """Over how many jobs one is split at the most, see ``pqag.job.shards``; results are the same bits for any number."""

    attack: Annotated[int, Field(ge=1)] = 1
    extract: Annotated[int, Field(ge=1)] = 1


class Reading(_Section):
    """The study with other values of some keys: another reading of what the paper leaves open. Its ``title`` stands in the table."""

    title: Annotated[str, Field(min_length=1, max_length=120)]
    change: dict[str, Any]


class Study(_Section):
    """A whole study: what is trained, attacked and measured."""

    study: Name
    datasets: Annotated[dict[Name, AnyDataset], Field(min_length=1)]
    models: Annotated[dict[Name, Model], Field(min_length=1)]
    attacks: Annotated[dict[Name, Attack], Field(min_length=1)]
    bits: Annotated[list[Annotated[int, Field(ge=1, le=64)]], Field(min_length=1)] = [16, 24, 36]
    seeds: Annotated[list[Seed], Field(min_length=1)] = [0]
    training: Training = Training()
    quantizer: Quantizer = Quantizer()
    pqn: Pqn = Pqn()
    joint: Joint = Joint()
    tables: Tables = Tables()
    figures: Figures = Figures()
    threads: Threads = Threads()
    shards: Shards = Shards()
    readings: dict[Name, Reading] = {}
    device: Literal["auto", "cpu", "cuda"] = "auto"
    anonymous: bool = False

    def resolved(self) -> dict[str, Any]:
        """All that results depend on, every default filled in, as plain values for ``pqag.study.settings``.

        Each model has its network, its whole quantizer and, if it is trained here, its whole training recipe: the study's, with what the
        model sets otherwise. The source of images is left out where their content is pinned by its hash, so that an archive which moved
        makes nothing stale.
        """
        study = self.model_dump(exclude={"training", "pqn", "joint", "shards", "anonymous"})
        for name, model in self.models.items():
            resolved = study["models"][name]
            resolved["quantizer"] = self.quantizer_of(name).model_dump()
            resolved["network"], resolved["width"] = self.network_of(name), self.models[model.like or name].width
            lender = self.models[model.like or name].training.model_dump(exclude_none=True)
            resolved["training"] = self.training.model_dump() | lender | model.training.model_dump(exclude_none=True)
            resolved["pqn"] = self.pqn.model_dump() | model.pqn.model_dump(exclude_none=True)
            resolved["joint"] = self.joint.model_dump() | model.joint.model_dump(exclude_none=True)
            method = resolved["quantizer"]["method"]
            if resolved["joint"]["quantization"] is None:
                resolved["joint"]["quantization"] = QUANTIZATION.get(method, 0.0)
            for key in (key for key, methods in UNUSED.items() if method in methods):
                del resolved["joint"][key]
            if not self.is_fine_tuned(name):
                del resolved["joint"]
                if model.like or model.weights or not self.is_trainable(name):
                    del resolved["training"]
            if maker_of(resolved) != "train_joint":
                del resolved["pqn"]
            if resolved["quantizer"]["fitted_to"] == "database" or self.is_joint(name):
                del resolved["quantizer"]["fitted_to"]
        del study["quantizer"]["fitted_to"]  # every model says it
        for name, attack in self.attacks.items():
            study["attacks"][name] |= attack.implied()
            unused = {"distribution", *(key for key in ADDED if not attack.uses(key))} - attack.implied().keys()
            for key in (key for key in unused if getattr(attack, key) == Attack.model_fields[key].default):
                del study["attacks"][name][key]
        for dataset in study["datasets"].values():
            if dataset["sha256"] or (dataset["kind"] in DATASETS and DATASETS[dataset["kind"]].strict):
                dataset["source"] = None
        for name, reading in study["readings"].items():
            reading["study"] = self.reading(name).resolved()
        if not study["readings"]:
            del study["readings"]
        return study | self.shown()

    def reading(self, name: str) -> "Study":
        """The study of a reading; its name is that of this study and its own."""
        given = self.model_dump(exclude_unset=True, exclude={"readings"})
        return Study.model_validate(_updated(given, self.readings[name].change) | {"study": f"{self.study}_{name}"})

    def shown(self) -> dict[str, dict[str, Any]]:
        """``tables`` and ``figures`` with the defaults that depend on the rest of the study: every model that is trained together with its
        codebook in Table 2, every other one in Tables 1 and 4 (in Table 3 and the figures those of Table 1, in the sweep the first of
        these), AOD or else the last attack, 16 bits or else the first code length."""

        def filled(section: dict[str, Any], models: list[str]) -> dict[str, Any]:
            usual = {
                "models": models,
                "attack": "aod" if "aod" in self.attacks else list(self.attacks)[-1],
                "bits": 16 if 16 in self.bits else self.bits[0],
                "transfer": None,
            }
            return {key: usual[key] if value is None else value for key, value in section.items()}

        given, figures = self.tables.model_dump(), self.figures.model_dump()
        joint = [name for name in self.models if self.is_joint(name)]
        others = [name for name in self.models if name not in joint]
        table1 = filled(given["table1"], others)
        tables = {
            "table1": table1,
            "table2": filled(given["table2"], joint),
            "table3": filled(given["table3"], table1["models"]),
            "table4": filled(given["table4"], others),
            "table5": filled(given["table5"], []),
            "table6": filled(given["table6"], []),
        }
        figures = filled(figures, table1["models"])
        figures["sweep"] = filled(figures["sweep"], figures["models"][:1])
        return {"tables": tables, "figures": figures}

    def network_of(self, name: str) -> str:
        """The network of a model: that of the one it is like, its own, or the one it is named after."""
        model = self.models[name]
        return self.network_of(model.like) if model.like else model.network or name

    def is_trainable(self, name: str) -> bool:
        """Whether a model without weights is trained here: with a network of ours, or one of the user's if it sets keys of ``training``."""
        network = self.network_of(name)
        return network in NETWORKS or (is_entry_point(network) and self.models[name].training != TrainingOverride())

    def is_joint(self, name: str) -> bool:
        """Whether a model is trained together with its codebook."""
        return self.quantizer_of(name).method == PQN or self.is_fine_tuned(name)

    def is_fine_tuned(self, name: str) -> bool:
        """Whether it is so from trained weights. A function of the user's is a method of joint training if the model sets keys of one."""
        method = self.quantizer_of(name).method
        return method in FINE_TUNED or (is_entry_point(method) and self.models[name].joint != JointOverride())

    def quantizer_of(self, name: str) -> Quantizer:
        """The quantizer of a model: the study's, with what the model sets otherwise."""
        return self.quantizer.model_copy(update=self.models[name].quantizer.model_dump(exclude_none=True))

    @field_validator("datasets", mode="before")
    @classmethod
    def _the_kind_is_the_name(cls, datasets: Any) -> Any:
        """A data set without a kind is of the kind it is named after."""
        if not isinstance(datasets, dict):
            return datasets
        for name, dataset in datasets.items():
            if isinstance(dataset, dict) and "kind" not in dataset and name not in KINDS:
                unknown = f"datasets: {_short(repr(name))} is not known: {_allowed(str(name), KINDS)}"
                raise ValueError(f"{unknown}; a data set of another name needs a kind, one of these")
        return {name: {"kind": name} | dataset if isinstance(dataset, dict) else dataset for name, dataset in datasets.items()}

    @model_validator(mode="after")
    def _names_are_known(self) -> "Study":
        for name, dataset in self.datasets.items():
            if name in RESERVED:
                raise ValueError(f"datasets.{name}: the results have a folder of that name for something else; give the data set another")
            if name in KINDS and name != dataset.kind:
                raise ValueError(f"datasets.{name}.kind is {dataset.kind}, but {name} is a kind itself; give the data set another name")
            if name == "nuswide" and dataset.concepts != 10:  # the paper's; ``tables.against_paper`` goes by the name
                words = "but under this name results stand beside the paper's, which has 10"
                raise ValueError(
                    f"datasets.nuswide.concepts is {dataset.concepts}, {words}; give the data set another name and kind: nuswide"
                )
        for name in self.models:
            self._check_model(name)
        for key, method in self._quantizers():
            _check_known_or_own(f"{key}.method", method, QUANTIZERS)
        for name, attack in self.attacks.items():
            if name == "clean":
                raise ValueError('attacks.clean: "clean" stands for the queries as they are; give the attack another name')
            if name == FARTHEST:
                raise ValueError(f'attacks.{name}: "{name}" stands for the farthest codes in Table 5; give the attack another name')
            if name == "all":
                raise ValueError('attacks.all: "all" stands for all attacks together in Table 2; give the attack another name')
            _check_known_or_own(f"attacks.{name}.loss", attack.loss, (*LOSSES, *ANSWERS))
            _check_known_or_own(f"attacks.{name}.method", attack.method, (*METHODS, *BLACK_BOX, *TRAINED))
            for key, (kind, users) in USED_BY.items():
                user = getattr(attack, kind)
                own = kind == "loss" and is_entry_point(user) and key not in NOT_OWN
                if getattr(attack, key) != Attack.model_fields[key].default and user not in users and not own:
                    raise ValueError(f"attacks.{name}.{key}: the {kind} {user} does not use it; allowed with {', '.join(users)}")
            if attack.distribution == "own" and attack.assignment != Attack.model_fields["assignment"].default:
                words = "with distribution: own the victim's own assignment chooses the codeword; leave the key out"
                raise ValueError(f"attacks.{name}.assignment: {words}")
            for key, value in attack.implied().items():
                if key in attack.model_fields_set and getattr(attack, key) != value:
                    words = {"fgsm": "is one step as long as epsilon", "apgd": "begins with steps of twice epsilon"}
                    words |= {"square": "changes pixels by twice epsilon"} if key == "step" else {}
                    words |= {"cw_l2": "begins at the clean image, keeps no ball, and goes by the codes of retrieval"}
                    words |= {"uaa_gan": "changes an image once, by up to epsilon"}
                    words = words.get(attack.method, "takes as many steps as its budget allows")
                    raise ValueError(f"attacks.{name}.{key}: the method {attack.method} {words}; leave the key out")
            if attack.loss in ANSWERS or attack.method in BLACK_BOX:
                _check_black_box(name, attack)
            if attack.method in TRAINED:
                _check_trained(name, attack)
            if attack.loss in TARGETED:
                self._check_target(name, attack.target)
            if attack.iterations < (least := LEAST.get(attack.method, 1)):
                words = {"apgd": "halves its steps by what it gained at checkpoints", "cw_l2": "would find hardly any image"}[attack.method]
                published = {"apgd": "100", "cw_l2": "10,000"}[attack.method]
                words = f"{attack.method} {words}; allowed are at least {least}, published are {published}"
                raise ValueError(f"attacks.{name}.iterations is {attack.iterations}, but {words}")
            if attack.method in UNBOUNDED:
                _check_unbounded(name, attack)
            if attack.method == "apgd" and attack.loss in SCHEDULED:
                words = f"compares the losses of its steps, but that of {attack.loss} changes from step to step; choose another"
                raise ValueError(f"attacks.{name}.method: apgd {words}")
            if attack.restarts > 1 and not attack.random_start:
                words = "would all begin at the clean image, since random_start is false; leave one of the two keys out"
                raise ValueError(f"attacks.{name}.restarts: {attack.restarts} of them {words}")
            if 0 < attack.epsilon < 1:
                raise ValueError(f"attacks.{name}.epsilon is {attack.epsilon:g}, but pixels are whole numbers: allowed are 0 and 1 to 255")
        return self

    def _check_target(self, attack: str, target: Any) -> None:
        """That a targeted attack has a target, and that known data sets have its class."""
        key = f"attacks.{attack}.target"
        wanted, items = getattr(target, "class"), target.items
        if wanted is None and items is None:
            allowed = "target: {class: NAME or number}, or target: {items: [ids of database images]}"
            raise ValueError(f"{key} is missing: the loss {self.attacks[attack].loss} needs one; allowed are {allowed}")
        if wanted is not None and items is not None:
            raise ValueError(f"{key}: it has both class and items, but only one of them is allowed")
        if items is None and (isinstance(wanted, bool) or not isinstance(wanted, int | str) or isinstance(wanted, int) and wanted < 0):
            raise ValueError(f"{key}.class is {_short(repr(wanted))}, but must be the name or the number of a class, from 0 on")
        for name, dataset in self.datasets.items():
            if dataset.kind in CLASS_NAMES:
                self.check_targets(name, CLASS_NAMES[dataset.kind])
            elif isinstance(wanted, int) and wanted >= getattr(dataset, "concepts", wanted + 1):
                raise ValueError(f"{key}.class is {wanted}, but datasets.{name} has the classes 0 to {dataset.concepts - 1}")

    def check_targets(self, name: str, classes: Sequence[str]) -> None:
        """That a data set with these ``classes`` has those that attacks aim at; raises ValueError with a sentence."""
        for attack, wanted in ((key, getattr(one.target, "class", None)) for key, one in self.attacks.items()):
            if isinstance(wanted, str) and wanted not in classes:
                raise ValueError(
                    f"attacks.{attack}.target.class: datasets.{name} has no class {_short(repr(wanted))}: {_allowed(wanted, classes)}"
                )
            if isinstance(wanted, int) and wanted >= len(classes):
                raise ValueError(f"attacks.{attack}.target.class is {wanted}, but datasets.{name} has the classes 0 to {len(classes) - 1}")

    def _check_model(self, name: str) -> None:
        """That its network and its weights are known, and that it sets no key that it has no use for."""
        model, key = self.models[name], f"models.{name}"
        if model.like is None and model.network is None:
            hint = "; under another name it needs the key network, or like"
            if name not in NETWORKS:
                raise ValueError(f"models: {_short(repr(name))} is not known: {_allowed(name, NETWORKS)}{hint}")
        if model.like is not None:
            self._check_like(name, model)
        network = self.network_of(name)
        if network not in NETWORKS and not is_entry_point(network) and not is_torchvision(network):
            allowed = f"{_allowed(network, NETWORKS)}, torchvision:NAME, or a function of yours as module:function"
            raise ValueError(f"{key}.network: {_short(repr(network))} is not known: {allowed}")
        if name in NETWORKS and network != name:
            raise ValueError(f"{key}.network is {network}, but the name {name} stands for that network: give the entry another name")
        if is_torchvision(network) and model.like is None and model.weights is None:
            raise ValueError(
                f"{key}.weights is missing: a network of torchvision is not trained here; name a file or weights of torchvision"
            )
        if model.training != TrainingOverride() and (model.weights or not self.is_trainable(name)) and not self.is_fine_tuned(name):
            raise ValueError(f"{key}.training: it is not trained here, since its weights are given; leave the key out")
        if model.width != 1 and network not in NETWORKS:
            raise ValueError(f"{key}.width: only networks of ours have a width; leave the key out")
        method = self.quantizer_of(name).method
        if model.joint != JointOverride() and not self.is_fine_tuned(name):
            users = f"{', '.join(FINE_TUNED)}, or a function of yours"
            raise ValueError(
                f"{key}.joint: only a model with the quantizer {users} uses it; leave the key out, or set {key}.quantizer.method"
            )
        if model.quantizer.fitted_to and self.is_joint(name):
            raise ValueError(f"{key}.quantizer.fitted_to: the codebook of {method} is trained with the network; leave the key out")
        for unused, methods in UNUSED.items():
            if getattr(model.joint, unused) is not None and method in methods:
                raise ValueError(f"{key}.joint.{unused}: the quantizer {method} does not use it; leave the key out")
        if model.pqn != PqnOverride() and method != PQN:
            raise ValueError(f"{key}.pqn: only a model with the quantizer {PQN} uses it; leave the key out, or set {key}.quantizer.method")
        if model.pqn != PqnOverride() and model.weights:
            raise ValueError(f"{key}.pqn: it is not trained here, since its weights are given; leave the key out")
        if method == PQN and (model.like or network not in NETWORKS or not is_of_zoo(model.weights or "zoo:")):
            raise ValueError(
                f"{key}: the quantizer {PQN} is trained with the network, but its weights are given; leave like and weights out, name "
                f"weights of the zoo that were trained with a codebook, or set {key}.quantizer.method to another"
            )

    def _check_like(self, name: str, model: Model) -> None:
        key = f"models.{name}"
        _check_known(f"{key}.like", [model.like], [other for other in self.models if other != name and not self.models[other].like])
        if self.is_joint(model.like):
            theirs = self.quantizer_of(model.like).method
            raise ValueError(
                f"{key}.like: {model.like} has other weights for each code length, as the quantizer {theirs} has; name another"
            )
        other = self.models[model.like]
        for one, unset in (("weights", None), ("training", TrainingOverride())):
            if getattr(model, one) != unset and not (one == "training" and self.is_fine_tuned(name)):
                raise ValueError(f"{key}.{one}: its weights are those of {model.like}; leave the key out, or the key like")
        if model.network not in (None, other.network or model.like) or ("width" in model.model_fields_set and model.width != other.width):
            raise ValueError(f"{key}: its network and width are those of {model.like}; leave the keys network and width out")

    def _quantizers(self) -> list[tuple[str, str]]:
        """The methods of the quantizers, each with the key of its section."""
        own = [(f"models.{name}.quantizer", model.quantizer.method) for name, model in self.models.items() if model.quantizer.method]
        return [("quantizer", self.quantizer.method), *own]

    def brings(self) -> list[tuple[str, str]]:
        """The entry points and files of weights in the study, each with its key, see ``pqag.user_code``."""
        named = [(f"attacks.{name}.{key}", getattr(attack, key)) for name, attack in self.attacks.items() for key in ("loss", "method")]
        named += [(f"models.{name}.network", self.network_of(name)) for name in self.models]
        named += [(f"{key}.method", method) for key, method in self._quantizers()]
        weights = []
        for name, model in self.models.items():
            if model.weights:
                pqn = self.quantizer_of(name).method == PQN  # which has weights for each code length
                named_files = [f"{model.weights}/{bits}bits" for bits in self.bits] if pqn else [model.weights]
                weights += [(f"models.{name}.weights", file) for file in named_files]
        files = [(key, name) for key, name in weights if not is_name_of_weights(name)]
        inner = [(f"readings.{name}.change.{key}", file) for name in self.readings for key, file in self.reading(name).brings()]
        return [(key, name) for key, name in named if is_entry_point(name)] + files + inner

    @model_validator(mode="after")
    def _tables_show_what_is_there(self) -> "Study":
        for key, shows in self._showing():
            _check_known(f"{key}.models", shows.models or [], self.models)
            if (other := getattr(shows, "transfer", None)) is not None:
                _check_known(f"{key}.transfer", [other], self.models)
            if (attack := getattr(shows, "attack", None)) is not None:
                _check_known(f"{key}.attack", [attack], self.attacks)
            if (bits := getattr(shows, "bits", None)) is not None and bits not in self.bits:
                raise ValueError(f"{key}.bits is {bits}, which is none of `bits`: allowed are {', '.join(map(str, self.bits))}")
        for name in self.tables.table2.models or []:
            if not self.is_joint(name):
                methods = f"{PQN}, {', '.join(FINE_TUNED)}"
                words = f"{name} is not trained with its codebook, as Table 2 shows; set models.{name}.quantizer.method to one of {methods}"
                raise ValueError(f"tables.table2.models: {words}, or leave it out")
        if all(attack.method in UNBOUNDED for attack in self.attacks.values()):
            raise ValueError("attacks: none keeps a ball, so Table 6 would have no row; add one, for example basic: {loss: basic}")
        tables, figures = (self.shown()[part] for part in ("tables", "figures"))
        shown = {f"tables.{name}": table["models"] for name, table in tables.items() if name != "table6"}
        shown |= {"figures": figures["models"], "figures.sweep": figures["sweep"]["models"]}
        for name, attack in ((name, attack) for name, attack in self.attacks.items() if attack.queries or attack.method in UNBOUNDED):
            if others := [where for where, models in shown.items() if models]:
                others = f"set models: [] in {', '.join(others)}"
                if attack.method in UNBOUNDED:
                    words = "keeps no ball, so only the figure beside Table 6 shows it"
                    raise ValueError(f"attacks.{name}.method: {attack.method} {words}; choose another, or {others}")
                words = "only Table 6 says how many queries an attack had"
                raise ValueError(f"attacks.{name}.queries: {words}; leave the key out, or {others}")
        for name in (
            name for name, attack in self.attacks.items() if attack.method in TRAINED and self.shown()["figures"]["sweep"]["models"]
        ):
            method = self.attacks[name].method
            raise ValueError(
                f"attacks.{name}.method: {method} is trained for one strength; set models: [] in figures.sweep, or choose another"
            )
        if not any(table["models"] for table in self.shown()["tables"].values()):
            raise ValueError("tables: no table has a model, so there would be nothing to do; give one of them at least one")
        for epsilon in self.figures.sweep.epsilon:
            if 0 < epsilon < 1:
                raise ValueError(f"figures.sweep.epsilon has {epsilon:g}, but pixels are whole numbers: allowed are 0 and 1 to 255")
        return self

    def _showing(self) -> list[tuple[str, Any]]:
        """The sections that say what is shown, by their keys."""
        return [
            *((f"tables.{name}", table) for name, table in self.tables),
            ("figures", self.figures),
            ("figures.sweep", self.figures.sweep),
        ]

    @model_validator(mode="after")
    def _lists_have_no_doubles(self) -> "Study":
        lists = {"bits": self.bits, "seeds": self.seeds} | {f"{key}.models": shows.models or [] for key, shows in self._showing()}
        lists |= {f"figures.sweep.{key}": getattr(self.figures.sweep, key) for key in ("epsilon", "iterations")}
        for key, values in lists.items():
            if len(set(values)) < len(values):
                raise ValueError(f"{key}: every value may stand once, got {_short(str(values))}")
        return self

    @model_validator(mode="after")
    def _sizes_fit(self) -> "Study":
        for model in self.models:
            self._check_quantizer(model)
        return self

    @model_validator(mode="after")
    def _splits_fit(self) -> "Study":
        """Checks the known data sets; others are checked once their images were counted, in ``pqag.split``."""
        for name, dataset in self.datasets.items():
            if dataset.validation and dataset.database_from == "all":
                raise ValueError(f"datasets.{name}: with validation, the database consists of training images: leave database_from out")
            if dataset.validation and dataset.database is None:
                raise ValueError(f"datasets.{name}.database is missing: with validation, say how many training images the database takes")
            if (known := DATASETS.get(dataset.kind)) is None:
                continue
            if dataset.source is not None and known.generated:
                raise ValueError(f"datasets.{name}.source: the images of {dataset.kind} are generated, so there is no source to name")
            if dataset.validation:
                if dataset.database + dataset.queries + (dataset.train or 1) > known.train:
                    raise ValueError(
                        f"datasets.{name}: for validation, queries ({dataset.queries}), database ({dataset.database}) and train "
                        f"({dataset.train or 'the rest'}) are drawn from {known.train} training images, so their sum may not exceed that"
                    )
                continue
            there, of = known.test, f"{known.test} test images"
            if dataset.database_from == "all":
                there, of = known.test + known.train, f"{of} and {known.train} training images"
            if dataset.database + dataset.queries > there or dataset.queries > known.test:
                raise ValueError(
                    f"datasets.{name}: database ({dataset.database}) and queries ({dataset.queries}) are drawn from {of}, "
                    "so their sum may not exceed that, and queries are test images"
                )
            if (dataset.train or 0) > known.train:
                raise ValueError(f"datasets.{name}.train: there are {known.train} training images, {dataset.train} were asked for")
        return self

    def _check_quantizer(self, model: str) -> None:
        """That M divides D, as far as D is known here, and every code length; and that there are images enough for K codewords."""
        subspaces, own = self.quantizer_of(model).subspaces, self.models[model].quantizer.subspaces
        key = f"models.{model}.quantizer.subspaces" if own else "quantizer.subspaces"
        width = self.models[self.models[model].like or model].width
        size = feature_size(network, width) if (network := self.network_of(model)) in NETWORKS else None
        method = self.quantizer_of(model).method
        if method == "rq":  # whose codewords are as long as a feature
            size = None
        if self.is_fine_tuned(model):
            size, length = None, self.models[model].joint.size or self.joint.size
            if method in DEEP and length % subspaces:
                where = f"models.{model}.joint" if self.models[model].joint.size else "joint"
                raise ValueError(f"{where}.size is {length}, but must be a multiple of {subspaces}, the number of sub-spaces")
        if size and size % subspaces:
            divisors = [m for m in range(1, 65) if size % m == 0]
            raise ValueError(
                f"{key}: {subspaces} does not divide the {size} numbers of a feature of {model} at width {width:g}; allowed are "
                f"{', '.join(map(str, divisors))}"
            )
        for bits in self.bits:
            if bits % subspaces:
                raise ValueError(f"bits: {bits} is no multiple of {key} = {subspaces}, so K would be no power of two")
            if method in HASHING:
                self._check_hashing(model, bits, subspaces, key)
                continue
            for name, dataset in self.datasets.items():
                known = DATASETS.get(dataset.kind)
                count, images = dataset.database, "database images"
                if self.models[model].weights and method == PQN:
                    continue
                if self.is_joint(model) or self.quantizer_of(model).fitted_to == "train":
                    count, images = dataset.train or (known.train if known else None), "training images"
                if count is not None and codewords(bits, subspaces) > count:
                    raise ValueError(
                        f"bits: {bits} bits in {subspaces} sub-spaces need K = {codewords(bits, subspaces)} codewords, more than the "
                        f"{count} {images} of datasets.{name} they are fitted to"
                    )

    def _check_hashing(self, model: str, bits: int, subspaces: int, key: str) -> None:
        """That a codebook of all sign patterns is not too large, and that CSQ has a centre for each class, where these are known."""
        method = self.quantizer_of(model).method
        if (words := codewords(bits, subspaces)) > HYPERCUBE:
            needs = f"{method} at {bits} bits in {subspaces} sub-spaces has all K = {words} sign patterns for codewords"
            raise ValueError(f"{key}: {needs}, but at most {HYPERCUBE} are allowed; use more sub-spaces")
        if method != "csq":
            return
        if bits not in HADAMARD:
            raise ValueError(
                f"bits: csq has no Hadamard matrix for the {bits} bits of {model}; allowed are {', '.join(map(str, HADAMARD))}"
            )
        for name, dataset in self.datasets.items():
            self.check_classes(name, CLASSES if dataset.kind in DATASETS else getattr(dataset, "concepts", 0))

    def check_classes(self, name: str, classes: int) -> None:
        """That CSQ, if a model has it, has a centre for each of the ``classes`` of a data set; raises ValueError with a sentence."""
        if any(self.quantizer_of(model).method == "csq" for model in self.models) and classes > 2 * (bits := min(self.bits)):
            needs = f"datasets.{name} has {classes} classes, but csq has {2 * bits} centres for {bits} bits"
            raise ValueError(f"bits: {needs}; allowed are at least {-(-classes // 8) * 4} bits")

    @model_validator(mode="after")
    def _readings_are_studies(self) -> "Study":
        for name in self.readings:
            try:
                self.reading(name)
            except ValidationError as error:
                raise ValueError(f"readings.{name}.change: {_sentence(error.errors()[0])}") from None
        return self


def read_config(path: str | Path) -> dict[str, Any]:
    """The mapping that a study file holds; raises UserError, one sentence that names the file, the line, and what is allowed there."""
    try:
        return read(path)
    except Refused as error:
        raise UserError(str(error)) from None


def _updated(given: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """``given`` with the values of ``change``, mapping by mapping."""
    return dict(given) | {
        key: _updated(given[key], value) if isinstance(value, dict) and isinstance(given.get(key), dict) else value
        for key, value in change.items()
    }


def parse_study(config: Mapping[str, Any], origin: str = "config.yaml") -> Study:
    """Check ``config`` and fill in the defaults; raises UserError, one sentence that names ``origin``, the key and what is allowed."""
    try:
        return Study.model_validate(dict(config))
    except ValidationError as error:
        problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")  # a typo explains a missing key
        more = f" ({len(problems) - 1} more to mend after this)" if len(problems) > 1 else ""
        raise UserError(printable(f"{origin}: {_sentence(problems[0])}{more}")) from None


def _sentence(problem: Mapping[str, Any]) -> str:
    """One of pydantic's findings in the words of a person who knows YAML but not pydantic."""
    path = [_short(str(part)) for part in problem["loc"] if part != "[key]"]
    keys = path[:2] + path[3:] if path[:1] == ["datasets"] else path  # between the name and its keys pydantic has the kind
    key = re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", ".".join(keys))  # the place in a list
    value, context = problem["input"], problem.get("ctx", {})
    shown = "a mapping" if isinstance(value, dict) else {None: "empty", True: "true", False: "false"}.get(_hashable(value), repr(value))
    shown = _short(str(value) if isinstance(value, datetime.date) else shown)
    match problem["type"]:
        case "value_error":
            return str(context["error"])
        case "extra_forbidden":
            return f"{key} is no key: {_allowed(path[-1], _section(path[:-1]).model_fields)}"
        case "union_tag_invalid":
            return f"{key}.kind is {_short(repr(value['kind']))}, but must be one of {', '.join(KINDS)}"
        case "missing":
            return f"the key {key} is missing"
        case "literal_error":
            return f"{key} is {shown}, but must be {context['expected']}"
        case "string_pattern_mismatch":
            if context["pattern"].endswith("{64}$"):
                return f"{key} is {shown}, but must be a sha256: 64 hexadecimal digits in lower case"
            return f"{key} is {shown}, but a name may hold only a-z, 0-9 and _ and begins with a letter"
        case "greater_than_equal" | "greater_than" | "less_than_equal" | "less_than":
            word = {"ge": "at least", "gt": "greater than", "le": "at most", "lt": "less than"}
            [(sign, bound)] = [(s, b) for s, b in context.items() if s in word]
            return f"{key} is {shown}, but must be {word[sign]} {bound}"
        case "finite_number":
            return f"{key} is {shown}, but must be a finite number"
        case "invalid_key":
            return f"{key} is no key, for keys are texts: allowed are {', '.join(_section(path[:-1]).model_fields)}"
        case "string_too_long":
            return f"{key} is {shown}, but a name may have at most {context['max_length']} characters"
        case "string_too_short":
            return f"{key} is an empty text; leave the key out instead"
        case "too_short":
            return f"{key} is empty, but needs at least one entry"
        case kind:
            wanted = {
                "int": "a whole number",
                "float": "a number",
                "string": "a text",
                "bool": "true or false",
                "list": "a list",
                "dict": "a mapping",
                "model": "a mapping of keys to values",
            }
            sentence = f"{key or 'the file'} is {shown}, but must be {wanted.get(kind.split('_')[0], problem['msg'])}"
            return sentence + _as_yaml_reads_it(value)


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:79]}…"


def _as_yaml_reads_it(value: Any) -> str:
    """A hint for a number that YAML 1.1 takes for a text: 1e-3, which lacks a point, and 1.0e3, which lacks the sign of its exponent."""
    if not isinstance(value, str) or not re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d{1,2}", value):
        return ""
    return f"; YAML reads {value} as a text, write {Decimal(value):f}"


def _hashable(value: Any) -> Any:
    """``value``, or its text where it cannot be looked up; 1 and 0 too, which would pass for true and false."""
    return value if value is None or isinstance(value, bool) else repr(value)


def _section(path: list[str]) -> type[BaseModel]:
    """The section of the model that ``path`` leads to, through mappings from names to sections."""
    kind: Any = Study
    for part in path:
        if typing.get_origin(kind) is dict:
            kind = typing.get_args(kind)[1]
        else:
            kind = DATASET_SECTIONS[part] if kind is AnyDataset else kind.model_fields[part].annotation
    return kind


def _check_black_box(name: str, attack: Attack) -> None:
    """That the loss and the method of an attack on a black box fit one another, and that its budget suffices for a step."""
    own, key = is_entry_point(attack.method), f"attacks.{name}"
    if attack.loss not in ANSWERS:
        words = f"{attack.method} only sees what a retrieval system answers, so its loss must be one of {', '.join(ANSWERS)}"
        raise ValueError(f"{key}.loss is {attack.loss}, but the method {words}")
    if attack.method not in BLACK_BOX and not own:
        words = f"is of what a retrieval system answers, which has no gradient; allowed are {', '.join(BLACK_BOX)}"
        raise ValueError(f"{key}.method is {attack.method}, but the loss {attack.loss} {words}, or a function of yours as module:function")
    if attack.restarts > 1:
        raise ValueError(f"{key}.restarts: the loss {attack.loss} has a budget for one start; leave the key out")
    if not own and attack.budget < (least := requests(attack.method, 1, attack.directions)):
        words = f"but one step of {attack.method} takes {least} requests, that of the clean image included; allowed are at least {least}"
        raise ValueError(f"{key}.budget is {attack.budget}, {words}")


def _check_unbounded(name: str, attack: Attack) -> None:
    """That a method without a ball has a loss that says when to stop, and one start."""
    if attack.loss != "clipped_margin" and not is_entry_point(attack.loss):
        words = "stops where the loss is 0, which means something for clipped_margin, or for a function of yours as module:function"
        raise ValueError(f"attacks.{name}.loss is {attack.loss}, but the method {attack.method} {words}")
    if attack.assignment != Attack.model_fields["assignment"].default:
        raise ValueError(f"attacks.{name}.assignment: {attack.method} goes by the codes of retrieval; leave the key out")
    if attack.restarts > 1:
        raise ValueError(f"attacks.{name}.restarts: {attack.method} always begins at the clean image; leave the key out")


def _check_trained(name: str, attack: Attack) -> None:
    """That a method that is trained has a loss which needs no codes of the queries, and one start."""
    if attack.loss in (*AIMED, *SCHEDULED):
        words = "has one change for all images" if attack.method == "universal" else "aims at no code"
        words = words if attack.loss in AIMED else "cannot go by a loss that changes from step to step"
        raise ValueError(f"attacks.{name}.loss is {attack.loss}, but the method {attack.method} {words}; choose another")
    if attack.restarts > 1:
        raise ValueError(f"attacks.{name}.restarts: the method {attack.method} is trained once; leave the key out")


def _check_known(key: str, names, known) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{key}: {_short(repr(name))} is not known: {_allowed(name, known)}")


def _check_known_or_own(key: str, name: str, known) -> None:
    if name not in known and not is_entry_point(name):
        raise ValueError(f"{key}: {_short(repr(name))} is not known: {_allowed(name, known)}, or a function of yours as module:function")


def _allowed(name: str, known) -> str:
    """What to write instead of ``name``: the nearest of the ``known`` names, if any is near, and all of them."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return (f"did you mean {near[0]}? " if near else "") + f"allowed are {', '.join(known)}"

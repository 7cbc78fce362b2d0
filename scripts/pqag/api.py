"""The library for Python programs and notebooks: attack a retrieval system, search it, and score it. docs/api.md has examples.

Every mistake in a call raises ``UserError`` with one sentence. Results are those of the workflow, which calls the same functions: the same
bits with the same number of threads (``torch.set_num_threads``) on the same machine. No step of the workflow uses this module.
"""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from torch import Tensor, nn

from pqag import additive, attacks, checkpoints, codebooks, files, names, networks, quantizer, retrieval, storage, user_code, victims
from pqag.codebooks import Codebook
from pqag.errors import UserError
from pqag.names import AIMED, ANSWERS, BLACK_BOX

__all__ = ["LOSSES", "Codebook", "UserError", "Victim", "attack", "evaluate", "features", "fit_codebook", "load_victim", "search"]

# An installed package has the zoo inside. This is said here, since the digest of every result covers ``user_code.ZOO``.
if (_zoo := Path(__file__).with_name("zoo")).is_dir():
    user_code.ZOO = _zoo

#: Losses by name, but for those that aim at codes of the database.
LOSSES = (*(loss for loss in names.LOSSES if loss not in AIMED), *ANSWERS)
METHODS = (*names.METHODS, *BLACK_BOX)

#: What ``attack`` accepts besides its own parameters, with the values of a study that does not name them; the last only some methods use.
OF_METHODS = {name: default for method in METHODS for name, default in attacks.options_of(method).items()}
OPTIONS = {"step": 2.55, "iterations": 5} | {
    one.name: one.default
    for one in fields(attacks.Attack)
    if one.default is not MISSING and one.name not in ("feature", "goals", "changes")
}
OPTIONS |= OF_METHODS


class _Embedding(nn.Module):
    """A network whose output is the feature, as a victim of the workflow."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def features(self, images: Tensor) -> Tensor:
        return self.network(images)


@dataclass(eq=False)
class Victim:
    """A retrieval system: a network, the codebook of its database, and the labels of the database.

    network: any module. Its method ``features``, or without one the module itself, maps images, float32 (N, 3, H, W) in [0, 1], to
    features, float (N, D). The functions of this module put it into evaluation mode and freeze its parameters; they compute where it is.
    codebook: codewords, float (M, K, D/M), which suffice for ``attack``; or a ``Codebook``, with codes of the database for ``search``
    and ``evaluate``; None if it is not fitted yet. labels: of the database, for ``evaluate``: classes, int (N,), or multi-hot (N, C).
    normalised: whether features are scaled to length 1 before they are compared with codewords, as in the paper.

    Raises UserError if the parts do not fit one another.
    """

    network: nn.Module
    codebook: Codebook | np.ndarray | Tensor | None = None
    labels: Any = None
    normalised: bool = True

    def __post_init__(self):
        if not isinstance(self.network, nn.Module):
            raise UserError(f"network is a {type(self.network).__name__}, but must be a torch.nn.Module")
        if not inspect.ismethod(getattr(self.network, "features", None)):  # torchvision has layers of this name
            self.network = _Embedding(self.network)
        if self.codebook is not None:
            self.codebook = _checked(self.codebook)
        if self.labels is not None:
            self.labels = _labels(self.labels, "labels of the database")
            if self.codebook is not None and self.codebook.codes is not None and len(self.labels) != len(self.codebook.codes):
                raise UserError(f"there are {len(self.labels)} labels, but codes of {len(self.codebook.codes)} database images")


def _array(values: Any) -> np.ndarray:
    """Values as a numpy array; of torch's floats as float32, since numpy has no bfloat16."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype in (torch.float16, torch.bfloat16) else values).numpy()
    return np.asarray(values)


def _checked(codebook: Any) -> Codebook:
    """Return a codebook with codewords as float32; raises UserError if its arrays are none of a codebook."""
    whole = codebook if isinstance(codebook, Codebook) else Codebook(codebook, None, None)
    codewords = _floats(whole.codewords, "codewords", 3, "(M, K, D/M)")
    rotation = None if whole.rotation is None else _floats(whole.rotation, "rotation", 2, "(D, D)")
    logits = None if whole.logits is None else _floats(whole.logits, "logits", 3, "(M, K, D/M + 1)")
    if whole.encoder not in names.ENCODERS or (whole.encoder == "argmax") != (logits is not None):
        needs = f"{', '.join(names.ENCODERS)}, and logits go with argmax alone"
        raise UserError(f"encoder is {whole.encoder!r}{'' if logits is None else ' with logits'}, but must be one of {needs}")
    subspaces, count, part = codewords.shape
    if logits is not None and logits.shape != (subspaces, count, part + 1):
        raise UserError(f"logits have the shape {logits.shape}, but codewords {codewords.shape} need {(subspaces, count, part + 1)}")
    size = part if whole.encoder in names.FULL_LENGTH else subspaces * part
    if rotation is not None and rotation.shape != (size, size):
        raise UserError(f"rotation has the shape {rotation.shape}, but codewords {codewords.shape} need {(size, size)}")
    checked = Codebook(codewords, None, whole.ids, rotation, whole.encoder, logits)
    if (codes := whole.codes) is None:
        return checked
    codes = _array(codes)
    if codes.ndim != 2 or codes.shape[1] != subspaces or codes.dtype.kind not in "iu" or not len(codes):
        words = f"whole numbers (N, {subspaces}), one for each sub-space of the codewords"
        raise UserError(f"codes are {attacks.described(codes)}, but must be {words}")
    if codes.min() < 0 or codes.max() >= count:
        raise UserError(f"codes are numbers from {codes.min()} to {codes.max()}, but there are {count} codewords, 0 to {count - 1}")
    return replace(checked, codes=codes.astype(quantizer.code_dtype(count)))


def _floats(values: Any, what: str, dimensions: int, shape: str) -> np.ndarray:
    """Return values as float32; raises UserError unless they are finite floats of a shape with so many dimensions, none of them empty."""
    array = _array(values)
    if array.ndim != dimensions or not array.size or array.dtype.kind != "f":
        raise UserError(f"{what}: {attacks.described(array)}, but must be floats {shape}")
    if not np.isfinite(array).all():
        raise UserError(f"{what}: some numbers are NaN or infinite")
    return np.ascontiguousarray(array, np.float32)


def _labels(values: Any, what: str) -> np.ndarray:
    """Return labels as they are; raises UserError unless they are classes, int (N,), or multi-hot (N, C)."""
    array = _array(values)
    if array.ndim not in (1, 2) or array.dtype.kind not in "biu" or not array.size:
        raise UserError(f"{what}: {attacks.described(array)}, but must be classes as whole numbers (N,), or multi-hot (N, C)")
    if array.min() < 0 or array.ndim == 2 and array.max() > 1:
        allowed = "0 or more" if array.ndim == 1 else "0 or 1"
        raise UserError(f"{what}: numbers from {array.min()} to {array.max()}, but must be {allowed}")
    return array


def _pixels(images: Any) -> np.ndarray:
    """Return images as uint8 (N, 3, H, W): floats in [0, 1] rounded to 8 bits. Raises UserError for anything else."""
    array = _array(images)
    if array.ndim != 4 or array.shape[1] != 3:
        hint = "; channels come second: images.transpose(0, 3, 1, 2)" if array.ndim == 4 and array.shape[3] == 3 else ""
        raise UserError(f"images have the shape {array.shape}, but must have (N, 3, H, W){hint}")
    if not array.size:
        raise UserError(f"there are no images: their shape is {array.shape}")
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype.kind != "f":
        raise UserError(f"images are {array.dtype}, but must be uint8, or floats in [0, 1]")
    if np.isnan(array).any():
        raise UserError(f"{int(np.isnan(array).any((1, 2, 3)).sum())} of the {len(array)} images have pixels that are NaN")
    if array.min() < 0 or array.max() > 1:
        raise UserError(f"images are floats from {array.min():g} to {array.max():g}, but must be in [0, 1], or uint8")
    return np.rint(array.astype(np.float32) * 255).astype(np.uint8)


def _number(name: str, value: Any, low: float, high: float = np.inf, whole: bool = False) -> None:
    """Raise UserError unless an argument is a number in [low, high]."""
    kinds = (int, np.integer) if whole else (int, float, np.integer, np.floating)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        kind, limits = "a whole number" if whole else "a number", f"of at least {low:g}" if high == np.inf else f"from {low:g} to {high:g}"
        raise UserError(f"{name} is {value!r}, but must be {kind} {limits}")


def features(victim: Victim, images: Any) -> np.ndarray:
    """Features, float32 (N, D), of ``images``, uint8 or floats in [0, 1], (N, 3, H, W); of length 1 if the victim's are normalised.

    Raises UserError for other images, and for a network that returns anything but finite features (N, D).
    """
    return _features(victim, _pixels(images))


def _features(victim: Victim, images: np.ndarray) -> np.ndarray:
    network = victim.network.to(memory_format=torch.channels_last).eval()
    with torch.inference_mode():
        found = []
        for batch in torch.from_numpy(images).split(names.BATCH_SIZES["extract"]):
            z = network.features(networks.pixels(batch.to(_device(network))))
            if not isinstance(z, Tensor) or z.ndim != 2 or len(z) != len(batch) or not z.is_floating_point():
                words = f"returns {attacks.described(z)} for {len(batch)} images, but must return floats ({len(batch)}, D)"
                raise UserError(f"the network {words}")
            z = z.double()
            found.append((networks.normalise(z, networks.groups_of(network)) if victim.normalised else z).float().cpu())
    joined = torch.cat(found).numpy()
    networks.check_finite(joined, np.arange(len(joined)), "images")
    _check_length(victim, joined.shape[1])
    return joined


def _device(network: nn.Module) -> torch.device:
    return next((one.device for one in network.parameters()), torch.device("cpu"))


def _check_length(victim: Victim, length: int) -> None:
    """Raise UserError if the codewords are for features of another length."""
    if victim.codebook is not None:
        subspaces, _, part = victim.codebook.codewords.shape
        if victim.codebook.encoder in names.FULL_LENGTH:
            if part != length:
                raise UserError(f"the codewords do not fit the network: its features have {length} numbers, and the codewords {part}")
        elif subspaces * part != length:
            words = f"{subspaces} sub-spaces of {part} numbers, together {subspaces * part}"
            raise UserError(f"the codewords do not fit the network: its features have {length} numbers, and the codewords {words}")


def _codebook(victim: Victim, codes: bool = True) -> Codebook:
    """Return the codebook of a victim; raises UserError if it has none, or none with codes where they are needed."""
    if victim.codebook is None:
        raise UserError("the victim has no codewords: make it with Victim(network, codebook), for example by fit_codebook")
    if codes and victim.codebook.codes is None:
        raise UserError("the victim has no database: its codebook has codewords, but no codes")
    return victim.codebook


def attack(
    victim: Victim, images: Any, loss: str | Callable = "aod", epsilon: float = 8, seed: int = 0, ids: Any = None, **options: Any
) -> np.ndarray | Tensor:
    """Adversarial counterparts of ``images``, (N, 3, H, W), of the same type: uint8, or floats in [0, 1] (whole multiples of 1/255).

    loss: a name in ``LOSSES``, or a function of yours (docs/attack.md). epsilon: the largest change of a pixel, 0 or 1 ... 255; from the
    image rounded to 8 bits if images are floats. seed, ids: every random start is drawn from the seed and the id of the image, int (N,);
    without ids images are numbered from 0. options: ``step`` (2.55, on the same scale as epsilon), ``iterations`` (5), ``random_start``,
    ``assignment``, ``temperature``, ``distribution``, ``method``, ``restarts``, ``decay``, ``items``, ``distance``, ``budget``,
    ``directions`` and ``probe``, as for an attack of a study (config.yaml); ``method`` may be a function too. The method "cw_l2" looks
    for the smallest change, whatever epsilon is.

    Needs a victim with codewords, and for an attack on a black box one with a database. Raises UserError for
    wrong arguments, and for a network without gradients.
    """
    clean, codebook = _pixels(images), _codebook(victim, codes=loss in ANSWERS)
    settings = _settings(victim, loss, epsilon, options)
    _number("seed", seed, 0, whole=True)
    numbers = np.arange(len(clean)) if ids is None else _array(ids)
    if numbers.shape != (len(clean),) or numbers.dtype.kind not in "iu" or numbers.min() < 0:
        raise UserError(f"ids are {attacks.described(numbers)}, but must be whole numbers ({len(clean)},), 0 or more")
    few = networks.pixels(torch.from_numpy(clean[:4]).to(_device(victim.network)))
    named = victim.network.network if isinstance(victim.network, _Embedding) else victim.network
    _check_length(victim, victims.check(victim.network, few, type(named).__name__))
    adversarial, _, _ = attacks.attack(victim.network, codebook, clean, numbers, settings, int(seed))
    if _array(images).dtype != np.uint8:
        adversarial = adversarial.astype(np.float32) / 255
    if isinstance(images, Tensor):
        return torch.from_numpy(adversarial).to(images.device, images.dtype)
    return adversarial.astype(np.asarray(images).dtype)


def _settings(victim: Victim, loss: str | Callable, epsilon: float, options: dict[str, Any]) -> attacks.Attack:
    """Return the checked settings of an attack."""
    for name in options.keys() - OPTIONS.keys():
        raise UserError(f"attack has no option {name}: known are {', '.join(OPTIONS)}")
    values = OPTIONS | options
    own = {}
    for what, known in (("loss", LOSSES), ("method", METHODS)):
        value = loss if what == "loss" else values["method"]
        if callable(value):
            name = f"{value.__module__}:{getattr(value, '__qualname__', type(value).__name__)}"
            own[name], value = value, name
        elif not isinstance(value, str) or value not in known:
            raise UserError(f"{what} is {value!r}, but must be {', '.join(known)}, or a function")
        values[what] = value
    _number("epsilon", epsilon, 0, 255)
    if 0 < epsilon < 1:
        raise UserError(f"epsilon is {epsilon:g}, but pixels are whole numbers of 0 to 255: allowed are 0 and 1 to 255")
    _number("step", values["step"], 0, 255)
    _number("iterations", values["iterations"], 1, whole=True)
    if values["method"] == "apgd" and values["loss"] in names.SCHEDULED:
        raise UserError(f"method is 'apgd', but compares losses of its steps: that of {values['loss']} changes from step to step")
    if values["method"] in names.LEAST:
        _number(f"iterations of {values['method']}", values["iterations"], names.LEAST[values["method"]])
    if values["method"] in names.UNBOUNDED:
        if values["loss"] != "clipped_margin" and values["loss"] not in own or values["restarts"] != 1:
            raise UserError(f"{values['method']} needs the loss clipped_margin, or a function that is 0 at success, and no restarts")
        epsilon, values["random_start"], values["distribution"] = 255, False, "own"
    _number("restarts", values["restarts"], 1, whole=True)
    _number("temperature", values["temperature"], np.finfo(float).tiny)
    _number("decay", values["decay"], 0)
    for name in ("items", "budget", "directions"):
        _number(name, values[name], 1, whole=True)
    _number("probe", values["probe"], np.finfo(float).tiny, 255)
    if values["distance"] not in retrieval.DISTANCES:
        raise UserError(f"distance is {values['distance']!r}, but must be {' or '.join(retrieval.DISTANCES)}")
    _black_box(values)
    if not isinstance(values["random_start"], bool):
        raise UserError(f"random_start is {values['random_start']!r}, but must be True or False")
    if values["distribution"] not in ("codewords", "own"):
        raise UserError(f"distribution is {values['distribution']!r}, but must be codewords or own")
    if values["assignment"] not in ("inner_product", "euclidean"):
        raise UserError(f"assignment is {values['assignment']!r}, but must be inner_product or euclidean")
    if values["restarts"] > 1 and not values["random_start"]:
        raise UserError(f"restarts is {values['restarts']}, but without random_start all would begin at the clean image")
    feature = "normalised" if victim.normalised else "raw"
    of_methods = {name: values.pop(name) for name in OF_METHODS}
    used = {name: of_methods[name] for name in attacks.options_of(values["method"])}
    return attacks.Attack(epsilon=epsilon, feature=feature, options=used, entry_points=own, **values)


def _black_box(values: dict[str, Any]) -> None:
    """Check what an attack on a black box needs, and set how many steps its budget allows."""
    loss, method = values["loss"], values["method"]
    if method in BLACK_BOX and loss not in ANSWERS:
        raise UserError(f"loss is {loss!r}, but {method} only sees what a retrieval system answers: {' or '.join(ANSWERS)}")
    if loss in ANSWERS and method in names.METHODS:
        raise UserError(f"method is {method!r}, but the loss {loss} has no gradient: {', '.join(BLACK_BOX)}, or a function")
    if loss in ANSWERS and values["restarts"] > 1:
        raise UserError(f"restarts is {values['restarts']}, but the loss {loss} has a budget for one start")
    if method in BLACK_BOX:
        _number(f"budget of {method}", values["budget"], names.requests(method, 1, values["directions"]))
        values["iterations"] = names.steps_within(method, values["budget"], values["directions"])


def search(victim: Victim, images: Any, k: int = 10, kind: str = "ADC") -> np.ndarray:
    """The ``k`` nearest database images of each of ``images``, nearest first, int64 (N, k): places in the order of the database's codes.

    kind: "ADC", or "SDC", which quantizes the query too. Tied images are in the order of the database. A smaller database
    gives fewer than ``k``. Needs a victim with a database.
    """
    codebook = _codebook(victim)
    _number("k", k, 1, whole=True)
    if kind not in retrieval.DISTANCES:
        raise UserError(f"kind is {kind!r}, but must be {' or '.join(retrieval.DISTANCES)}")
    return codebooks.nearest(codebook, features(victim, images), int(k), kind)


def evaluate(victim: Victim, images: Any, labels: Any) -> dict[str, Any]:
    """Score ``images`` with ``labels``, classes int (N,) or multi-hot (N, C), as queries: what a file of metrics of a study has.

    ``evaluate(…)["ADC"]["map"]`` is the mean average precision, a share in [0, 1]. ``pqag.retrieval.DEFINITIONS`` explains every key.
    Needs a victim with a database and its labels. Raises UserError if no query shares a label with any database image.
    """
    images, codebook, own, queries = _pixels(images), _codebook(victim), victim.labels, _labels(labels, "labels")
    if own is None:
        raise UserError("the victim has no labels of its database, by which results are relevant: Victim(network, codebook, labels)")
    if len(queries) != len(images):
        raise UserError(f"there are {len(queries)} labels, but {len(images)} images")
    widths = {one.shape[1] for one in (queries, own) if one.ndim == 2}
    if len(widths) > 1:
        raise UserError(f"labels have {queries.shape[1]} columns, but those of the database have {own.shape[1]}")
    largest = max((int(one.max()) for one in (queries, own) if one.ndim == 1), default=0)
    classes = widths.pop() if widths else largest + 1
    if largest >= classes:
        raise UserError(f"labels have the class {largest}, but the multi-hot ones have columns for 0 to {classes - 1} only")
    of_queries, of_database = (one if one.ndim == 2 else np.eye(classes, dtype=np.uint8)[one] for one in (queries, own))
    found = _features(victim, images)
    try:
        return codebooks.evaluate(codebook, found, of_queries, of_database)
    except ValueError as error:
        raise UserError(str(error)) from None


def fit_codebook(features: Any, bits: int = 16, subspaces: int = 4, method: str = "pq", seed: int = 0, iterations: int = 25) -> Codebook:
    """Fit a codebook to ``features`` of a database, float (N, D), and encode them: codes of ``bits`` bits in M ``subspaces``.

    method: "pq", "opq", which also rotates, or "rq" or "cq", whose codewords are as long as a feature and are added up. There are 2^(bits /
    M) codewords in each sub-space, and at least as many features are needed. Raises UserError where these numbers do not fit one another.
    """
    z = _floats(features, "features", 2, "(N, D)")
    for name, value in (("bits", bits), ("subspaces", subspaces), ("iterations", iterations)):
        _number(name, value, 1, whole=True)
    _number("seed", seed, 0, whole=True)
    known = quantizer.METHODS | {name: getattr(additive, name) for name in names.ADDITIVE}
    if method not in known:
        raise UserError(f"method is {method!r}, but must be {', '.join(known)}")
    if bits % subspaces or (z.shape[1] % subspaces and method != "rq"):
        raise UserError(f"{subspaces} subspaces must divide both the {bits} bits and the {z.shape[1]} numbers of a feature")
    if bits // subspaces > 64 or len(z) < (codewords := names.codewords(bits, subspaces)):
        needed = f"2^{bits // subspaces}"
        raise UserError(f"{bits} bits in {subspaces} subspaces need {needed} features, one for each codeword, but there are {len(z)}")
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # sums over another number of threads differ in their last bits
    try:
        fit = known[method](z, subspaces, codewords, seed, iterations)
    finally:
        faiss.omp_set_num_threads(threads)
    return Codebook(fit.codewords, fit.codes, np.arange(len(z)), fit.rotation, fit.encoder, fit.logits)


def load_victim(source: str | Path, bits: int | None = None) -> Victim:
    """A victim of the workflow, on the CPU: ``source`` is a ``weights.pt`` in ``results/``, its folder, or ``zoo:NAME``.

    One from results has the codebook of ``bits`` (of its only one if None) and the labels of its database. One from the zoo has weights
    alone, and ``fit_codebook`` gives it a database; if it was trained with codebooks, it has the codewords of ``bits``. Raises UserError if
    there is no such victim, or if its files are damaged.
    """
    if names.is_of_zoo(str(source)):
        user_code.check_of_zoo("load_victim", name := str(source) if bits is None else f"{source}/{bits}bits")
        weights = user_code.file_of(name)
        card = files.read_json(weights.with_name("card.json"))
        if bits is not None:
            return Victim(*victims.joint(card["network"], card["width"], str(weights), card["image_size"]))
        if names.is_entry_point(card["network"]):
            raise UserError(f"{source} is for a network built by {card['network']}: build it, load {weights}, and make a Victim of it")
        if names.is_torchvision(card["network"]):
            return Victim(victims.of_torchvision(card["network"], str(weights))[0].eval())
        return Victim(victims.ours(card["network"], card["width"], str(weights), card["image_size"]).eval())
    weights = Path(source, "weights.pt") if Path(source).is_dir() else Path(source)
    if not weights.is_file():
        known = ", ".join(sorted(f"zoo:{card.parent.name}" for card in user_code.ZOO.glob("*/card.json"))) or "none"
        raise UserError(f"{weights} does not exist: give a weights.pt of results/, its folder, or a victim of the zoo ({known})")
    network = checkpoints.load_network(weights)
    found = {int(path.parent.name.removesuffix("bits")): path for path in weights.parent.glob("[0-9]*bits/codebook.h5")}
    lengths = ", ".join(map(str, sorted(found))) or "none"
    if bits is None and len(found) > 1 or bits is not None and bits not in found:
        raise UserError(f"{weights.parent} has codebooks of these bits: {lengths}; name one by bits, which is {bits}")
    if not found:
        return Victim(network)
    codebook = codebooks.read(found[bits] if bits else next(iter(found.values())))
    database = weights.parent / "features/database.h5"
    if not database.is_file():
        return Victim(network, codebook)
    labels, ids = storage.read_hdf5(database, "labels", "ids")
    if not np.array_equal(ids, codebook.ids):
        raise UserError(f"the codebook of {weights.parent} encodes other images than those in {database}")
    return Victim(network, codebook, labels)

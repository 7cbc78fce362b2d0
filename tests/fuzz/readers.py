"""Every reader of files, for the fuzzer: valid files, and a function that reads one and says what it found and by what it is known.

``python -m tests.fuzz.readers READER,… SEED FIRST LAST`` reads the mutations of these numbers, see ``main``.
"""

import contextlib
import dataclasses
import faulthandler
import functools
import gzip
import hashlib
import importlib.util
import io
import json
import os
import re
import resource
import shutil
import signal
import struct
import sys
import tarfile
import tempfile
import traceback
from pathlib import Path
from random import Random
from typing import IO, Any

import h5py
import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from pqag import checkpoints, datasets, files, images, networks, storage, victims
from pqag.audit.rerun import difference
from pqag.errors import UserError
from pqag.job import records
from pqag.show import cells
from pqag.study.model import parse_study, read_config
from pqag.study.rules import RULES, jobs, settings

from .mutate import mutated

ROOT = Path(__file__).parents[2]


def write(contents: dict[str, bytes | str]) -> dict[str, list[bytes]]:
    """Write files; gives, for each, all contents, as what may be mixed."""
    contents = {name: content.encode() if isinstance(content, str) else content for name, content in contents.items()}
    for name, content in contents.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(content)
    return {name: list(contents.values()) for name in contents}


def make_studies():
    yaml = {f"{path.stem}.yaml": path.read_bytes() for path in [ROOT / "config.yaml", *sorted((ROOT / "config").glob("*.yaml"))]}
    return write(yaml | {"tiny.json": json.dumps(read_config(ROOT / "config/tiny.yaml"))})


def read_study(path):
    study = parse_study(read_config(path), path).resolved()
    return files.sha256(path), (files.json_text(study), sorted(map(str, jobs(study))))


# ------------------------------------------------------------------------------------------------------------------------- images


def picture(kind: str, mode: str = "RGB", **options) -> bytes:
    pixels = np.random.default_rng(len(kind)).integers(0, 255, (9, 12, 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(buffer := io.BytesIO(), kind, **options)
    return buffer.getvalue()


def make_images():
    kinds = [("JPEG", "RGB", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"}), ("JPEG", "CMYK", {})]
    kinds += [("PNG", "RGBA", {}), ("PNG", "P", {"transparency": 1}), ("PNG", "I;16", {}), ("TIFF", "RGB", {"compression": "tiff_lzw"})]
    kinds += [(kind, "RGB", {}) for kind in ("BMP", "WEBP", "PPM", "GIF")]
    write({"whole.png": picture("PNG")})
    return write({f"{i}.{kind.lower()}": picture(kind, mode, **options) for i, (kind, mode, options) in enumerate(kinds)})


def read_image(path):
    """Between two others, as fetch reads it: left out with a reason, or stored under the sha256 of its bytes."""
    listing = images.Listing(Path.cwd(), ["whole.png", path, "whole.png"], np.ones((3, 2), np.uint8), 2, ("a", "b"))
    with h5py.File(io.BytesIO(), "w") as file:
        stored = images.store(listing, file, 16, missing=1)
        if reason := stored.skipped.get(path):
            raise UserError(reason)
        return stored.hashes[1], file["images"][1].tobytes()


ROWS = "".join(f"a/{i}.png,{'train' if i < 6 else 'test'},x|{'yz'[i % 2]}\n" for i in range(9))
TABLES = {"a.csv": f"path,split,labels\n{ROWS}", "b.csv": f'"path","labels","split"\r\n"a","x","train"\r\n{ROWS}'}
NUSWIDE = {"ConceptsList/Concepts81.txt": "sky\nwater\ndog", "images/a/0_0.jpg": ""}
for split, rows in {"Train": range(6), "Test": range(6, 10)}.items():
    NUSWIDE[f"ImageList/{split}Imagelist.txt"] = "\n".join(f"a\\{i}_{i}.jpg" for i in rows)
    for number, concept in enumerate(("sky", "water", "dog")):
        NUSWIDE[f"Groundtruth/TrainTestLabels/Labels_{concept}_{split}.txt"] = "\n".join(f"{(i + number) % 3 // 2}" for i in rows)


def read_listing(path):
    listing = images.manifest(Path(path)) if path.endswith(".csv") else images.nuswide(Path(), 2)
    return listing.files.get(path), (listing.names, listing.labels.tolist(), listing.train, listing.classes)


def make_known(name: str, size: int, every: bool = True):
    """Plain files; with ``every`` gzip files and archives too. Neither the archive's sha256 nor a known content is asked for."""
    random = np.random.default_rng(5)
    dataset, content = datasets.DATASETS[name], {}
    for file in dataset.files:
        labels = np.arange(size, dtype=np.uint8) % 10
        pixels = random.integers(0, 256, (size, 3072 if name == "cifar10" else 784), np.uint8)
        idx = struct.pack(">2i", 0x801, size) + labels.tobytes(), struct.pack(">4i", 0x803, size, 28, 28) + pixels.tobytes()
        content[f"plain/{file}"] = np.hstack([labels[:, None], pixels]).tobytes() if name == "cifar10" else idx["images" in file]
    decode = functools.partial(dataset.decode, **({"size": size} if name == "cifar10" else {"train": size, "test": size}))
    datasets.DATASETS[name] = dataclasses.replace(dataset, decode=decode, strict=False, archive="a.tar", archive_sha256=None)
    made = write(content)
    if every:
        made |= write({f"gz/{Path(file).name}.gz": gzip.compress(each) for file, each in content.items()})
        for mode in ("", "gz", "bz2", "xz"):
            with tarfile.open(f"{mode}.tar", f"w:{mode}") as tar:
                tar.add("plain")
            made[f"{mode}.tar"] = [Path(f"{mode}.tar").read_bytes()]
    return made


def read_known(name: str, path: str):
    found = datasets.fetch(name, path if path.endswith(".tar") else path.split("/")[0])
    return found.sha256, [hashlib.sha256(array.tobytes()).digest() for array in (found.raw.images, found.raw.labels)]


# ------------------------------------------------------------------------------------------------------------------ results, weights

ARRAYS = {"query/images": np.arange(96, dtype=np.uint8).reshape(2, 3, 4, 4), "features": np.linspace(0, 1, 6), "n": np.int64(3)}


def make_results():
    storage.write_hdf5("a.h5", ARRAYS, {"title": "ü", "train": 6, "classes": ["a", "b"]})
    checkpoints.save("b.pt", {"weights": {"w": torch.arange(6.0)}})
    made = {
        "c.json": files.json_text({"ADC": {"values": [0.5, 1, 1e-9]}, "name": "é"}),
        "d.csv": "epoch,loss\n1,0.5\n2,0.25\n",
    }
    made = write(made | {name: Path(name).read_bytes() for name in ("a.h5", "b.pt")})
    for name in made:
        record("evaluate", {}, {}, None, name)
        shutil.copyfile(name, f"true.{name}")
    return made | write({f"{name}.prov.json": Path(f"{name}.prov.json").read_bytes() for name in "abcd"})


def read_result(path):
    """A step takes none that was changed. ``audit rerun`` compares it with the true one; HDF5 gives the true arrays or none."""
    with contextlib.suppress(UserError), records.unchanged([path]):
        return files.sha256(path), Path(path).read_bytes()
    if path.endswith(records.SUFFIX):
        raise UserError("refused")
    found = difference(Path(path), Path(f"true.{path}"))
    assert found >= 0, found
    arrays = [array.tobytes() for array in storage.read_hdf5(path, *ARRAYS)] if path.endswith(".h5") else []
    assert arrays in ([], [array.tobytes() for array in ARRAYS.values()])
    raise UserError("compared")


class Payload:
    def __reduce__(self):
        return os.system, ("true",)


def make_checkpoints():
    torch.manual_seed(0)
    network = networks.build("vgg11", 3, 0.01)
    checkpoints.save_network("ours.pt", network, "vgg11", 0.01, 3)
    small = {name: value for name, value in network.state_dict().items() if value.numel() < 1000}
    for name, value in {"state": network.state_dict(), "small": small, "code": {"w": Payload()}}.items():
        torch.save(value, f"{name}.pt")
        torch.save(value, f"{name}.old.pt", _use_new_zipfile_serialization=False)
    made = {str(path): path.read_bytes() for path in Path().glob("*.pt")}
    return write(made | {"state.safetensors": save(network.state_dict()), "small.safetensors": save(small)})


def read_checkpoint(path):
    for read in (checkpoints.load_network, functools.partial(victims.ours, "vgg11", 0.01)):
        with contextlib.suppress(UserError):
            read(path)
    return files.sha256(path), sorted((name, value.shape) for name, value in victims.read_weights(path, "vgg11", 0.01).items())


# ----------------------------------------------------------------------------------------------------------------------- the audit

SPECIFICATION = importlib.util.spec_from_file_location("audit_command", ROOT / "scripts/audit.py")
command = importlib.util.module_from_spec(SPECIFICATION)
SPECIFICATION.loader.exec_module(command)
STUDY, LIST = Path("results/tiny"), "results/tiny/MANIFEST.sha256"
NUMBER = re.compile(r"\\cell\{(.*?)\}\{(.*?)\}")


def record(rule, wildcards, inputs, study, *outputs):
    """Write the record of a job."""
    job = records.Job(rule, RULES[rule].path, wildcards, settings(rule, wildcards, study))
    made = records.statement(job, {one: files.sha256(one) for one in outputs}, inputs, [], records.now(), True)
    files.write_json(Path(outputs[0]).with_name(Path(outputs[0]).name.split(".", 1)[0] + records.SUFFIX), made)


def make_audited():
    """A study of one score, one table with one number, study.json and the list."""
    parts = {"train": 1000, "database": 300, "queries": 60}
    config = {"study": "tiny", "datasets": {"synthetic": parts}, "models": {"vgg16": {}}, "attacks": {"aod": {"loss": "aod"}}, "bits": [16]}
    files.write_json("config.yaml", config | {"figures": {"models": []}})
    study = parse_study(read_config("config.yaml")).resolved() | {"configfiles": {"config.yaml": files.sha256("config.yaml")}}
    metrics, tex = f"{STUDY}/synthetic/vgg16-pretrained/seed0/16bits/metrics/clean.json", f"{STUDY}/tables/table1.tex"
    files.write_json(metrics, {"ADC": {"map": 0.25}, "SDC": {"map": 0.5}})
    wildcards = {"dataset": "synthetic", "seed": "0", "model": "vgg16", "training": "pretrained", "bits": "16"}
    record("evaluate_clean", wildcards, {}, study, metrics)
    table = cells.Cells("table1", {metrics: cells.read(metrics)})
    mark = table.put("clean/vgg16", [(metrics, "/ADC/map")], ".1f", 100)
    files.write_text(tex, f"\\providecommand{{\\cell}}[2]{{#2}}VGG16 {table.latex(mark)}\n")
    row = [{"text": ["VGG16"], "span": 1}, {"text": table.pieces(mark), "span": 1}]
    layout = {"caption": ["VGG16"], "heads": 1, "header": [[{"text": ["a"], "span": 2}]], "groups": [[row]]}
    files.write_json(f"{STUDY}/tables/table1.cells.json", {"cells": table.entries, "names": ["VGG16"], "table": layout})
    record("table", {"table": "table1"}, {metrics: files.sha256(metrics)}, study, tex, f"{STUDY}/tables/table1.cells.json")
    files.write_json(STUDY / "study.json", study)
    record("study", {}, {}, study, f"{STUDY}/study.json")
    inputs = {str(path): files.sha256(path) for path in sorted(STUDY.rglob("*")) if path.is_file()}
    files.write_text(LIST, "".join(f"{digest}  {name}\n" for name, digest in inputs.items()))
    record("manifest", {}, inputs, study, LIST)
    shutil.copytree(STUDY, "results/true")
    return write({str(path): path.read_bytes() for path in sorted(STUDY.rglob("*")) if path.is_file()})


def audited(*arguments: str) -> tuple[int, str]:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        return command.main([*arguments]), out.getvalue()


def read_audited(path):
    """Verify finds every change; the other verbs end in words. With all records made to fit, the table has no number but the true ones."""
    status, words = audited("verify", "tiny")
    if status == 0:
        return files.sha256(path), Path(path).read_bytes()
    if path.endswith("study.json"):
        assert "study.json: is missing or damaged" in words and "is not in the study" not in words, words
    others = [
        ("html", "tiny"),
        ("why", path),
        ("why", "table1:clean/vgg16", "--study", "tiny"),
        ("diff", "tiny", "results/true"),
        None,
        None,
    ]
    if other := others[Path(path).stat().st_size % len(others)]:
        status, words = audited(*other)
    elif not path.endswith(records.SUFFIX) and path != LIST:
        refit(path)
        status, words = audited("verify", "tiny")
        tex, true = (Path(folder, "tables/table1.tex").read_text(errors="replace") for folder in (STUDY, "results/true"))
        typed = re.search(r"\d", NUMBER.sub("", tex).replace("VGG16", "").replace("[2]{#2}", ""))
        assert status or (set(NUMBER.findall(tex)) <= set(NUMBER.findall(true)) and not typed), tex
    raise UserError(words.splitlines()[-1] if status == 2 else "a fault")


def refit(path):
    """Make the record of a file fit it, the list fit all, and the record of the list fit that."""
    for maker, names in ((records.record_of(path), [path]), (Path(f"{STUDY}/MANIFEST.prov.json"), [])):
        content = records.read(maker)
        if not names:
            names = [LIST, *(line.split("  ", 1)[1] for line in Path(LIST).read_text().splitlines())]
            Path(LIST).write_text("".join(f"{files.sha256(name)}  {name}\n" for name in names[1:]))
        for one in (*content["subject"], *content["predicate"]["buildDefinition"]["resolvedDependencies"]):
            if one["name"] in names:
                one["digest"]["sha256"] = files.sha256(one["name"])
        Path(maker).write_text(files.json_text(records.sealed(content)))


#: By its name: what fills the working directory and gives the files to change, with what may be mixed into each; and what reads one.
#: The second gives what the content is known by, and what was found; UserError: it is refused.
READERS = {
    "study files": (make_studies, read_study),
    "manifests": (lambda: write(TABLES), read_listing),
    "lists of NUS-WIDE": (lambda: {name: all for name, all in write(NUSWIDE).items() if name.endswith(".txt")}, read_listing),
    "images": (make_images, read_image),
    "Fashion-MNIST": (lambda: make_known("fashion_mnist", 10), functools.partial(read_known, "fashion_mnist")),
    "CIFAR-10": (lambda: make_known("cifar10", 10), functools.partial(read_known, "cifar10")),
    "full Fashion-MNIST": (lambda: make_known("fashion_mnist", 60_000, False), functools.partial(read_known, "fashion_mnist")),
    "full CIFAR-10": (lambda: make_known("cifar10", 10_000, False), functools.partial(read_known, "cifar10")),
    "results": (make_results, read_result),
    "checkpoints": (make_checkpoints, read_checkpoint),
    "audit": (make_audited, read_audited),
}

# ------------------------------------------------------------------------------------------------------------------------ the worker

#: Seconds for one file, and bytes of memory that reading it may add.
PATIENCE, MEMORY = 30, 2**30
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect", "pickle.find_class")


def main(names: list[str], seed: int, first: int, last: int) -> None:
    """Read the mutations ``first`` to ``last`` (excluded) for each reader in this process, which a hang or a crash ends.

    Prints lines of JSON: reader and number of each before it is read, then these, the file and the fault, None where the reader kept its
    promise.
    """
    told, ran = os.fdopen(os.dup(1), "w", buffering=1), []
    sys.addaudithook(lambda event, arguments: ran.append(event) if event in FORBIDDEN else None)
    faulthandler.register(signal.SIGALRM, chain=True)  # prints where a hang is; then the signal ends the process
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            read_mutations(name, seed, range(first, last), ran, told)


def read_mutations(name: str, seed: int, numbers: range, ran: list[str], told: IO[str]) -> None:
    """Read the mutations in the working directory; ``ran`` gets what a file makes Python run."""
    make, read = READERS[name]
    made = make()
    state = {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}

    @functools.cache
    def true(path):
        restore(state)
        return outcome(read, path)[1]

    true(min(made))  # which loads what it needs
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2 * MEMORY, resource.RLIM_INFINITY))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in numbers:
        random = Random(f"{name} {seed} {number}")
        path = random.choice(sorted(made))
        wanted = true(path)
        restore(state)
        Path(path).write_bytes(mutated(state[path], made[path], random))
        print(json.dumps([name, number]), file=told)
        ran.clear()
        signal.alarm(PATIENCE)
        fault, found = outcome(read, path)
        signal.alarm(0)
        if found and wanted and found[0] == wanted[0] and found[1] != wanted[1]:
            fault = "it counts as the true content, but gives another value"
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
        if ran or grown > MEMORY // 1024:
            fault = f"it ran {ran} and took {grown // 1024} MiB"
            peak += grown
        print(json.dumps([name, number, path, fault]), file=told)


def outcome(read, path: str) -> tuple[str | None, tuple[Any, str] | None]:
    """The fault of reading a file, and what it is known by with the sha256 of what was found."""
    try:
        identity, value = read(path)
        return None, (identity, hashlib.sha256(repr(value).encode("utf-8", "surrogatepass")).hexdigest())
    except UserError as error:
        words = str(error)
        return (None if 0 < len(words) < 1500 and "\n" not in words else f"no sentence: {words[:300]!r}"), None
    except Exception:
        return traceback.format_exc(limit=-6), None


def restore(state: dict[str, bytes]) -> None:
    for path in {str(path) for path in Path().rglob("*") if path.is_file()} - state.keys():
        Path(path).unlink()
    for path, content in state.items():
        if not Path(path).is_file() or Path(path).read_bytes() != content:
            Path(path).write_bytes(content)


if __name__ == "__main__":
    main(sys.argv[1].split(","), *map(int, sys.argv[2:5]))

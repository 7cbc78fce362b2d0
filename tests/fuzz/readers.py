"""Every reader of files, for the fuzzer: valid files, and a function that reads one and says what it found and by what it is known.

``python -m tests.fuzz.readers READER SEED FIRST LAST [SIZE]`` reads the mutations of these numbers and prints the faults; see ``main``.
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
import struct
import sys
import tarfile
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np

from pqag import datasets, files, images, storage
from pqag.errors import UserError
from pqag.job import records
from pqag.study.model import parse_study, read_config
from pqag.study.rules import RULES, jobs, settings

from .mutate import mutated

ROOT = Path(__file__).parents[2]


class Reader(NamedTuple):
    """``make`` fills the working directory; gives the files to change, with valid contents of others of the same kind.

    ``read`` reads the file at a path; gives what its content is known by and what was found. UserError: it is refused.
    """

    make: Callable[[], dict[str, list[bytes]]]
    read: Callable[[str], tuple[Any, Any]]


def write(files: dict[str, bytes]) -> dict[str, list[bytes]]:
    for name, content in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(content)
    return {name: list(files.values()) for name in files}


# -------------------------------------------------------------------------------------------------------------------- study files


def make_studies():
    yaml = {f"{path.stem}.yaml": path.read_bytes() for path in [ROOT / "config.yaml", *sorted((ROOT / "config").glob("*.yaml"))]}
    return write(yaml | {"tiny.json": json.dumps(read_config(ROOT / "config/tiny.yaml")).encode()})


def read_study(path):
    study = parse_study(read_config(path), path).resolved()
    return files.sha256(path), (files.json_text(study), sorted(map(str, jobs(study))))


# ------------------------------------------------------------------------------------------------------------------------- images


def picture(kind: str, mode: str = "RGB", **options) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    pixels = np.random.default_rng(len(kind)).integers(0, 255, (9, 12, 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def make_images():
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    kinds = [
        ("JPEG", "RGB", {"exif": exif}),
        ("JPEG", "CMYK", {}),
        ("PNG", "RGBA", {}),
        ("PNG", "P", {"transparency": 1}),
        ("GIF", "P", {}),
    ]
    kinds += [
        ("BMP", "RGB", {}),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("WEBP", "RGB", {}),
        ("PPM", "RGB", {}),
        ("PNG", "I;16", {}),
    ]
    return write({f"{i}.{kind.lower()}": picture(kind, mode, **options) for i, (kind, mode, options) in enumerate(kinds)})


def read_image(path):
    """Between two others, as fetch reads it: left out with a reason, or stored under the sha256 of its bytes."""
    import h5py

    Path("whole.png").write_bytes(picture("PNG"))
    listing = images.Listing(Path.cwd(), ["whole.png", path, "whole.png"], np.eye(3, 2, dtype=np.uint8)[[0, 0, 0]] | 1, 2, ("a", "b"))
    with h5py.File(io.BytesIO(), "w") as file:
        stored = images.store(listing, file, 16, missing=1)
        if reason := stored.skipped.get(path):
            raise UserError(reason)
        return stored.hashes[1], file["images"][1].tobytes()


MANIFEST = b"path,split,labels\n" + b"".join(b"a/%d.png,%s,x|%s\n" % (i, (b"test", b"train")[i < 6], b"yz"[i % 2 :][:1]) for i in range(9))


def read_manifest(path):
    listing = images.manifest(Path(path))
    return listing.files[path], (listing.names, listing.labels.tolist(), listing.train, listing.classes)


def make_nuswide():
    concepts = ("sky", "water", "dog")
    lists = {"Train": [f"a\\{i}_{i}.jpg" for i in range(6)], "Test": [f"b\\{i}_{i}.jpg" for i in range(6, 10)]}
    content = {"ConceptsList/Concepts81.txt": "\n".join(concepts), "images/a/0_0.jpg": ""}
    for split, names in lists.items():
        content[f"ImageList/{split}Imagelist.txt"] = "\n".join(names)
        for number, concept in enumerate(concepts):
            labels = "\n".join(str(int((row + number) % 3 < 2)) for row in range(len(names)))
            content[f"Groundtruth/TrainTestLabels/Labels_{concept}_{split}.txt"] = labels
    made = write({name: text.encode() for name, text in content.items()})
    return {name: others for name, others in made.items() if not name.startswith("images")}


def read_nuswide(path):
    listing = images.nuswide(Path(), 2)
    return listing.files[path], (listing.names, listing.labels.tolist(), listing.train, listing.classes)


# ----------------------------------------------------------------------------------------------------------------- known data sets


def make_known(name: str, size: int):
    """A folder of plain files, one of gzip files, and archives. The archive's own sha256 and the known contents are not asked for."""
    random = np.random.default_rng(5)
    dataset, content = datasets.DATASETS[name], {}
    for number, file in enumerate(dataset.files):
        count = size * 6 if name == "fashion_mnist" and number < 2 else size
        labels = np.arange(count, dtype=np.uint8) % 10
        if name == "cifar10":
            content[file] = np.hstack([labels[:, None], random.integers(0, 256, (count, 3072), np.uint8)]).tobytes()
        elif "labels" in file:
            content[file] = struct.pack(">2i", 0x801, count) + labels.tobytes()
        else:
            content[file] = struct.pack(">4i", 0x803, count, 28, 28) + random.integers(0, 256, (count, 28, 28), np.uint8).tobytes()
    sizes = {"train": 6 * size, "test": size} if name == "fashion_mnist" else {"size": size}
    changed = {"decode": functools.partial(dataset.decode, **sizes), "strict": False, "archive": "a.tar", "archive_sha256": None}
    datasets.DATASETS[name] = dataclasses.replace(dataset, **changed)
    made = write({f"plain/{file}": each for file, each in content.items()})
    if size >= 1000:
        return made
    made |= write({f"gz/{file}.gz": gzip.compress(each) for file, each in content.items()})
    for mode in ("", "gz", "bz2", "xz"):
        with tarfile.open(f"{mode or 'plain'}.tar", f"w:{mode}") as tar:
            tar.add("plain")
        made[f"{mode or 'plain'}.tar"] = [Path(f"{mode or 'plain'}.tar").read_bytes()]
    return made


def read_known(name: str, path: str):
    found = datasets.fetch(name, path if path.endswith(".tar") else path.split("/")[0])
    return found.sha256, [hashlib.sha256(array.tobytes()).digest() for array in (found.raw.images, found.raw.labels)]


# ----------------------------------------------------------------------------------------------------------------- between the steps

ARRAYS = {"query/images": np.arange(96, dtype=np.uint8).reshape(2, 3, 4, 4), "features": np.linspace(0, 1, 6), "n": np.int64(3)}


def make_results():
    """Results with their records."""
    from pqag import checkpoints

    storage.write_hdf5("a.h5", ARRAYS, {"title": "ü", "train": 6, "classes": ["a", "b"]})
    checkpoints.save("b.pt", {"weights": {"w": checkpoints.torch.arange(6.0)}})
    Path("c.json").write_text(files.json_text({"ADC": {"map": 0.25, "average_precision": [0.5, 1, 1e-9]}, "name": "é"}))
    Path("d.csv").write_text("epoch,loss\n1,0.5\n2,0.25\n")
    made = write({name: Path(name).read_bytes() for name in ("a.h5", "b.pt", "c.json", "d.csv")})
    for name, others in made.items():
        record(name, "evaluate", {})
        shutil.copyfile(name, f"before.{name}")
        others[:] = [Path(name).read_bytes()]
    return made


def make_inputs():
    return make_results() | write({f"{name}.prov.json": Path(f"{name}.prov.json").read_bytes() for name in "abcd"})


def read_input(path):
    """A step takes nothing that differs from what its record says."""
    with records.unchanged([path]) as digests:
        return digests[path], Path(path).read_bytes()


def read_hdf5(path):
    """A file that was changed on purpose with its record, or outside any."""
    found = [array.tobytes() for array in storage.read_hdf5(path, *ARRAYS)], storage.read_attributes(path), storage.dataset_names(path)
    return files.sha256(path), found


def read_again(path):
    """What ``audit rerun`` says of a result beside the true one: nothing differs only where no number does."""
    from pqag.audit.rerun import difference

    found = difference(Path(path), Path(f"before.{path}"))
    assert found >= 0, found
    return files.sha256(path), found


# ---------------------------------------------------------------------------------------------------------------------- checkpoints


def make_checkpoints():
    import torch
    from safetensors.torch import save

    from pqag import checkpoints, networks

    torch.manual_seed(0)
    network = networks.build("vgg11", 3, 0.01)
    checkpoints.save_network("ours.pt", network, "vgg11", 0.01, 3)
    small = {name: value for name, value in network.state_dict().items() if value.numel() < 1000}
    for name, value in {"state": network.state_dict(), "small": small, "code": {"w": Payload()}}.items():
        torch.save(value, f"{name}.pt")
        torch.save(value, f"{name}.old.pt", _use_new_zipfile_serialization=False)
    made = {str(path): path.read_bytes() for path in Path().glob("*.pt")}
    return write(made | {"state.safetensors": save(network.state_dict()), "small.safetensors": save(small)})


class Payload:
    def __reduce__(self):
        return os.system, ("true",)


def read_checkpoint(path):
    from pqag import checkpoints, victims

    if path == "ours.pt":
        with contextlib.suppress(UserError):
            checkpoints.load_network(path)
    with contextlib.suppress(UserError):
        victims.ours("vgg11", 0.01, path)
    return files.sha256(path), sorted((name, value.shape) for name, value in victims.read_weights(path, "vgg11", 0.01).items())


# ----------------------------------------------------------------------------------------------------------------------- the audit

SPECIFICATION = importlib.util.spec_from_file_location("audit_command", ROOT / "scripts/audit.py")
command = importlib.util.module_from_spec(SPECIFICATION)
SPECIFICATION.loader.exec_module(command)
NUMBER = re.compile(r"\\cell\{(.*?)\}\{(.*?)\}")


def record(name: str, rule: str, inputs: dict[str, str], *more: str, study: Any = None, wildcards: Any = {}) -> None:  # noqa: B006
    """Write the record of a job that made ``name`` and ``more``."""
    asked = settings(rule, wildcards, study)
    job = records.Job(rule, RULES[rule].path, wildcards, asked)
    made = {one: files.sha256(one) for one in (name, *more)}
    target = Path(name).with_name(Path(name).name.split(".", 1)[0] + records.SUFFIX)
    files.write_json(target, records.statement(job, made, inputs, [], records.now(), True))


def make_audited():
    """A study of one score, one table with one number, study.json and the list."""
    from pqag.show import cells

    config = Path("config.yaml")
    config.write_bytes((ROOT / "config/tiny.yaml").read_bytes())
    study = parse_study(read_config(config)).resolved() | {"configfiles": {"config.yaml": files.sha256(config)}}
    folder = Path("results/tiny")
    metrics, tex = f"{folder}/synthetic/vgg16-pretrained/seed0/16bits/metrics/clean.json", f"{folder}/tables/table1.tex"
    files.write_json(metrics, {"ADC": {"map": 0.25}, "SDC": {"map": 0.5}})
    wildcards = {"dataset": "synthetic", "seed": "0", "model": "vgg16", "training": "pretrained", "bits": "16"}
    record(metrics, "evaluate_clean", {}, study=study, wildcards=wildcards)
    table = cells.Cells("table1", {metrics: cells.read(metrics)})
    mark = table.put("clean/vgg16", [(metrics, "/ADC/map")], ".1f", 100)
    files.write_text(tex, f"\\providecommand{{\\cell}}[2]{{#2}}VGG16 {table.latex(mark)}\n")
    layout = {"caption": ["VGG16"], "heads": 1, "header": [[{"text": ["a"], "span": 2}]]}
    layout["groups"] = [[[{"text": ["VGG16"], "span": 1}, {"text": table.pieces(mark), "span": 1}]]]
    listing = f"{folder}/tables/table1.cells.json"
    files.write_json(listing, {"cells": table.entries, "names": ["VGG16"], "table": layout})
    record(tex, "table", {metrics: files.sha256(metrics)}, listing, study=study, wildcards={"table": "table1"})
    files.write_json(folder / "study.json", study)
    record(f"{folder}/study.json", "study", {}, study=study)
    made = sorted(str(path) for path in folder.rglob("*") if path.is_file())
    files.write_text(folder / "MANIFEST.sha256", "".join(f"{files.sha256(name)}  {name}\n" for name in made))
    record(f"{folder}/MANIFEST.sha256", "manifest", {name: files.sha256(name) for name in made}, study=study)
    shutil.copytree(folder, "results/true")
    contents = {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    assert audited("verify", "tiny")[0] == 0, audited("verify", "tiny")[1]
    return write(contents)


def audited(*arguments: str) -> tuple[int, str]:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        status = command.main([*arguments])
    return status, out.getvalue()


def read_audited(path):
    """Verify names a fault for every changed byte; the other verbs end in words."""
    status, words = audited("verify", "tiny")
    if status == 0:
        return files.sha256(path), Path(path).read_bytes()
    cause = "damaged" if path.endswith("study.json") else "fault"
    assert cause in words and "Traceback" not in words, words
    assert "belongs to a job that is not in the study" not in words or not path.endswith("study.json"), words
    others = [
        ("html", "tiny"),
        ("why", path, "--study", "tiny"),
        ("why", "table1:clean/vgg16", "--study", "tiny"),
        ("diff", "tiny", "results/true"),
    ]
    status, words = audited(*others[len(Path(path).read_bytes()) % 4])
    raise UserError(words.splitlines()[-1] if status == 2 else "a fault")


def read_forged(path):
    """Record and list made to fit: what verify then passes has no other number in the table than the true ones."""
    if not path.endswith(records.SUFFIX) and not path.endswith("MANIFEST.sha256"):
        refit(path)
    status, words = audited("verify", "tiny")
    if status:
        raise UserError(words.splitlines()[-1])
    tex, true = (Path(folder, "tables/table1.tex").read_text(errors="replace") for folder in ("results/tiny", "results/true"))
    printed, names = NUMBER.findall(tex), NUMBER.findall(true)
    assert set(printed) <= set(names) and not re.search(r"\d", NUMBER.sub("", tex).replace("VGG16", "").replace("[2]{#2}", "")), tex
    return files.sha256(path), Path(path).read_bytes()


def refit(path):
    maker = records.record_of(path)
    assert maker, path
    content = records.read(maker)
    for one in content["subject"]:
        if one["name"] == path:
            one["digest"]["sha256"] = files.sha256(path)
    files.write_json(maker, records.sealed(content))
    listed = Path("results/tiny/MANIFEST.sha256")
    names = [line.split("  ", 1)[1] for line in listed.read_text().splitlines()]
    files.write_text(listed, "".join(f"{files.sha256(name)}  {name}\n" for name in names))
    content = records.read("results/tiny/MANIFEST.prov.json")
    for one in (*content["subject"], *content["predicate"]["buildDefinition"]["resolvedDependencies"]):
        if one["name"] in (*names, str(listed)):
            one["digest"]["sha256"] = files.sha256(one["name"])
    files.write_json("results/tiny/MANIFEST.prov.json", records.sealed(content))


def read_record(path):
    found = records.read(path)
    if records.sealed_sha256(found) != files.sha256(path):
        raise UserError("its seal is broken")
    return files.sha256(path), found


READERS = {
    "study files": Reader(make_studies, read_study),
    "manifests": Reader(
        lambda: write({"a.csv": MANIFEST, "b.csv": b'"' + MANIFEST.replace(b",", b'","').replace(b"\n", b'"\r\n"')[:-1]}), read_manifest
    ),
    "lists of NUS-WIDE": Reader(make_nuswide, read_nuswide),
    "images": Reader(make_images, read_image),
    "Fashion-MNIST": Reader(lambda: make_known("fashion_mnist", 10), functools.partial(read_known, "fashion_mnist")),
    "CIFAR-10": Reader(lambda: make_known("cifar10", 10), functools.partial(read_known, "cifar10")),
    "full Fashion-MNIST": Reader(lambda: make_known("fashion_mnist", 10_000), functools.partial(read_known, "fashion_mnist")),
    "full CIFAR-10": Reader(lambda: make_known("cifar10", 10_000), functools.partial(read_known, "cifar10")),
    "inputs of a step": Reader(make_inputs, read_input),
    "HDF5": Reader(lambda: {name: one for name, one in make_results().items() if name == "a.h5"}, read_hdf5),
    "results made again": Reader(make_results, read_again),
    "checkpoints": Reader(make_checkpoints, read_checkpoint),
    "records": Reader(lambda: {name: one for name, one in make_audited().items() if name.endswith(records.SUFFIX)}, read_record),
    "audited study": Reader(make_audited, read_audited),
    "forged study": Reader(make_audited, read_forged),
}

# ------------------------------------------------------------------------------------------------------------------------ the worker

#: Seconds for one file, and bytes of memory that reading it may add.
PATIENCE, MEMORY = 10, 2**30
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect", "pickle.find_class")


def main(name: str, seed: int, first: int, last: int) -> None:
    """Read the mutations ``first`` to ``last`` (excluded) in this process, which a hang or a crash ends.

    Prints a line of JSON for each: its number before it is read, then its fault, None where the reader kept its promise.
    """
    reader, told = READERS[name], os.fdopen(os.dup(1), "w", buffering=1)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        made = reader.make()
        state = {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}
        true = functools.cache(lambda path: _outcome(reader, path)[1])
        true(sorted(made)[0])  # which loads what it needs
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2 * MEMORY,) * 2)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        caught: list[str] = []
        sys.addaudithook(lambda event, arguments: caught.append(f"{event} {arguments}") if event in FORBIDDEN else None)
        for number in range(first, last):
            random = Random(f"{name} {seed} {number}")
            path = random.choice(sorted(made))
            wanted = true(path)
            _restore(state)
            content = mutated(state[path], made[path], random)
            print(json.dumps(number), file=told)
            Path(path).write_bytes(content)
            del caught[:]
            faulthandler.dump_traceback_later(PATIENCE, exit=True)
            fault, found = _outcome(reader, path)
            faulthandler.cancel_dump_traceback_later()
            if found and wanted and found[1] != wanted[1] and found[0] == wanted[0]:
                fault = "it counts as the true content, but gives another value"
            if caught:
                fault = f"it ran {caught[0]}"
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
            if grown > MEMORY // 1024:
                fault, peak = f"reading it took {grown // 1024} MiB", peak + grown
            print(json.dumps([number, path, fault]), file=told)


def _outcome(reader: Reader, path: str) -> tuple[str | None, tuple[Any, str] | None]:
    """The fault of reading a file, and what it is known by with the sha256 of what was found."""
    try:
        identity, value = reader.read(path)
        return None, (identity, hashlib.sha256(repr(value).encode("utf-8", "surrogatepass")).hexdigest())
    except UserError as error:
        words = str(error)
        return (None if 0 < len(words) < 1500 and "\n" not in words else f"no sentence: {words[:300]!r}"), None
    except Exception:
        return traceback.format_exc(limit=-6), None


def _restore(state: dict[str, bytes]) -> None:
    for path in [path for path in Path().rglob("*") if path.is_file() and str(path) not in state]:
        path.unlink()
    for path, content in state.items():
        if not Path(path).is_file() or Path(path).read_bytes() != content:
            Path(path).write_bytes(content)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))

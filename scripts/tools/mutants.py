"""Check that the tests notice faults: put one single-line fault at a time into a copy of this repository and run tests on the copy.

    .venv/bin/python scripts/tools/mutants.py --csv mutants.csv --survivors

A fault is found if the tests of its module fail or do not end within the time limit. With ``--survivors`` each fault that they miss is
tried again with every test that ``make test`` runs, apart from those that only compare source text. This is no part of CI: the tests of the
modules take about 20 minutes for all faults, and every survivor takes as long as ``make test``. The copies are in the system's folder for
temporary files; the repository itself is never changed. Only the standard library is needed, and an environment that can run the tests.
"""

import argparse
import csv
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

#: The seconds that the tests of a module, and all tests, may take.
MODULE_LIMIT, SUITE_LIMIT = 600, 3600
#: Leaves out tests that look at the text of the code instead of what it does, since they may notice a fault for the wrong reason.
SELECTED = "not test_style and not test_mutants"
#: The file names that a module has, or had in older commits, where it is not the name of the module here.
FILES = {"config": ("model.py", "config.py")}
#: Modules that are tested with another.
TESTED_WITH = {"additive": "encoders"}

#: By module: the text to replace, which occurs exactly once; the text to put in its place; what the fault is.
FAULTS = {
    "retrieval": [
        ('if kind == "SDC":', 'if kind == "ADC":', "SDC and ADC swapped"),
        ("np.maximum(n - 1, 1)", "np.maximum(n, 1)", "share of relevant items in a tie over n, not n - 1"),
        ("cut - n0[early])", "cut - n0[early] + 1)", "one place too many before the cut"),
        ("np.minimum(positives, cut)", "positives", "precision before the cut divided by all relevant items"),
        ("order[round(quantile", "order[int(quantile", "place of a quantile rounded down"),
        ("values = values[:, ~np.isnan(values[0])]", "values = np.nan_to_num(values)", "a query without relevant items counts as 0"),
        ("r[low] = hits[high] - hits[low]", "r[low] = 1", "one relevant item in every tie of several"),
    ],
    "quantizer": [
        ("np.min_scalar_type(codewords - 1)", "np.min_scalar_type(codewords)", "256 codewords take two bytes"),
        ("(rivals > 1)", "(rivals > 9)", "near ties of codewords decided in float32"),
        ("max_points_per_centroid=len(features),", "max_points_per_centroid=256,", "k-means on a sample"),
        ("replace(fit(features @ rotation.T,", "replace(fit(features @ rotation,", "OPQ turns features the other way"),
        ("seed=seed,", "seed=0,", "k-means always with seed 0"),
    ],
    "losses": [
        ("(self.codewords**2).sum(2) / 2", "(self.codewords**2).sum(2)", "Euclidean assignment without the half"),
        ("scores / self.temperature", "scores * self.temperature", "multiplied by the temperature"),
        ("mask = kept > -0.5", "mask = kept > 0.5", "HAG drops what has not changed yet"),
        ("return _others(scores, codes).amax(2)", "return scores.amax(2)", "a margin to the best codeword, be it the clean one"),
    ],
    "goals": [
        (" - _shares(codes[~relevant], distances)", "", "the centre code ignores the items of other classes"),
        ("labels[(labels * known.labels).any(1)] = 0", "pass", "a query that has the target's label counts for t-mAP"),
    ],
    "methods": [
        ("decay * momentum + gradient / norm", "decay * momentum + gradient", "gradients of momentum PGD without their norm"),
        ("0.25 * (x - previous)", "0.25 * (previous - x)", "the momentum of APGD goes back"),
        ("_where(halved, best, x), _where(", "x, _where(", "APGD does not return to its best point"),
        ("(low + high) / 2, 10 * c", "(low + high) / 2, c", "C&W never tries a larger weight"),
        (" & (sizes.detach() < least)", "", "C&W keeps the last change instead of the smallest"),
        ("x = (w.tanh() / ENDS + 1) / 2", "x = ((w.tanh() / ENDS + 1) / 2).clamp(0, 1)", "C&W never moves a black pixel"),
    ],
    "black_box": [
        ("better = found > values", "better = found < values", "Square keeps what lowers the loss"),
        ("squares.sqrt()", "squares", "a black box returns squared distances"),
        ("- loss((x - ahead).clamp(0, 1))", "", "an estimate from one side of the image"),
    ],
    "attacks": [
        ("(adversarial * 255).round().int()", "(adversarial * 255).int()", "pixels rounded down"),
        (
            "codebooks.encode(codebook, f.float().cpu().numpy())",
            "replace(head, distribution='own').codes(f)",
            "codes that changed by a beam of one",
        ),
        ("partial(method, **settings.options)", "partial(method)", "the decay of the settings ignored"),
        ("other.losses[-1] > self.losses[-1]", "other.losses[-1] < self.losses[-1]", "restarts keep the point with the lowest loss"),
    ],
    "pqn": [
        ("similar.clone().fill_diagonal_(False)", "similar.clone()", "an image is its own positive"),
        ("nearness = 2 * torch", "nearness = torch", "soft quantization without the factor 2"),
        ("recipe.epochs + 1e-9)", "recipe.epochs)", "the codebook begins an epoch early where the product is rounded down"),
        ("max(IMAGES_OF_START,", "min(IMAGES_OF_START,", "the codebook begins on too few images"),
        ("if epoch < self.begins_at(recipe):", "if epoch <= self.begins_at(recipe):", "triplets begin one epoch late"),
    ],
    "encoders": [
        ("scores = scores - products[other][m][codes[other]]", "pass", "ICM does not look at the other tables"),
        ("return ((total**2).sum(1) - squares)[", "return (total**2).sum(1)[", "the offset of a code keeps the squares of its codewords"),
        ("(rest @ words[m].T + (words[m]", "(rest @ words[m].T - (words[m]", "the farthest codeword of a table taken for the nearest"),
    ],
    "additive": [
        ("1 + 2 * PENALTY * excess", "1 + PENALTY * excess", "half of the gradient of CQ's penalty"),
        ("= seed, iterations, 1", "= 0, iterations, 1", "RQ always with seed 0"),
    ],
    "learned": [
        ("central(soft) + central(hard)", "2 * central(soft)", "the central loss of DPQ without its hard representation"),
        ("hard = (costs > 0) &", "hard = (costs > margin) &", "triplets that are hard only beyond the margin"),
        ("if epoch == second_half(", "if epoch >= second_half(", "DPQ discards the codebook that it learned"),
        ("ROUNDS = 3", "ROUNDS = 1", "DTQ renews codes and codewords once"),
        ("if epoch <= begins:", "if epoch < begins:", "full-length codewords of DTQ begin as zeros"),
    ],
    "joint": [
        ("t = u @ u.T / 2", "t = u @ u.T", "DPSH without the half"),
        ("(similar & two, ~similar)", "(similar, ~similar)", "HashNet pairs an image with itself"),
        ("given.quantization if epoch else 0.0", "given.quantization", "DQN quantizes from the first epoch on"),
        ("bordered[1:, 0] = -1", "pass", "a matrix of Paley's that is not orthogonal"),
        ("0.005 * epoch * given.batches", "0.005 * given.batches", "HashNet without its schedule"),
    ],
    "training": [
        ("else (1 - progress) / 0.75", "else 1 - progress", "the learning rate falls in one jump after the first quarter"),
        ("torch.randint(0, 2 * crop + 1,", "torch.randint(0, 2 * crop,", "images never shifted to the far end"),
        ("loss.detach() * len(batch)", "loss.detach()", "mean loss without the size of the batches"),
        ("nesterov=True", "nesterov=False", "SGD without Nesterov momentum"),
        ("torch.manual_seed(seed * 1_000_003 + epoch)", "pass", "dropout is not seeded"),
        ("weight_decay=recipe.weight_decay", "weight_decay=0", "the weight decay of the recipe ignored"),
    ],
    "settings": [
        ('_pick(model, "network", "width") | run', '_pick(model, "network") | run', "a training does not depend on the width"),
        ('attack["method"], network)', "network)", "an attack does not depend on the file of its method"),
        ('| start | model["joint"] |', "| start |", "a joint training does not depend on the section joint"),
        ('["sweep"], "queries", "epsilon"', '["sweep"], "epsilon"', "a sweep does not depend on its number of queries"),
        ('if model["weights"] or own:', "if own:", "a network of ours with weights of the user's is trained"),
    ],
    "records": [
        ('in ("seed", "split_seed")', 'in ("seed",)', "the seed of the split is not recorded"),
        ("found.st_size, found.st_mtime_ns", "found.st_size", "a file rewritten with the same size passes for unchanged"),
        ("_plain(settings_of(record)) == _plain(settings) and", "", "a record of other settings passes for this job's"),
        (' or dependencies(record, "input") != used', "", "a shard of other inputs is taken"),
        ("for machine in (own, *shards)", "for machine in (own,)", "the processors of shards are not told"),
    ],
    "cells": [
        ("statistics.stdev(", "statistics.pstdev(", "standard deviation with divisor n"),
        ('.replace("~1", "/").replace("~0", "~")', '.replace("~0", "~").replace("~1", "/")', "pointers unescaped in the wrong order"),
        ("rel_tol=1e-12", "rel_tol=1e-6", "values may differ in the seventh digit"),
        ("sorted(names, key=len, reverse=True)", "sorted(names, key=len)", "short names hide parts of long ones"),
        ("isinstance(content, bool) or not", "not", "true passes for a number"),
        ('for c in "&%$#_{}"', 'for c in "&%$_{}"', "LaTeX's # is not escaped"),
    ],
    "tables": [
        ("bootstrap_interval(per_query.mean(0))", "bootstrap_interval(per_query[0])", "interval of the first seed for all seeds"),
        ("if attacks.get(name, {}).items() >= known.items()", "if name in attacks", "attacks of other settings held against the paper"),
        ("(part[one] < part[other])", "(part[one] <= part[other])", "an equal mAP counts as lower"),
        ('blocks["source_family"] != blocks', 'blocks["source_family"] == blocks', "mean within families for that between them"),
        ('len(group) == (rows["dataset"] == name).sum()', "len(group)", "the paper's mean drop of a part of its rows"),
    ],
    "config": [
        ("dataset.queries > there", "dataset.queries >= there", "all test images may not be used"),
        ("else self.bits[0],", "else self.bits[-1],", "the last code length where 16 bits are missing"),
        ('"fgsm": {"step": self.epsilon', '"fgsm": {"step": self.step', "the step of FGSM is not its radius"),
        ("iterations: Annotated[int, Field(ge=1)] = 5", "iterations: Annotated[int, Field(ge=1)] = 10", "10 iterations by default"),
        ("self.models[model.like or name].width", "model.width", "a model like another keeps its own width"),
        ("codewords(bits, subspaces) > count:", "codewords(bits, subspaces) >= count:", "as many codewords as images are refused"),
    ],
    "verify": [
        ("if made is not None and made != read:", "if False:", "an input made anew since is no fault"),
        ('if maker and source["file"] not in known:', "if False:", "a cell may be from any file"),
        ('if inner["threads"] != wanted.get("threads", 1):', "if False:", "a wrong number of threads is no fault"),
        ("if used == wanted and list(flat(used)) != list(flat(wanted)):", "if False:", "the order of settings is not compared"),
    ],
}


class Fault(NamedTuple):
    """One of ``FAULTS``, with the path of its module within the repository."""

    module: str
    path: Path
    old: str
    new: str
    what: str


def faults(repository: Path, only: str = "") -> list[Fault]:
    """The faults that have ``only`` in "module: description"; raises ValueError unless the text of each occurs once in its module."""
    chosen = []
    for module, lines in FAULTS.items():
        path = named(repository / "scripts/pqag", FILES.get(module, (f"{module}.py",)))
        text = path.read_text(encoding="utf-8")
        for old, new, what in lines:
            if (count := text.count(old)) != 1:
                raise ValueError(f"{path}: {old!r} occurs {count} times, but must occur exactly once")
            chosen.append(Fault(module, path.relative_to(repository), old, new, what))
    return [fault for fault in chosen if only in f"{fault.module}: {fault.what}"]


def tests_of(repository: Path, module: str) -> Path:
    """The file of the tests of a module."""
    return named(repository / "tests", [f"test_{TESTED_WITH.get(module, module)}.py"])


def named(folder: Path, names: Iterable[str]) -> Path:
    """The file anywhere below ``folder`` that has one of these names; raises ValueError unless there is exactly one.

    The tests of whole studies, in a folder ``workflow``, do not count: some have the names of those of a module.
    """
    found = [path for name in names for path in folder.rglob(name) if "workflow" not in path.relative_to(folder).parts]
    if len(found) != 1:
        raise ValueError(f"{folder} holds {len(found)} files {' or '.join(names)}, but must hold exactly one")
    return found[0]


def passes(repository: Path, tests: list[str], limit: float, fault: Fault | None = None) -> bool | None:
    """Whether ``tests`` (arguments of pytest) pass on a copy of the repository with ``fault``; None if they run longer than ``limit`` s."""
    with tempfile.TemporaryDirectory(prefix="mutant", ignore_cleanup_errors=True) as temporary:
        copy = Path(temporary, "repository")
        listed = ["git", "-C", str(repository), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        for name in subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split("\0"):
            if name and (repository / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(repository / name, copy / name)
        if fault:
            text = (copy / fault.path).read_text(encoding="utf-8")
            (copy / fault.path).write_text(text.replace(fault.old, fault.new), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-k", SELECTED, f"--basetemp={temporary}/tests"]
        environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}  # it would not be read again
        log = Path(temporary, "log")
        with log.open("w", encoding="utf-8") as output:
            pytest = subprocess.Popen(
                [*command, *tests], cwd=copy, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
            try:
                code = pytest.wait(limit)
            except subprocess.TimeoutExpired:
                return None
            finally:  # end pytest and whatever it started, also after Ctrl-C
                if pytest.returncode is None:
                    os.killpg(pytest.pid, signal.SIGKILL)
                    pytest.wait()
        if code < 0 or (code and fault is None):  # pytest was killed, or fails even without a fault
            raise RuntimeError(f"pytest {' '.join(tests)} ended with {code}:\n{log.read_text(encoding='utf-8')[-4000:]}")
        return code == 0


def control(repository: Path, tests: list[str], limit: float) -> None:
    """Raise RuntimeError unless ``tests`` pass without a fault: if they failed anyway, they would seem to find every fault."""
    if not passes(repository, tests, limit):
        raise RuntimeError(f"{' '.join(tests)} does not end within {limit:g} s without a fault")


def found_by(repository: Path, fault: Fault, tests: list[str], survivors: bool) -> str:
    """What finds a fault: "module tests", "quick suite", "time limit" (tests that do not end), or "not"."""
    steps = [("module tests", tests, MODULE_LIMIT)] + [("quick suite", ["tests"], SUITE_LIMIT)] * survivors
    for name, arguments, limit in steps:
        passed = passes(repository, arguments, limit, fault)
        if not passed:
            return name if passed is False else "time limit"
    return "not"


def results(repository: Path, chosen: list[Fault], survivors: bool, jobs: int) -> Iterator[tuple[Fault, str]]:
    """What found each fault, in order. Checks first that the tests pass without a fault."""
    tests = {fault.module: [str(tests_of(repository, fault.module).relative_to(repository))] for fault in chosen}
    with ThreadPoolExecutor(jobs) as pool:
        if survivors:
            control(repository, ["tests"], SUITE_LIMIT)
        for module, files in tests.items():
            control(repository, files, MODULE_LIMIT)
            of_module = [fault for fault in chosen if fault.module == module]
            yield from zip(of_module, pool.map(lambda fault, files=files: found_by(repository, fault, files, survivors), of_module))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", nargs="?", type=Path, default=Path(__file__).parents[2], help="another clone, with its tests")
    parser.add_argument("--csv", type=Path, metavar="OUT", help="append a row for each fault to this file")
    parser.add_argument("--only", default="", metavar="SUBSTRING", help='only faults with this in "module: description"')
    parser.add_argument("--survivors", action="store_true", help="try all quick tests on the faults that the tests of their module miss")
    parser.add_argument("--jobs", type=int, default=1, help="faults at a time")
    options = parser.parse_args()
    repository = options.repository.resolve()
    chosen, counts = faults(repository, options.only), Counter()
    for fault, found in results(repository, chosen, options.survivors, options.jobs):
        print(f"{fault.module}: {fault.what}: {found}", flush=True)
        counts[found] += 1
        if options.csv:
            fresh = not options.csv.exists()
            with options.csv.open("a", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([("module", "fault", "found")] * fresh + [(fault.module, fault.what, found)])
    print(f"found {len(chosen) - counts['not']} of {len(chosen)}")


if __name__ == "__main__":
    main()

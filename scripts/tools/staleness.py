"""Write docs/staleness.md, which lists what a change makes stale: `make docs`. tests/workflow/test_plan.py checks it against real plans."""

import copy
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from planning import ROOT  # noqa: E402
from rulegraph import arrows  # noqa: E402

from pqag.job import provenance  # noqa: E402
from pqag.names import TRAINED  # noqa: E402
from pqag.study import model as config  # noqa: E402
from pqag.study import rules  # noqa: E402
from pqag.study.rules import FIGURES, RULES  # noqa: E402
from pqag.study.scores import CONCLUSIONS, TABLES, heat_maps, tables  # noqa: E402

#: A change for every key of a study: a value different from that in config/tiny.yaml.
CHANGES: dict[str, Any] = {
    "study": "other",
    "datasets.synthetic.sha256": "0" * 64,
    "datasets.synthetic.train": 900,
    "datasets.synthetic.database": 310,
    "datasets.synthetic.database_from": "all",
    "datasets.synthetic.queries": 61,
    "datasets.synthetic.split_seed": 1,
    "datasets.synthetic.validation": True,
    "datasets.synthetic.image_size": 64,
    "models.vgg16.width": 0.25,
    **{f"{section}.method": "opq" for section in ("quantizer", "models.vgg16.quantizer")},
    **{f"{section}.subspaces": 2 for section in ("quantizer", "models.vgg16.quantizer")},
    **{f"{section}.iterations": 3 for section in ("quantizer", "models.vgg16.quantizer")},
    **{
        f"{section}.{key}": value
        for section in ("training", "models.vgg16.training")
        for key, value in {
            "epochs": 3,
            "batch_size": 99,
            "learning_rate": 0.05,
            "momentum": 0.8,
            "weight_decay": 0.001,
            "label_smoothing": 0.05,
            "crop": 1,
            "flip": False,
            "precision": "float32",
        }.items()
    },
    "attacks.apd.loss": "aod",
    "attacks.apd.method": "momentum_pgd",
    "attacks.apd.epsilon": 4,
    "attacks.apd.step": 1,
    "attacks.apd.iterations": 7,
    "attacks.apd.random_start": False,
    "attacks.apd.restarts": 2,
    "attacks.basic.feature": "raw",
    "attacks.apd.assignment": "euclidean",
    "attacks.apd.temperature": 0.5,
    "attacks.apd.distribution": "own",
    "bits": [16, 24],
    "seeds": [0, 1],
    "tables.table1.models": ["vgg16"],
    "tables.table3.models": ["vgg16"],
    "tables.table3.attack": "apd",
    "tables.table4.models": ["vgg16"],
    "tables.table4.attack": "apd",
    "figures.models": ["vgg16"],
    "figures.attack": "apd",
    "figures.gallery.queries": 10,
    "figures.sweep.models": ["vgg16"],
    "figures.sweep.queries": 21,
    "figures.sweep.epsilon": [8],
    "figures.sweep.iterations": [5],
    "threads.pretrain": 2,
    "threads.attack": 2,
    "shards.attack": 2,
    "shards.extract": 2,
    "device": "cpu",
    "anonymous": True,
}

#: Keys that only some attacks use.
OF_SOME = ("decay", "queries", "target.class", "target.items", "items", "distance", "budget", "directions", "probe")
#: Keys that a generated data set does not have, and keys that need files. The source counts if no hash pins the content. The other
#: keys belong to victims that the tiny study does not have.
UNTRIED = {
    **{
        f"datasets.*.{key}": ("fetch", "the same as `datasets.*.sha256`")
        for key in ("kind", *(key for key in config.NusWide.model_fields if key not in config.Dataset.model_fields))
    },
    "datasets.*.source": ("fetch", "the same as `datasets.*.sha256`, and nothing if a hash pins the content"),
    **{f"readings.*.{key}": ("reading", "reading and ambiguity") for key in config.Reading.model_fields},
    "models.*.network": ("pretrain, pretrain_own, or adopt", "the same as `models.*.width`"),
    "models.*.weights": ("adopt", "the same as `models.*.width`, by what is in the file"),
    "models.*.like": ("borrow", "the same as `models.*.width`"),
    **{
        f"{prefix}{name}.{key}": ("train_joint, and the tables that show the victim", "train_joint and what follows from it")
        for name, section in (("pqn", config.Pqn), ("joint", config.Joint))
        for prefix in ("", "models.*.")
        for key in section.model_fields
    },
    **{
        f"{prefix}quantizer.fitted_to": ("quantize", "extract_train, and the same as `quantizer.iterations`")
        for prefix in ("", "models.*.")
    },
    "tables.table2.models": ("table2", "table2, and what it lacks"),
    "tables.table5.models": ("table5", "table5, and what it lacks"),
    **{f"tables.table6.{key}": ("table6", "table6, and what it lacks") for key in ("models", "bits", "transfer")},
    **{f"attacks.*.{key}": ("attack, sweep", "the same as `attacks.*.step`") for key in OF_SOME},
    "attacks.*.searches": ("attack", "the same as `attacks.*.step`"),
    "attacks.*.discriminator": ("train_attack, attack", "these and what follows from them"),
    "tables.table4.bits": ("drops, table4", "drops and table4, and what they lack at that code length"),
    "figures.bits": (
        "perturbation, centroid_distributions, retrieval_sheet, precision_recall, figure_sweep, gallery",
        "these, and what they lack at that code length",
    ),
}

#: Rules that run after every change of a study file, even of a comment: they record the study and list the files.
ALWAYS = {"study", "manifest", "all"}
#: Rules that depend on every table and figure, or on the study itself.
SHOWING = {"paper", "report"}
#: Rules that replace `pretrain` and `quantize` for victims that the tiny study does not have, the table of such victims, the rules of
#: shards, which the tiny study does not use, the comparisons of a data set of the paper, and its other readings.
INSTEAD = {
    "pretrain_own",
    "adopt",
    "adopt_joint",
    "borrow",
    "train_joint",
    "encode",
    "robustness",
    "beside_paper",
    "claims",
    "reading",
    "ambiguity",
    "table2",
    "table5",
    "table6",
    "evaluate_farthest",
    "attack_shard",
    "train_attack",
    "distortion",
    "extract_shard",
    "extract_train",
}
#: What the page calls the jobs: by their rule, but tables by their name, in the order of the workflow.
STEPS = [step for rule in RULES for step in (TABLES if rule == "table" else [rule])]


def tiny() -> dict[str, Any]:
    """Return the study to which the changes are applied."""
    return yaml.safe_load((ROOT / "config/tiny.yaml").read_text())


def changed(study: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Return a copy of ``study`` with one key, written with dots, set to ``value``."""
    result = section = copy.deepcopy(study)
    *path, last = key.split(".")
    for part in path:
        section = section.setdefault(part, {})
    section[last] = value
    return result


def general(key: str) -> str:
    """Return the key of the schema: names of data sets, models and attacks replaced by a star."""
    first, *rest = key.split(".")
    return ".".join([first, "*", *rest[1:]]) if first in ("datasets", "models", "attacks", "readings") else key


def schema_keys(section: type = config.Study, prefix: str = "") -> list[str]:
    """Return every key of the schema in order, written with dots and stars."""
    keys = []
    for name, field in section.model_fields.items():
        kind = field.annotation
        inner = getattr(kind, "__args__", ())
        if config.AnyDataset in inner:
            inner = (str, config.NusWide)  # it has the keys of all kinds
        nested = [one for one in (kind, *inner) if isinstance(one, type) and issubclass(one, config.BaseModel)]
        star = "*." if any(one is str or getattr(one, "__origin__", None) is str for one in inner) and nested else ""
        if nested:
            keys.extend(schema_keys(nested[0], f"{prefix}{name}.{star}"))
        else:
            keys.append(f"{prefix}{name}")
    return keys


def downstream(rules: set[str], without: set[str] = frozenset()) -> set[str]:
    """Return ``rules`` and all rules that use their results, except ``without`` and rules that only use results of those."""
    edges = [(a, b) for a, b in arrows_of_tables() if b not in without]
    reached, grown = set(), set(rules)
    while reached != grown:
        reached = set(grown)
        grown |= {b for a, b in edges if a in reached}
    return reached


def arrows_of_tables() -> Iterator[tuple[str, str]]:
    """Yield the pairs of ``arrows`` with each table by its name."""
    resolved = config.parse_study(tiny()).resolved()
    shown, drawn = tables(resolved), {table for table, _ in heat_maps(resolved)}
    for a, b in arrows():
        if a == "table":
            yield from ((table, b) for table in shown if b != "heat_map" or table in drawn)
        elif b == "table":
            yield from ((a, table) for table in shown if a not in CONCLUSIONS.values() or CONCLUSIONS.get(table) == a)
        else:
            yield a, b


def named(rule: str, wildcards: Mapping[str, str]) -> str:
    """Return what the page calls a job."""
    return wildcards["table"] if rule == "table" else rule


def rule_of(step: str) -> str:
    """Return the rule of what the page calls ``step``."""
    return "table" if step in TABLES else step


#: The wildcards with which settings are compared.
_JOB = {"dataset": "synthetic", "model": "vgg16", "training": "pretrained", "bits": "16", "source_bits": "16", "seed": "0"}
_TABLE = {name: table for table in TABLES for name in (table, CONCLUSIONS.get(table))}


def of_key(key: str) -> set[str]:
    """Return the rules with settings, file names or numbers of files that change with a key, without the rules that use their results."""
    before, after = tiny(), changed(tiny(), key, CHANGES[key])
    if key == "study":
        return {step for step in STEPS if step not in ALWAYS | SHOWING | INSTEAD | {"fetch"}}
    if key == "bits":
        return {"quantize", "evaluate_clean", "attack", "evaluate", "table1", "table3"}
    if key == "seeds":
        return {"pretrain", *TABLES, *CONCLUSIONS.values()} - INSTEAD
    if key == "tables.table4.attack":
        return {"extract_transfer", "evaluate", "drops", "table4"}  # existing queries, on victims for which they were not made
    job = _JOB | {"attack": key.split(".")[1] if key.startswith("attacks.") else "apd"}
    resolved = [config.parse_study(study).resolved() for study in (before, after)]
    return {step for step in STEPS if step not in ALWAYS | SHOWING | INSTEAD and _differs(step, job, resolved)}


def made_again(key: str) -> set[str]:
    """Return the rules with stale jobs after a change of a key: ``of_key`` and its followers, except tables that do not show the key."""
    direct, resolved = of_key(key), config.parse_study(tiny()).resolved()
    figures = resolved["figures"]
    attack = key.split(".")[1] if key.startswith("attacks.") else None
    unconcerned = {name for name, table in resolved["tables"].items() if attack and table.get("attack", attack) != attack}
    if attack and attack != figures["attack"]:
        unconcerned.add("perturbation")
    if key in ("bits", "seeds") or key.startswith(("tables.", "figures.")):
        unconcerned = {*TABLES, *FIGURES, "gallery"} - direct - ({"figure_sweep"} if "sweep" in direct else set())
    unconcerned |= {CONCLUSIONS[table] for table in unconcerned & CONCLUSIONS.keys()}
    if key == "bits" or (attack and "table4" in unconcerned):
        unconcerned.add("extract_transfer")
    return downstream(direct, unconcerned) - ALWAYS


def _differs(step: str, job: dict[str, str], resolved: list[dict[str, Any]]) -> bool:
    one, other = (rules.settings(rule_of(step), job | {"table": _TABLE.get(step, "")}, study) for study in resolved)
    return one != other


def of_module(name: str) -> set[str]:
    """Return the rules with results that depend on the module ``name``, a path within the library."""
    return {step for step in STEPS if step not in SHOWING | INSTEAD and reaches(step, provenance.LIBRARY / name)}


def reaches(step: str, module: Path) -> bool:
    """Whether results of ``step`` depend on something in ``module``; of the step that trains attacks, with any of the methods."""
    chosen = [("trained", method) for method in TRAINED] if step == "train_attack" else []
    return any(path == module for path, _ in provenance.reached(RULES[rule_of(step)].path, chosen))


def in_words(rules: set[str]) -> str:
    """Return the names of rules in the order of the workflow, as text."""
    return ", ".join(step for step in STEPS if step in rules) or "nothing"


def page() -> str:
    """Return the whole text of docs/staleness.md."""
    lines = [HEAD]
    lines += ["| key | read by | made again |", "|---|---|---|"]
    rows = {general(key): key for key in CHANGES}
    for key in schema_keys():
        if key in UNTRIED:
            lines.append(f"| `{key}` | {' | '.join(UNTRIED[key])} |")
        else:
            lines.append(f"| `{key}` | {in_words(of_key(rows[key]))} | {in_words(made_again(rows[key]))} |")
    lines += [MODULES, "| module | used by | made again at most |", "|---|---|---|"]
    for path in sorted(provenance.LIBRARY.rglob("*.py")):
        name = str(path.relative_to(provenance.LIBRARY))
        direct = of_module(name)
        if not direct and (instead := {rule for rule in INSTEAD if reaches(rule, path)}):
            lines.append(f"| `{name}` | {in_words(instead)} | these and what follows from them |")
            continue
        lines.append(f"| `{name}` | {in_words(direct)} | {in_words(downstream(direct) - ALWAYS)} |")
    return "\n".join([*lines, ""])


HEAD = """\
<!-- Generated by `make docs`; tests/workflow/test_plan.py checks every line against Snakemake's plans. -->
# What a change makes stale

Snakemake makes a result again if its settings, its inputs or its environment changed. The settings of a rule
(`scripts/pqag/study/settings.py`) are exactly the keys of the study that it depends on, and the digest of its code. The digest covers the
script and every function, class and constant of the library that the script reaches, by meaning. Comments, docstrings, layout, the texts of
errors, log lines and progress titles, and the times of source files do not count: a fresh checkout makes nothing stale. Files with data and
templates of pages that this code names count by content.
`profiles/default/config.yaml` sets the rerun triggers: `params` (the settings), `input`, `mtime` (of inputs and outputs, not of code) and
`software-env`. It leaves out `code`, which uses the time stamps of scripts. Package versions in `.venv` are not a trigger: every record
contains them, and `audit diff` and `audit rerun` report differences.

## Keys of a study

Any change of the file, even of a comment, makes `study.json` and `MANIFEST.sha256` again. `all` always runs, because it verifies the
results. If a key belongs to one data set, model or attack, only the jobs of that one are made again, and the tables and figures that show
it. Here Table 3, Table 4 and Figure 1 show AOD, and the changed attack is APD or Basic. A table or figure that is to show more also makes
the results that it lacks. `paper.pdf` and `report.zip` depend on every table and figure and are left out below. A victim with your own
weights has a job of `adopt` instead of `pretrain`, and a victim with the weights of another model has a job of `borrow`. A victim trained
with its codebook has a job of `train_joint`, by PQN instead of `pretrain`, and one of `encode` instead of `quantize`; if its weights are of
the zoo, it has a job of `adopt_joint` instead. It appears in Table 2, which is made again like Table 1, as is `robustness`. `table1` to
`table6` are the jobs of the rule `table`. For a file of yours that the study names, the content counts like the key. The number of shards
of a job makes nothing stale, because its result is the same bits. Shards become stale together with the job and are left out below.
"""

MODULES = """
## Modules of the library

Only the part of a module that a script reaches counts. The table shows the most that a change can make stale: the effect of a change to
code that runs whenever the module is imported. A new function makes nothing stale, and a changed function only affects the rules that use
it. Of `losses.py`, `goals.py`, `methods.py` and `black_box.py` only the loss and the method of an attack count, and what they call, so a
change in another one does not make it stale. The modules of `job/` run and record jobs. They decide no bit of a result and make nothing
stale; every record has the sha256 of their files.
"""


if __name__ == "__main__":
    (ROOT / "docs/staleness.md").write_text(page())

"""The metadata of a crate, built from the records of a study.

The vocabulary is that of Provenance Run Crate 0.5: the Snakefile is a workflow, each rule is a tool and a step, each job is an action. It
needs rocrate and PyYAML.
"""

import ast
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from rocrate.model import ContextEntity, Entity
from rocrate.rocrate import ROCrate

from pqag import files
from pqag.audit.verify import Study
from pqag.errors import UserError
from pqag.job import records
from pqag.study.rules import RULES

#: The profiles of the crate, with their names; each builds on the ones before it.
PROFILES = {
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/ro/wfrun/provenance/0.5": "Provenance Run Crate",
}
#: A term of the run crates that is missing in the context of RO-Crate 1.1; defined here, so readers need no second context.
SHA256 = {"sha256": "https://w3id.org/ro/terms/workflow-run#sha256"}

_FORMATS = {
    ".cff": "application/yaml",
    ".csv": "text/csv",
    ".h5": "application/x-hdf5",
    ".html": "text/html",
    ".json": "application/json",
    ".md": "text/markdown",
    ".pt": "application/zip",
    ".py": "text/x-python",
    ".smk": "text/x-python",
    ".tex": "application/x-tex",
    ".yaml": "application/yaml",
}
_TYPES = {bool: "Boolean", int: "Integer", float: "Float", str: "Text"}


class Description:
    """The metadata of a crate, built up in ``crate``. The same study gives the same bytes.

    ``inside`` are the files of the crate, in the folder ``part``; ``configs`` are the config files of the study.
    """

    def __init__(self, study: Study, part: Path, inside: set[str], configs: list[str]):
        self.study, self.part, self.inside, self.configs = study, part, inside, configs
        self.crate = ROCrate(version="1.1")
        self.crate.metadata.extra_terms.update(SHA256)
        for name in sorted(inside - {"Snakefile"}):
            self.file(name)
        jobs: dict[str, dict[str, dict[str, Any]]] = {}  # records by rule and path; rules in the order of their first job
        for path, record in sorted(study.records.items(), key=lambda one: (_time(one[1], "startedOn"), one[0])):
            jobs.setdefault(_parameters(record)["rule"], {})[path] = record
        self._root()
        self._workflow(jobs)
        self._run(jobs)

    def add(self, identity: str, kind: str, **properties) -> Entity:
        """Add an entity that is no file, without its empty properties; a list with one item becomes that item."""
        return self.crate.add(ContextEntity(self.crate, identity, {"@type": kind} | _compact(properties)))

    def file(self, name: str) -> Entity:
        """Return the entity of a file, with its sha256. The id of a file that is not in the crate begins with #."""
        identity = quote(name) if name in self.inside else f"#{quote(name)}"
        if identity in self.crate:
            return self.crate.get(identity)
        properties = {"name": name, "encodingFormat": _FORMATS.get(Path(name).suffix, "text/plain")}
        if name in self.inside:
            path = self.part / name
            properties |= {"sha256": files.sha256(path), "contentSize": str(path.stat().st_size)}
            about = {"about": {"@id": "./"}} if name == "README.md" else {}
            return self.crate.add_file(path, name, properties=properties | about)
        record = self.study.record(name)
        properties |= {"description": "Not in this crate.", "sha256": records.outputs(record)[name] if record else None}
        size = str(Path(name).stat().st_size) if Path(name).is_file() else None
        return self.add(identity, "File", contentSize=size, **properties)

    # ------------------------------------------------------------------------------------------------------- content and authors

    def _root(self) -> None:
        root, citation = self.crate.root_dataset, _citation()
        ended = max(_time(record, "finishedOn") for record in self.study.records.values())
        authors = [self._author(one) for one in citation["authors"]]
        organizations = [one for one in authors if one.type == "Organization"]
        license = self.add(
            f"https://spdx.org/licenses/{quote(citation['license'])}",
            "CreativeWork",
            name=(records.REPOSITORY / "LICENSE").read_text(encoding="utf-8").split("\n", 1)[0],
            description="Its text is in the file LICENSE.",
        )
        for identity, name in PROFILES.items():
            self.add(identity, "CreativeWork", name=name, version=identity.rsplit("/", 1)[1])
        papers = [
            self.add(f"#paper/{quote(one['title'])}", "ScholarlyArticle", name=one["title"], datePublished=str(one.get("year", "")))
            for one in citation.get("references", ())
        ]
        properties = {
            "name": f"{citation['title']}: the study {self.study.folder.name}",
            "description": f"Results of the study {self.study.folder.name}, the code that computed them, and a record of every job: "
            "its inputs, outputs, code and settings.",
            "datePublished": ended,
            "license": license,
            "author": authors,
            "publisher": organizations[:1],
            "citation": papers,
            "conformsTo": [{"@id": identity} for identity in PROFILES],
        }
        for name, value in _compact(properties).items():
            root[name] = value

    def _author(self, author: Mapping[str, Any]) -> Entity:
        """Return the entity of a person or an organization in CITATION.cff."""
        parts = [author.get(key) for key in ("name", "given-names", "name-particle", "family-names", "name-suffix")]
        name = " ".join(part for part in parts if part)
        identity = author.get("orcid") or author.get("website") or f"#author/{quote(name)}"
        if "name" in author:
            return self.add(identity, "Organization", name=name, url=author.get("website"))
        place = author.get("affiliation")
        affiliation = self.add(f"#organization/{quote(place)}", "Organization", name=place) if place else None
        return self.add(identity, "Person", name=name, affiliation=affiliation, url=author.get("website"))

    def _agent(self, record: Mapping[str, Any]) -> Entity:
        """Return the user who ran a job; the records of an anonymous study do not contain it."""
        user = _machine(record).get("user")
        return self.add(f"#agent/{quote(user)}", "Person", name=user) if user else self.add("#agent", "Person", name="not named")

    # --------------------------------------------------------------------------------------------- the workflow

    def _workflow(self, jobs: Mapping[str, Mapping[str, dict]]) -> None:
        """Add the Snakefile, and a tool and a step for each rule."""
        tools = [self._tool(rule, list(by_path.values())) for rule, by_path in jobs.items()]
        steps = [
            self.add(f"#step/{rule}", "HowToStep", name=rule, position=str(number), workExample=tool)
            for number, (rule, tool) in enumerate(zip(jobs, tools), 1)
        ]
        path = self.part / "Snakefile"
        properties = {
            "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"],
            "name": "pqag",
            "description": _citation()["title"],
            "url": _citation().get("repository-code", {"@id": "README.md"}),
            "version": _commits(self.study.records.values()),
            "conformsTo": {"@id": "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"},
            "encodingFormat": "text/x-python",
            "sha256": files.sha256(path),
            "contentSize": str(path.stat().st_size),
            "hasPart": tools,
            "step": steps,
        }
        versions = _versions(self.study.records.values(), "snakemake")
        self.crate.add_workflow(path, "Snakefile", main=True, lang="snakemake", lang_version=versions, properties=_compact(properties))

    def _tool(self, rule: str, made: list[Mapping[str, Any]]) -> Entity:
        """Return the tool of a rule: its script, with the settings that it uses."""
        digests = sorted({record["predicate"]["buildDefinition"]["internalParameters"]["code"] for record in made})
        script = f"scripts/{RULES[rule].path.name}"
        words = ast.get_docstring(ast.parse((self.part / script).read_text(encoding="utf-8"))) if script in self.inside else None
        return self.add(
            f"#rule/{rule}",
            "SoftwareApplication",
            name=rule,
            description=words and words.split("\n\n")[0],
            url={"@id": script},
            softwareVersion=" and ".join(f"code {digest}" for digest in digests),
            softwareRequirements={"@id": "envs/requirements.txt"},
            hasPart={"@id": script},
            input=self._formal_parameters(rule, made),
        )

    def _formal_parameters(self, rule: str, made: list[Mapping[str, Any]]) -> list[Entity]:
        """Return the wildcards and settings of a rule. The type is that of all values in the study, or text if they differ."""
        kinds: dict[str, set[str]] = {}
        for record in made:
            for name, value in _arguments(record).items():
                kinds.setdefault(name, set()).add(_TYPES.get(type(value), "Text"))
        return [
            self.add(f"#rule/{rule}/{name}", "FormalParameter", name=name, additionalType=found.pop() if len(found) == 1 else "Text")
            for name, found in sorted(kinds.items())
        ]

    # ------------------------------------------------------------------------------------------------------------- the run

    def _run(self, jobs: Mapping[str, Mapping[str, dict]]) -> None:
        """Add an action for every job and for its step, and one for the whole run with its start, inputs and outputs."""
        made = self.study.records
        actions = {path: self._job(rule, path, record) for rule, by_path in jobs.items() for path, record in by_path.items()}
        steps = [
            self.add(
                f"#step/{rule}/{quote(path)}",
                "ControlAction",
                name=f"Start of {path}",
                instrument={"@id": f"#step/{rule}"},
                object=actions[path],
            )
            for rule, by_path in jobs.items()
            for path in by_path
        ]
        read = {
            name for record in made.values() if _parameters(record)["rule"] != "manifest" for name in records.dependencies(record, "input")
        }
        run = self.add(
            "#run",
            "CreateAction",
            name=f"The study {self.study.folder.name}",
            description="All jobs with results in this study, from one start of the workflow or several.",
            instrument={"@id": "Snakefile"},
            startTime=min(_time(record, "startedOn") for record in made.values()),
            endTime=max(_time(record, "finishedOn") for record in made.values()),
            agent=_unique(self._agent(record) for _, record in sorted(made.items())),
            object=[
                *(self.file(name) for name in self.configs),
                *_unique(raw for _, record in sorted(made.items()) for raw in self._raw(record)),
            ],
            result=[self.file(name) for name in sorted(set(self.study.made_by) - read)],
        )
        engine = self.add(
            "https://snakemake.github.io",
            "SoftwareApplication",
            name="Snakemake",
            url="https://snakemake.github.io",
            softwareVersion=_versions(made.values(), "snakemake"),
        )
        self.add("#engine", "OrganizeAction", name="The run of Snakemake", instrument=engine, object=steps, result=run)
        self.crate.root_dataset["mentions"] = [run, *actions.values()]

    def _job(self, rule: str, path: str, record: Mapping[str, Any]) -> Entity:
        machine, threads = _machine(record), record["predicate"]["buildDefinition"]["internalParameters"]["threads"]
        words = ", ".join(f"{key} {value}" for key, value in _parameters(record)["wildcards"].items())
        place = f"{machine['cpu']}{' of ' * bool(machine.get('host'))}{machine.get('host') or ''}"
        return self.add(
            f"#job/{quote(path)}",
            "CreateAction",
            name=f"{rule}{f' ({words})' if words else ''}",
            description=f"A job of the rule {rule}, {threads} thread{'s' * (threads != 1)} on {place}.",
            instrument={"@id": f"#rule/{rule}"},
            startTime=_time(record, "startedOn"),
            endTime=_time(record, "finishedOn"),
            agent=self._agent(record),
            object=[
                *(self.file(name) for name in sorted(records.dependencies(record, "input"))),
                *self._raw(record),
                *(self._value(rule, name, value) for name, value in _arguments(record).items()),
            ],
            result=[self.file(name) for name in sorted(records.outputs(record))],
            subjectOf=self.file(path),
        )

    def _raw(self, record: Mapping[str, Any]) -> list[Entity]:
        """Return the files that a job read from outside the workflow."""
        raw = sorted(records.dependencies(record, "raw").items())
        return [self.add(f"#raw/{quote(name)}", "File", name=name, description="Not in this crate.", sha256=digest) for name, digest in raw]

    def _value(self, rule: str, name: str, value: Any) -> Entity:
        """Return a wildcard or setting with its value, as JSON if it is neither text nor a number."""
        text = value if isinstance(value, str) else json.dumps(value)
        short = quote(text, safe="") if len(text) < 40 else hashlib.sha256(text.encode()).hexdigest()[:12]
        plain = value if type(value) in _TYPES else text
        parameter = {"@id": f"#rule/{rule}/{name}"}
        return self.add(f"#rule/{rule}/{name}/{short}", "PropertyValue", name=name, value=plain, exampleOfWork=parameter)


# ------------------------------------------------------------------------------------------------------------------------ helpers


def _citation() -> dict[str, Any]:
    """Return the content of CITATION.cff; raises UserError if it lacks a title, authors or one license."""
    try:
        citation = yaml.safe_load((records.REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
        named = [{"name", "family-names"} & set(author) for author in citation["authors"]]
        usable = all(named) and isinstance(citation["title"], str) and isinstance(citation["license"], str)
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        usable = False
    if not usable:
        raise UserError("CITATION.cff must contain title, license and authors: the crate uses them")
    return citation


def _compact(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Remove empty values, and replace lists of one item by the item, as RO-Crate requires."""
    single = {name: value[0] if isinstance(value, list) and len(value) == 1 else value for name, value in properties.items()}
    return {name: value for name, value in single.items() if value is not None and value != [] and value != ""}


def _unique(entities: Iterable[Entity]) -> list[Entity]:
    return list({entity.id: entity for entity in entities}.values())


def _parameters(record: Mapping[str, Any]) -> dict[str, Any]:
    return record["predicate"]["buildDefinition"]["externalParameters"]


def _arguments(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the wildcards and settings of a job, sorted by name."""
    return dict(sorted((_parameters(record)["wildcards"] | _parameters(record)["settings"]).items()))


def _machine(record: Mapping[str, Any]) -> dict[str, Any]:
    return record["predicate"]["runDetails"]["byproducts"][0]["annotations"]


def _time(record: Mapping[str, Any], name: str) -> str:
    """Return a time of a record in the form of the profiles, with a numeric offset."""
    return record["predicate"]["runDetails"]["metadata"][name].replace("Z", "+00:00")


def _versions(made: Iterable[Mapping[str, Any]], package: str) -> str:
    return " and ".join(sorted({record["predicate"]["runDetails"]["builder"]["version"].get(package, "unknown") for record in made}))


def _commits(made: Iterable[Mapping[str, Any]]) -> str:
    """Return the commits of the jobs, as text."""
    states = [record["predicate"]["buildDefinition"]["internalParameters"]["git"] for record in made]
    commits = " and ".join(sorted({f"commit {git['commit'] or 'unknown'}" for git in states}))
    return f"{commits}, with uncommitted changes" if any(git["dirty"] for git in states) else commits

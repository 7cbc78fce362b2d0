"""What a result depends on besides its inputs: the code that decides its bits, by content.

The digest of a script covers the script and every definition of the library that it reaches: functions, classes, constants and imports.
It leaves out what cannot change a bit of a result: comments, docstrings and layout, the texts of errors and of log lines, and the harness
that runs a job and records it. So a new field of a record, a reworded error, or a new function beside those in use makes nothing stale.
Needs only the standard library.
"""

import ast
import contextlib
import functools
import hashlib
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pqag.files import read_json, write_json

LIBRARY = Path(__file__).parents[1]
#: What decides no bit of a result, as paths below the library, so that no digest covers it: what runs and records a job, errors, what makes
#: libraries load faster, and what gets raw files, whose content is checked and recorded.
HARNESS = ("job", "errors.py", "light.py", "sources.py")
#: Modules with functions that scripts look up by a name in a job's settings: ``getattr(losses, settings["loss"])``. A digest covers
#: those that the job chooses (``Rule.chosen`` in study/rules.py) and those that are named in the code, not all that the modules define.
CHOSEN = ("losses.py", "goals.py", "methods.py", "black_box.py", "trained.py", "additive.py")

# ------------------------------------------------------------------------------------------------------------------------- modules


def modules_of(script: Path) -> list[Path]:
    """``script`` and every module of this library that it imports, directly or through others, the harness included, sorted by name.

    Imports are read from the source, not by importing: neither torch nor anything else is loaded.
    """
    found: set[Path] = set()
    pending = [script]
    while pending:
        path = pending.pop()
        if path not in found:
            found.add(path)
            pending.extend(_imported(path.read_text(encoding="utf-8"), LIBRARY))
    return sorted(found)


@functools.cache
def _imported(source: str, library: Path) -> list[Path]:
    """The modules of the library, and the packages around them, that ``source`` imports anywhere."""
    targets = [target for node in ast.walk(ast.parse(source)) for _, target in _imports(node)]
    return [path for target in targets for path in (*_packages_around(target.path), target.path)]


def _module_file(name: str) -> Path | None:
    """The file of a module or package of the library by its dotted name; None for anything else."""
    top, *parts = name.split(".")
    if top != LIBRARY.name:
        return None
    path = LIBRARY.joinpath(*parts)
    candidates = (path.with_suffix(".py"), path / "__init__.py") if parts else (path / "__init__.py",)
    return next((one for one in candidates if one.is_file()), None)


class _Target(NamedTuple):
    """What an import binds a name to: a definition in a module of the library, or all of a module (``name`` is None)."""

    path: Path
    name: str | None


def _imports(node: ast.AST) -> Iterator[tuple[str, _Target]]:
    """What an import statement takes from the library, by the names it binds; nothing for any other node."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            if (module := _module_file(alias.name)) is not None:
                yield alias.asname or alias.name.split(".")[0], _Target(module, None)
    elif isinstance(node, ast.ImportFrom) and node.module and (module := _module_file(node.module)) is not None:
        for alias in node.names:
            inner = _module_file(f"{node.module}.{alias.name}")
            target = _Target(inner or module, None if inner or alias.name == "*" else alias.name)
            yield alias.asname or alias.name, target


@functools.cache
def _packages_around(module: Path) -> list[Path]:
    """The ``__init__.py`` of the packages that Python runs before ``module``."""
    folders = [folder for folder in module.parents if folder == LIBRARY or LIBRARY in folder.parents]
    return [path for folder in folders if (path := folder / "__init__.py").is_file() and path != module]


# -------------------------------------------------------------------------------------------------------------------------- digest


def code_digest(script: Path, chosen: frozenset[tuple[str, str]] = frozenset()) -> str:
    """sha256 over the code that decides the bits of what ``script`` makes, and over the data files and templates that this code names.

    ``chosen`` are the functions of the modules of ``CHOSEN`` that the settings of the job name, as (module, name). Read once a process.
    Where the files lie and when they changed play no part.
    """
    return digests()[script, chosen]


@functools.cache
def digests() -> "_Digests":
    """The digests that this process has asked for."""
    return _Digests()


class _Digests(dict):
    """Digests by script and chosen functions. To find those of a study takes as long as to plan it, so they are kept where Python keeps
    what it has compiled, until a file of the library changes."""

    def __init__(self):
        sources = sorted(path for kind in ("py", *_DATA) for path in LIBRARY.rglob(f"*.{kind}"))
        of = _sha256(repr([(_below(path, LIBRARY), path.read_text(encoding="utf-8")) for path in sources]))
        self.path, self.kept = LIBRARY / "__pycache__/code_digests.json", {"library": of}
        with contextlib.suppress(OSError, ValueError, KeyError):  # there is none, or it is damaged
            found = read_json(self.path)
            self.kept = found if found["library"] == of else self.kept

    def __missing__(self, key: tuple[Path, frozenset[tuple[str, str]]]) -> str:
        script, chosen = key
        name = repr([script.name, _sha256(script.read_text(encoding="utf-8")), sorted(chosen)])
        if name not in self.kept:
            self.kept[name] = _digest(script, chosen)
            with contextlib.suppress(OSError):  # a folder that cannot be written to
                write_json(self.path, self.kept)
        return self.setdefault(key, self.kept[name])


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


#: Kinds of file in the library that code may name: data and templates.
_DATA = ("csv", "html")


def _digest(script: Path, chosen: frozenset[tuple[str, str]]) -> str:
    digest = hashlib.sha256()
    data = sorted(path for kind in _DATA for path in LIBRARY.rglob(f"*.{kind}"))
    read = functools.cache(_contents)
    for path, name in sorted(reached(script, chosen)):
        where = _below(path, LIBRARY) or path.name
        meaning = _meaning(read(path), name)
        named = [file.read_bytes() for file in data if file.name in meaning]
        for content in (where.encode(), name.encode(), meaning.encode(), *named):
            digest.update(f"{len(content)}\n".encode() + content)
    return digest.hexdigest()


def reached(script: Path, chosen: Iterable[tuple[str, str]] = ()) -> set[tuple[Path, str]]:
    """What decides the bits of what ``script`` makes, as (file, name of a definition in it); no name for what a module does when imported.

    Conservative: a name is used wherever it is written, and a module that is passed around as a value is used whole, except that ``chosen``
    says what is used of the modules of ``CHOSEN``.
    """
    found: set[tuple[Path, str]] = set()
    pending = [*_whole(script), *((LIBRARY / f"{module}.py", name) for module, name in chosen)]
    read = functools.cache(_contents)
    while pending:
        path, name = pending.pop()
        if (path, name) not in found and not _is_harness(path):
            found.add((path, name))
            pending += [(path, ""), *((package, "") for package in _packages_around(path)), *_references(path, name, read(path))]
    return found


@functools.cache
def _below(path: Path, library: Path) -> str:
    """A path below the library, with slashes; empty for one outside it."""
    return path.relative_to(library).as_posix() if path.is_relative_to(library) else ""


def _is_harness(path: Path) -> bool:
    return _below(path, LIBRARY).split("/")[0] in HARNESS


def _whole(path: Path) -> Iterator[tuple[Path, str]]:
    """All that a module defines; what it imports counts where one of its definitions uses it."""
    contents = _contents(path)
    return ((path, name) for name in ("", *contents.definitions) if name not in contents.imports)


@functools.cache  # many scripts reach the same definitions
def _references(path: Path, name: str, contents: "_Contents") -> set[tuple[Path, str]]:
    """The definitions that a definition names, in its own module and in others."""
    if name.startswith(_IMPORT):
        return set()
    if not name or name in contents.definitions:
        finder = _Finder(path, contents)
        for node in contents.nodes(name):
            finder.visit(node)
        return finder.found
    inner = path.parent / f"{name}.py"  # a module that is named as an attribute of its package
    return set(_whole(inner)) if path.name == "__init__.py" and inner.is_file() else set()


#: Before the name that an import binds: the import itself, which says what the name means, apart from all that it leads to.
_IMPORT = "import "


@dataclass(eq=False)
class _Contents:
    """The top level of a module: the statements that define a name, those that run whenever it is imported, and what it imports from the
    library."""

    definitions: dict[str, list[ast.stmt]] = field(default_factory=dict)
    always: list[ast.stmt] = field(default_factory=list)
    imports: dict[str, _Target] = field(default_factory=dict)

    def nodes(self, name: str) -> list[ast.stmt]:
        """The statements that define ``name``; those that always run if it is empty. None for a name that only those may define."""
        return self.definitions.get(name.removeprefix(_IMPORT), []) if name else self.always


@functools.cache
def _meaning(contents: _Contents, name: str) -> str:
    """What the statements for ``name`` mean, as text."""
    return repr([_plain(node) for node in contents.nodes(name)])


def _contents(path: Path) -> _Contents:
    return _read_contents(path.read_text(encoding="utf-8"), LIBRARY)


@functools.cache
def _read_contents(source: str, library: Path) -> _Contents:
    """The top level of a module, without what decides nothing. ``library`` decides which imports are our own."""
    tree = ast.parse(source)
    # Without the kinds of node that are most frequent, which neither import nor leave out anything.
    nodes = [node for node in ast.walk(tree) if not isinstance(node, ast.Name | ast.Attribute | ast.Constant | ast.expr_context)]
    harness = {bound for node in nodes for bound, target in _imports(node) if _is_harness(target.path)}
    for node in nodes:
        _leave_out(node, harness)
    contents = _Contents()
    for node in tree.body:
        for part in _single_imports(node):
            contents.imports |= dict(_imports(part))
            names = _defined(part)
            for name in names:
                contents.definitions.setdefault(name, []).append(part)
            if not names:
                contents.always.append(part)
    return contents


def _single_imports(node: ast.stmt) -> list[ast.stmt]:
    """An import of several names as an import for each, so that one more makes no other stale; any other statement as it is."""
    if isinstance(node, ast.Import):
        return [ast.Import([alias]) for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [ast.ImportFrom(node.module, [alias], node.level) for alias in node.names]
    return [node]


def _defined(node: ast.stmt) -> list[str]:
    """The names that a statement defines, if it does nothing else."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name.split(".")[0] for alias in node.names if alias.name != "*"]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign | ast.AugAssign) else []
    parts = [part for target in targets for part in (target.elts if isinstance(target, ast.Tuple) else [target])]
    return [part.id for part in parts] if all(isinstance(part, ast.Name) for part in parts) else []


class _Finder(ast.NodeVisitor):
    """Collects the definitions that the statements it visits name."""

    def __init__(self, path: Path, contents: _Contents):
        self.path, self.contents, self.found = path, contents, set()

    def visit_Attribute(self, node: ast.Attribute) -> None:
        target = self.contents.imports.get(node.value.id) if isinstance(node.value, ast.Name) else None
        if target is None or target.name is not None:
            self.generic_visit(node)
        else:
            self.found |= {(self.path, _IMPORT + node.value.id), (target.path, node.attr)}

    def visit_Name(self, node: ast.Name) -> None:
        if (target := self.contents.imports.get(node.id)) is not None:
            self.found.add((self.path, _IMPORT + node.id))
            self._follow(target)
        elif node.id in self.contents.definitions:
            self.found.add((self.path, node.id))

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        for _, target in _imports(node):
            self._follow(target)

    visit_Import = visit_ImportFrom = _import

    def _follow(self, target: _Target) -> None:
        if target.name is not None:
            self.found.add((target.path, target.name))
        elif target.path.parent == LIBRARY and target.path.name in CHOSEN:
            self.found.add((target.path, ""))
        else:
            self.found |= set(_whole(target.path))


def _leave_out(node: ast.AST, harness: Container[str]) -> None:
    """Leave out of a node what cannot change a bit of a result: its docstring, log lines, texts of errors and for the harness.

    harness: names that the module imports from the harness.
    """
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node) is not None:
        del node.body[0]
    for name in ("body", "orelse", "finalbody"):
        if isinstance(statements := getattr(node, name, None), list):
            setattr(node, name, _without_words(statements))
    if isinstance(node, ast.Assert):
        node.msg = None
    if isinstance(node, ast.Call) and _leads_to(harness, node.func):
        node.args = [one for one in node.args if not _is_text(one)]
        node.keywords = [one for one in node.keywords if not _is_text(one.value)]


def _without_words(statements: list[ast.stmt]) -> list[ast.stmt]:
    """Statements without log lines, and without the text of an error that they raise, nor what is assigned right before for it."""
    kept: list[ast.stmt] = []
    for node in statements:
        if isinstance(node, ast.Raise):
            while kept and isinstance(kept[-1], ast.Assign) and _defined(kept[-1]):
                kept.pop()
            node = ast.Raise(node.exc.func if isinstance(node.exc, ast.Call) else node.exc, None)
        if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and _is_log(node.value.func)):
            kept.append(node)
    return kept


def _leads_to(names: Container[str], function: ast.expr) -> bool:
    """Whether a function is one of ``names`` or an attribute of one."""
    while isinstance(function, ast.Attribute):
        function = function.value
    return isinstance(function, ast.Name) and function.id in names


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or isinstance(node, ast.Constant) and isinstance(node.value, str)


def _is_log(function: ast.expr) -> bool:
    """Whether a call of ``function`` writes a line of a log: ``log.info`` and the like."""
    methods = ("debug", "info", "warning", "error", "exception")
    return isinstance(function, ast.Attribute) and function.attr in methods and ast.unparse(function.value) in ("log", "logging")


def _plain(node):
    """A syntax tree as nested tuples. Empty fields are left out, since which there are differs between versions of Python."""
    if isinstance(node, ast.AST):
        fields = ((name, _plain(value)) for name, value in ast.iter_fields(node) if value is not None and value != [])
        return (type(node).__name__, *fields)
    return [_plain(one) for one in node] if isinstance(node, list) else node

"""What a result depends on besides its inputs: the code that made it, by content."""

import ast
import functools
import hashlib
from pathlib import Path

LIBRARY = Path(__file__).parent
#: The rules that share another's script.
SCRIPTS = {
    "extract_shard": "extract",
    "attack_shard": "attack",
    "evaluate_clean": "evaluate",
    "table1": "table",
    "table2": "table",
    "table3": "table",
    "table4": "table",
}


def script_of(rule: str) -> Path:
    """The script that ``rule`` runs."""
    return LIBRARY.parent / f"{SCRIPTS.get(rule, rule)}.py"


def modules_of(script: Path) -> list[Path]:
    """``script`` and every module of this library that it imports, directly or through others, sorted by name.

    Imports are read from the source, not by importing: neither torch nor anything else is loaded.
    """
    found: set[Path] = set()
    pending = [script]
    while pending:
        path = pending.pop()
        if path in found:
            continue
        found.add(path)
        for name in _imports(path.read_text(encoding="utf-8")):
            if name.split(".")[0] == LIBRARY.name:
                parts = name.split(".")[1:]
                packages = [LIBRARY.joinpath(*parts[:depth], "__init__.py") for depth in range(len(parts) + 1)]
                module = LIBRARY.joinpath(*parts).with_suffix(".py")
                pending.extend(p for p in (*packages, module) if p.is_file())
    return sorted(found)


@functools.cache
def _imports(source: str) -> list[str]:
    """The dotted names that ``source`` imports, of modules and perhaps of what is in them."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.extend([node.module, *(f"{node.module}.{alias.name}" for alias in node.names)])
    return names


@functools.cache
def code_digest(script: Path) -> str:
    """sha256 over what ``script`` and the library modules it uses say, and over the data files that these name; read once a process.

    Comments, docstrings and layout play no part, nor where the files lie and when they changed.
    """
    digest = hashlib.sha256()
    for path in modules_of(script):
        source = path.read_text(encoding="utf-8")
        data = [file for file in sorted(LIBRARY.glob("*.csv")) if file.name in source]
        for content in (path.name.encode(), _meaning(source), *(file.read_bytes() for file in data)):
            digest.update(f"{len(content)}\n".encode() + content)
    return digest.hexdigest()


@functools.cache
def _meaning(source: str) -> bytes:
    """The syntax tree of ``source`` without docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node) is not None:
            del node.body[0]
    return repr(_plain(tree)).encode()


def _plain(node):
    """A syntax tree as nested tuples. Empty fields are left out, since which there are differs between versions of Python."""
    if isinstance(node, ast.AST):
        fields = ((name, _plain(value)) for name, value in ast.iter_fields(node) if value is not None and value != [])
        return (type(node).__name__, *fields)
    return [_plain(one) for one in node] if isinstance(node, list) else node

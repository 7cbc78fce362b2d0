"""What a result depends on besides its inputs: the code that made it, by content."""

import ast
import hashlib
from pathlib import Path

LIBRARY = Path(__file__).parent


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
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            for name in names:
                if name.split(".")[0] == LIBRARY.name:
                    module = LIBRARY.joinpath(*name.split(".")[1:])
                    pending.extend(p for p in (module.with_suffix(".py"), module / "__init__.py") if p.is_file())
    return sorted(found)


def code_digest(script: Path) -> str:
    """sha256 over the content of ``script`` and the library modules it uses; where the files lie and when they changed plays no part."""
    digest = hashlib.sha256()
    for path in modules_of(script):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()

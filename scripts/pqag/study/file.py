"""Reads study files: YAML or JSON with plain values, in which nothing can run.

Snakemake's own reader runs the Python in a file with ``__use_yte__``, before it reads the workflow and even for a dry run. If a key occurs
twice, it silently takes the last one. The console plugin (profiles/console) replaces it by ``read``. The plugin loads this module by its
path before it is known which library the workflow will import, so this module imports nothing of the library.
"""

import json
import os
from pathlib import Path
from typing import Any

#: Limits for the bytes of a file, its values with aliases expanded, and their nesting: far more than any study needs.
LARGEST, MOST, DEEPEST = 100_000, 10_000, 20

#: Keys with a meaning for Snakemake itself.
RESERVED = {"__use_yte__": "would run Python in the file", "pathvars": "would have Snakemake move the results"}

#: The allowed types of values. Other tags of YAML create objects by running code.
TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "timestamp", "seq", "map", "merge")}
_KINDS = {"null": "nothing", "bool": "true or false", "int": "a number", "float": "a number", "timestamp": "a date"}
_TOO_DEEP = f"values are nested deeper than the {DEEPEST} levels that are allowed"
_PAIRS = 'allowed are lines "key: value", with a blank after the colon, those of one section indented by the same number of spaces'
#: What PyYAML says, by how it begins, in words that need no knowledge of its parser.
_WORDS = {
    "could not find expected ':'": "a colon is missing",
    "expected ',' or": "a comma or a closing bracket is missing",
    "expected <block end>": "the indentation matches no section above",
    "expected the node content": "a value is missing",
    "found unexpected end of stream": "a quote that opens here is never closed",
    "mapping values are not allowed here": "a colon is in a wrong place",
}


class Refused(ValueError):
    """One sentence that names the file, the line, what is wrong there, and what is allowed."""


def read(path: str | Path) -> dict:
    """Return the mapping in the file. Raises Refused if the file is missing, unreadable, invalid YAML (or JSON, by its name), no mapping of
    plain values, or has a key twice."""
    text = _text(path)
    try:
        content = _json(path, text) if Path(path).suffix == ".json" else _yaml(path, text)
    except RecursionError:
        raise _refused(path, None, _TOO_DEEP) from None
    if content is None:
        raise _refused(path, None, "the file is empty, but must contain at least the keys study, datasets, models and attacks")
    if not isinstance(content, dict):
        kind = "a list" if isinstance(content, list) else "a single value"
        raise _refused(path, None, f"the file contains {kind}, but must contain a mapping: {_PAIRS}")
    for key in RESERVED.keys() & content.keys():
        raise _reserved(path, None, key)
    return content


def printable(words: str) -> str:
    """Return ``words`` on one line, with unprintable and control characters as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in words)


def _refused(path: str | Path, line: int | None, words: str) -> Refused:
    return Refused(printable(f"{path}, line {line}: {words}" if line else f"{path}: {words}"))


def _reserved(path: str | Path, line: int | None, key: str) -> Refused:
    return _refused(path, line, f"{key} {RESERVED[key]} and is rejected: allowed are the keys that config.yaml explains, with plain values")


def _text(path: str | Path) -> str:
    """Return the text of a regular file (a pipe or a device might never end) of a limited size in UTF-8."""
    if not os.path.exists(path):
        root = Path(__file__).parents[3]
        studies = ", ".join(os.path.relpath(study) for study in [root / "config.yaml", *sorted(root.glob("config/*.yaml"))])
        if not Path(path).suffix:  # Snakemake takes every word after --configfile for a file
            raise _refused(path, None, f"there is no such file; if it is a target, put it first: snakemake {path} --configfile …")
        raise _refused(path, None, f"there is no such file; the workflow comes with the studies {studies}")
    if not os.path.isfile(path):
        raise _refused(path, None, f"it is {'a folder' if os.path.isdir(path) else 'no regular file'}, but a study is a file in YAML")
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise _refused(path, None, f"it cannot be read: {error.strerror}") from None
    if len(content) > LARGEST:
        raise _refused(path, None, f"the file is too large for a study: allowed are {LARGEST:,} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _refused(path, line, f"byte {content[error.start]:#04x} is not valid UTF-8: save the file as UTF-8") from None


def _json(path: str | Path, text: str) -> Any:
    def section(pairs: list[tuple[str, Any]]) -> dict:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise _refused(path, None, f"the key {key} is twice in one section, but may be there only once")
            found[key] = value
        return found

    try:
        content = json.loads(text, object_pairs_hook=section) if text.strip() else None
    except json.JSONDecodeError as error:
        raise _refused(path, error.lineno, f"it is not valid JSON ({error.msg}), but the name of the file says JSON") from None
    except Refused:
        raise
    except ValueError:  # thousands of digits
        raise _refused(path, None, "a number has more digits than can be read") from None
    if _depth(content) > DEEPEST:
        raise _refused(path, None, _TOO_DEEP)
    return content


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inner), default=0)


def _yaml(path: str | Path, text: str) -> Any:
    import yaml

    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        for key in [key for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []:
            if isinstance(key, yaml.ScalarNode) and key.value in RESERVED:  # reported before any other mistake
                raise _reserved(path, key.start_mark.line + 1, key.value)
        _check(path, loader, node, [], {})
        return loader.construct_document(node)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _refused(path, line, f"the character {chr(error.character)!r} is not allowed in YAML") from None
    except yaml.MarkedYAMLError as error:
        raise _refused(path, *_syntax(error, text)) from None


def _syntax(error, text: str) -> tuple[int, str]:
    """Return the line and the message for an error of PyYAML."""
    mark = error.problem_mark
    if error.context and error.context.startswith(("while parsing a flow", "while scanning a quoted")):
        mark = error.context_mark  # where it was opened
    lines = text.split("\n")
    before = lines[mark.line][: mark.column + 1] if mark.line < len(lines) else ""
    if "\t" in before and not before.strip():
        return mark.line + 1, "it is indented by a tab, but YAML allows only spaces"
    if error.context and "single document" in error.context:
        return mark.line + 1, "a second document begins, but a study is one: leave out the line ---"
    problem = next((words for start, words in _WORDS.items() if error.problem.startswith(start)), error.problem)
    return mark.line + 1, f"it is not valid YAML ({problem}): {_PAIRS}"


def _check(path, loader, node, above: list, known: dict) -> tuple[int, int]:
    """Raise Refused for content that is not allowed. Return the number of values in ``node`` and their depth, with aliases expanded.

    ``above`` are the nodes that contain this one; ``known`` are the results for nodes already seen, which aliases may repeat.
    """
    import yaml

    line = node.start_mark.line + 1
    if node in above:
        raise _refused(path, line, "an alias is inside the value that it refers to, so it never ends: write the value instead")
    if node.tag not in TAGS:
        tag = node.tag.replace("tag:yaml.org,2002:", "!!")
        raise _refused(
            path, line, f"the tag {tag} is not allowed: values are texts, numbers, true, false, lists and mappings, without tags"
        )
    if id(node) not in known:
        inner = []
        if isinstance(node, yaml.MappingNode):
            _check_keys(path, node)
            inner = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            inner = node.value
        elif not node.tag.endswith(":merge"):
            _value(path, loader, node)
        below = [_check(path, loader, part, [*above, node], known) for part in inner]
        known[id(node)] = 1 + sum(count for count, _ in below), 1 + max((depth for _, depth in below), default=0)
    count, depth = known[id(node)]
    if depth + len(above) > DEEPEST:
        raise _refused(path, line, _TOO_DEEP)
    if count > MOST:
        raise _refused(path, line, f"it contains more than {MOST:,} values with aliases expanded, which is not allowed")
    return count, depth


def _check_keys(path, node) -> None:
    """Check that every key is a text and occurs only once."""
    first: dict[str, int] = {}
    for key_node, _ in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node.value, str):
            raise _refused(path, line, "a list or a mapping is in the place of a key, but keys are texts")
        key, kind = key_node.value, key_node.tag.rsplit(":", 1)[-1]
        if kind in _KINDS:
            raise _refused(path, line, f"the key {key!r} is read by YAML as {_KINDS[kind]}, but keys are texts: put it in quotes")
        if key in first:
            raise _refused(path, line, f"the key {key} is already in line {first[key]}, but may be only once in its section")
        first[key] = line


def _value(path, loader, node) -> Any:
    """Return the value of a scalar; raises Refused if its text does not match its tag: a 13th month, letters in a number."""
    try:
        value = loader.construct_object(node)
        if isinstance(value, int) and value.bit_length() > 1000:  # Python could not print it in the message
            raise ValueError
        return value
    except (ArithmeticError, AttributeError, LookupError, ValueError):
        kind = _KINDS.get(node.tag.rsplit(":", 1)[-1], "a value")
        words = f"{node.value[:40]} looks like {kind} to YAML, but cannot be read as that; put a text in quotes"
        raise _refused(path, node.start_mark.line + 1, words) from None

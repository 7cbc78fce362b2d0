"""What a result depends on: the code, by content."""

import ast
import os
import re
import shutil

import pytest

from pqag.job import provenance
from pqag.job.provenance import modules_of


@pytest.fixture(autouse=True)
def nothing_cached():
    """A digest is read once a process; what other tests read must not be taken for this one's, nor this one's for theirs."""
    provenance.digests.cache_clear()
    yield
    provenance.digests.cache_clear()


def code_digest(script):
    """The digest of the files as they are now."""
    provenance.digests.cache_clear()
    return provenance.code_digest(script)


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A library of five modules, a -> b -> c, d alone, and a package ``sub``."""
    library = tmp_path / "pqag"
    write(library, __init__="", a="from pqag import b\n", b="def f():\n    import pqag.c\n", c="", d="")
    write(library / "sub", __init__="", e="from pqag.d import something\n")
    monkeypatch.setattr(provenance, "LIBRARY", library)
    return tmp_path


IMPORTS = {
    "import os": "",
    "from pqag import d": "d",
    "from pqag import c, d": "c d",
    "import pqag.d": "d",
    "from pqag.d import one, two": "d",
    "from pqag.d import *": "d",
    "def f():\n    from pqag import d": "d",
    "if True:\n    import pqag.d": "d",
    "from pqag import b": "b c",
    "from pqag import a": "a b c",
    "import pqag.sub.e": "sub/__init__ sub/e d",
    "from pqag.sub import e": "sub/__init__ sub/e d",
    "import pqagother.d\nfrom other import pqag": "",
}


@pytest.mark.parametrize("source", IMPORTS)
def test_modules_are_found_however_they_are_imported(small, source):
    (small / "script.py").write_text(f"{source}\n")
    wanted = [f"pqag/{name}.py" for name in IMPORTS[source].split()]
    found = {str(path.relative_to(small)) for path in modules_of(small / "script.py")}
    assert found == {"script.py", *wanted, *["pqag/__init__.py"] * bool(wanted)}


def test_modules_that_import_each_other_are_no_endless_loop(small):
    write(small / "pqag", c="from pqag import d\n", d="from pqag import c\n")
    (small / "script.py").write_text("from pqag import c\n")
    assert len(modules_of(small / "script.py")) == 4


@pytest.fixture
def library(small):
    """The library with definitions: ``a.f`` calls ``b.g``, which uses ``c.K``; the script calls ``a.f``."""
    write(
        small / "pqag",
        a="from pqag import b\n\ndef f(x):\n    return b.g(x)\n\ndef unused():\n    return b.h()\n",
        b="from pqag.c import K, L\n\ndef g(x):\n    return x + K\n\ndef h():\n    return L\n",
        c="K = 3\nL = 4\n",
        errors="class UserError(Exception):\n    pass\n",
    )
    write(small / "pqag/job", __init__="", step="def progress(total, words):\n    return words * total\n")
    (small / "script.py").write_text("from pqag import a\n\nresult = a.f(1)\n")
    return small


@pytest.fixture
def changes(library):
    """Whether the script's digest changes when ``old`` is replaced by ``new`` in one of its files."""

    def replaced(file, old, new):
        path, script = library / file, library / "script.py"
        before, text = code_digest(script), path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        return code_digest(script) != before

    return replaced


@pytest.mark.parametrize(
    ("file", "old", "new", "reached"),
    [
        ("script.py", "a.f(1)", "a.f(2)", True),
        ("pqag/a.py", "b.g(x)", "b.g(-x)", True),
        ("pqag/b.py", "x + K", "x - K", True),
        ("pqag/c.py", "K = 3", "K = 5", True),
        ("pqag/c.py", "K = 3", "K = 3\nK += 1", True),
        ("pqag/c.py", "L = 4", "L = 4\nprint(L)", True),
        ("pqag/__init__.py", "", "print()", True),
        ("pqag/b.py", "from pqag.c import K, L", "from pqag.c import L as K, L", True),
        ("pqag/a.py", "from pqag import b", "from pqag import c as b", True),
        ("pqag/a.py", "return b.h()", "return 2", False),
        ("pqag/b.py", "return L", "return -L", False),
        ("pqag/c.py", "L = 4", "L = 5", False),
        ("pqag/c.py", "L = 4", "L = 4\nM = 5\n\ndef more():\n    pass\n", False),
        ("pqag/b.py", "import K, L", "import K", False),
        ("pqag/d.py", "", "print()", False),
    ],
)
def test_the_digest_changes_with_what_the_script_reaches_and_with_nothing_else(changes, file, old, new, reached):
    assert changes(file, old, new) == reached


FUNCTION = '''\
import logging

from pqag.errors import UserError
from pqag.job.step import progress

log = logging.getLogger("pqag")


def f(x):
    """Old words."""
    # an old remark
    bar = progress(x, f"old title {x}")
    log.info("old line %d", x)
    assert x, "old claim"
    if x < 0:
        words = f"old reason {x}"
        raise UserError(f"old error: {words}")
    return x + 1
'''


@pytest.mark.parametrize(
    ("old", "new", "counts"),
    [
        ("Old words", "New words", False),
        ("an old remark", "a new one", False),
        ("old title {x}", "new title {2 * x}", False),
        ("old line %d", "new line %d", False),
        ("    log.info(", "    log.warning('more')\n    log.info(", False),
        ("old reason", "new reason", False),
        ("old error", "new error", False),
        ("return x + 1", "return (x\n        + 1)", False),
        ("progress(x,", "progress(2 * x,", True),
        ("assert x,", "assert not x,", True),
        ("x < 0", "x <= 0", True),
        ("raise UserError(", "raise ValueError(", True),
        ("x + 1", "x + '1'", True),
        ("return x", "words = 2\n    return x", True),
        ("def f", "async def f", True),
    ],
)
def test_what_a_change_within_a_function_does_to_the_digest(library, changes, old, new, counts):
    write(library / "pqag", a=FUNCTION)
    assert changes("pqag/a.py", old, new) == counts


@pytest.mark.parametrize("file", ["pqag/errors.py", "pqag/job/step.py", "pqag/job/__init__.py"])
def test_the_harness_is_in_no_digest_but_among_the_modules(library, file):
    write(library / "pqag", a=FUNCTION)
    before = code_digest(library / "script.py")
    with (library / file).open("a") as opened:
        opened.write("print()\n")
    assert code_digest(library / "script.py") == before
    assert library / file in modules_of(library / "script.py")


@pytest.mark.parametrize("use", ["run(a)", "getattr(a, 'unused')()", "from pqag.a import *", "table = {'f': a}"])
def test_a_module_that_is_used_in_a_way_that_cannot_be_followed_counts_whole(library, changes, use):
    (library / "script.py").write_text(f"from pqag import a\n\n{use}\n")
    assert changes("pqag/a.py", "def unused", "def unknown")


#: Functions of a module that is looked into by name, with what they return.
OF_CHOSEN = {"one": "helper", "two": 2, "third": "helper", "helper": 3}


def test_of_modules_whose_functions_are_looked_up_by_name_the_chosen_ones_count(library, monkeypatch):
    """``one`` uses ``helper``; the script names ``third`` itself."""
    monkeypatch.setattr(provenance, "CHOSEN", ("d.py",))
    write(library / "pqag", d="".join(f"def {name}():\n    return {of}\n" for name, of in OF_CHOSEN.items()))
    (library / "script.py").write_text("from pqag import d\n\nresult = getattr(d, choice)() + d.third()\n")

    def reached(*chosen):
        return {name for path, name in provenance.reached(library / "script.py", chosen) if path.name == "d.py"}

    assert reached() == {"", "third", "helper"} and reached(("d", "two")) == {"", "third", "helper", "two"}
    assert reached(("d", "one")) == {"", "third", "helper", "one"}
    digests = {provenance.code_digest(library / "script.py", frozenset(chosen)) for chosen in ((), {("d", "one")}, {("d", "two")})}
    assert len(digests) == 3


def test_data_files_count_where_they_are_named_and_definitions_within_a_class_and_decorators_too(library, changes):
    (library / "pqag/sub/numbers.csv").write_text("1\n")
    write(library / "pqag", a="def f(x):\n    return 'numbers.csv'\n\n\ndef unused():\n    return 'other.csv'\n")
    (library / "pqag/other.csv").write_text("1\n")
    assert changes("pqag/sub/numbers.csv", "1", "2") and not changes("pqag/other.csv", "1", "2")
    write(library / "pqag", a="from pqag import b\n\n\n@b.h\nclass f:\n    size = b.g(1)\n")
    assert changes("pqag/b.py", "return L", "return -L") and changes("pqag/b.py", "x + K", "x - K")
    write(library / "pqag", a="def f(x):\n    return g(x)\n\n\ndef g(x):\n    return f(x - 1)\n")
    assert changes("pqag/a.py", "x - 1", "x - 2")


def test_the_digest_is_read_once_a_process(library):
    """All jobs that one Snakemake plans get the same, even if a file changes meanwhile."""
    script = library / "script.py"
    before = code_digest(script)
    assert re.fullmatch("[0-9a-f]{64}", before)
    for path in library.rglob("*.py"):
        os.utime(path, (0, 0))
    assert code_digest(script) == before, "times do not count"
    script.write_text("from pqag import a\nprint(a)\n")
    assert provenance.code_digest(script) == before
    assert code_digest(script) != before


def test_digests_are_kept_until_a_file_of_the_library_changes(library, monkeypatch):
    script, found = library / "script.py", provenance._digest
    asked = []
    monkeypatch.setattr(provenance, "_digest", lambda *of: asked.append(of) or found(*of))
    before = code_digest(script)
    assert code_digest(script) == before and len(asked) == 1
    script.write_text(f"{script.read_text()}print()\n")
    assert code_digest(script) != before and len(asked) == 2
    code_digest(script)
    assert len(asked) == 2
    changed = library / "pqag/c.py"
    changed.write_text(f"{changed.read_text()}\n\ndef another():\n    pass\n")
    code_digest(script)
    assert len(asked) == 3
    kept = library / "pqag/__pycache__/code_digests.json"
    assert code_digest(script) in kept.read_text()
    kept.write_text("{")
    assert code_digest(script) == found(script, frozenset()) and len(asked) == 4
    kept.unlink()
    kept.mkdir()  # neither a file to read nor a place to write one
    assert code_digest(script) == found(script, frozenset()) and len(asked) == 5


def test_what_is_empty_is_left_out_of_the_meaning():
    """Python 3.13 leaves empty lists out of a syntax tree's text and 3.12 adds an empty one (type parameters): the digest is of neither."""
    meaning = repr([provenance._plain(node) for node in ast.parse("def f(): return []").body])
    assert "Return" in meaning and not any(words in meaning for words in ("[]", "type_params", "decorator_list"))


def test_a_definition_that_moves_to_another_module_changes_the_digest(library, changes):
    write(library / "pqag", d="K = 3\n")
    assert changes("pqag/b.py", "from pqag.c import K, L", "from pqag.d import K\nfrom pqag.c import L")


def steps(folder):
    return sorted(folder.glob("*.py"))


def copied(scripts, folder, monkeypatch):
    shutil.copytree(scripts, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "LIBRARY", folder / "pqag")
    return folder


def test_every_step_has_a_digest_of_its_own_wherever_the_files_lie(scripts, tmp_path, monkeypatch):
    here = [code_digest(path) for path in steps(scripts)]
    assert len(here) >= 8 and len(set(here)) == len(here)
    assert here == [code_digest(path) for path in steps(copied(scripts, tmp_path / "zz" / "other", monkeypatch))]


def test_the_digest_does_not_depend_on_the_locale(scripts, python, monkeypatch):
    """Sources hold more than ASCII, which the plainest of locales cannot read by itself."""
    for name, value in {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}.items():
        monkeypatch.setenv(name, value)
    code = "import sys; from pathlib import Path; from pqag.job.provenance import code_digest; print(code_digest(Path(sys.argv[1])))"
    done = python(code, scripts / "fetch.py", capture_output=True, text=True, check=True)
    assert done.stdout.strip() == code_digest(scripts / "fetch.py")
    assert not all(path.read_bytes().isascii() for path in modules_of(scripts / "fetch.py")), "the control: the locale does matter"


def test_nothing_is_imported_in_a_way_that_the_finder_does_not_see(scripts):
    """Relative imports, importlib and dotted names without `as` would slip through; the library uses none of them for its own modules."""
    for path in [*steps(scripts), *(scripts / "pqag").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path.name} line {node.lineno}: relative import"
            if isinstance(node, ast.Import):
                dotted = [alias.name for alias in node.names if alias.name.startswith("pqag.") and not alias.asname]
                assert not dotted, f"{path.name} line {node.lineno}: code_digest cannot follow {dotted} without `as`"
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "__import__", "import_module"):
                assert "pqag" not in ast.unparse(node), f"{path.name} line {node.lineno}: {ast.unparse(node)}"

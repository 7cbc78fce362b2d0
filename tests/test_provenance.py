"""What a result depends on: the code, by content."""

import ast
import os
import shutil

import pytest

from pqag import provenance
from pqag.provenance import modules_of


@pytest.fixture(autouse=True)
def nothing_cached():
    """A digest is read once a process; what other tests read must not be taken for this one's, nor this one's for theirs."""
    provenance.code_digest.cache_clear()
    yield
    provenance.code_digest.cache_clear()


def code_digest(script):
    """The digest of the files as they are now."""
    provenance.code_digest.cache_clear()
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


def found(folder, source):
    (folder / "script.py").write_text(source)
    return {str(path.relative_to(folder)) for path in modules_of(folder / "script.py")} - {"script.py", "pqag/__init__.py"}


@pytest.mark.parametrize(
    ("source", "modules"),
    [
        ("import os\n", set()),
        ("from pqag import d\n", {"pqag/d.py"}),
        ("from pqag import c, d\n", {"pqag/c.py", "pqag/d.py"}),
        ("from pqag import d as other\n", {"pqag/d.py"}),
        ("import pqag.d\n", {"pqag/d.py"}),
        ("import pqag.d as y\n", {"pqag/d.py"}),
        ("import os, pqag.d as y\n", {"pqag/d.py"}),
        ("from pqag.d import one, two\n", {"pqag/d.py"}),
        ("from pqag.d import *\n", {"pqag/d.py"}),
        ("def f():\n    from pqag import d\n", {"pqag/d.py"}),
        ("if True:\n    import pqag.d\n", {"pqag/d.py"}),
        ("from pqag import b\n", {"pqag/b.py", "pqag/c.py"}),
        ("from pqag import a\n", {"pqag/a.py", "pqag/b.py", "pqag/c.py"}),
        ("import pqag.sub.e\n", {"pqag/sub/__init__.py", "pqag/sub/e.py", "pqag/d.py"}),
        ("from pqag.sub import e\n", {"pqag/sub/__init__.py", "pqag/sub/e.py", "pqag/d.py"}),
        ("import pqagother.d\nfrom other import pqag\n", set()),
    ],
)
def test_modules_are_found_however_they_are_imported(small, source, modules):
    assert found(small, source) == modules


def test_the_script_itself_counts(small):
    (small / "script.py").write_text("")
    assert modules_of(small / "script.py") == [small / "script.py"]


def test_modules_that_import_each_other_are_no_endless_loop(small):
    write(small / "pqag", c="from pqag import d\n", d="from pqag import c\n")
    assert found(small, "from pqag import c\n") == {"pqag/c.py", "pqag/d.py"}


def test_the_package_file_counts_for_a_name_from_the_package(small):
    (small / "script.py").write_text("from pqag import d\n")
    assert small / "pqag" / "__init__.py" in modules_of(small / "script.py")


@pytest.mark.parametrize("source", ["import pqag.d\n", "from pqag.d import x\n"])
def test_the_package_file_counts_for_every_import_of_a_module(small, source):
    (small / "script.py").write_text(source)
    assert small / "pqag" / "__init__.py" in modules_of(small / "script.py")


# ---------------------------------------------------------------------------------------------------------------------- digest


@pytest.fixture
def digest_of_a(small):
    (small / "script.py").write_text("from pqag import a\n")
    return lambda: code_digest(small / "script.py")


def test_the_digest_is_sha256_in_hexadecimal(digest_of_a):
    assert len(digest_of_a()) == 64 and set(digest_of_a()) <= set("0123456789abcdef")


@pytest.mark.parametrize("module", ["a", "b", "c", "__init__"])
def test_the_digest_changes_with_every_module_in_use(small, digest_of_a, module):
    before = digest_of_a()
    with (small / "pqag" / f"{module}.py").open("a") as file:
        file.write("changed = 1\n")
    assert digest_of_a() != before


def test_the_digest_changes_with_the_script(small, digest_of_a):
    before = digest_of_a()
    (small / "script.py").write_text("from pqag import a\nprint(a)\n")
    assert digest_of_a() != before


@pytest.mark.parametrize("module", ["d", "sub/e", "new"])
def test_the_digest_does_not_change_with_a_module_not_in_use(small, digest_of_a, module):
    before = digest_of_a()
    (small / "pqag" / f"{module}.py").write_text("changed = 1\n")
    assert digest_of_a() == before


def test_the_digest_does_not_change_with_comments_docstrings_and_layout(small, digest_of_a):
    write(small / "pqag", c='def f(x):\n    """Old."""\n    return x + 1\n')
    before = digest_of_a()
    write(small / "pqag", c='"""New."""\n\ndef f(x):  # why\n    """New\n    words."""\n    return (x\n            + 1)\n')
    assert digest_of_a() == before
    write(small / "pqag", c='def f(x):\n    """Old."""\n    return x + 2\n')
    assert digest_of_a() != before


def test_the_digest_is_read_once_a_process(small, digest_of_a):
    """All jobs that one Snakemake plans get the same, even if a file changes meanwhile."""
    before = digest_of_a()
    (small / "script.py").write_text("from pqag import a\nprint(a)\n")
    assert provenance.code_digest(small / "script.py") == before
    assert digest_of_a() != before


def test_names_and_operators_count(small, digest_of_a):
    digests = []
    for source in (
        "x = 1",
        "y = 1",
        "x = 1.0",
        "x = '1'",
        "x = -1",
        "x += 1",
        "x: int = 1",
        "def x(): return 1",
        "async def x(): return 1",
    ):
        write(small / "pqag", c=source)
        digests.append(digest_of_a())
    assert len(set(digests)) == len(digests)


def test_a_text_that_is_no_docstring_counts(small, digest_of_a):
    digests = []
    for source in ('x = """a"""', 'x = """b"""', 'f("""a""")', 'x = 1\n"""a"""'):
        write(small / "pqag", c=source)
        digests.append(digest_of_a())
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize("source", ["class A:\n    {}x = 1\n", "async def f():\n    {}return 1\n", "{}x = 1\n", "def f():\n    {}\n"])
def test_docstrings_of_every_kind_play_no_part(small, digest_of_a, source):
    digests = set()
    for words in ("One.", "Another."):
        write(
            small / "pqag", c=source.format(f'"""{words}"""\n    ' if source.startswith(("class", "async", "def")) else f'"""{words}"""\n')
        )
        digests.add(digest_of_a())
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("source", "names"),
    [("def f(): pass", []), ("def f(): return 1", ["Return"]), ("x = None", ["Assign"]), ("x = []", ["Assign", "List"])],
)
def test_what_is_empty_is_left_out_of_the_meaning(source, names):
    """Python 3.13 leaves empty lists out of a syntax tree's text and 3.12 adds an empty one (type parameters): the digest is of neither."""
    meaning = provenance._meaning(source).decode()
    assert "[]" not in meaning and "type_params" not in meaning and "decorator_list" not in meaning
    for name in names:
        assert repr(name) in meaning


def test_the_digest_does_not_change_with_the_time_of_files(small, digest_of_a):
    before = digest_of_a()
    for path in small.rglob("*.py"):
        os.utime(path, (0, 0))
    assert digest_of_a() == before


def test_moving_text_from_one_module_to_another_changes_the_digest(small, digest_of_a):
    write(small / "pqag", b="import pqag.c\nx = 1\n", c="y = 1\n")
    before = digest_of_a()
    write(small / "pqag", b="import pqag.c\n", c="x = 1\ny = 1\n")
    assert digest_of_a() != before


# ---------------------------------------------------------------------------------------------------------------- the real library


def steps(folder):
    return sorted(folder.glob("*.py"))


def copied(scripts, folder, monkeypatch):
    shutil.copytree(scripts, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "LIBRARY", folder / "pqag")
    return folder


def test_every_step_has_a_digest_of_its_own(scripts):
    digests = [code_digest(path) for path in steps(scripts)]
    assert len(digests) >= 8 and len(set(digests)) == len(digests)


def test_the_digest_does_not_depend_on_where_the_files_lie(scripts, tmp_path, monkeypatch):
    here = [code_digest(path) for path in steps(scripts)]
    assert here == [code_digest(path) for path in steps(copied(scripts, tmp_path / "a" / "scripts", monkeypatch))]
    assert here == [code_digest(path) for path in steps(copied(scripts, tmp_path / "zz" / "other", monkeypatch))]


def test_the_digest_does_not_depend_on_the_locale(scripts, python, monkeypatch):
    """Sources hold more than ASCII, which the plainest of locales cannot read by itself."""
    for name, value in {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}.items():
        monkeypatch.setenv(name, value)
    code = "import sys; from pathlib import Path; from pqag.provenance import code_digest; print(code_digest(Path(sys.argv[1])))"
    done = python(code, scripts / "fetch.py", capture_output=True, text=True, check=True)
    assert done.stdout.strip() == code_digest(scripts / "fetch.py")
    assert not all(path.read_bytes().isascii() for path in modules_of(scripts / "fetch.py")), "the control: the locale does matter"


def test_a_change_two_imports_away_reaches_the_steps_that_use_it_and_no_other(scripts, tmp_path, monkeypatch):
    """attack.py imports checkpoints and attacks, which import networks; fetch.py, evaluate.py and table.py never load a network."""
    folder = copied(scripts, tmp_path / "scripts", monkeypatch)
    before = {path.name: code_digest(path) for path in steps(folder)}
    with (folder / "pqag" / "networks.py").open("a") as file:
        file.write("changed = 1\n")
    changed = {path.name for path in steps(folder) if code_digest(path) != before[path.name]}
    assert {"attack.py", "pretrain.py", "extract.py"} <= changed
    assert not changed & {"fetch.py", "prepare.py", "evaluate.py", "table.py"}


LOADED = """
import ast, importlib, os, sys

# What is not ours is loaded once, not in every child; pqag.attacks says why advertorch needs the name.
importlib.import_module("torch.autograd.gradcheck").zero_gradients = None
import advertorch.attacks, faiss, h5py, pandas, torchvision, tqdm

for script in sys.argv[1:]:
    sys.stdout.flush()
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        continue
    for node in ast.parse(open(script, encoding="utf-8").read()).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            exec(compile(ast.Module([node], []), script, "exec"))
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "pqag":
            print(script, module.__file__)
    sys.stdout.flush()
    os._exit(0)
"""


def test_what_python_loads_for_a_step_is_in_its_modules(scripts, python):
    """The finder that reads source against the importer itself."""
    paths = [str(path) for path in steps(scripts)]
    done = python(LOADED, *paths, capture_output=True, text=True, check=True)
    loaded = {path: set() for path in paths}
    for line in done.stdout.splitlines():
        script, file = line.split(" ")
        loaded[script].add(file)
    assert all(loaded.values()), done.stderr
    for path, files in loaded.items():
        assert files <= {str(module) for module in modules_of(scripts / path)}, path


def test_nothing_is_imported_in_a_way_that_the_finder_does_not_see(scripts):
    """Relative imports and importlib would slip through ``modules_of``; the library uses neither for its own modules."""
    for path in [*steps(scripts), *(scripts / "pqag").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path.name} line {node.lineno}: relative import"
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "__import__", "import_module"):
                assert "pqag" not in ast.unparse(node), f"{path.name} line {node.lineno}: {ast.unparse(node)}"


def test_the_digest_of_table1_changes_with_the_papers_numbers(scripts, tmp_path, monkeypatch):
    folder = copied(scripts, tmp_path / "scripts", monkeypatch)
    before = code_digest(folder / "table.py")
    with (folder / "pqag" / "paper_tables.csv").open("a") as file:
        file.write("# changed\n")
    assert code_digest(folder / "table.py") != before

"""Study files with a mistake and study files with an attack: each is refused in one sentence, and nothing in them runs."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import snakemake_logger_plugin_pqag as plugin
import yaml
import yte
from snakemake.common import configfile
from snakemake.settings import types

from pqag.errors import UserError
from pqag.show import cells
from pqag.study import file as studyfile
from pqag.study.model import parse_study, read_config

from ..workflow.conftest import ROOT, snakemake

TINY = (ROOT / "config/tiny.yaml").read_text()

#: What the payloads create where they run: a folder beside their file.
CANARY = "canary"
CODE = f"__import__('os').mkdir('{CANARY}')"


def tiny(old: str, new: str) -> str:
    """The tiny study with a piece of its text replaced wherever it stands."""
    assert old in TINY
    return TINY.replace(old, new)


def laughs(levels: int, width: int, merge: bool = False) -> str:
    """Lists, or mappings merged into one another, each of so many aliases of the one before: width to the power of levels in the end."""
    lines = ["a0: &a0 {x: 1}" if merge else "a0: &a0 [1]"]
    for i in range(1, levels + 1):
        aliases = f"[{', '.join([f'*a{i - 1}'] * width)}]"
        lines.append(f"a{i}: &a{i} {{<<: {aliases}}}" if merge else f"a{i}: &a{i} {aliases}")
    return "\n".join(lines) + "\n"


PAIRS = 'allowed are lines "key: value"'
PLAIN = "values are texts, numbers, true, false, lists and mappings"
NAMES = "a name may hold only a-z, 0-9 and _ and begins with a letter"
KEYS = "allowed are study, datasets, models, attacks, bits, seeds, training, quantizer, pqn, joint, tables, figures, threads, shards"

#: (kind of mistake, what the file holds, what the sentence must hold: where, what is wrong, what is allowed)
BAD = [
    ("typo", tiny("study:", "studdy:"), ["studdy is no key: did you mean study?", KEYS]),
    ("typo", tiny("  epochs:", "  epoch:"), ["training.epoch is no key: did you mean epochs?", "batch_size"]),
    ("a key missing", tiny("study: tiny\n", ""), ["the key study is missing"]),
    ("a key missing", tiny("    loss: apd\n", ""), ["attacks.apd is empty, but must be a mapping"]),
    ("wrong type", tiny("study: tiny", "study: 2020-01-02"), ["study is 2020-01-02", "must be a text"]),
    ("wrong type", tiny("study: tiny", "study: no"), ["study is false", "must be a text"]),
    ("wrong type", tiny("epochs: 2", "epochs:"), ["training.epochs is empty", "must be a whole number"]),
    ("wrong type", tiny("width: 0.125", "width: 0,125"), ["width is '0,125'", "must be a number"]),
    ("wrong type", "study: a\ndatasets: [synthetic]\nmodels: {vgg16: {}}\nattacks: {a: {loss: apd}}\n", ["datasets is ['synthetic']"]),
    ("wrong type", tiny("study: tiny", f"study: [{'0, ' * 9000}0]"), ["study is [0, 0", "…", "must be a text"]),
    ("out of range", tiny("study: tiny", f"study: {'a' * 61}"), ["at most 60 characters"]),
    ("contradictory", tiny("train: 1000", "train: 5000"), ["there are 2000 training images, 5000"]),
    ("YAML error", tiny("  synthetic:", "\tsynthetic:"), ["line 4: it is indented by a tab, but YAML allows only spaces"]),
    ("YAML error", tiny("study: tiny", "study: a\n\tx: b"), ["line 3: it is indented by a tab"]),
    ("YAML error", tiny("study: tiny", "study: tiny: x"), ["line 2: it is not valid YAML (a colon", PAIRS]),
    ("YAML error", tiny("study: tiny", "study:tiny"), ["line 3: it is not valid YAML (a colon", PAIRS, "with a blank after the colon"]),
    ("YAML error", tiny("study: tiny", 'study: "tiny'), ["line 2: it is not valid YAML (a quote that opens here is never closed)"]),
    ("YAML error", tiny("[16]", "[16"), ["line 20: it is not valid YAML (a comma or a closing bracket is missing)", PAIRS]),
    ("YAML error", tiny("epochs: 2", "epochs: 2\n   crop: 1"), ["line 23: it is not valid YAML (", PAIRS]),
    ("YAML error", tiny("study: tiny", "study: @tiny"), ["line 2: it is not valid YAML", "'@'", PAIRS]),
    ("YAML error", tiny("study: tiny", "study: *tiny"), ["line 2: it is not valid YAML (found undefined alias 'tiny')", PAIRS]),
    ("YAML error", tiny("study: tiny", "study: 2020-13-45"), ["line 2: 2020-13-45 looks like a date", "put a text in quotes"]),
    ("YAML error", tiny("[16]", f"[0x{'f' * 5000}]"), ["line 20: 0xffff", "looks like a number", "cannot be read as that"]),
    ("YAML error", TINY + "---\n" + TINY, ["line 32: a second document begins", "leave out the line ---"]),
    ("YAML error", TINY + "<<: 5\n", ["line 32: it is not valid YAML (expected a mapping or list of mappings for merging", PAIRS]),
    ("YAML error", tiny("study: tiny", "study: {{ name }}"), ["line 2: a list or a mapping is in the place of a key", "keys are texts"]),
    ("YAML error", TINY + "on: 5\n", ["line 32: the key 'on' is read by YAML as true or false", "put it in quotes"]),
    ("YAML error", TINY + "16: 5\n", ["line 32: the key '16' is read by YAML as a number", "put it in quotes"]),
    ("duplicate key", TINY + "bits: [24]\n", ["line 32: the key bits is already in line 20", "once in its section"]),
    ("duplicate key", tiny("    train: 1000", "    train: 1000\n    train: 9"), ["line 6: the key train is already in line 5"]),
    ("duplicate key", TINY + "<<: {seeds: [1]}\n<<: {seeds: [2]}\n", ["line 33: the key << is already in line"]),
    ("empty or no study", "", ["the file is empty", "study, datasets, models and attacks"]),
    ("empty or no study", "- study\n- datasets\n", ["the file contains a list", PAIRS]),
    ("empty or no study", "tiny\n", ["the file contains a single value", PAIRS]),
    ("empty or no study", b"\x89PNG\r\n\x1a\n\0\0", ["line 1: byte 0x89 is not valid UTF-8"]),
    ("empty or no study", TINY.encode() + b"# caf\xe9\n", ["line 32: byte 0xe9 is not valid UTF-8"]),
    ("empty or no study", TINY.encode("utf-16"), ["line 1: byte 0xff is not valid UTF-8"]),
    ("empty or no study", "study: a\0b\n", ["line 1: the character '\\x00' is not allowed"]),
    ("empty or no study", "a: b\n" * 30_000, ["too large for a study: allowed are 100,000 bytes"]),
    ("empty or no study", "<!DOCTYPE html>\n<title>404: Not Found</title>\n", ["line 2: it is not valid YAML (a colon", PAIRS]),
    ("code", f"__use_yte__: true\nstudy: ?{CODE}\n", ["line 1: __use_yte__ would run Python", "keys that config.yaml explains"]),
    ("code", f"{TINY}__use_yte__: true\n?{CODE}:\n  x: 1\n", ["line 32: __use_yte__ would run Python"]),
    ("code", f"__use_yte__: true\n__definitions__:\n  - {CODE}\n", ["line 1: __use_yte__ would run Python"]),
    ("code", f"<<: {{__use_yte__: true}}\nx: ?{CODE}\n", ["__use_yte__ would run Python"]),
    ("code", TINY + "__use_yte__: false\n", ["line 32: __use_yte__ would run Python"]),
    ("code", tiny("study: tiny", f'study: !!python/object/apply:os.mkdir ["{CANARY}"]'), ["line 2: the tag !!python/object/apply", PLAIN]),
    ("code", tiny("study: tiny", f'study: !!python/object/new:os.mkdir ["{CANARY}"]'), ["line 2: the tag !!python/object/new", PLAIN]),
    ("code", tiny("study: tiny", "study: !!python/name:os.system x"), ["line 2: the tag !!python/name:os.system", PLAIN]),
    ("code", tiny("study: tiny", f"study: ?{CODE}"), ["?__import__", NAMES]),
    ("code", TINY + "pathvars: {results: /tmp}\n", ["line 32: pathvars would have Snakemake move the results"]),
    ("code", tiny("study: tiny", "study: !study tiny"), ["line 2: the tag !study is not allowed", PLAIN]),
    ("code", tiny("study: tiny", "!study study: tiny"), ["line 2: the tag !study is not allowed", PLAIN]),
    ("code", tiny("[16]", "!!set {16}"), ["line 20: the tag !!set is not allowed", PLAIN]),
    ("bomb", laughs(9, 9), ["more than 10,000 values with aliases expanded"]),
    ("bomb", laughs(9, 9, merge=True), ["more than 10,000 values with aliases expanded"]),
    ("bomb", "a: &a [*a]\n", ["line 1: an alias is inside the value that it refers to"]),
    ("bomb", laughs(2000, 1), ["nested deeper than the 20 levels"]),
    ("bomb", f"a: {'[' * 3000}{']' * 3000}\n", ["nested deeper than the 20 levels"]),
    ("bomb", "\n".join(" " * i + "a:" for i in range(300)), ["nested deeper than the 20 levels"]),
    ("hostile name", tiny("study: tiny", "study: ../../elsewhere"), ["study is '../../elsewhere'", NAMES]),
    ("hostile name", tiny("study: tiny", f"study: a; mkdir {CANARY}"), ["study is 'a; mkdir", NAMES]),
    ("hostile name", tiny("study: tiny", f"study: $(mkdir {CANARY})"), ["study is '$(mkdir", NAMES]),
    ("hostile name", tiny("  apd:", r"  \input{/etc/passwd}:"), [r"attacks.\input{/etc/passwd}", NAMES]),
    ("hostile name", tiny("  apd:", "  <script>alert(1)</script>:"), ["attacks.<script>alert(1)</script>", NAMES]),
    ("hostile name", tiny("study: tiny", r'study: "\e[2J\e]0;evil\a"'), [r"study is '\x1b[2J\x1b]0;evil\x07'", NAMES]),
    ("hostile name", TINY + '"\\e[2J\\r\\nall is well": 5\n', [r"\x1b[2J\r\nall is well is no key", KEYS]),
    ("hostile name", TINY + '"\\u202Egpj.yduts": 5\n', [r"\u202egpj.yduts is no key", KEYS]),
]  # fmt: skip


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(path: Path) -> str:
    """The sentence that the file gets from the workflow's two readers: one line that a terminal prints as it is, about the file."""
    with pytest.raises(UserError) as error:
        parse_study(read_config(path), str(path))
    words = str(error.value)
    assert words.isprintable() and words.startswith(str(path)) and len(words) < len(str(path)) + 400, words
    for jargon in ("Traceback", "Error", "pydantic", "constructor", "scanning", "parsing", "<block", "NoneType", "tag:yaml"):
        assert jargon not in words, words
    return words


@pytest.mark.parametrize(("kind", "content", "fragments"), BAD, ids=[f"{i}-{kind}" for i, (kind, *_) in enumerate(BAD)])
def test_a_bad_study_file_is_told_in_a_sentence_and_nothing_in_it_runs(kind, content, fragments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = refusal(write(tmp_path / "bad.yaml", content))
    for fragment in fragments:
        assert fragment in words, words
    assert os.listdir(tmp_path) == ["bad.yaml"]


JSON = {
    "": "the file is empty",
    "[]": "the file contains a list",
    '{"study": "a", "study": "b"}': "the key study is twice in one section",
    '{"study": "a",\n}': "but the name of the file says JSON",
    f'{{"__use_yte__": true, "study": "?{CODE}"}}': "__use_yte__ would run Python",
    "[" * 40_000: "nested deeper than the 20 levels",
    f'{{"study": {"9" * 5000}}}': "a number has more digits than can be read",
    '{"study": NaN}': "study is nan, but must be a text",
}


@pytest.mark.parametrize("content", JSON, ids=range(len(JSON)))
def test_a_study_as_json_is_read_as_strictly(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert JSON[content] in refusal(write(tmp_path / "bad.json", content))
    assert os.listdir(tmp_path) == ["bad.json"]


def test_what_is_no_file_is_told_and_not_waited_for(tmp_path):
    """A pipe nobody writes to, and a device without an end, too."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    (tmp_path / "circle").symlink_to("circle")
    for name, words in {
        "nowhere.yaml": "there is no such file; the workflow comes with the studies ",
        "circle": "there is no such file",
        "x" * 300: "there is no such file",
        "nul\0": "there is no such file",
        ".": "it is a folder, but a study is a file",
        "pipe": "it is no regular file",
        "endless": "it is no regular file",
    }.items():
        with pytest.raises(UserError, match=re.escape(words)):
            read_config(f"{tmp_path}/{name}")
    with pytest.raises(UserError) as error:
        read_config(tmp_path / "nowhere.yaml")
    named = str(error.value).split("with the studies ")[1].split(", ")
    assert [Path(name).resolve() for name in named] == [ROOT / "config.yaml", *sorted((ROOT / "config").glob("*.yaml"))]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_told(tmp_path):
    write(tmp_path / "secret.yaml", TINY).chmod(0)
    assert "it cannot be read: Permission denied" in refusal(tmp_path / "secret.yaml")


def test_right_files_are_read_as_by_other_readers(tmp_path):
    for path in (ROOT / "config.yaml", *(ROOT / "config").glob("*.yaml")):
        assert read_config(path) == yaml.safe_load(path.read_text())
    config = yaml.safe_load(TINY) | {"training": {"weight_decay": 5e-05}}
    assert read_config(write(tmp_path / "a.json", json.dumps(config))) == config, "which as YAML would be the text 5e-05"
    assert read_config(write(tmp_path / "a.yaml", b"\xef\xbb\xbf" + TINY.replace("\n", "\r\n").encode())) == yaml.safe_load(TINY)


def test_as_many_values_and_levels_as_are_allowed_are_read_and_one_more_is_not(tmp_path):
    """A mapping, its key and its list are three."""
    rest = studyfile.MOST - 3
    assert len(read_config(write(tmp_path / "a.yaml", f"a: [{'1,' * rest}]\n"))["a"]) == rest
    with pytest.raises(UserError, match="more than 10,000 values"):
        read_config(write(tmp_path / "a.yaml", f"a: [{'1,' * (rest + 1)}]\n"))

    for path in (tmp_path / "a.yaml", tmp_path / "a.json"):  # a mapping, 18 lists and the number are 20 levels
        assert read_config(write(path, '{"a": ' + "[" * 18 + "1" + "]" * 18 + "}"))
        with pytest.raises(UserError, match="nested deeper"):
            read_config(write(path, '{"a": ' + "[" * 19 + "1" + "]" * 19 + "}"))
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: *a\n" + "".join(f"l{i}: *a\n" for i in range(100))
    content = read_config(write(tmp_path / "a.yaml", text))
    assert (content["b"], content["c"], len(content)) == ({"x": 1, "y": 3}, {"x": 1, "y": 2}, 103)


def test_snakemakes_own_reader_and_an_unsafe_loader_would_run_the_code(tmp_path, monkeypatch):
    """As would YTE itself, which it calls, and an unsafe loader of YAML: for every payload of the table that is meant for them."""
    monkeypatch.chdir(tmp_path)
    armed = [content for kind, content, _ in BAD if kind == "code" and CODE in content and "__use_yte__: true\n" in content]
    assert len(armed) == 3
    for content in armed:
        for reader in (configfile._load_configfile, lambda path: yte.process_yaml(path.read_text(), require_use_yte=True)):
            try:
                reader(write(tmp_path / "bad.yaml", content))
            except Exception as error:
                assert os.path.isdir(CANARY), error  # it ran, and what it gave was of no use
            os.rmdir(CANARY)

    armed = [content for kind, content, _ in BAD if kind == "code" and "!!python/object" in content]
    assert len(armed) == 2
    for content in armed:
        yaml.load(content, Loader=yaml.UnsafeLoader)
        os.rmdir(CANARY)


def told(folder: Path, *arguments: str | Path) -> str:
    """What ``snakemake ARGUMENTS --cores 1 all`` in an empty folder ends with: one line beside the one on the profile, and nothing made."""
    before = sorted(path.name for path in folder.iterdir())
    done = snakemake(folder, *arguments, "--cores", 1, "all")
    assert (done.returncode, done.stdout) == (1, ""), done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("Using workflow specific profile")]
    assert len(lines) == 1, done.stderr
    left = {path.name for path in folder.iterdir()} - {".snakemake"}
    assert sorted(left) == [name for name in before if name != ".snakemake"]
    assert not (ROOT / CANARY).exists(), "the folder that it was started in"
    return lines[0]


#: One that the schema refuses, one that YAML refuses, and those that Snakemake by itself would stumble over, or obey.
THROUGH_SNAKEMAKE = [next(case for case in BAD if case[0] == kind) for kind in ("typo", "YAML error", "code")]
THROUGH_SNAKEMAKE += [case for case in BAD if case[0] == "code" and ("pathvars" in case[1] or "apply:" in case[1])]


@pytest.mark.parametrize(("kind", "content", "fragments"), THROUGH_SNAKEMAKE, ids=[kind for kind, *_ in THROUGH_SNAKEMAKE])
def test_snakemake_tells_it_in_one_line_and_runs_nothing(kind, content, fragments, tmp_path):
    words = told(tmp_path, "--configfile", write(tmp_path / "bad.yaml", content))
    for fragment in ["bad.yaml", *fragments]:
        assert fragment in words, words


def test_neither_a_dry_run_nor_another_profile_runs_code(tmp_path):
    """Nor does it run for the file that the workflow reads by itself, config.yaml in the folder of the results."""
    content = f"__use_yte__: true\nstudy: ?{CODE.replace(CANARY, str(tmp_path / CANARY))}\n"
    write(tmp_path / "config.yaml", content)
    for options in ([], ["--workflow-profile", "none", "--configfile", tmp_path / "config.yaml"]):
        done = snakemake(tmp_path, "-n", *options, "all")
        assert done.returncode == 1 and "config.yaml, line 1: __use_yte__ would run Python" in done.stdout + done.stderr
        assert not (tmp_path / CANARY).exists()


@pytest.mark.parametrize(
    ("option", "fragment"),
    [
        ("study=../../elsewhere", "--config: study is '../../elsewhere', but a name may hold only"),
        (f"study=!!python/object/apply:os.mkdir [{CANARY}]", f"--config: study is ['{CANARY}'], but must be a text"),
        ("attacks={aod: {epsilon: 16}}", "epsilon is '16', but must be a number; --config gives it as text: write it into a second"),
        ("bits=[8]", "bits[0] is '8', but must be a whole number; --config gives it as text"),
        ("anonymous=true", "anonymous is 'true', but must be true or false; --config gives it as text"),
        ("__use_yte__=true", "--config: __use_yte__ is no key: allowed are study"),
    ],
)
def test_a_key_on_the_command_line_is_checked_in_the_same_way(option, fragment, tmp_path):
    assert fragment in told(tmp_path, "--configfile", ROOT / "config/tiny.yaml", "--config", option)


def test_a_study_that_is_not_there_is_told_with_those_that_are(tmp_path):
    words = told(tmp_path, "--configfile", tmp_path / "nowhere.yaml")
    assert "there is no such file; the workflow comes with the studies config.yaml, config/ambiguity.yaml, " in words
    words = told(tmp_path, "--configfile", ROOT / "config/tiny.yaml", "all")
    assert "if it is a target, put it first: snakemake all --configfile" in words


def test_snakemake_reads_studies_by_our_reader():
    """In its own process and by its own order: plugins are imported before any config is read. An upgrade must not lose this silently."""
    code = (
        "from snakemake import cli\n"
        "from snakemake.settings import types\n"
        "from snakemake.common import configfile\n"
        "print(types.load_configfile.__module__)\n"
        "cli.get_argument_parser()\n"
        "print(types.load_configfile.__module__, configfile.load_configfile.__module__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    name = "snakemake_logger_plugin_pqag"
    assert done.stdout.splitlines() == ["snakemake.common.configfile", f"{name} {name}"]


@pytest.mark.parametrize("module", [types, configfile])
def test_where_snakemake_has_no_such_reader_any_more_it_does_not_start(module, monkeypatch):
    monkeypatch.setattr(types, "load_configfile", types.load_configfile)
    monkeypatch.setattr(configfile, "load_configfile", configfile.load_configfile)
    monkeypatch.delattr(module, "load_configfile")
    with pytest.raises(SystemExit, match="load_configfile"):
        plugin.read_studies_safely()


def test_the_hook_does_not_import_the_library():
    """Which must be the one that lies beside the Snakefile, in whatever copy of the repository that is."""
    code = (
        "import sys, snakemake_logger_plugin_pqag as plugin\n"
        "assert plugin.read_study('config/tiny.yaml')['study'] == 'tiny'\n"
        "print([name for name in sys.modules if name.split('.')[0] == 'pqag'])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "[]\n"


def test_a_folder_with_a_strange_name_is_no_obstacle(tmp_path):
    """Of the repository, of its environment, and of the results: blanks, quotes, a dollar, what would be a command."""
    copy = tmp_path / 'it\'s a "copy" for $HOME; & é'
    unwanted = shutil.ignore_patterns(".*", "results", "data", "__pycache__")
    shutil.copytree(ROOT, copy, ignore=unwanted)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", copy / ".venv"], check=True)
    [packages] = (copy / ".venv").glob("lib/python*/site-packages")
    others = [path for path in sys.path if os.path.isdir(path) and path != str(ROOT / "scripts")]  # the copy has its own library
    (packages / "all.pth").write_text("\n".join([str(copy / "profiles/console"), *others]))
    command = [copy / ".venv/bin/python", "-m", "snakemake", "--configfile", "config/tiny.yaml", "--cores", "1"]
    done = subprocess.run([*command, "results/tiny/synthetic/images.h5"], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (copy / "results/tiny/synthetic/images.prov.json").is_file()
    options = ["--workflow-profile", "none", "--dry-run", "--printshellcmds"]
    done = subprocess.run([*command, *options, "all"], cwd=copy, capture_output=True, text=True)
    [verify] = [line for line in (done.stdout + done.stderr).splitlines() if "audit.py" in line]
    words = shlex.split(verify.removeprefix("Shell command: "))
    assert words[:3] == [str(copy / ".venv/bin/python"), str(copy / "scripts/audit.py"), "verify"]


LATEX = [
    r"\input{secret}",
    r"\immediate\openout15=canary.tex \immediate\write15{fired}\immediate\closeout15",
    r"\immediate\write18{mkdir canary}",
    r"\csname input\endcsname secret",
    r"^^5cinput{secret}",
    r"\catcode`\@=0 @input{secret}",
    r"}\end{document}\input{secret}",
    "%\n\\input{secret}",
    "\\par\n\n\\input secret",
]


def test_latex_neither_reads_nor_writes_for_a_name(tmp_path):
    """With shell escape switched off, as it is by default; the control shows that reading and writing work without it."""
    if shutil.which("pdflatex") is None:
        assert "REQUIRE_LATEX" not in os.environ, "pdflatex is wanted here, but not installed"
        pytest.skip("pdflatex is not installed (Debian: texlive-latex-recommended)")
    (tmp_path / "secret.tex").write_text("secret")

    def files(body: str) -> set[str]:
        """The files that compiling ``body`` reads and writes in its folder."""
        for left in tmp_path.glob("canary*"):
            left.unlink()
        (tmp_path / "a.tex").write_text(f"\\documentclass{{article}}\\begin{{document}}x {body} x\\end{{document}}\n")
        command = ["pdflatex", "-interaction=nonstopmode", "-no-shell-escape", "-recorder", "a.tex"]
        subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60)
        recorded = {line.split("/")[-1].split(" ")[-1] for line in (tmp_path / "a.fls").read_text().splitlines()}
        return recorded & {"secret.tex", "canary.tex"}

    assert files(LATEX[0]) == {"secret.tex"} and files(LATEX[1]) == {"canary.tex"}
    assert files(" ".join(map(cells.escape_latex, LATEX)).replace("\n", " ")) == set()

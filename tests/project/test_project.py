"""The project's own files: pins, generated files, style."""

import ast
import importlib.metadata
import json
import re
import runpy
import subprocess
import sys

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pqag.job.provenance import LIBRARY, _imports, modules_of
from pqag.study.rules import RULES

from ..workflow.conftest import ROOT

TORCH = next(line for line in (ROOT / "envs/requirements.txt").read_text().splitlines() if line.startswith("torch=="))
INSTALL = runpy.run_path(str(ROOT / "envs/install.py"))


def pins(text):
    """The version of each package that this machine needs by its name, of a file of requirements."""
    named = (Requirement(line.removesuffix(" \\")) for line in text.splitlines() if line and line[0].isalpha())
    return {canonicalize_name(one.name): str(one.specifier)[2:] for one in named if one.marker is None or one.marker.evaluate()}


def closure(names):
    """The packages and what they need in turn, as far as it is installed, by what each says of itself."""
    found, pending = set(), [(name, frozenset()) for name in names]
    while pending:
        name, extras = pending.pop()
        if (name, extras) in found or INSTALL["CUDA"].match(name):
            continue
        found.add((name, extras))
        for one in map(Requirement, importlib.metadata.requires(name) or []):
            if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                pending.append((canonicalize_name(one.name), frozenset(one.extras)))
    return {name for name, _ in found}


def test_the_lock_is_that_of_the_requirements_and_installed():
    """With the sha256 of each package; the CUDA libraries are in it, but not on every machine."""
    direct, lock = pins((ROOT / "envs/requirements.txt").read_text()), (ROOT / "envs/lock.txt").read_text()
    locked = {name: version for name, version in pins(lock).items() if not INSTALL["CUDA"].match(name)}
    assert locked.items() >= direct.items() and locked.keys() == closure(direct), "run `make lock`"
    assert all("--hash=sha256:" in block for block in INSTALL["blocks"](lock))
    for name, version in locked.items():
        assert importlib.metadata.version(name).split("+")[0] == version, name


MACHINES = [(True, "Linux", True), (False, "Linux", True), (False, "Linux", False), (False, "Darwin", True)]


@pytest.mark.parametrize("gpu, system, reached", MACHINES)
def test_a_machine_without_a_gpu_gets_what_it_can_use(monkeypatch, gpu, system, reached):
    """triton, which only a GPU needs, and cublas, a library that the usual build of PyTorch cannot be loaded without."""
    asked = []

    def uv(pins):
        asked.extend(f"cpu {pin}" for pin in pins)
        return reached

    monkeypatch.setitem(INSTALL["install"].__globals__, "uv", uv)
    monkeypatch.setitem(INSTALL["install"].__globals__, "pip", lambda packages: asked.extend(packages) or True)
    monkeypatch.setattr("platform.system", lambda: system)
    assert INSTALL["install"](gpu)
    usual, triton, cublas = (any(one.startswith(name) for one in asked) for name in (f"{TORCH} ", "triton=", "nvidia-cublas="))
    everything = gpu or system != "Linux"
    assert (f"cpu {TORCH}" in asked) == (not everything)
    assert usual == (everything or not reached) and triton == everything and cublas == (everything or not reached)
    assert any(one.startswith("snakemake==") for one in asked)


def test_generated_files_have_the_pins():
    generate = runpy.run_path(str(ROOT / "envs/generate.py"))
    requirements, project = (ROOT / "envs/requirements.txt").read_text(), (ROOT / "pyproject.toml").read_text()
    written = (ROOT / "envs/steps.yaml").read_text()
    assert written == generate["conda_environment"](requirements), "run `make envs`"
    assert project == generate["with_dependencies"](project, requirements), "run `make envs`"
    assert f'version = "{yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]}"\n' in project
    assert generate["compatible"]("torch==2.14.1") == "torch>=2.14.1,<3" and generate["compatible"]("a==0.2.3") == "a>=0.2.3,<0.3"
    packages = yaml.safe_load(written)["dependencies"][-1]["pip"]
    direct = dict(line.split("==") for line in requirements.splitlines() if "==" in line)
    assert {"torch", "torchvision", "advertorch", "h5py", "faiss-cpu"} <= {package.split("==")[0] for package in packages}
    assert all(direct[name] == version for name, version in (package.split("==") for package in packages))


def test_the_rule_graph_is_the_workflows():
    module = runpy.run_path(str(ROOT / "scripts/tools/rulegraph.py"))
    page = (ROOT / "docs/developing.md").read_text()
    assert module["with_rulegraph"](page) == page, "run `make docs`"
    assert "prepare --> pretrain" in page


def test_files_that_the_pages_name_exist_and_the_readme_is_short():
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        text = page.read_text()
        for name in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert (page.parent / name).exists(), f"{page.name}: {name}"
        for name in re.findall(r"`((?:scripts|config|envs|profiles|docs|tests)/[\w/.]+)`", text):
            assert (ROOT / name).exists(), f"{page.name}: {name}"
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
    assert {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"} <= set(
        re.findall(r"\]\((\w+\.md)\)", (ROOT / "docs/README.md").read_text())
    )


STYLE = ["ruff check .", "ruff format --check .", "snakefmt --check Snakefile rules", "snakemake --lint"]


@pytest.mark.parametrize("command", STYLE)
def test_style(command):
    done = subprocess.run([sys.executable, "-m", *command.split()], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_snakefile_is_short():
    assert len((ROOT / "Snakefile").read_text().splitlines()) <= 60


def test_reading_the_snakefile_loads_nothing_heavy():
    """Neither torch nor faiss nor h5py; pandas is loaded by Snakemake itself when it plans."""
    code = (
        "import sys; sys.argv = ['snakemake', '-n', '--quiet', 'all', '--configfile', 'config/tiny.yaml']\n"
        "from snakemake.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert not {'torch', 'faiss', 'h5py'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_compiler_of_torch_is_loaded_only_when_torchvision_asks_it():
    code = """import sys
from pqag import attacks
print("torch._dynamo" in sys.modules)
from torchvision.ops.roi_align import is_compile_supported
print(is_compile_supported("cpu"), "torch._dynamo" in sys.modules)"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "scripts", capture_output=True, text=True)
    assert done.stdout == "False\nTrue True\n", done.stderr


def test_evaluation_needs_no_torch():
    modules = "pqag.retrieval, pqag.quantizer, pqag.storage, pqag.job.step, pqag.show.tables, pqag.datasets"
    code = f"import {modules}, sys; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT / "scripts").returncode == 0
    code = "import pqag.study.rules, sys; assert not {'torch', 'pandas', 'numpy', 'h5py', 'pydantic'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT / "scripts").returncode == 0
    for step in ("fetch", "prepare", "quantize", "evaluate", "table"):
        imports = re.findall(r"^(?:import|from) .*", (ROOT / f"scripts/{step}.py").read_text(), re.MULTILINE)
        assert not re.search(r"torch|networks|training|attacks|checkpoints", "\n".join(imports)), step


#: What each room of the library may import besides itself; the science is all that lies at the top, but for the modules named here.
ROOMS = {
    "names": set(),
    "errors": set(),
    "files": set(),
    "science": {"names", "errors", "files"},
    "job": {"names", "errors", "files"},
    "study": {"names", "errors", "files", "job"},
    "show": {"names", "errors", "files", "science"},
    "audit": {"names", "errors", "files", "science", "job", "study", "show"},
    "api": {"names", "errors", "files", "science"},
    "cli": {"errors"},
}


def room(path) -> str:
    """The room that a file of the library is in."""
    first, *rest = path.relative_to(LIBRARY).with_suffix("").parts
    return first if rest or first in ROOMS else "science"


def test_no_step_reaches_the_api_or_the_command():
    for rule in RULES.values():
        assert not {"api.py", "cli.py"} & {path.name for path in modules_of(rule.path)}, rule.name


def test_imports_go_one_way():
    """Of ``job`` the study only needs the digest of the code, and of the science the audit only needs how files are read."""
    found = set()
    for path in LIBRARY.glob("**/[a-z]*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            found |= {(path, target.path) for _, target in _imports(node)}
    assert not [(one.name, other.name) for one, other in found if room(other) not in ROOMS[room(one)] | {room(one)}]
    assert {other.name for one, other in found if (room(one), room(other)) == ("study", "job")} == {"provenance.py"}
    read = {other.name for one, other in found if (room(one), room(other)) == ("audit", "science")}
    assert read == {"checkpoints.py", "content.py", "storage.py", "user_code.py"}


def test_the_schema_of_study_files_is_the_models_and_takes_every_study():
    text = (ROOT / "config/study.schema.json").read_text(encoding="utf-8")
    assert text == runpy.run_path(str(ROOT / "scripts/tools/schema.py"))["text"](), "run `make docs`"
    schema = jsonschema.Draft202012Validator(json.loads(text))
    studies = [yaml.safe_load(path.read_text()) for path in (ROOT / "config.yaml", *(ROOT / "config").glob("*.yaml"))]
    assert len(studies) > 5 and [list(schema.iter_errors(study)) for study in studies] == [[]] * len(studies)
    for change in ({"bit": [16]}, {"bits": ["16"]}, {"datasets": {"mine": {"kind": "imagefolder"}}}, {"attacks": {"a": {"loss": 5}}}):
        assert not schema.is_valid(studies[0] | change), change

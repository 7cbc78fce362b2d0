"""Write what follows from envs/requirements.txt, `make envs`: envs/steps.yaml, the environment of the rules under `--sdm conda`, from its
first section, and the dependencies in pyproject.toml from its first two."""

import re
from pathlib import Path

HERE = Path(__file__).parent


def pins(requirements: str, title: str) -> list[str]:
    """Return the pins, NAME==VERSION, of the section that begins with "# title"."""
    return requirements.split(f"# {title}", 1)[1].split("\n\n", 1)[0].splitlines()[1:]


def compatible(pin: str) -> str:
    """Return the range of a pin: from its version on, below the next that may break, the next major one or, before 1.0, the next minor."""
    name, version = pin.split("==")
    major, minor = map(int, version.split(".")[:2])
    return f"{name}>={version},<{major + 1 if major else f'0.{minor + 1}'}"


def with_dependencies(pyproject: str, requirements: str) -> str:
    """Return pyproject.toml with the dependencies of the library, and those of the workflow, as ranges."""
    for title, key in (("steps", "dependencies"), ("workflow", "workflow")):
        lines = "".join(f'  "{compatible(pin)}",\n' for pin in pins(requirements, title))
        pyproject = re.sub(rf"^{key} = \[\n.*?^\]", f"{key} = [\n{lines}]", pyproject, count=1, flags=re.MULTILINE | re.DOTALL)
    return pyproject


def conda_environment(requirements: str) -> str:
    """Return the YAML of a conda environment with the pins of the section that begins with "# steps"."""
    return "\n".join(
        [
            "# Generated from envs/requirements.txt by `make envs`; a test checks that the two match.",
            "channels:",
            "  - conda-forge",
            "dependencies:",
            "  - python=3.11",
            "  - pip",
            "  - pip:",
            *(f"      - {pin}" for pin in pins(requirements, "steps")),
            "",
        ]
    )


if __name__ == "__main__":
    requirements, project = (HERE / "requirements.txt").read_text(), HERE.parent / "pyproject.toml"
    (HERE / "steps.yaml").write_text(conda_environment(requirements))
    project.write_text(with_dependencies(project.read_text(), requirements))

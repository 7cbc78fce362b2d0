"""Write envs/steps.yaml, the environment of the rules under `--sdm conda`, from the first section of envs/requirements.txt: `make envs`."""

from pathlib import Path

HERE = Path(__file__).parent


def conda_environment(requirements: str) -> str:
    """Return the YAML of a conda environment with the pins of the section that begins with "# steps"."""
    section = requirements.split("# steps", 1)[1].split("\n\n", 1)[0].splitlines()[1:]
    return "\n".join(
        [
            "# Generated from envs/requirements.txt by `make envs`; a test checks that the two match.",
            "channels:",
            "  - conda-forge",
            "dependencies:",
            "  - python=3.11",
            "  - pip",
            "  - pip:",
            *(f"      - {pin}" for pin in section),
            "",
        ]
    )


if __name__ == "__main__":
    (HERE / "steps.yaml").write_text(conda_environment((HERE / "requirements.txt").read_text()))

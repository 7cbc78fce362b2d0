"""The tests of the audit look at a study of Table 1 alone, in which they know every file by hand."""

import pytest
import yaml


@pytest.fixture(scope="session")
def study(table1):
    """A folder in which that study was run, and what the run printed. Tests may plan there, but must change nothing."""
    return table1


@pytest.fixture
def tiny(study):
    """The configuration of that study, free to change."""
    return yaml.safe_load((study[0] / "config.yaml").read_text())

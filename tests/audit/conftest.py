"""The tests of the audit look at a study of Table 1 alone, in which they know every file by hand."""

import pytest
import yaml

from ..conftest import run_study
from ..workflow.conftest import ROOT

TABLE_1 = {"tables": {"table3": {"models": []}, "table4": {"models": []}}, "figures": {"models": []}}


@pytest.fixture
def tiny():
    """The configuration of the tiny study with Table 1 alone, free to change."""
    return yaml.safe_load((ROOT / "config/tiny.yaml").read_text()) | TABLE_1


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    """A folder in which that study was run, and what the run printed. Tests may plan there, but must change nothing."""
    return run_study(tmp_path_factory.mktemp("table1"), yaml.safe_load((ROOT / "config/tiny.yaml").read_text()) | TABLE_1)

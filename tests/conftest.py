"""What several test files share."""

import importlib.util
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("pqag", deadline=None)  # a busy machine is no failure
settings.load_profile("pqag")

#: The folder with the steps and the library, found without importing the library.
SCRIPTS = Path(importlib.util.find_spec("pqag").origin).parents[1]


def pytest_configure(config):
    config.addinivalue_line("markers", "network: needs a package mirror or the internet; skips with a reason where there is none")


@pytest.fixture(scope="session")
def scripts() -> Path:
    """The folder ``scripts/``."""
    return SCRIPTS

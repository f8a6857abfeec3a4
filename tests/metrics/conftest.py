"""QM9, parsed once a test session into a folder shared with tests/data."""

import pytest

from elf.data import qm9


@pytest.fixture(scope="session")
def qm9_cache(tmp_path_factory):
    return tmp_path_factory.getbasetemp() / "qm9-cache"


@pytest.fixture(scope="session")
def all_of_qm9(qm9_cache):
    return qm9.load(cache_dir=qm9_cache)

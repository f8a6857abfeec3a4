"""What every test shares: annotations of `elf` checked at run time, one thread, fixed randomness, two precisions."""

import os
import sys
from pathlib import Path

os.environ["MPLBACKEND"] = "Agg"
sys.path.insert(0, str(Path(__file__).parent))

import pytest
import torch
from browser import chromium, open_page, serve
from hypothesis import settings
from jaxtyping import install_import_hook

assert "elf" not in sys.modules, "elf was imported before the import hook that checks its annotations"
install_import_hook("elf", "runtime_types.typechecked")

torch.set_num_threads(1)
# Fixtures of tests/browser.py, for every folder of tests.
__all__ = ["chromium", "open_page", "serve"]

settings.register_profile("elf", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("elf")


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture
def rtol(dtype: torch.dtype) -> float:
    """What two ways to compute the same value may differ by, relatively."""
    return {torch.float32: 1e-5, torch.float64: 1e-12}[dtype]


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)

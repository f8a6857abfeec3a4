"""What every test shares: annotations checked at run time, one thread, fixed randomness, two precisions."""

import faulthandler
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ["MPLBACKEND"] = "Agg"
sys.path.insert(0, str(Path(__file__).parent))

import pytest
import torch
from browser import chromium, open_page, serve
from hypothesis import settings
from jaxtyping import install_import_hook

assert "elf" not in sys.modules, "elf was imported before the import hook that checks its annotations"
# Of the experiments what is a formula or a network, and might be of the library.
FORMULAS = (
    "clouds.exact",
    "clouds.minimiser",
    "clouds.polygons",
    "clouds.regularity",
    "spins.mean_field",
    "spins.resnet",
)
install_import_hook(["elf", "course", *(f"experiments.{name}" for name in FORMULAS)], "runtime_types.typechecked")

torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background jobs ignore Ctrl-C and hand that down: what tests start and interrupt would never end.
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Fixtures of tests/browser.py, for every folder of tests.
__all__ = ["chromium", "open_page", "serve"]

settings.register_profile("elf", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("elf")


LIMIT = 36_000 if os.environ.get("ELF_FUZZ") else 900
"""Seconds a test may take on any machine: no measure of speed, but an end of what would never end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what drives a browser."""
    for item in items:
        if "chromium" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")


@pytest.fixture(autouse=True)
def time_limit(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that hangs fails; one that hangs outside Python ends the run, with every thread's traceback."""

    def stop(*_: object) -> None:
        pytest.fail(f"{request.node.name} took longer than {LIMIT} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT)
    faulthandler.dump_traceback_later(LIMIT + 60, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


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

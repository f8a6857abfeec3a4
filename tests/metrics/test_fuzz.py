"""A short form of fuzz_molecules.py; ELF_FUZZ=1 makes it long: 100,000 inputs and more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "fuzz_molecules.py"
EXAMPLES, LEAST = (3000, 100_000) if os.environ.get("ELF_FUZZ") else (12, 300)
"""Tries of each function; and of all, as some functions take too few different inputs for more."""


@pytest.mark.fuzz
def test_whatever_comes_in_an_answer_or_words_come_out(tmp_path):
    done = subprocess.run([sys.executable, SCRIPT, str(EXAMPLES)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    tried = int(done.stdout.split()[0])
    print(f"{tried} inputs")
    assert tried >= LEAST

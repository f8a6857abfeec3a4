"""A short form of fuzz_molecules.py; ELF_FUZZ=1 makes it long (some 80,000 inputs)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent / "fuzz_molecules.py"


def test_whatever_comes_in_an_answer_or_words_come_out(tmp_path):
    examples = "2000" if os.environ.get("ELF_FUZZ") else "12"
    done = subprocess.run([sys.executable, SCRIPT, examples], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]

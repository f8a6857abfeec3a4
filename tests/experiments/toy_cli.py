"""The command line with the toy experiment added: `python toy_cli.py reproduce toy --devices 2 ...`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from elf.cli import main
from experiments import EXPERIMENTS

EXPERIMENTS["toy"] = "toy_experiment"

if __name__ == "__main__":
    sys.exit(main())

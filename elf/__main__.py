"""`python -m elf` is the command `elf`."""

import sys

from elf.cli import main

sys.exit(main())

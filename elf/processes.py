"""What this process keeps: no worker beyond its parent's end, and memory that it will want again."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import sys
import threading
from functools import cache
from multiprocessing.connection import wait

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of malloc.h, which numbers them so."""


def die_with_parent() -> None:
    """End this process as soon as the one that started it is gone; for `ProcessPoolExecutor(initializer=...)`.

    A pool's workers wait for work for ever when their parent dies of SIGKILL or SIGTERM, which it cannot tell them. A
    thread waits here for the parent's end instead. Nothing happens in a process that multiprocessing did not start.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent.sentinel,), name="die_with_parent", daemon=True).start()


def _exit_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)  # nobody is left to hear of it, and a clean end would wait for the work to finish


@cache
def keep_freed_memory() -> None:
    """Makes the C library keep up to 256 MiB of what is freed, in blocks of up to 32 MiB, for what comes next.

    That of Linux gives memory back once twice the largest block ever freed lies idle: where tensors are small, in each
    call and in each step of a training, which then waits for cleared pages; a third of the time of `HeightEnergy` at
    64 x 29, a seventh of a step of the spins' network. Other C libraries are left alone.
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(M_MMAP_THRESHOLD, 2**25)
        library.mallopt(M_TRIM_THRESHOLD, 2**28)

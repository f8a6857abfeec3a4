"""Worker processes that do not outlive the process that started them, however it ends."""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing.connection import wait


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

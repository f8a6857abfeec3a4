"""What this process keeps: no worker beyond its parent's end, and memory that it will want again."""

from __future__ import annotations

import multiprocessing
import os
import threading
from functools import cache
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


@cache
def keep_freed_memory() -> None:
    """Makes the C library keep up to 32 MiB of what is freed, by freeing one large block that was never written to.

    That of Linux gives memory back once twice the largest block ever freed lies idle: where tensors are small, in each
    call, which then waits for cleared pages; a third of the time of `HeightEnergy` at 64 x 29.
    """
    import torch  # whoever asks has it; who only starts processes should not wait for it

    torch.empty(2**24, dtype=torch.uint8, device="cpu")

"""What surrounds a training run: the interrupt that waits for a safe moment, and randomness of its own."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import numpy as np
import torch
from torch import Tensor


class Interrupts:
    """Ctrl-C (Jupyter's stop button) raises one KeyboardInterrupt, and none inside a shield: there it waits.

    With `raises` off (several processes) it only sets `asked`, for the processes to agree on where to stop.
    """

    def __init__(self, raises: bool) -> None:
        self.raises, self.asked, self.shielded = raises, False, False

    def __enter__(self) -> Interrupts:
        # Python lets only the main thread of a process handle signals.
        self._mine = threading.current_thread() is threading.main_thread()
        if self._mine:
            self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._mine:
            signal.signal(signal.SIGINT, self._before or signal.default_int_handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again, self.asked = self.asked, True
        if self.raises and not again and not self.shielded:
            raise KeyboardInterrupt

    def mute(self) -> None:
        """From now on only note that Ctrl-C was pressed."""
        self.raises = False

    @contextmanager
    def shield(self, on: bool = True) -> Iterator[None]:
        """Let a Ctrl-C wait until the end of the (outermost) block; `on=False` makes no shield."""
        outer, asked = self.shielded, self.asked
        self.shielded = outer or on
        try:
            yield
        finally:
            self.shielded = outer
        if self.raises and self.asked and not asked and not outer:
            raise KeyboardInterrupt


class Randomness:
    """The loss's generator and the process's own streams (dropout), seeded for one run; the latter given back after.

    `kept` is the state of all streams at the end of the latest whole step, as uint8 tensors.
    """

    def __init__(self, device: torch.device, seed: int, rank: int) -> None:
        self.device = device
        # Mixed because the CPU generator keeps 32 bits only, and seed + rank would repeat the next seed's rank 0.
        self.seed = int(np.random.SeedSequence([seed, rank]).generate_state(1)[0])
        self.generator = torch.Generator(device).manual_seed(self.seed)

    def __enter__(self) -> Randomness:
        self._before = self._streams()
        torch.manual_seed(self.seed)
        self.keep()
        return self

    def __exit__(self, *_: object) -> None:
        self._set_streams(self._before)

    def _streams(self) -> list[Tensor]:
        device = [] if self.device.type == "cpu" else [getattr(torch, self.device.type).get_rng_state()]
        return [torch.get_rng_state(), *device]

    def _set_streams(self, states: Sequence[Tensor]) -> None:
        torch.set_rng_state(states[0])
        if self.device.type != "cpu":
            getattr(torch, self.device.type).set_rng_state(states[1])

    def keep(self) -> None:
        """Note the state of every stream in `kept`."""
        self.kept = [self.generator.get_state(), *self._streams()]

    def set_state(self, states: Sequence[Tensor]) -> None:
        """Go on from what was kept."""
        self.generator.set_state(states[0])
        self._set_streams(states[1:])
        self.keep()

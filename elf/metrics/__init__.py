"""Metrics: what a generated sample is worth, apart from the loss that trained its model."""

from __future__ import annotations

from elf._lazy import lazy_submodules

__getattr__, __dir__ = lazy_submodules(__name__)

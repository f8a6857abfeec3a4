"""Edge lists: what `PairEnergy(edges=...)` takes, checked once."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from elf.checks import require_tensor, values_are_known

PADDING = -1
"""Both ends of an edge that only fills up a list shorter than the others."""


def undirected_pairs(edges: object) -> Int[Tensor, "*samples 2 edges"]:
    """The edge list as int64, once it is known to be a set of undirected pairs in each sample."""
    edges = require_tensor("edges", edges)
    if edges.is_floating_point() or edges.is_complex() or edges.dtype == torch.bool:
        raise TypeError(f"edges has dtype {edges.dtype}; it should be an integer type (torch.int64)")
    if edges.ndim not in (2, 3) or edges.shape[-2] != 2:
        raise ValueError(f"edges has shape {tuple(edges.shape)}; it should be (2, E), or (B, 2, E), a list per sample")
    edges = edges.long()
    if not values_are_known(edges) or edges.numel() == 0:
        return edges
    low, high = edges.amin(-2), edges.amax(-2)
    padding = (high == PADDING) & (low == PADDING) & (edges.ndim == 3)
    if bool(((low < 0) & ~padding).any()):
        raise ValueError(f"edges mentions node {int(low[~padding].min())}; node indices should not be negative")
    if bool((loops := (low == high) & ~padding).any()):
        raise ValueError(f"edges joins node {int(low[loops][0])} to itself; a self-loop has no length")
    # One number per pair: equal neighbours after sorting are duplicates. Padding gets numbers that no pair has.
    base = int(high.max()) + 1
    fillers = -1 - torch.arange(edges.shape[-1], device=edges.device).expand_as(low)
    keys = (low * base + high).where(~padding, fillers).sort(-1).values
    if bool((twice := keys.diff() == 0).any()):
        pair = divmod(int(keys[..., 1:][twice][0]), base)
        raise ValueError(f"edges holds the pair {pair} more than once, in one or both directions; once is enough")
    return edges

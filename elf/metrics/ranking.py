"""Does one number order things as another does? Rank correlation, and bootstrap intervals of its mean."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from elf.checks import require_count


def rank_correlation(
    first: Float[Tensor, "*#batch items"], second: Float[Tensor, "*#batch items"], *, tolerance: float = 1e-9
) -> Float[Tensor, "*batch"]:
    """Spearman's rank correlation along the last axis: Pearson's correlation of the ranks, ties sharing theirs.

    Values closer than `tolerance` times the largest magnitude count as tied, so that rounding noise is not ranked.
    A constant ranks nothing: its correlation with anything is 0 here.

    Raises:
        ValueError: fewer than two items; a value is not finite.
    """
    a, b = torch.broadcast_tensors(first, second)
    if a.shape[-1] < 2:
        raise ValueError(f"first and second have {a.shape[-1]} items; a ranking needs at least 2")
    if not bool((a.isfinite() & b.isfinite()).all()):
        raise ValueError("first or second holds a NaN or infinite value; all should be finite")
    a, b = (_centred_ranks(values, tolerance) for values in (a, b))
    product = (a.square().sum(-1) * b.square().sum(-1)).sqrt()
    return torch.where(product > 0, (a * b).sum(-1) / product.clamp(min=1e-30), 0.0)


def _centred_ranks(values: Tensor, tolerance: float) -> Tensor:
    ordered, place = values.double().sort(dim=-1)
    margin = tolerance * ordered.abs().amax(-1, keepdim=True)
    group = torch.zeros_like(place)
    group[..., 1:] = (ordered.diff(dim=-1) > margin).cumsum(-1)
    counts = torch.zeros_like(ordered).scatter_add(-1, group, torch.ones_like(ordered))
    middle = counts.cumsum(-1) - counts / 2 - values.shape[-1] / 2
    return torch.zeros_like(ordered).scatter(-1, place, middle.gather(-1, group))


def bootstrap_interval(
    values: Float[Tensor, " items"], *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean.

    Raises:
        ValueError: no values, or level outside (0, 1).
    """
    require_count("resamples", resamples)
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; it should lie between 0 and 1")
    if not len(values):
        raise ValueError("values is empty; it should have at least one number")
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(len(values), (resamples, len(values)), generator=generator).to(values.device)
    tails = values.new_tensor([(1 - level) / 2, (1 + level) / 2])
    low, high = values[picks].mean(1).quantile(tails).tolist()
    return low, high

"""Maximum mean discrepancy: how far apart are two sets of numbers, as samples of two distributions?

For Table 3: bond lengths, angles and dihedrals of generated molecules against those of the data, type by type. Types
are EDM's bonds (no charges, no aromatic bonds) on both sides; two halves of the data are the figure to compare with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from elf.checks import require_count, require_seed, require_strings, require_tensor

KERNELS = 5


def squared_mmd(first: Tensor, second: Tensor, *, chunk_size: int = 1024) -> float:
    """Squared MMD (Gretton et al. 2012, biased estimate) under a sum of five Gaussian kernels; 0 for equal sets.

    k(x, y) = sum_{i=0}^{4} exp(-(x - y)^2 / (2^i h)), with h = b / 4 and b the mean of (x - y)^2 over all pairs of
    different members of both sets pooled; the value is mean k(x, x') + mean k(y, y') - 2 mean k(x, y), with each
    member also paired with itself. So does JODO (arXiv:2305.12347, code from DIG and MMD_Loss.Pytorch), whose figures
    the paper's Table 3 has; they call it MMD without "squared". It lies between 0 and 10, has no unit, and is biased
    upwards by about (1/n + 1/m) times the mean of k(x, x) - k(x, x').

    Args:
        first, second: samples (n,) and (m,), in the same unit.
        chunk_size: rows of pairs in memory at a time.

    Raises:
        TypeError: not tensors of floating-point numbers.
        ValueError: not one-dimensional, empty, or not finite.
    """
    require_count("chunk_size", chunk_size)
    for name, sample in (("first", first), ("second", second)):
        require_tensor(name, sample)
        if sample.ndim != 1 or not len(sample):
            raise ValueError(f"{name} has shape {tuple(sample.shape)}; it should be (n,) with n >= 1")
        if not sample.isfinite().all():
            raise ValueError(f"{name} holds {int((~sample.isfinite()).sum())} values that are not finite")
    pooled = torch.cat([sample.detach().cpu().double() for sample in (first, second)])  # in this order: MPS
    n = len(pooled)
    # sum over pairs of (x - y)^2 = 2 n sum (x - mean)^2
    bandwidth = 2 * n * float((pooled - pooled.mean()).square().sum()) / (n * n - n)
    if bandwidth == 0:
        return 0.0
    scale = bandwidth / 2 ** (KERNELS // 2)

    def mean_kernel(x: Tensor, y: Tensor) -> float:
        total = 0.0
        for part in x.split(chunk_size):
            # The widest kernel first: squaring halves the width, and costs less than another exponential.
            kernel = torch.exp((part[:, None] - y).square() / (-scale * 2 ** (KERNELS - 1)))
            for _ in range(KERNELS - 1):
                total += float(kernel.sum())
                kernel = kernel.square_()
            total += float(kernel.sum())
        return total / (len(x) * len(y))

    x, y = pooled[: len(first)], pooled[len(first) :]
    return max(0.0, mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y))


def compare(
    samples: Mapping[str, Tensor],
    data: Mapping[str, Tensor],
    types: Sequence[str],
    *,
    limit: int = 20_000,
    seed: int = 0,
) -> dict[str, float | None]:
    """`squared_mmd` for each type, "mean" over the types found, and "missing": types that one side has none of.

    Args:
        samples, data: values by type (`elf.metrics.substructures`).
        types: the types compared.
        limit: larger sets are thinned to this many, drawn with `seed` (JODO's 20,000; the time grows with its square).

    Raises:
        TypeError, ValueError: types are no strings, or none; limit below 1.
    """
    require_count("limit", limit)
    if not (types := require_strings("types", types)):
        raise ValueError("types is empty; it should name at least one type")
    generator = torch.Generator("cpu").manual_seed(require_seed("seed", seed))

    def thinned(values: Tensor) -> Tensor:
        values = values.cpu()
        return values[torch.randperm(len(values), generator=generator, dtype=torch.long, device="cpu")[:limit]]

    result: dict[str, float | None] = {}
    for name in types:
        present = name in samples and name in data
        result[name] = squared_mmd(thinned(samples[name]), thinned(data[name])) if present else None
    found = [value for value in result.values() if value is not None]
    return {**result, "mean": sum(found) / len(found) if found else None, "missing": len(types) - len(found)}

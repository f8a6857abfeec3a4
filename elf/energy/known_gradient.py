"""Energies whose gradient is known in closed form: found with the value in one pass; autograd where more is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad

from elf.checks import is_plain, transforms_are_active
from elf.energy.base import Found
from elf.processes import keep_freed_memory

Formula = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(prediction, target, mask) -> one value a sample, for autograd to differentiate as often as it is asked to."""
OnePass = Callable[[Tensor, Tensor, Tensor | None, bool], Found]
"""The same, and whether the gradient is wanted -> values, and their gradient to the prediction; without autograd."""


def with_known_gradient(
    formula: Formula,
    one_pass: OnePass,
    prediction: Tensor,
    target: Tensor,
    mask: Tensor | None,
    *,
    batch: Tensor | None = None,
    depends_on: Sequence[object] = (),
) -> Float[Tensor, " samples"]:
    """The energy of each sample: in one pass, unless more than its gradient to the prediction may be wanted.

    For the backward pass, only the gradient is kept. `formula` takes over where something else is asked for or watches:
    derivatives of the gradient (`create_graph=True`: Hessians, gradient penalties), gradients to the target or to what
    the energy `depends_on`, forward mode, transforms of torch.func, torch.compile (whose compiler fuses the formula),
    meta and fake tensors, and subclasses.

    Args:
        prediction, target, mask: as `Energy._energy` gets them; or flat, with `batch`, the sample of each node.
    """
    given = [prediction, target, *(x for x in depends_on if isinstance(x, Tensor))]
    more = torch.compiler.is_compiling() or not all(map(is_plain, given))
    more = more or (torch.is_grad_enabled() and any(x.requires_grad for x in given[1:]))
    if more or any(forward_ad.unpack_dual(x).tangent is not None for x in given):
        return formula(prediction, target, mask)
    keep_freed_memory()
    if torch.is_grad_enabled() and prediction.requires_grad:
        try:
            return _KnownGradient.apply(prediction, target, mask, batch, formula, one_pass)
        except RuntimeError:  # what a transform around the call makes of it, which takes time to ask for first
            if not transforms_are_active():
                raise
    elif not transforms_are_active():
        with torch.no_grad():
            return one_pass(prediction, target, mask, False)[0]
    return formula(prediction, target, mask)


class _KnownGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, prediction: Tensor, *others: Any) -> Tensor:
        target, mask, batch, formula, one_pass = others
        value, gradient = one_pass(prediction, target, mask, True)
        ctx.save_for_backward(prediction, target, mask, batch, gradient)
        ctx.formula = formula
        return value

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        prediction, target, mask, batch, gradient = ctx.saved_tensors
        (weights,) = upstream
        if torch.is_grad_enabled():
            value = ctx.formula(prediction, target, mask)
            (result,) = torch.autograd.grad(value, prediction, weights, create_graph=True)
        else:
            result = gradient * (weights[:, None, None] if batch is None else weights[batch][:, None])
        return result, None, None, None, None, None

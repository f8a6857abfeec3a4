"""Energies whose gradient is known in closed form: value and gradient in one pass, autograd where it must be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import forward_ad


class ValueAndGradient(NamedTuple):
    """What one pass over the pairs finds."""

    value: Float[Tensor, " samples"]
    gradient: Float[Tensor, "*atoms dim"] | None
    """With respect to the prediction, in its shape; None where nobody asked for it."""


def applies(prediction: Tensor, target: Tensor) -> bool:
    """Whether `closed_form` may stand in for autograd on these inputs.

    It may not where something else than a first (or repeated) backward pass to the prediction is wanted or watches:
    gradients to the target, forward-mode and functorch transforms (vmap, jvp, hessian), torch.compile (whose compiler
    fuses the plain formula), meta and fake tensors, and tensor subclasses.
    """
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    if any(type(x) not in (Tensor, nn.Parameter) or x.is_meta for x in (prediction, target)):
        return False
    if target.requires_grad and torch.is_grad_enabled():
        return False
    return forward_ad.unpack_dual(prediction).tangent is None and forward_ad.unpack_dual(target).tangent is None


def closed_form(
    prediction: Tensor,
    target: Tensor,
    mask: Tensor | None,
    compute: Callable[[Tensor, Tensor, Tensor | None, bool], ValueAndGradient],
    plain: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    batch: Tensor | None = None,
) -> Tensor:
    """The energy of each sample, differentiable in the prediction.

    Args:
        prediction, target, mask: as `Energy._energy` gets them; or flat.
        compute: (prediction, target, mask, whether the gradient is wanted) -> value and gradient, without autograd.
            Only the gradient is kept for the backward pass.
        plain: the same value as a formula that autograd differentiates; used where the gradient is itself to be
            differentiated (`create_graph=True`: Hessians, gradient penalties).
        batch: the sample of each node, for flat inputs.
    """
    wanted = torch.is_grad_enabled() and prediction.requires_grad
    with torch.no_grad():
        value, gradient = compute(prediction, target, mask, wanted)
    if not wanted:
        return value
    return _KnownGradient.apply(prediction, target, mask, batch, value, gradient, plain)


class _KnownGradient(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        prediction: Tensor,
        target: Tensor,
        mask: Tensor | None,
        batch: Tensor | None,
        value: Tensor,
        gradient: Tensor,
        plain: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    ) -> Tensor:
        ctx.save_for_backward(prediction, target, mask, batch, gradient)
        ctx.plain = plain
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        prediction, target, mask, batch, gradient = ctx.saved_tensors
        (weights,) = upstream
        if torch.is_grad_enabled():
            value = ctx.plain(prediction, target, mask)
            (result,) = torch.autograd.grad(value, prediction, weights, create_graph=True)
        else:
            result = gradient * (weights.unsqueeze(-1).unsqueeze(-1) if batch is None else weights[batch].unsqueeze(-1))
        return result, None, None, None, None, None, None

"""What the rules of our autograd Functions share: leaving their own level, and merging a vmapped dimension."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad


def plain() -> bool:
    """Whether tensors are just tensors: no transform of torch.func and no forward mode is active."""
    return not torch._C._are_functorch_transforms_active() and forward_ad._current_level < 0


@contextmanager
def outer_levels() -> Iterator[None]:
    """For the body of a `jvp` rule: torch runs it with forward mode off altogether, which would silently drop the
    tangents of enclosing levels (jacfwd of jacfwd would be zero). Use with `primal` on every saved tensor."""
    with forward_ad._set_fwd_grad_enabled(True):
        yield


def primal(x: Tensor) -> Tensor:
    """x without the tangent of the level whose rule is running; tangents of enclosing levels stay."""
    return forward_ad.unpack_dual(x).primal


def traced(function: type[torch.autograd.Function], *args: Any) -> Any:
    """`function.apply(*args)` while `torch.compile` traces, or its forward where nothing is differentiated.

    (Under `no_grad`, and where no argument requires gradients, Dynamo 2.13 calls a forward with variable arguments with
    a context too many.)
    """
    if torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in args):
        return function.apply(*args)
    return function.forward(*args)


class Constant(torch.autograd.Function):
    """Whose results are constants for every transform: the base of those that say `forward` and `vmap`."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output)
        ctx.count, ctx.found = len(inputs), len(output)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[None, ...]:
        return (None,) * ctx.count

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[None, ...]:
        return (None,) * ctx.found


def folded(size: int, dims: Sequence[int | None], tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors (B, ...), of which some are mapped, with the mapped dimension folded into the batch: (size·B, ...)."""
    moved = [
        t.expand(size, *t.shape) if dim is None else t.movedim(dim, 0) for t, dim in zip(tensors, dims, strict=True)
    ]
    return [t.flatten(0, 1) for t in moved]


def batch_of(dims: Sequence[int | None], tensors: Sequence[Tensor], ranks: Sequence[int]) -> int:
    """The batch size beside a mapped dimension; 1 where every tensor is shared."""
    sizes = (
        (t if dim is None else t.movedim(dim, 0)[0]).shape[0]
        for t, dim, rank in zip(tensors, dims, ranks, strict=True)
        if t.ndim - (dim is not None) > rank
    )
    return next(sizes, 1)


def merge(
    size: int, batch: int, dims: Sequence[int | None], tensors: Sequence[Tensor], ranks: Sequence[int]
) -> list[Tensor]:
    """Fold a mapped dimension of `size` into the batch dimension of each tensor: (size·B, ...).

    A tensor that is neither mapped nor batched stays shared; one that is mapped but shared is repeated B times.
    """
    merged: list[Tensor] = []
    for x, dim, rank in zip(tensors, dims, ranks, strict=True):
        if dim is None:
            merged.append(x if x.ndim == rank else x.expand(size, *x.shape).flatten(0, 1))
            continue
        x = x.movedim(dim, 0)
        if x.ndim == rank + 1:
            x = x.unsqueeze(1).expand(size, batch, *x.shape[1:])
        merged.append(x.flatten(0, 1))
    return merged


def split(size: int, tensors: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """Undo `merge` on outputs (size·B, ...): the mapped dimension comes first."""
    return tuple(t.unflatten(0, (size, t.shape[0] // size)) for t in tensors), (0,) * len(tensors)

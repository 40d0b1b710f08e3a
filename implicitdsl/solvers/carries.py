"""What compiled graphs need of us: carries of a `while_loop`, Python at little cost, branches for failures alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

TURNED, SLIM = 4096, 4
"""Entries of a matrix that a compiled graph copies to have it transposed: a small GEMM takes up to twice as long with
the transpose of what lies in memory. Rows of a matrix that a compiled graph multiplies without a GEMM."""

_LIBRARY = torch.library.Library("implicitdsl", "FRAGMENT")


def operator(schema: str, function: Callable[..., Any], fake: Callable[..., Any]) -> Callable[..., Any]:
    """`function` as an operator that compiled graphs call; `fake` makes what is like its results from what is like its
    arguments. It has no derivative, and says so in a backward pass through it.

    (`torch.library.custom_op` adds layers that cost 50 to 100 µs a call.)
    """
    name = schema.partition("(")[0]
    _LIBRARY.define(schema)
    overload = getattr(torch.ops.implicitdsl, name).default

    def watched(*args: Any) -> Any:
        if torch.is_grad_enabled() and any(x.requires_grad for x in _tensors(args)):
            found = _Underivable.apply(overload, args, *_tensors(args))
            return list(found) if isinstance(found, tuple) else found
        with torch._C._AutoDispatchBelowAutograd():
            return overload(*args)

    _LIBRARY.impl(name, function, "CompositeExplicitAutograd")
    _LIBRARY.impl(name, watched, "Autograd")
    torch.library.register_fake(f"implicitdsl::{name}", fake, lib=_LIBRARY)
    return overload


def _tensors(args: tuple[Any, ...]) -> list[Tensor]:
    found: list[Tensor] = []
    for x in args:
        if isinstance(x, Tensor):
            found.append(x)
        elif isinstance(x, list | tuple):
            found += x
    return found


class _Underivable(torch.autograd.Function):
    """The results of an operator, as functions of all its tensors whose derivatives do not exist."""

    @staticmethod
    def forward(ctx: Any, overload: Callable[..., Any], args: tuple[Any, ...], *tensors: Tensor) -> Any:
        ctx.name = str(overload)
        ones = iter(tensors)
        found = overload(
            *(
                next(ones) if isinstance(x, Tensor) else [next(ones) for _ in x] if isinstance(x, list | tuple) else x
                for x in args
            )
        )
        return tuple(found) if isinstance(found, list) else found

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise RuntimeError(f"{ctx.name} has no autograd formula: differentiate the layer, not its exported program")


def fresh_all(tensors: list[Tensor]) -> list[Tensor]:
    """Copies of the tensors for the carries of a `while_loop`, which no compiler pass elides or shares with another.

    Inductor (torch 2.13) lets the body of a `while_loop` write into its first carries. It also drops a `clone` whose
    source is read elsewhere, and merges equal pure calls, so two loops that start from the same zeros would share
    them: silently wrong numbers. But `torch.empty` is never merged, so x where e < e does not hold, for an entry e of
    an empty tensor of this call, is a tensor of its own to every pass, for the price of the copy.
    """
    token = torch.empty(len(tensors), device=tensors[0].device)
    nowhere = (token < token).unbind()
    return [torch.where(never, x.new_zeros(()), x.contiguous()) for never, x in zip(nowhere, tensors, strict=True)]


def turned(A: Tensor, back: bool = False) -> Tensor:
    """A small matrix as the products of a loop read it, in memory: A x takes Aᵀ, unless A has few rows. `back`: for
    products x A, which take A, unless it has few columns. See `lowering.ops.products`.
    """
    wanted = A.shape[1] <= SLIM if back else A.shape[0] > SLIM
    return A.mT.contiguous().mT if wanted and A.numel() <= TURNED and A.device.type == "cpu" else A


def where_any(rows: Tensor, call: Callable[..., Tensor], first: Tensor, *others: Tensor) -> Tensor:
    """`call(first, *others)`, which is like `first`, where any of `rows` holds; else `first`. A branch of the compiled
    graph, so that what is for failures alone (an `operator` costs some 50 µs) costs nothing where there are none.
    """
    if torch.compiler.is_exporting():
        return call(first, *others)

    def called(first: Tensor, *others: Tensor) -> Tensor:
        return call(first, *others)

    def passed(first: Tensor, *others: Tensor) -> Tensor:
        return first.clone(memory_format=torch.contiguous_format)

    return torch.cond(rows.any(), called, passed, (first, *others))

"""Carries of a compiled `while_loop`, and how Python is called from a compiled graph at little cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

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


def _copies(tensors: list[Tensor], token: Tensor) -> list[Tensor]:
    return [x.clone(memory_format=torch.contiguous_format) for x in tensors]


def _like(tensors: list[Tensor], token: Tensor) -> list[Tensor]:
    return [torch.empty_like(x, memory_format=torch.contiguous_format) for x in tensors]


_fresh_all = operator("fresh_all(Tensor[] tensors, Tensor token) -> Tensor[]", _copies, _like)


def fresh_all(tensors: list[Tensor], token: Tensor) -> list[Tensor]:
    """Copies of the tensors for the carries of a `while_loop`, which no compiler pass elides or shares with another.

    Inductor (torch 2.13) lets the body of a `while_loop` write into its first carries. It also drops a `clone` whose
    source is read elsewhere, and merges equal pure calls, so two loops that start from the same zeros would share
    them: silently wrong numbers. `token`, an empty tensor of this loop alone (`torch.empty` is never merged), keeps
    copies apart.
    """
    return _fresh_all(tensors, token)

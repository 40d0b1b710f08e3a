"""Calls of modules and Python functions whose inside the compiler does not see.

They receive exactly one leading batch dimension. Arguments come with any, or none: they are broadcast against each
other, flattened to one, and the results get the common leading dimensions back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .shapes import broadcast

Function = Callable[..., Any]
Lead = tuple[int, ...]


def _lead(args: Sequence[Tensor], ranks: Sequence[int]) -> Lead:
    return broadcast([tuple(a.shape[: a.dim() - r]) for a, r in zip(args, ranks, strict=True)])


def _flat(x: Tensor, rank: int, lead: Lead) -> Tensor:
    """With exactly one leading dimension."""
    core = x.shape[x.dim() - rank :]
    if tuple(x.shape[: x.dim() - rank]) != lead:
        x = x.expand(*lead, *core)
    return x if len(lead) == 1 else x.reshape(math.prod(lead), *core) if lead else x.unsqueeze(0)


def _unflat(x: Tensor, lead: Lead) -> Tensor:
    if len(lead) == 1:
        return x
    return x.reshape(*lead, *x.shape[1:]) if lead else x.squeeze(0)


def _pick(result: Any, output: int) -> Tensor:
    return result[output] if isinstance(result, tuple | list) else result


def apply(f: Function, args: Sequence[Tensor], ranks: Sequence[int], output: int = 0) -> Tensor:
    """f(args…), or its result number `output` where it returns several."""
    lead = _lead(args, ranks)
    return _unflat(_pick(f(*[_flat(a, r, lead) for a, r in zip(args, ranks, strict=True)]), output), lead)


def apply_all(f: Function, args: Sequence[Tensor], ranks: Sequence[int]) -> tuple[Tensor, ...]:
    """Every result of f(args…), in one call."""
    lead = _lead(args, ranks)
    return tuple(_unflat(r, lead) for r in f(*[_flat(a, r, lead) for a, r in zip(args, ranks, strict=True)]))


def apply_jvp(
    f: Function, args: Sequence[Tensor], tangents: Sequence[Tensor], ranks: Sequence[int], output: int = 0
) -> Tensor:
    """Directional derivative of one result, by forward mode."""
    lead = _lead([*args, *tangents], [*ranks, *ranks])
    primals = tuple(_flat(a, r, lead) for a, r in zip(args, ranks, strict=True))
    along = tuple(_flat(t, r, lead) for t, r in zip(tangents, ranks, strict=True))
    return _unflat(torch.func.jvp(lambda *xs: _pick(f(*xs), output), primals, along)[1], lead)


def apply_vjp(
    f: Function,
    args: Sequence[Tensor],
    cotangent: Tensor,
    ranks: Sequence[int],
    rank: int,
    wrt: Sequence[int],
    output: int = 0,
) -> tuple[Tensor, ...]:
    """Per-sample cotangents of the arguments `wrt`, given the cotangent (core rank `rank`) of one result."""
    lead = _lead([*args, cotangent], [*ranks, rank])
    flat = [_flat(a, r, lead) for a, r in zip(args, ranks, strict=True)]

    def partial(*xs: Tensor) -> Tensor:
        full = list(flat)
        for i, x in zip(wrt, xs, strict=True):
            full[i] = x
        return _pick(f(*full), output)

    pull = torch.func.vjp(partial, *[flat[i] for i in wrt])[1]
    return tuple(_unflat(g, lead) for g in pull(_flat(cotangent, rank, lead)))


def jvp_of(f: Function, output: int) -> Function:
    """(x…, t…) ↦ ∂f t of one result, as an opaque function itself."""

    def directional(*args: Tensor) -> Tensor:
        half = len(args) // 2
        return torch.func.jvp(lambda *xs: _pick(f(*xs), output), args[:half], args[half:])[1]

    return directional


def vjp_of(f: Function, output: int, i: int) -> Function:
    """(x…, g) ↦ (∂f/∂xᵢ)ᵀ g of one result, as an opaque function itself."""

    def pulled(*args: Tensor) -> Tensor:
        *xs, g = args
        pull = torch.func.vjp(lambda x: _pick(f(*xs[:i], x, *xs[i + 1 :]), output), xs[i])[1]
        return pull(g)[0]

    return pulled

"""The tensors of a call: which is which, whether they fit, and their leading dimensions as one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor

from implicitdsl.ground.errors import ShapeError
from implicitdsl.ir.model import Symbol

from .ops.shapes import broadcast


def declaration(symbol: Symbol) -> str:
    """As it was written: `x in R^n`."""
    return f"{symbol.name} in {symbol.set.text}"


def by_position(title: str, symbols: Sequence[Symbol], args: Sequence[Any], options: Sequence[str]) -> None:
    """TypeError where the keyword of an option is that of an input which `args` does not hold."""
    for symbol in symbols[len(args) :]:
        if symbol.name in options:
            raise TypeError(f"{title}.solve(): `{symbol.name}` is an option here: pass the input by position")


def bind(layer: str, symbols: Sequence[Symbol], args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """The inputs in the order of their declarations. Raises TypeError as a Python function would."""
    names = [s.name for s in symbols]
    if len(args) > len(symbols):
        takes = f"{len(symbols)} input{'s' * (len(symbols) != 1)}" + (f" ({', '.join(names)})" if names else "")
        raise TypeError(f"{layer} takes {takes}, got {len(args)}")
    if not kwargs and len(args) == len(symbols):
        return list(args)
    given = dict(zip(names, args, strict=False))
    for name, value in kwargs.items():
        if name not in names:
            close = [n for n in names if n.lower() == name.lower()] or get_close_matches(name, names, n=1)
            hint = f"did you mean `{close[0]}`?" if close else f"its inputs are {', '.join(names) or 'none'}"
            raise TypeError(f"{layer} has no input `{name}`; {hint}")
        if name in given:
            raise TypeError(f"{layer} got `{name}` twice, by position and by name")
        given[name] = value
    absent = [f"`{declaration(s)}`" for s in symbols if s.name not in given]
    if absent:
        raise TypeError(f"{layer} lacks {', '.join(absent)}")
    return [given[name] for name in names]


def tensors(symbols: Sequence[Symbol], values: Sequence[Any], parameters: Mapping[str, Tensor | None]) -> list[Tensor]:
    """The inputs as floating tensors of one dtype and device. Numbers stand for scalars.

    Raises TypeError for other objects, ShapeError for other dtypes or two devices, naming both declarations.
    """
    like = next((v for v in values if isinstance(v, Tensor)), None)
    if like is None:
        like = next(iter(parameters.values()), None)
    found: list[Tensor] = []
    for symbol, value in zip(symbols, values, strict=True):
        if isinstance(value, Tensor):
            if not value.is_floating_point():
                raise ShapeError(f"`{declaration(symbol)}`: expected a floating dtype, got {value.dtype}")
            found.append(value)
        elif isinstance(value, int | float) and not symbol.shape:
            kind = torch.get_default_dtype() if like is None else like.dtype
            found.append(torch.full((), float(value), dtype=kind, device=None if like is None else like.device))
        else:
            raise TypeError(f"`{declaration(symbol)}` must be a tensor, got {type(value).__name__}")
    for symbol, value in zip(symbols[1:], found[1:], strict=True):
        if value.dtype != found[0].dtype:
            first = f"`{declaration(symbols[0])}` is {found[0].dtype}"
            raise ShapeError(f"dtypes differ: {first}, `{declaration(symbol)}` is {value.dtype}")
        if value.device != found[0].device:
            first = f"`{declaration(symbols[0])}` is on {found[0].device}"
            raise ShapeError(f"devices differ: {first}, `{declaration(symbol)}` is on {value.device}")
    return found


def leading(symbols: Sequence[Symbol], values: Sequence[Tensor]) -> tuple[int, ...]:
    """The common leading dimensions, by broadcasting. Raises ShapeError naming two inputs that do not fit."""
    leads = [tuple(v.shape[: v.dim() - len(s.shape)]) for s, v in zip(symbols, values, strict=True)]
    lead: tuple[int, ...] = ()
    for k, other in enumerate(leads):
        try:
            lead = broadcast((lead, other))
        except RuntimeError:
            before = next(j for j in range(k) if not _fit(leads[j], other))
            raise ShapeError(
                f"batch dimensions do not broadcast: {leads[before]} of `{declaration(symbols[before])}` "
                f"and {other} of `{declaration(symbols[k])}`"
            ) from None
    return lead


def _fit(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return all(x == y or 1 in (x, y) for x, y in zip(reversed(a), reversed(b), strict=False))


def flat(value: Tensor, rank: int, lead: tuple[int, ...], batch: int | None) -> Tensor:
    """With one leading dimension, or none where it has none: then the whole batch shares it."""
    own = value.dim() - rank
    if not own or batch is None:
        return value
    if own == 1 == len(lead) and value.shape[0] == batch:
        return value
    core = value.shape[own:]
    return value.expand(*lead, *core).reshape(batch, *core)


def unflat(value: Tensor, rank: int, lead: tuple[int, ...]) -> Tensor:
    """An output with the caller's leading dimensions; one that no batched input reaches is repeated."""
    core = value.shape[value.dim() - rank :]
    if value.dim() == rank:
        return value.expand(*lead, *core) if lead else value
    if len(lead) == 1:
        return value
    return value.reshape(*lead, *core)

"""Functions and modules bound to the `fn` of a spec: what they return is held against what was declared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from implicitdsl.ground.errors import ResultError, SpecError
from implicitdsl.ground.source import Source
from implicitdsl.ir.dims import Shape
from implicitdsl.ir.model import Opaque

from .parameters import spec_error


def _set(shape: Shape) -> str:
    if not shape:
        return "R"
    return f"R^{shape[0]}" if len(shape) == 1 and " " not in str(shape[0]) else f"R^({', '.join(map(str, shape))})"


def signature(opaque: Opaque) -> str:
    """As it was declared: `f: (R^n, R) -> R^n`."""
    args = ", ".join(map(_set, opaque.args))
    results = ", ".join(map(_set, opaque.results))
    left = args if len(opaque.args) == 1 else f"({args})"
    return f"{opaque.name}: {left} -> {results if len(opaque.results) == 1 else f'({results})'}"


@dataclass(frozen=True)
class Bound:
    """`module` as the spec's function: a call checks the shapes of the results (a few integers compared).

    `autocast`: the dtype of the caller's autocast, under which the module runs; its results come back in the dtype of
    its first argument. Raises ResultError (IMP209) where shapes differ from the declaration.
    """

    opaque: Opaque
    module: Callable[..., Any]
    sizes: Mapping[str, int]
    results: tuple[tuple[int, ...], ...]
    source: Source
    autocast: torch.dtype | None = None

    def __call__(self, *args: Tensor) -> Any:
        out = self.module(*args) if self.autocast is None else self._under_autocast(args)
        if len(self.results) == 1:
            if not isinstance(out, Tensor) or tuple(out.shape) != (args[0].shape[0], *self.results[0]):
                raise self._mismatch(out, args)
        elif not isinstance(out, tuple | list) or len(out) != len(self.results):
            raise self._mismatch(out, args)
        else:
            for y, core in zip(out, self.results, strict=True):
                if tuple(y.shape) != (args[0].shape[0], *core):
                    raise self._mismatch(out, args)
        return out

    def _under_autocast(self, args: tuple[Tensor, ...]) -> Any:
        like = args[0]
        with torch.autocast(like.device.type, dtype=self.autocast, cache_enabled=False):  # casts of changing tensors
            out = self.module(*args)
        return tuple(y.to(like.dtype) for y in out) if isinstance(out, tuple | list) else out.to(like.dtype)

    def _mismatch(self, out: Any, args: tuple[Tensor, ...]) -> SpecError:
        names = sorted({n for shape in (*self.opaque.args, *self.opaque.results) for d in shape for n in d.names})
        given = ", ".join(f"{n}={self.sizes[n]}" for n in names if n in self.sizes)
        got = ", ".join(_shown(y) for y in out) if isinstance(out, tuple | list) else _shown(out)
        inputs = ", ".join(_shown(a) for a in args)
        message = (
            f"{f'{given} given, but ' if given else ''}{self.opaque.name} returned {got} for "
            f"{'inputs' if len(args) > 1 else 'an input of shape'} {inputs}; declared {signature(self.opaque)}"
        )
        return spec_error("IMP209", message, self.opaque.span, self.source, ResultError)


def _shown(value: Any) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return "(" + ", ".join(["…", *map(str, value.shape[1:])]) + ")"


def bound(
    opaque: Opaque,
    module: Callable[..., Any],
    sizes: Mapping[str, int],
    source: Source,
    autocast: torch.dtype | None = None,
) -> Bound:
    """The function with its result shapes as numbers."""
    results = tuple(tuple(d.evaluate(sizes) for d in shape) for shape in opaque.results)
    return Bound(opaque, module, sizes, results, source, autocast)


def noisy(module: object) -> bool:
    """Whether a module is set to drop out or to use batch statistics, as far as its parts show."""
    parts = module.modules() if isinstance(module, nn.Module) else ()
    return any(m.training and (isinstance(m, _BatchNorm) or (isinstance(m, _DropoutNd) and m.p > 0)) for m in parts)

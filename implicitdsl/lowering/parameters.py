"""Parameters and buffers: initial values, membership in their sets, and the map from raw tensors to values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter, is_lazy

from implicitdsl.ground.diagnostics import Diagnostic
from implicitdsl.ground.errors import ShapeError, SpecError
from implicitdsl.ground.render.text import render
from implicitdsl.ground.source import Source, Span
from implicitdsl.ir.model import Model, Symbol

from . import sets
from .inputs import declaration
from .sizes import Observation, Size, infer


class Slot:
    """A `param` or `const`: its declaration, its size once known, and its parametrization."""

    def __init__(self, symbol: Symbol, kind: str, source: Source) -> None:
        self.symbol, self.kind, self.source = symbol, kind, source
        self.set: sets.Parametrization | None = None
        self.plain = kind == "const" or symbol.set.name == "R"

    @property
    def where(self) -> str:
        return f"{self.kind} {declaration(self.symbol)}"

    def settle(self, sizes: Mapping[str, int]) -> bool:
        """Make the parametrization if all dimensions are known. Whether it is there."""
        if self.set is None and all(d.names <= sizes.keys() for d in self.symbol.shape):
            shape = [d.evaluate(sizes) for d in self.symbol.shape]
            try:
                self.set = sets.make(self.symbol.set.name, shape, self.symbol.set.args)
            except ValueError as error:
                raise self._error("IMP107", f"`{self.where}`: {error}") from None
        return self.set is not None

    def value(self, raw: Tensor) -> Tensor:
        """The value on the set; for plain R^… the raw tensor itself."""
        return raw if self.plain or self.set is None else self.set.value(raw)

    def initial(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """The raw initial value. Raises SpecError (IMP107) outside the set, ShapeError if it does not fit."""
        assert self.set is not None
        init = self.symbol.init
        if init.kind == "default":
            return self.set.default(dtype=dtype, device=device)
        return self.raw(self._literal(dtype, device))

    def _literal(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        assert self.set is not None
        init, shape = self.symbol.init, self.set.shape
        like: dict[str, Any] = {"dtype": dtype, "device": device}
        if init.kind in ("zeros", "ones"):
            return getattr(torch, init.kind)(shape, **like)
        if init.kind == "eye":
            return torch.eye(*shape, **like)
        if init.kind == "normal":
            return torch.empty(shape, **like).normal_(*init.args)
        if init.kind == "uniform":
            return torch.empty(shape, **like).uniform_(*init.args)
        return self.given(init.literal, dtype, device)

    def given(self, value: object, dtype: torch.dtype, device: torch.device) -> Tensor:
        """A number, nested sequence or tensor as a tensor of the shape; a number fills it.

        Raises TypeError for anything else and ShapeError for another shape, naming the declaration.
        """
        assert self.set is not None
        try:
            found = torch.as_tensor(value, dtype=dtype, device=device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"`{self.where}` takes numbers or a tensor, not {value!r}") from error
        if found.dim() == 0:
            return found.expand(self.set.shape).clone()
        if tuple(found.shape) != self.set.shape:
            shown = ", ".join(map(str, self.set.shape))
            raise ShapeError(f"`{self.where}`: expected ({shown}), got {tuple(found.shape)}")
        return found

    def raw(self, value: Tensor) -> Tensor:
        """The raw tensor of a value. Raises SpecError (IMP107) if it lies outside the set."""
        assert self.set is not None
        if not bool(self.set.contains(value)):
            raise self._error("IMP107", f"`{self.where}`: the value lies outside {self.symbol.set.text}{_shown(value)}")
        return value if self.plain else self.set.raw(value)

    def _error(self, code: str, message: str) -> SpecError:
        return spec_error(code, message, self.symbol.span, self.source)

    def observed(self, shape: tuple[int, ...], known: Mapping[str, Size]) -> dict[str, Size]:
        """The dimensions that follow from a value of this shape."""
        if len(shape) != len(self.symbol.shape):
            raise ShapeError(f"`{self.where}`: expected {len(self.symbol.shape)} dimensions, got shape {shape}")
        return infer(known, [Observation(self.where, self.symbol.shape, shape)])


def in_range(model: Model, sizes: Mapping[str, int]) -> None:
    """Raises SpecError (IMP205) for an index that leaves its axis at these sizes."""
    for bound in model.bounds:
        if bound.rest.evaluate(sizes) < 0:
            length = bound.axis.evaluate(sizes)
            given = ", ".join(f"{n} = {sizes[n]}" for n in sorted(bound.rest.names | bound.axis.names))
            message = f"index `{bound.text}` is outside an axis of length {length}" + (f" at {given}" if given else "")
            raise spec_error("IMP205", message, bound.span, model.source)


def spec_error(
    code: str, message: str, span: Span | None, source: Source, kind: type[SpecError] = SpecError
) -> SpecError:
    """An error that only shows with tensors at hand, at its place in the spec."""
    found = [Diagnostic(code, message, span or Span(0, 0), source)]
    return kind(found, render(found))


def _shown(value: Tensor) -> str:
    return f": {value.flatten()[0].item():g}" if value.numel() == 1 else ""


def is_placeholder(tensor: Tensor) -> bool:
    """Whether it stands for a tensor whose dimensions are not known yet."""
    return is_lazy(tensor)


def fill(holder: Tensor, value: Tensor) -> None:
    """Give a placeholder its shape and value, in place: optimisers that hold it keep it."""
    assert isinstance(holder, UninitializedParameter | UninitializedBuffer)
    with torch.no_grad():
        holder.materialize(value.shape, device=holder.device, dtype=holder.dtype)
        holder.copy_(value)

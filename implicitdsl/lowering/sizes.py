"""Dimensions found from the shapes of tensors, and shapes checked against dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from implicitdsl.ground.errors import ShapeError
from implicitdsl.ir.dims import Dim, Shape


@dataclass(frozen=True, slots=True)
class Size:
    """A dimension's number and what says so: "`x in R^n`", or "compile"."""

    value: int
    origin: str


@dataclass(frozen=True, slots=True)
class Observation:
    """A tensor whose last dimensions are those of a declaration, `where`."""

    where: str
    shape: Shape
    actual: tuple[int, ...]

    @property
    def core(self) -> tuple[int, ...]:
        return self.actual[len(self.actual) - len(self.shape) :]


def infer(known: Mapping[str, Size], observations: Sequence[Observation]) -> dict[str, Size]:
    """All dimensions that follow, one linear unknown at a time. Raises ShapeError where a shape contradicts them."""
    sizes = dict(known)
    pending = [(o, d, actual) for o in observations for d, actual in zip(o.shape, _ranked(o), strict=True)]
    while True:
        left: list[tuple[Observation, Dim, int]] = []
        for o, d, actual in pending:
            rest = d.subs({n: Dim.of(s.value) for n, s in sizes.items()})
            if rest.value is not None:
                if rest.value != actual:
                    raise mismatch(o, sizes)
                continue
            found = _solve(rest, actual)
            if found is None:
                left.append((o, d, actual))
                continue
            name, value = found
            if value is None:
                raise ShapeError(f"`{o.where}`: no {name} gives {d} = {actual}")
            sizes[name] = Size(value, o.where)
        if len(left) == len(pending):
            return sizes
        pending = left


def _ranked(o: Observation) -> tuple[int, ...]:
    if len(o.actual) < len(o.shape):
        raise ShapeError(f"`{o.where}`: expected {len(o.shape)} dimensions after the batch, got shape {o.actual}")
    return o.core


def _solve(d: Dim, actual: int) -> tuple[str, int | None] | None:
    """(name, value) with d = actual, if d is linear in one name; value None if no whole number does it."""
    if len(d.names) != 1 or any(len(monomial) > 1 for monomial, _ in d.terms):
        return None
    constant, slope, name = 0, 1, ""
    for monomial, c in d.terms:
        if monomial:
            slope, name = c, monomial[0]
        else:
            constant = c
    value, rest = divmod(actual - constant, slope)
    return name, value if rest == 0 and value >= 0 else None


def mismatch(o: Observation, sizes: Mapping[str, Size]) -> ShapeError:
    """The error that names the declaration, what it expects, and where each of its dimensions comes from."""

    def expected(d: Dim) -> str:
        return str(d.subs({n: Dim.of(s.value) for n, s in sizes.items()}))

    shown = ", ".join(["...", *map(expected, o.shape)])
    got = ", ".join(["...", *map(str, o.core)])
    names = sorted({n for d in o.shape for n in d.names if n in sizes and sizes[n].origin != o.where})
    origins = "; ".join(f"{n} = {sizes[n].value} comes from {_origin(sizes[n].origin)}" for n in names)
    return ShapeError(f"`{o.where}`: expected ({shown}), got ({got})" + (f"; {origins}" if origins else ""))


def _origin(origin: str) -> str:
    return origin if origin == "compile" else f"`{origin}`"


def missing(names: Sequence[str]) -> ShapeError:
    """Dimensions that no input fixes."""
    given = ", ".join(f"{n}=…" for n in names)
    shown = ", ".join(f"`{n}`" for n in names)
    return ShapeError(f"no input has a shape that fixes {shown}: pass {given} to compile")

"""Bounds on values that are proved from sets and functions: ranges of entries, 2-norms, spectral norms.

The three need each other (the range of `W z` comes from norms, the norm of `tanh(z)` from its range) and share a memo.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from implicitdsl.ground.facts import Interval
from implicitdsl.ir.nodes import Expr, walk

from . import norms, ranges
from .context import Bound, Context


def _missing(e: Expr, memo: Mapping[Expr, object]) -> Iterator[Expr]:
    """The parts of e without a bound yet, arguments first: a long sum must not exhaust the stack."""
    return (part for part in walk(e) if part not in memo)


class Bounds:
    """Memoised bounds of one context. Cost: one visit a node and kind of bound."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._ranges: dict[Expr, Interval] = {}
        self._norms: dict[Expr, Bound] = {}
        self._operators: dict[Expr, Bound] = {}

    def range(self, e: Expr) -> Interval:
        """An interval that holds every entry of e."""
        if e not in self._ranges:
            for part in _missing(e, self._ranges):
                self._ranges[part] = ranges.of(part, self)
        return self._ranges[e]

    def magnitude(self, e: Expr) -> float:
        """sup |entry|."""
        r = self.range(e)
        return max(abs(r.lo), abs(r.hi))

    def norm(self, e: Expr) -> Bound:
        """A bound on the 2-norm of a vector, the Frobenius norm of a matrix, |e| of a scalar."""
        if e not in self._norms:
            for part in _missing(e, self._norms):
                self._norms[part] = norms.frobenius(part, self)
        return self._norms[e]

    def operator(self, e: Expr) -> Bound:
        """A bound on the spectral norm of a matrix, the 2-norm of a vector, |e| of a scalar."""
        if e not in self._operators:
            for part in _missing(e, self._operators):
                self._operators[part] = norms.spectral(part, self)
        return self._operators[e]

"""What an analysis may look at: the functions' facts, the sets of the symbols, and the sizes that are known."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import field, replace

from implicitdsl.ground.facts import Interval
from implicitdsl.ground.records import dataclass
from implicitdsl.ir.dims import Shape, size_of
from implicitdsl.ir.function import Functions
from implicitdsl.ir.model import Model, SetInfo
from implicitdsl.ir.nodes import Expr


@dataclass(frozen=True)
class Context:
    """`sets` maps a given, param or const to its set, `roots` an unknown to the set that picks its root.

    `ranges` narrows entries of symbols and expressions (assumed by one proof). `filled` are a bare text's numbers."""

    functions: Functions
    sets: Mapping[Expr, SetInfo]
    roots: Mapping[Expr, SetInfo] = field(default_factory=dict[Expr, SetInfo])
    sizes: Mapping[str, int] = field(default_factory=dict[str, int])
    ranges: Mapping[Expr, Interval] = field(default_factory=dict[Expr, Interval])
    filled: frozenset[Expr] = frozenset()

    def size(self, shape: Shape) -> int | None:
        """The number of elements, where the sizes of its dimensions are known."""
        total = size_of(shape)
        return total.evaluate(self.sizes) if total.names <= self.sizes.keys() else None

    def assuming(self, ranges: Mapping[Expr, Interval]) -> Context:
        """The same with further assumptions."""
        return replace(self, ranges={**self.ranges, **ranges})


@dataclass(frozen=True, slots=True)
class Bound:
    """An upper bound (inf: none proved) and the steps that lead there, or what stands in the way."""

    value: float
    because: tuple[str, ...] = ()

    @property
    def proved(self) -> bool:
        return math.isfinite(self.value)


def context(model: Model, functions: Functions, sizes: Mapping[str, int | None] | None = None) -> Context:
    """The context of a model. An iterate need not lie in the set that picks the root, so that set is kept apart."""
    sets = {s.node: s.set for s in (*model.givens, *model.params, *model.consts)}
    known = {name: size for name, size in (sizes or {}).items() if size is not None}
    roots = {s.node: s.set for block in model.blocks for s in block.unknowns}
    filled = frozenset(s.node for s in (*model.givens, *model.params) if s.filled and not s.shape)
    return Context(functions, sets, roots, known, filled=filled)

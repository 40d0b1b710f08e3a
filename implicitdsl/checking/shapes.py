"""Unification of symbolic dimensions. Names that begin with `?` are flexible (to be inferred), all others rigid."""

from __future__ import annotations

from dataclasses import field

from implicitdsl.ground.records import dataclass
from implicitdsl.ground.source import Span
from implicitdsl.ir.dims import ONE, Dim, Shape


def is_flexible(name: str) -> bool:
    return name.startswith("?")


def shown(dim: Dim) -> str:
    """As a reader would write it: `_` for what is not inferred yet."""
    return " ".join("_" if is_flexible(name) else name for name in str(dim).split(" "))


@dataclass
class Dims:
    """The dimensions of one layer: where the rigid ones were introduced, and what the flexible ones turned out
    to be.
    """

    introduced: dict[str, Span] = field(default_factory=dict[str, Span])
    known: dict[str, Dim] = field(default_factory=dict[str, Dim])
    lower: dict[str, int] = field(default_factory=dict[str, int])
    count: int = 0

    def fresh(self) -> Dim:
        """A new flexible dimension."""
        self.count += 1
        return Dim.of(f"?{self.count}")

    def fresh_shape(self, rank: int) -> Shape:
        return tuple(self.fresh() for _ in range(rank))

    def resolve(self, dim: Dim) -> Dim:
        """The dimension with everything known filled in."""
        while any(name in self.known for name in dim.names):
            dim = dim.subs(self.known)
        return dim

    def shape(self, shape: Shape) -> Shape:
        return tuple(self.resolve(d) for d in shape)

    def unify(self, a: Dim, b: Dim) -> bool:
        """Make two dimensions equal; False if they can't be.

        A flexible name that occurs linearly with a unit coefficient is solved for; `2 ?a = 4` too.
        """
        rest = self.resolve(a) - self.resolve(b)
        if not rest.terms:
            return True
        # prefer solving for the youngest flexible name, so that declared ones survive
        candidates = sorted((n for n in rest.names if is_flexible(n)), key=lambda n: -int(n[1:]))
        for name in candidates:
            linear = [(m, c) for m, c in rest.terms if name in m]
            if len(linear) != 1 or linear[0][0] != (name,):
                continue
            coefficient = linear[0][1]
            others = Dim(tuple(t for t in rest.terms if t[0] != (name,)))
            if any(c % coefficient for _, c in others.terms):
                continue
            solution = Dim(tuple((m, -c // coefficient) for m, c in others.terms))
            if solution.value is not None and solution.value < 0:
                return False
            self.known[name] = solution
            return True
        return False

    def unify_shapes(self, a: Shape, b: Shape) -> bool:
        # every pair is tried, also after a failure: what can be known is learnt
        fits = [self.unify(x, y) for x, y in zip(a, b, strict=False)]
        return len(a) == len(b) and all(fits)

    def sign(self, dim: Dim) -> int | None:
        """The sign of a difference for all dimensions ≥ 1: -1, 0, 1; None if it depends."""
        dim = self.resolve(dim)
        if not dim.terms:
            return 0
        if all(c > 0 for _, c in dim.terms):
            return 1
        if all(c < 0 for _, c in dim.terms):
            return -1
        # `2 n - 1`, `1 - n m`: write each name as 1 + name
        shifted = dim.subs({n: Dim.of(n) + ONE for n in dim.names})
        if all(c >= 0 for _, c in shifted.terms):
            return 1 if dict(shifted.terms).get((), 0) > 0 else None
        if all(c <= 0 for _, c in shifted.terms):
            return -1 if dict(shifted.terms).get((), 0) < 0 else None
        return None

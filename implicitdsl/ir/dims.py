"""Symbolic dimensions: integer polynomials in names, `2 n + 1`, compared by normal form."""

from __future__ import annotations

from collections.abc import Mapping

from implicitdsl.ground.records import dataclass

Monomial = tuple[str, ...]
"""Sorted names, with repetition: `n^2` is ("n", "n"); the constant is ()."""


@dataclass(frozen=True, slots=True)
class Dim:
    """Σ coefficient · monomial. Terms are sorted and without zeros, so equality is equality of polynomials."""

    terms: tuple[tuple[Monomial, int], ...]

    @staticmethod
    def of(value: int | str) -> Dim:
        """A number or a name."""
        if isinstance(value, str):
            return Dim((((value,), 1),))
        return Dim((((), value),)) if value else Dim(())

    @staticmethod
    def _collect(terms: Mapping[Monomial, int]) -> Dim:
        return Dim(tuple(sorted((m, c) for m, c in terms.items() if c)))

    def __add__(self, other: Dim) -> Dim:
        total = dict(self.terms)
        for m, c in other.terms:
            total[m] = total.get(m, 0) + c
        return Dim._collect(total)

    def __sub__(self, other: Dim) -> Dim:
        return self + other * Dim.of(-1)

    def __mul__(self, other: Dim) -> Dim:
        total: dict[Monomial, int] = {}
        for m, c in self.terms:
            for k, d in other.terms:
                key = tuple(sorted(m + k))
                total[key] = total.get(key, 0) + c * d
        return Dim._collect(total)

    @property
    def value(self) -> int | None:
        """The number, if it is one."""
        if not self.terms:
            return 0
        return self.terms[0][1] if len(self.terms) == 1 and self.terms[0][0] == () else None

    @property
    def names(self) -> frozenset[str]:
        return frozenset(name for m, _ in self.terms for name in m)

    def subs(self, values: Mapping[str, Dim]) -> Dim:
        """Replace names."""
        if not (self.names & values.keys()):
            return self
        total = Dim(())
        for m, c in self.terms:
            term = Dim.of(c)
            for name in m:
                term = term * values.get(name, Dim.of(name))
            total = total + term
        return total

    def evaluate(self, sizes: Mapping[str, int]) -> int:
        """The number for given sizes. Raises KeyError on a name without a size."""
        total = 0
        for m, c in self.terms:
            for name in m:
                c *= sizes[name]
            total += c
        return total

    def __str__(self) -> str:
        if not self.terms:
            return "0"
        parts: list[str] = []
        for m, c in sorted(self.terms, key=lambda t: (-len(t[0]), t[0])):
            body = " ".join(m)
            text = str(abs(c)) if not m else body if abs(c) == 1 else f"{abs(c)} {body}"
            parts.append((" - " if c < 0 else " + ") + text if parts else ("-" if c < 0 else "") + text)
        return "".join(parts)


Shape = tuple[Dim, ...]

ONE = Dim.of(1)
ZERO = Dim.of(0)


def show_shape(shape: Shape) -> str:
    """`(n, m)`; a scalar is `()`."""
    return "(" + ", ".join(map(str, shape)) + ")"


def size_of(shape: Shape) -> Dim:
    """The number of elements."""
    total = ONE
    for d in shape:
        total = total * d
    return total

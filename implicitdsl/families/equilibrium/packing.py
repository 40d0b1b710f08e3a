"""Several unknowns of any shapes as one vector, on the level of expressions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from implicitdsl.ir import build
from implicitdsl.ir.dims import Dim, size_of
from implicitdsl.ir.nodes import Expr, Role

Definitions = tuple[tuple[Expr, Expr], ...]


@dataclass(frozen=True, slots=True)
class Packing:
    """`vector` (N,) stands for `parts`; `definitions` give each part from it. A single vector is packed as itself."""

    parts: tuple[Expr, ...]
    vector: Expr
    definitions: Definitions

    @property
    def size(self) -> Dim:
        """N."""
        return self.vector.shape[0]

    def join(self, values: Sequence[Expr]) -> Expr:
        """Values in the shapes of the parts as one vector (N,)."""
        return join(values)


def pack(parts: Sequence[Expr], name: str, role: Role) -> Packing:
    """The packing of symbols into a vector called `name`, in order, each row by row."""
    if len(parts) == 1 and parts[0].rank == 1:
        return Packing(tuple(parts), parts[0], ())
    total = Dim.of(0)
    for part in parts:
        total = total + size_of(part.shape)
    vector = build.sym(name, role, (total,))
    definitions: list[tuple[Expr, Expr]] = []
    at = Dim.of(0)
    for part in parts:
        end = at + size_of(part.shape)
        if part.rank == 0:
            value = build.index(vector, (build.at_item(at),))
        else:
            value = vector if len(parts) == 1 else build.index(vector, (build.slice_item(at, end),))
            value = build.reshape(value, part.shape)
        definitions.append((part, value))
        at = end
    return Packing(tuple(parts), vector, tuple(definitions))


def join(values: Sequence[Expr]) -> Expr:
    """Expressions of any shapes as one vector, each row by row."""
    if len(values) > 1 and not any(v.rank for v in values):
        return build.stack(values)
    flat = [v if v.rank == 1 else build.reshape(v, (size_of(v.shape),)) for v in values]
    return flat[0] if len(flat) == 1 else build.concat(flat)

"""From a quadratic program in expressions to its coefficients P, q, C, d: derivatives of objective and constraints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace as replace_fields

from implicitdsl.analysis.symmetry import is_symmetry
from implicitdsl.calculus import dense_jacobian, jacobian, linearize, simplify, vjp
from implicitdsl.families.equilibrium.packing import Packing, join, pack
from implicitdsl.ground.records import dataclass
from implicitdsl.ir import build
from implicitdsl.ir.dims import size_of
from implicitdsl.ir.function import Functions
from implicitdsl.ir.nodes import Expr, Role, depends, num, sym
from implicitdsl.ir.plan import BELOW, DEFINITE, EQUAL, SECOND, Constraint, Program
from implicitdsl.ir.remake import replace


@dataclass(frozen=True, slots=True)
class Coefficients:
    """min ½ zᵀPz + qᵀz, C z = d or ≤ d, z the unknowns as one vector; expressions that are free of the unknowns.

    P is None for a linear objective, C and d are None without constraints. `rows` are the constraints in the order of
    C's rows, equalities first. Where the calculus has no closed form of P or C, `direction` is v, a vector in the place
    of the unknowns, and `moved` are P v and C v: evaluated on a basis they give the matrices.
    """

    unknowns: tuple[Expr, ...]
    curved: bool
    P: Expr | None
    q: Expr
    C: Expr | None
    d: Expr | None
    rows: tuple[Constraint, ...]
    equalities: int  # how many of `rows`
    direction: Packing | None = None
    moved: tuple[Expr, ...] = ()

    @property
    def outputs(self) -> tuple[Expr, ...]:
        """Those that there are."""
        return tuple(e for e in (self.P, self.q, self.C, self.d) if e is not None)


def coefficients(form: Program, functions: Functions, by_triangle: bool = False) -> Coefficients:
    """The coefficients of a program whose objective is quadratic (or linear) and whose constraints are affine.

    Cones and matrices M ⪰ 0 are rows −M after the others. `by_triangle`: symmetry of unknowns is not a constraint.
    """
    unknowns = form.unknowns
    zero = {u: build.zeros(u.shape) for u in unknowns}
    gradient = [simplify(g) for g in vjp(form.objective, num(1.0), unknowns, functions)]
    curved = any(depends(g, frozenset(unknowns)) for g in gradient)
    equal = [c for c in form.of(EQUAL) if not (by_triangle and is_symmetry(c))]
    cones = [replace_fields(c, body=build.neg(c.body)) for kind in (SECOND, DEFINITE) for c in form.of(kind)]
    rows = (*equal, *form.of(BELOW), *cones)
    q = join([simplify(replace(g, zero)) for g in gradient])
    d = join([simplify(build.neg(replace(c.body, zero))) for c in rows]) if rows else None
    bodies = [c.body for c in rows]
    P = matrix(gradient, unknowns, functions, closed=True) if curved else None
    C = matrix(bodies, unknowns, functions, closed=True) if rows else None
    if (curved and P is None) or (rows and C is None):
        direction = pack([sym(f"d~{u.name}", Role.UNKNOWN, u.shape) for u in unknowns], "direction", Role.UNKNOWN)
        tangents = dict(zip(unknowns, direction.parts, strict=True))
        groups = [group for group in (gradient if curved else [], bodies) if group]
        moved = tuple(join([simplify(linearize(e, tangents, functions)) for e in group]) for group in groups)
        return Coefficients(unknowns, curved, None, q, None, d, rows, len(equal), direction, moved)
    return Coefficients(unknowns, curved, P, q, C, d, rows, len(equal))


def matrix(values: Sequence[Expr], unknowns: Sequence[Expr], functions: Functions, closed: bool = False) -> Expr | None:
    """The Jacobian of the values by the unknowns, both as one vector each, put together from blocks.

    `closed`: None where a block has no closed form, which otherwise is stacked from directional derivatives.
    """
    rows: list[Expr] = []
    for value in values:
        blocks: list[Expr] = []
        for u in unknowns:
            block = _block(value, u, functions, closed)
            if block is None:
                return None
            blocks.append(simplify(block))
        joined = blocks[0]
        if len(blocks) > 1:
            joined = build.transpose(build.concat([build.transpose(b) for b in blocks]))
        rows.append(joined)
    return rows[0] if len(rows) == 1 else build.concat(rows)


def _block(value: Expr, u: Expr, functions: Functions, closed: bool) -> Expr | None:
    shape = (size_of(value.shape), size_of(u.shape))
    if not depends(value, frozenset((u,))):
        return build.zeros(shape)
    found = jacobian(value, u, functions)
    if found is None and not closed:
        found = dense_jacobian(value, u, functions)
    return None if found is None else build.reshape(found, shape)

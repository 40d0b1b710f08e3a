"""From a quadratic program in expressions to its coefficients P, q, C, d: derivatives of objective and constraints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace as replace_fields

from implicitdsl.calculus import dense_jacobian, jacobian, simplify, vjp
from implicitdsl.families.equilibrium.packing import join
from implicitdsl.ground.records import dataclass
from implicitdsl.ir import build
from implicitdsl.ir.dims import size_of
from implicitdsl.ir.function import Functions
from implicitdsl.ir.nodes import Expr, depends, num
from implicitdsl.ir.plan import BELOW, DEFINITE, EQUAL, Constraint, Program
from implicitdsl.ir.remake import replace

SYMMETRIC = frozenset(("PSD", "PD", "Sym"))


@dataclass(frozen=True, slots=True)
class Coefficients:
    """min ½ zᵀPz + qᵀz, C z = d or ≤ d, z the unknowns as one vector; expressions that are free of the unknowns.

    P is None for a linear objective, C and d are None without constraints. `rows` are the constraints in the order of
    C's rows, equalities first.
    """

    unknowns: tuple[Expr, ...]
    P: Expr | None
    q: Expr
    C: Expr | None
    d: Expr | None
    rows: tuple[Constraint, ...]
    equalities: int  # how many of `rows`

    @property
    def outputs(self) -> tuple[Expr, ...]:
        """Those that there are."""
        return tuple(e for e in (self.P, self.q, self.C, self.d) if e is not None)


def is_symmetry(c: Constraint) -> bool:
    """Whether it says X = Xᵀ of an unknown, which holds where only its upper triangle is solved for."""
    return c.kind == EQUAL and c.set is not None and c.set.name in SYMMETRIC and c.body.args[0].op == "sym"


def coefficients(form: Program, functions: Functions, by_triangle: bool = False) -> Coefficients:
    """The coefficients of a program whose objective is quadratic (or linear) and whose constraints are affine.

    Matrices M ⪰ 0 are rows −M after the others. `by_triangle`: symmetry of unknowns is not a constraint.
    """
    unknowns = form.unknowns
    zero = {u: build.zeros(u.shape) for u in unknowns}
    gradient = [simplify(g) for g in vjp(form.objective, num(1.0), unknowns, functions)]
    curved = any(depends(g, frozenset(unknowns)) for g in gradient)
    equal = [c for c in form.of(EQUAL) if not (by_triangle and is_symmetry(c))]
    rows = (*equal, *form.of(BELOW), *(replace_fields(c, body=build.neg(c.body)) for c in form.of(DEFINITE)))
    return Coefficients(
        unknowns,
        matrix(gradient, unknowns, functions) if curved else None,
        join([simplify(replace(g, zero)) for g in gradient]),
        matrix([c.body for c in rows], unknowns, functions) if rows else None,
        join([simplify(build.neg(replace(c.body, zero))) for c in rows]) if rows else None,
        rows,
        len(equal),
    )


def matrix(values: Sequence[Expr], unknowns: Sequence[Expr], functions: Functions) -> Expr:
    """The Jacobian of the values by the unknowns, both as one vector each, put together from blocks."""
    rows: list[Expr] = []
    for value in values:
        blocks = [simplify(_block(value, u, functions)) for u in unknowns]
        joined = blocks[0]
        if len(blocks) > 1:
            joined = build.transpose(build.concat([build.transpose(b) for b in blocks]))
        rows.append(joined)
    return rows[0] if len(rows) == 1 else build.concat(rows)


def _block(value: Expr, u: Expr, functions: Functions) -> Expr:
    shape = (size_of(value.shape), size_of(u.shape))
    if not depends(value, frozenset((u,))):
        return build.zeros(shape)
    found = jacobian(value, u, functions)
    if found is None:
        found = dense_jacobian(value, u, functions)
    return build.reshape(found, shape)

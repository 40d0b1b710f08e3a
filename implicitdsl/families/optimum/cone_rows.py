"""Where the constraints of a program over cones stand, and which cones they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from implicitdsl.analysis.symmetry import SYMMETRIC, is_symmetric, symmetric_unknowns
from implicitdsl.ir.model import Model
from implicitdsl.ir.plan import BELOW, DEFINITE, EQUAL, SECOND, Constraint, Program
from implicitdsl.solvers.optimum.cones import Cones

from .block import Rows


@dataclass(frozen=True)
class ConeRows:
    """`rows` of the constraints, `count` together; of symmetric `matrices` (first row, order) the upper triangles are
    what the `cones` see."""

    rows: tuple[Rows, ...]
    count: int
    matrices: tuple[tuple[int, int], ...]
    cones: Cones


def cone_rows(form: Program, constraints: Sequence[Constraint], model: Model, sizes: Mapping[str, int]) -> ConeRows:
    """Of constraints in the order equalities, inequalities, second-order cones, matrices."""
    declared = {s.node for s in (*model.givens, *model.params, *model.consts) if s.set.name in SYMMETRIC}
    known = symmetric_unknowns(form) | declared
    rows: list[Rows] = []
    matrices: list[tuple[int, int]] = []
    counts, orders, lengths = {EQUAL: 0, BELOW: 0}, [], []
    at = 0
    for c in constraints:
        shape = tuple(d.evaluate(sizes) for d in c.body.shape)
        size = math.prod(shape)
        found = Rows(at, at + size, shape, c.label, c.sign)
        if c.kind == DEFINITE:
            matrices.append((at, shape[0]))
            orders.append(shape[0])
        elif c.kind == SECOND:
            lengths += [shape[-1]] * math.prod(shape[:-1])
            found = _heads(found)
        elif is_symmetric(c.body, known):
            matrices.append((at, shape[0]))
            counts[c.kind] += shape[0] * (shape[0] + 1) // 2
        else:
            counts[c.kind] += size
        rows.append(found)
        at += size
    return ConeRows(
        tuple(rows), at, tuple(matrices), Cones(counts[EQUAL], counts[BELOW], tuple(orders), tuple(lengths))
    )


def _heads(r: Rows) -> Rows:
    """The rows of the t of (t, x) in second-order cones, whose multipliers are those of ‖x‖ ≤ t."""
    return Rows(r.start, r.stop, r.shape[:-1], r.label, r.sign, r.shape[-1])

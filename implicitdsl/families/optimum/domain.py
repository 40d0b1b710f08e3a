"""Where the functions of a program are defined: log(a − B z), (c z)^0.3 want positive arguments, a start needs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from implicitdsl.analysis.degree import degree
from implicitdsl.calculus import simplify
from implicitdsl.families.equilibrium.packing import join
from implicitdsl.ir import build
from implicitdsl.ir.dims import Dim
from implicitdsl.ir.function import Functions
from implicitdsl.ir.nodes import Expr, depends, walk
from implicitdsl.ir.remake import replace
from implicitdsl.lowering.codegen import generate
from implicitdsl.lowering.source import Program as Source
from implicitdsl.solvers.optimum.pivoting import Dense
from implicitdsl.solvers.optimum.quadratic import Quadratic, times
from implicitdsl.solvers.problem import Inputs
from implicitdsl.solvers.verdict import CONVERGED

from .coefficients import matrix

MARGINS = (1.0, 1e-2, 1e-4, 1e-6)
"""What arguments are at a start at least; the first that is possible."""
EDGE = 1e-9
"""Arguments that are negative by so much, relative to their terms, may be zero."""


def domain_source(
    roots: Sequence[Expr],
    unknowns: Sequence[Expr],
    inputs: Sequence[Expr],
    functions: Functions,
    sizes: Mapping[str, int],
    dims: Sequence[str] = (),
) -> list[str]:
    """The text of `domain`, a function of the inputs: D and d of the affine arguments D z + d that have to be positive;
    nothing where there are none."""
    found = _arguments(roots, frozenset(unknowns), functions)
    D = matrix(found, unknowns, functions) if found else None
    if D is None:
        return []
    zero = {u: build.zeros(u.shape) for u in unknowns}
    d = join([simplify(replace(e, zero)) for e in found])
    return [generate("domain", inputs, [D, d], functions, sizes, dims=dims)]


def _arguments(roots: Sequence[Expr], unknowns: frozenset[Expr], functions: Functions) -> list[Expr]:
    """What logarithms, roots and broken powers are taken of, if that is affine; lists of it under running indices."""
    ranges: dict[str, tuple[Dim, Dim]] = {}
    found: dict[Expr, None] = {}
    for e in walk(*roots):
        if e.op in ("sum_for", "stack_for"):
            name, lo, hi = build.binder_of(e)
            ranges[name] = lo, hi
    for e in walk(*roots):
        edged = e.name in ("log", "sqrt") if e.op == "call" else e.op == "pow"
        if not edged or (e.op == "pow" and (e.args[1].number or 0.5).is_integer()):
            continue
        inner = e.args[0]
        if depends(inner, unknowns) and degree(inner, unknowns, functions) <= 1.0:
            for name in sorted(build.free_names(inner) & ranges.keys()):
                inner = build.stack_for(inner, name, *ranges[name])
            found[inner] = None
    return list(found)


def within(program: Source, z0: Tensor, a: Inputs) -> Tensor:
    """z0 (B, n), where arguments are not positive the nearest point at which they are: a quadratic program each, for
    margins that become smaller until there is one."""
    if "domain" not in program:
        return z0
    D, d = (t.to(z0) for t in program["domain"](*a))
    rows, k = z0.shape[0], d.shape[-1]
    D, d = D.expand(rows, k, z0.shape[-1]), d.expand(rows, k)
    left = ~(times(D, z0) + d > 0).all(-1) & (D.isfinite().flatten(-2).all(-1) & d.isfinite().all(-1))
    for margin in MARGINS:
        if not bool(left.any()):
            break
        at = left.nonzero().squeeze(-1)
        eye = torch.eye(z0.shape[-1], dtype=z0.dtype, device=z0.device)
        nearest = Dense().solve(Quadratic(eye, -z0[at], -D[at], d[at] - margin, 0))
        good = (nearest.status == CONVERGED) & (times(D[at], nearest.z) + d[at] > 0).all(-1)
        z0 = z0.index_copy(0, at[good], nearest.z[good])
        left = left.index_fill(0, at[good], False)
    return z0


def outside(program: Source, z: Tensor, a: Inputs) -> Tensor | None:
    """Where an argument is negative at z (B, n), (B,); None where there is no argument. Derivatives, as that of a
    logarithm, may well be finite there."""
    if "domain" not in program:
        return None
    D, d = (t.to(z) for t in program["domain"](*a))
    terms = times(D.abs(), z.abs()) + d.abs()
    return (times(D, z) + d < -EDGE * terms).any(-1)

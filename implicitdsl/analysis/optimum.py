"""Facts about an `argmin` block: what its objective and its constraints look like."""

from __future__ import annotations

from dataclasses import replace

from implicitdsl.ground.facts import Fact, Smoothness
from implicitdsl.ground.source import Span
from implicitdsl.ir import build
from implicitdsl.ir.dims import Dim, size_of
from implicitdsl.ir.nodes import Expr, depends, walk
from implicitdsl.ir.plan import BELOW, DEFINITE, EQUAL, SECOND, Constraint, Program
from implicitdsl.ir.printer import show

from .context import Context
from .convexity import convex, curvatures
from .curvature import Curvatures
from .degree import degree
from .diagonal import diagonal
from .epigraph import lifted
from .gathered import gathered
from .horizon import horizon
from .nearest import nearest
from .passes import Calculus
from .second_order import has_norms, second_order
from .separable import separable

NAMES = {0.0: "constant", 1.0: "linear", 2.0: "quadratic"}


def optimum(
    form: Program, context: Context, by: Calculus | None = None, cones: bool = True
) -> tuple[tuple[Fact, ...], Program]:
    """`size`, `objective` ("linear", "quadratic", None), `equalities` and `inequalities` (how many, a dimension),
    `affine` (whether all of them are), `definite` (how many matrix constraints), `second` (how many norms are cones,
    which is only so where that makes the rest quadratic, and with `cones`), `convex`, `rough` (calls with kinks),
    `nearest` where it is a projection that has a formula, `separable` of quadratic ones, `diagonal` of smooth ones with
    affine constraints, `horizon` of those with constraints that are lists.
    A convex program is taken without its kinks; it is handed back too.
    """
    fact = convex(form, context)
    near = nearest(form, context, by) if fact.value is True and by is not None and cones else None
    if fact.value is True:
        rules = curvatures(form, context)
        form = _without_kinks(_with_domains(form, rules), rules, context) if cones else lifted(form, rules)
    unknowns = frozenset(form.unknowns)
    names = ", ".join(show(u) for u in form.unknowns)
    whole = gathered(form, context.functions)
    if degree(form.objective, unknowns, context.functions) > 2.0:  # else its stages are looked for
        form = whole
    total = Dim(())
    for u in form.unknowns:
        total = total + size_of(u.shape)
    opaque = _opaque(form, unknowns)
    facts = (
        Fact("size", total, (f"{total} numbers are unknown",)),
        _objective(form, unknowns, names, context),
        _count("equalities", form.of(EQUAL)),
        _count("inequalities", form.of(BELOW)),
        _affine(form, unknowns, names, context),
        Fact("definite", len(form.of(DEFINITE)), ()),
        *([Fact("second", len(form.of(SECOND)), ("norms are second-order cones",))] if form.of(SECOND) else []),
        fact,
        _roughness(form, unknowns, context),
        opaque,
        *([near] if near is not None else []),
    )
    polynomial = facts[1].value in ("linear", "quadratic") and fact.value is True
    if facts[1].value == "quadratic" and polynomial and by is not None:
        facts = (*facts, separable(whole, context, by))
    flat = fact.value is True and facts[4].value is True and not form.of(DEFINITE) and not form.of(SECOND)
    if flat and facts[1].value is None and opaque.value is None and form.constraints and by is not None:
        facts = (*facts, diagonal(form, context, by))
    over = [c for c in form.constraints if c.body.op == "stack_for"]
    return (*facts, horizon(form, context)) if polynomial and facts[4].value is True and over else facts, form


def _with_domains(form: Program, rules: Curvatures) -> Program:
    """With M ⪰ 0 of what `logdet(M)` and `inv(M)` stand over, and x ≥ 0 of x^1.5, where no constraint says it."""
    known, unknowns = {c.body for c in form.constraints}, frozenset(form.unknowns)
    roots = (form.objective, *(c.body for c in form.constraints))
    found: list[Constraint] = []
    for e in walk(*roots):
        made: tuple[str, Expr] | None = None
        if e.op == "call" and e.name in ("logdet", "inv"):
            made = DEFINITE, e.args[0]
        elif e.op == "pow" and (k := e.args[1].number) is not None and rules.bends(e.args[0], k):
            made = BELOW, build.neg(e.args[0])
        if made is not None and depends(made[1], unknowns) and not _said(made[1], known):
            known.add(made[1])
            found.append(Constraint(*made, e.span or Span(0, 0)))
    return replace(form, constraints=(*form.constraints, *found)) if found else form


def _said(body: Expr, known: set[Expr]) -> bool:
    """Whether a constraint says it, or says it of what these are entries of."""
    while body not in known:
        if body.op == "neg" and body.args[0].op in ("index", "reshape", "transpose", "diagonal"):
            body = build.neg(body.args[0].args[0])
        else:
            return False
    return True


def _without_kinks(form: Program, rules: Curvatures, context: Context) -> Program:
    """The program with its norms as cones where that makes the rest quadratic, and where it would not be smooth with
    them; kinks become constraints first.
    """
    sharp = lifted(form, rules, squares=False)
    conic = second_order(sharp, context.functions)
    if conic is not None:
        return conic
    smooth = lifted(form, rules)  # where ‖x‖ ≤ r is ‖x‖² ≤ r²
    if not has_norms(smooth) and not form.of(DEFINITE):
        return smooth
    return second_order(sharp, context.functions, smooth=True) or smooth


def _roughness(form: Program, unknowns: frozenset[Expr], context: Context) -> Fact:
    """`rough`: the calls that are not differentiable everywhere."""
    roots = (form.objective, *(c.body for c in form.constraints))
    found: list[str] = []
    for e in walk(*roots):
        function = context.functions.get(e.name) if e.op == "call" else None
        if function is not None and function.smoothness < Smoothness.SMOOTH and depends(e, unknowns):
            found.append(show(e))
    return Fact("rough", tuple(found), ())


def _opaque(form: Program, unknowns: frozenset[Expr]) -> Fact:
    """`opaque`: the bound functions of the unknowns."""
    roots = (form.objective, *(c.body for c in form.constraints))
    names = dict.fromkeys(e.name for e in walk(*roots) if e.op == "apply" and depends(e, unknowns))
    return Fact("opaque", tuple(names) or None, ())


def _objective(form: Program, unknowns: frozenset[Expr], names: str, context: Context) -> Fact:
    found = NAMES.get(degree(form.objective, unknowns, context.functions))
    text = show(form.objective)
    if found is None:
        return Fact("objective", None, (f"{text} is not quadratic in {names}",))
    return Fact("objective", found, (f"{text} is {found} in {names}",))


def _count(name: str, constraints: tuple[Constraint, ...]) -> Fact:
    total = Dim(())
    for c in constraints:
        total = total + size_of(c.body.shape)
    return Fact(name, total, ())


def _affine(form: Program, unknowns: frozenset[Expr], names: str, context: Context) -> Fact:
    for c in form.constraints:
        if degree(c.body, unknowns, context.functions) > 1.0:
            return Fact("affine", None, (f"{show(c.written or c.body)} is not affine in {names}",))
    return Fact("affine", True, (f"every constraint is affine in {names}",))

"""The optimality conditions of an `argmin` block with the actual gradients, and the gradients that follow from them.

L = f + Σ νᵀe + Σ λᵀg − Σ ⟨Λ, M⟩. With p, r the solution of the conditions linearised at the optimum, driven by the
loss's gradient, an input a gets −∂/∂a (⟨p, ∇L⟩ + Σ ⟨r, e⟩ + Σ ⟨r, g⟩), the sums over active constraints.
"""

from __future__ import annotations

from collections.abc import Sequence

from implicitdsl.calculus import simplify, vjp
from implicitdsl.ir import build
from implicitdsl.ir.dims import Dim
from implicitdsl.ir.function import Functions
from implicitdsl.ir.nodes import Expr, Role, num, substitute, sym, symbols
from implicitdsl.ir.plan import BELOW, DEFINITE, EQUAL, SECOND, Constraint, Program
from implicitdsl.ir.printer import show

from .derive import primed, slopes
from .document import Formula, Formulas, Item, Prose
from .symbols import barred, free_name

LETTERS = {EQUAL: "ν", BELOW: "λ", SECOND: "κ", DEFINITE: "Λ"}
SIGNS = {EQUAL: "=", BELOW: "<=", DEFINITE: ">>"}
READABLE = 160
"""Formulas longer than so many signs explain nothing."""


def optimality_items(form: Program, wanted: Sequence[Expr], functions: Functions, smoothed: bool = False) -> list[Item]:
    """Stationarity, feasibility and complementarity of a block in normal form; the gradients by `wanted`, if `smoothed`
    those of its barrier problem."""
    taken = {s.name for s in symbols(form.objective, *(c.body for c in form.constraints))} | {e.name for e in wanted}
    form = _readable(form, taken)
    table = primed(functions)
    multipliers = _multipliers(form, taken)
    pairs = list(zip(multipliers, form.constraints, strict=True))
    lagrangian = form.objective
    for y, c in pairs:
        term = build.inner(y, c.body)
        lagrangian = build.add(lagrangian, build.neg(term) if c.kind in (SECOND, DEFINITE) else term)
    gradient = [simplify(g) for g in vjp(lagrangian, num(1.0), form.unknowns, table)]
    lines = [Formula(g, num(0.0)) for g in gradient]
    for y, c in pairs:
        lines += _condition(y, c)
    items: list[Item] = [Formulas("Optimality conditions (Karush, Kuhn, Tucker)", tuple(lines))]
    items += _gradients(form, gradient, pairs, wanted, table, taken, smoothed)
    shown = [side for item in items if isinstance(item, Formulas) for line in item.lines for side in _sides(line)]
    found = slopes(shown, functions, taken)
    if found:
        items.append(Formulas("where", tuple(Formula(left, right) for left, right in found)))
    return items


def _sides(line: Formula) -> list[Expr]:
    return [side for side in (line.left, line.right) if isinstance(side, Expr)]


def _readable(form: Program, taken: set[str]) -> Program:
    """The unknowns that stand for kinks as t, t₂, …"""
    made = [u for u in form.unknowns if "~" in u.name]
    names = {u: sym(free_name((f"t{_small(k)}", f"τ{_small(k)}"), taken), u.role, u.shape) for k, u in enumerate(made)}

    def put(e: Expr) -> Expr:
        return substitute(e, dict(names)) if names else e

    constraints = tuple(Constraint(c.kind, put(c.body), c.span, c.label, c.sign) for c in form.constraints)
    unknowns = tuple(names.get(u, u) for u in form.unknowns)
    return Program(unknowns, put(form.objective), constraints, form.sense)


def _multipliers(form: Program, taken: set[str]) -> list[Expr]:
    """A symbol a constraint, counted where several are of a kind."""
    found: list[Expr] = []
    for c in form.constraints:
        kin = [k for k in form.constraints if k.kind == c.kind]
        letter = LETTERS[c.kind]
        name = letter if len(kin) == 1 else letter + _small(kin.index(c) + 1, least=1)
        found.append(sym(free_name((name, f"y_{name}"), taken), Role.COTANGENT, c.body.shape))
    return found


def _small(number: int, least: int = 2) -> str:
    return "" if number + 1 < least else str(number if least == 1 else number + 1).translate(_SUBSCRIPTS)


_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def _condition(y: Expr, c: Constraint) -> list[Formula]:
    label = f"{c.label}, " if c.label else ""
    zero = num(0.0)
    if c.kind == EQUAL:
        return [Formula(c.body, zero, "=", f"{label}multiplier {show(y)}")]
    if c.kind == SECOND:
        return _cone(y, c, label)
    side = "⪰" if c.kind == DEFINITE else "≥"
    product = build.inner(y, c.body) if c.kind == DEFINITE or c.body.rank == 0 else build.mul(y, c.body)
    return [
        Formula(c.body, zero, SIGNS[c.kind], f"{label}multiplier {show(y)} {side} 0"),
        Formula(product, zero),
    ]


def _cone(y: Expr, c: Constraint, label: str) -> list[Formula]:
    """t ≥ ‖x‖, the same of the multiplier, and that they are orthogonal; of a list its entries."""
    body, more = c.body, ""
    if body.op == "stack_for":
        name, lo, hi = build.binder_of(body)
        (body,), more = body.args, f" for {name.split('~')[0]} in {lo}:{hi}"
        y = build.index(y, (build.at_item(Dim.of(name) - lo),))
    t, x = (build.index(body, (item,)) for item in (build.at_item(0), build.slice_item(1, body.shape[0])))
    size = build.call("norm", (x,), ())
    note = f"{label}multiplier {show(y)} in the same cone{more}"
    return [Formula(t, size, ">=", note), Formula(build.inner(y, body), num(0.0))]


def _gradients(
    form: Program,
    gradient: Sequence[Expr],
    pairs: Sequence[tuple[Expr, Constraint]],
    wanted: Sequence[Expr],
    table: Functions,
    taken: set[str],
    smoothed: bool,
) -> list[Item]:
    """What each input gets."""
    smoothed = smoothed and any(c.kind != EQUAL for _, c in pairs)
    several = len(form.unknowns) > 1
    steps: list[Expr] = []
    for u in form.unknowns:
        wishes = (f"p_{u.name}", f"q_{u.name}") if several else ("p", "q", f"p_{u.name}")
        steps.append(sym(free_name(wishes, taken), Role.COTANGENT, u.shape))
    total: Expr = num(0.0)
    for p, g in zip(steps, gradient, strict=True):
        total = build.add(total, build.inner(p, g))
    moved: list[str] = []
    for y, c in pairs:
        if c.kind in (SECOND, DEFINITE):
            of = "the barrier problem's" if smoothed else "these"
            how = "smoothed projection" if smoothed else "projection"
            return [Prose(f"Backward differentiates {of} conditions implicitly, complementarity by its {how}.")]
        wish = "r" if len(pairs) == 1 else f"r{y.name[1:]}" if c.kind == BELOW else f"s{y.name[1:]}"
        r = sym(free_name((wish, f"r_{y.name}"), taken), Role.COTANGENT, c.body.shape)
        moved.append(show(r))
        total = build.add(total, build.inner(r, c.body))
    found = [(barred(a), simplify(build.neg(vjp(total, num(1.0), (a,), table)[0]))) for a in wanted]
    lines = [Formula(a, e) for a, e in found if not build.is_zero(e) and len(show(e)) <= READABLE]
    if not lines:
        return []
    names = ", ".join([show(p) for p in steps] + moved)
    what = ", ".join(show(x) for x in (*form.unknowns, *(y for y, _ in pairs)))
    active = "; a constraint that is not active has none" if any(c.kind == BELOW for _, c in pairs) else ""
    of = "linearised conditions"
    if smoothed:
        of, active = f"{of} of the barrier problem at its solution", "; there multiplier times constraint is −μ"
    lead = f"Gradients, where {names} solve the {of} for the loss's gradients by {what}{active}"
    return [Formulas(lead, tuple(lines))]

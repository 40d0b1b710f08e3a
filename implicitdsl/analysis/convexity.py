"""Whether an `argmin` block is convex, and what to say where it is not: IMP601, IMP602, IMP605, IMP606."""

from __future__ import annotations

import dataclasses

from implicitdsl.ground.diagnostics import Diagnostic, Level
from implicitdsl.ground.facts import Fact, Interval
from implicitdsl.ground.source import Span
from implicitdsl.ir import build
from implicitdsl.ir.dims import Dim, size_of
from implicitdsl.ir.model import Block, Model
from implicitdsl.ir.nodes import Expr, Role, symbols, walk
from implicitdsl.ir.plan import BELOW, EQUAL, Constraint, Program
from implicitdsl.ir.printer import show

from .bounds import Bounds
from .context import Context
from .curvature import Curvatures
from .epigraph import lifted
from .stated import stated

NLP = "`using nlp()` takes non-convex problems, to a local minimum"


def curvatures(form: Program, context: Context) -> Curvatures:
    """The rules for a block, in which an unknown has the range of its set, what affine inequalities bound lies within
    these bounds, and numbers that a bare text does not declare are taken to be ≥ 0.
    """
    inside = {**context.sets, **{u: s for u, s in context.roots.items() if u in form.unknowns}}
    context = context.assuming({s: Interval(0.0) for s in context.filled})
    roots = (form.objective, *(c.body for c in form.constraints))
    running = frozenset(build.binder_of(e)[0] for e in walk(*roots) if e.op in ("sum_for", "stack_for"))
    context = dataclasses.replace(context, sets=inside)
    rules = Curvatures(frozenset(form.unknowns), Bounds(context), running)
    known = stated(form, rules)
    return Curvatures(rules.unknowns, Bounds(context.assuming(known)), running) if known else rules


def convex(form: Program, context: Context) -> Fact:
    """`convex`: True, or None with the part that is not."""
    rules = curvatures(form, context)
    if not rules.is_convex(form.objective):
        return Fact("convex", None, (f"{show(rules.culprit(form.objective))} is not convex",))
    for c in form.constraints:
        if not _fits(rules, c):
            return Fact(
                "convex", None, (f"{show(_culprit(rules, c))} is not {'affine' if c.kind == EQUAL else 'convex'}",)
            )
    return Fact("convex", True, ("the objective and the feasible set are convex",))


def _fits(rules: Curvatures, c: Constraint) -> bool:
    return rules.is_convex(c.body) if c.kind == BELOW else rules.is_affine(c.body)


def _culprit(rules: Curvatures, c: Constraint) -> Expr:
    body = c.written or c.body
    if c.kind == BELOW:
        return rules.culprit(body)
    first = rules.culprit(body)
    return first if not rules.is_affine(first) else rules.culprit(body, convex=False)


def nonconvex_asked(block: Block) -> bool:
    """Whether `using nlp()` lifts the restrictions."""
    return block.wishes.forward is not None and block.wishes.forward.method == "nlp"


def diagnose_convexity(
    block: Block, form: Program, facts: dict[str, Fact], model: Model, context: Context
) -> list[Diagnostic]:
    """What is not convex, each with the sub-expression and a rewrite; and what learns nothing, or is not unique."""
    if nonconvex_asked(block):
        return []
    rules = curvatures(form, context)
    found: list[Diagnostic] = []
    if not rules.is_convex(form.objective):
        found.append(_objective(rules, block, form, model))
    for c in form.constraints:
        if not _fits(rules, c):
            found.append(_constraint(rules, c, model))
    return found or _flat(rules, block, form, model) or _linear(block, lifted(form, rules), facts, model)


def _objective(rules: Curvatures, block: Block, form: Program, model: Model) -> Diagnostic:
    part = rules.culprit(form.objective)
    wanted, given = ("convex", "argmin") if form.sense == "min" else ("concave", "argmax")
    span = _span(part, model, block.objective.span if block.objective is not None else None) or block.span
    message = f"the objective is not provably {wanted}, as `{given}` needs: {_why(rules, part, form.sense)}"
    return Diagnostic("IMP601", message, span, model.source, help=_help(rules, part))


def _constraint(rules: Curvatures, c: Constraint, model: Model) -> Diagnostic:
    part = _culprit(rules, c)
    if c.kind == EQUAL:
        where = f"`{c.set.text}`" if c.set is not None else "the equality"
        message = f"{where} is not affine: {_why(rules, part)}"
        return Diagnostic("IMP606", message, c.span, model.source, help=_help(rules, part))
    kind = "g(z) ≤ 0 needs a convex g" if c.kind == BELOW else "a matrix inequality needs an affine matrix"
    message = f"the constraint does not describe a convex set ({kind}): {_why(rules, part)}"
    return Diagnostic("IMP602", message, _span(part, model, c.span) or c.span, model.source, help=_help(rules, part))


def _span(part: Expr, model: Model, within: Span | None) -> Span | None:
    """Where a part was written, if that is inside its relation."""
    span = model.spans.get(part, part.span)
    if span is None or within is None:
        return within
    return span if within.start <= span.start and span.end <= within.end else within


def _why(rules: Curvatures, part: Expr, sense: str = "min") -> str:
    text = show(part)
    if rules.is_convex(part) and not rules.is_affine(part):
        return f"`{text}` is convex where a concave expression is needed"
    if rules.is_concave(part) and not rules.is_affine(part):
        return f"`{text}` is concave where a convex expression is needed"
    moving = [a for a in part.args if not rules.is_constant(a)]
    if part.op in ("mul", "matmul", "outer") and len(moving) > 1 and part.args[0] is not part.args[1]:
        if part.rank == 0 and part.op == "matmul":
            return f"no rule says that `{text}` is (a quadratic form needs its matrix ⪰ 0)"
        return f"`{text}` is a product of expressions with unknowns"
    return f"no rule says what `{text}` is"


def _help(rules: Curvatures, part: Expr) -> str:
    """A rewrite of what is known under another name, a sign that is missing, or the solver that needs no convexity."""
    if part.op == "call" and part.name == "sqrt" and rules.is_convex(part.args[0]):
        return f"a root of squares is a norm, `||x||`; else {NLP}"
    if part.op == "call" and part.name == "log":
        inside = part.args[0]
        exponentials = [e for e in walk(inside) if e.op == "call" and e.name == "exp"]
        if inside.op == "sum" and exponentials:
            return f"write `logsumexp({show(exponentials[0].args[0])})`"
        if inside.op == "add" and exponentials:
            return f"write `softplus({show(exponentials[0].args[0])})` for log(1 + exp(x)), or `logsumexp`"
    if part.op in ("pow", "div"):
        return f"a power or quotient is convex only where its sign is known: `in nonneg` or `in positive`; or {NLP}"
    if part.op == "mul" and len([a for a in part.args if not rules.is_constant(a)]) == 1:
        return f"state the sign of the coefficient by its set, `in nonneg`; or {NLP}"
    return NLP


def _linear(block: Block, form: Program, facts: dict[str, Fact], model: Model) -> list[Diagnostic]:
    """A linear program's solution is a vertex, which does not move with the cost; round cones have other points."""
    linear = facts["objective"].value == "linear" and facts["affine"].value is True
    linear = linear and not facts["definite"].value and "second" not in facts
    smoothed = block.wishes.backward is not None and block.wishes.backward.method == "smoothed"
    learnt = [s for s in symbols(form.objective) if s.role in (Role.GIVEN, Role.PARAM)]
    if not linear or smoothed or not learnt:
        return []
    names = ", ".join(sorted(f"`{s.name}`" for s in learnt))
    message = f"a linear program's solution is a vertex: its gradient by the cost ({names}) is zero almost everywhere"
    remedy = (
        f"add a term such as `1e-2 ||{form.unknowns[0].name}||^2` to the objective, or take `using backward smoothed()`"
    )
    span = block.objective.span if block.objective is not None and block.objective.span is not None else block.span
    return [Diagnostic("IMP605", message, span, model.source, Level.WARNING, help=remedy)]


def _flat(rules: Curvatures, block: Block, form: Program, model: Model) -> list[Diagnostic]:
    """Squares alone of fewer numbers than there are unknowns, which nothing else bounds, have a minimum in a direction.
    Dimensions with a name count two at least: `z in R^n` is no number.
    """
    rows = _squared(rules, form.objective)
    if rows is None or form.constraints or any(s.set.name != "R" for s in block.unknowns):
        return []
    size = sum((size_of(u.shape) for u in form.unknowns), Dim.of(0))
    over = size - rows
    least = over.subs({name: Dim.of(name) + Dim.of(2) for name in over.names})
    if any(c < 0 for _, c in least.terms) or not dict(least.terms).get((), 0):
        return []
    squares = "the square of one number does" if rows == Dim.of(1) else f"squares of {rows} numbers do"
    message = f"the minimiser is not unique: {squares} not determine {size} unknowns"
    more = " + ".join(f"1e-2 ||{u.name}||^2" for u in form.unknowns)
    span = block.objective.span if block.objective is not None and block.objective.span is not None else block.span
    remedy = f"add `{more}` to the objective: of all minimisers about the shortest is taken then"
    return [Diagnostic("IMP605", message, span, model.source, Level.WARNING, help=remedy)]


def _squared(rules: Curvatures, e: Expr) -> Dim | None:
    """How many numbers a sum of squares of affine expressions squares; None of anything else."""
    if rules.is_constant(e):
        return Dim.of(0)
    moving = [a for a in e.args if not rules.is_constant(a)]
    if e.op == "add":
        found = [_squared(rules, a) for a in moving]
        known = [n for n in found if n is not None]
        return sum(known, Dim.of(0)) if len(known) == len(found) else None
    if e.op == "sum" or (e.op == "mul" and len(moving) == 1):
        return _squared(rules, moving[0])
    base = e.args[0] if e.args else e
    square = e.op == "pow" and e.args[1].number == 2
    square = square or (e.op == "matmul" and e.args[1] is base and e.rank == 0)
    return size_of(base.shape) if square and rules.is_affine(base) else None

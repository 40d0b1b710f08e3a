"""`argmin` blocks: scalar objective, affine equalities, quadratic forms that need Q ⪰ 0 (IMP204, 604, 606)."""

from __future__ import annotations

from collections.abc import Mapping

from implicitdsl.ground.source import Span
from implicitdsl.ir.model import Equation, Symbol
from implicitdsl.ir.nodes import Expr, Role, symbols, walk
from implicitdsl.syntax import ast

from .blocks import Pending, misses_a_name, symbol_of
from .calls import Calls
from .constants import inline, number_of
from .relations import elaborate_relation
from .report import unsafe
from .structure import affine_in


def elaborate_argmin(calls: Calls, section: ast.Argmin) -> Pending:
    """Objective and constraints."""
    unknowns: list[Symbol] = []
    for u in section.unknowns:
        entity = calls.scope.find(u.name.text)
        found = symbol_of(entity) if entity is not None else None
        if found is not None:
            unknowns.append(found)
    complete = len(unknowns) == len(section.unknowns)
    objective = calls.elaborate(section.objective)
    if objective is not None and objective.rank != 0:
        text = calls.text(section.objective)
        calls.report.add(
            "IMP204",
            f"the objective has shape {calls.show(objective.shape)}; `argmin` needs a scalar",
            section.objective.span,
            help=f"`sum({text})` or `||{text}||^2`",
            notes=calls.provenance(section.objective),
        )
        objective = None
    equations: list[Equation] = []
    texts: list[str] = []
    for constraint in section.constraints:
        got = elaborate_relation(calls, constraint)
        if got is None or [e.op for e in got].count("=") > 1:  # `a = b = c` is reported where it is read
            complete = False
            continue
        equations.extend(got)
        texts.extend([calls.text(constraint)] * len(got))
    complete = complete and objective is not None
    return Pending(
        section,
        "optimum",
        tuple(unknowns),
        tuple(equations),
        tuple(texts),
        objective.expr if objective else None,
        complete=complete,
    )


def check_argmin(calls: Calls, pending: Pending, nonconvex: bool) -> None:
    """What can be said before convexity analysis. `nonconvex`: `using nlp()` lifts the restrictions."""
    section = pending.section
    if not pending.complete or not isinstance(section, ast.Argmin) or pending.objective is None:
        return
    definitions = dict(calls.context.definition_order)
    if misses_a_name(calls, pending, definitions):
        return
    names = {u.name for u in pending.unknowns}
    objective = inline(pending.objective, definitions)
    if not any(s.role is Role.UNKNOWN and s.name in names for s in symbols(objective)):
        calls.report.add("IMP303", "the objective contains no unknown of this block", section.objective.span)
    for equation, text in zip(pending.equations, pending.texts, strict=True):
        sides = [inline(equation.lhs, definitions), inline(equation.rhs, definitions)]
        found = {s.name for side in sides for s in symbols(side) if s.role is Role.UNKNOWN} & names
        if not found:
            calls.report.add(
                "IMP303",
                f"constraint `{text}` contains no unknown of this block",
                equation.span,
                help="remove it, or check its names",
            )
        elif equation.op == "=" and not nonconvex and not all(affine_in(side, names) for side in sides):
            calls.report.add(
                "IMP606",
                f"the equality `{text}` is not affine in {', '.join(f'`{n}`' for n in sorted(found))}",
                equation.span,
                notes=("an equality constraint of a convex problem must be affine",),
                help="relax it to `<=`, or solve the non-convex problem: `using nlp()`",
            )
    if not nonconvex and section.sense == "min":
        definite = definiteness(calls, objective, names, definitions)
        for form, middle in definite:
            quadratic_needs_psd(calls, form, middle)


def definiteness(
    calls: Calls, objective: Expr, names: set[str], definitions: Mapping[Expr, Expr]
) -> list[tuple[Expr, Expr]]:
    """Quadratic forms vᵀ Q v of the unknowns whose Q is not provably positive semidefinite."""
    found: list[tuple[Expr, Expr]] = []
    for n in walk(objective):
        form = quadratic_form(n)
        if form is None:
            continue
        vector, middle = form
        if not any(s.role is Role.UNKNOWN and s.name in names for s in symbols(vector)):
            continue
        if any(s.role is Role.UNKNOWN and s.name in names for s in symbols(middle)):
            continue
        if not is_psd(calls, middle):
            found.append((n, middle))
    return found


def quadratic_form(n: Expr) -> tuple[Expr, Expr] | None:
    """(v, Q) of a node vᵀ Q v, scaled or not."""
    if n.op != "matmul" or n.rank != 0:
        return None
    left, right = n.args
    for outer, inner in ((left, right), (right, left)):
        scaled = inner
        while scaled.op in ("mul", "neg", "div"):
            scaled = next((a for a in scaled.args if a.rank > 0), scaled)
            if scaled is inner:
                break
        if scaled.op == "matmul":
            vector, matrix = (
                (scaled.args[0], scaled.args[1]) if scaled.args[0].rank == 1 else (scaled.args[1], scaled.args[0])
            )
            while vector.op in ("mul", "neg", "div") and vector.rank == 1:
                vector = next((a for a in vector.args if a.rank == 1), vector)
            if vector is outer and matrix.rank == 2:
                return outer, matrix
    return None


def is_psd(calls: Calls, e: Expr) -> bool:
    """Whether a matrix is provably symmetric positive semidefinite."""
    if e.op == "sym":
        entity = calls.context.sets.scope_root().find(e.name)
        return entity is not None and entity.set is not None and entity.set.name in ("PSD", "PD")
    if e.op == "matmul" and e.rank == 2:
        a, b = e.args
        transposed = (a.op == "transpose" and a.args[0] is b) or (b.op == "transpose" and b.args[0] is a)
        return transposed or (a is b and is_symmetric(calls, a)) or congruence(calls, a, b)
    if e.op == "add":
        return all(is_psd(calls, a) for a in e.args)
    if e.op == "mul":
        a, b = e.args
        for scalar, matrix in ((a, b), (b, a)):
            if scalar.rank == 0 and matrix.rank == 2:
                return nonnegative(calls, scalar) and is_psd(calls, matrix)
        return False
    if e.op == "div":
        return nonnegative(calls, e.args[1]) and is_psd(calls, e.args[0])
    if e.op == "outer":
        return e.args[0] is e.args[1]
    if e.op in ("diag", "call"):
        if e.op == "call" and e.name == "I":
            return True
        if e.op == "call" and e.name == "inv":
            return is_psd(calls, e.args[0])
        return (e.op == "diag" or e.name == "diag") and nonnegative(calls, e.args[0])
    return e.op in ("eye", "zeros") or (e.op == "transpose" and is_psd(calls, e.args[0]))


def congruence(calls: Calls, a: Expr, b: Expr) -> bool:
    """(Aᵀ P) A."""
    if a.op != "matmul" or a.rank != 2:
        return False
    left, middle = a.args
    return is_psd(calls, middle) and (
        (left.op == "transpose" and left.args[0] is b) or (b.op == "transpose" and b.args[0] is left)
    )


def is_symmetric(calls: Calls, e: Expr) -> bool:
    if e.op == "sym":
        entity = calls.context.sets.scope_root().find(e.name)
        return entity is not None and entity.set is not None and entity.set.name in ("PSD", "PD", "Sym")
    return is_psd(calls, e)


def nonnegative(calls: Calls, e: Expr) -> bool:
    """Whether all entries are certainly ≥ 0."""
    value = number_of(e)
    if value is not None:
        return value >= 0
    if e.op == "dim":
        return True
    if e.op == "sym":
        entity = calls.context.sets.scope_root().find(e.name)
        found = entity.set if entity is not None else None
        if found is None:
            return False
        return found.name in ("positive", "nonneg", "simplex") or (
            found.name in ("open", "closed") and found.args[0] >= 0
        )
    if e.op == "pow":
        power = number_of(e.args[1])
        return power is not None and power % 2 == 0
    if e.op in ("add", "mul", "div"):
        return all(nonnegative(calls, a) for a in e.args)
    return e.op == "call" and e.name in ("exp", "abs", "norm", "softmax", "sigmoid", "softplus", "relu", "ones")


def quadratic_needs_psd(calls: Calls, form: Expr, middle: Expr) -> None:
    span = calls.context.spans.get(form, calls.context.spans.get(middle, Span(0, 0)))
    text = calls.report.source.at(span)
    name = middle.name if middle.op == "sym" else None
    entity = calls.context.sets.scope_root().find(name) if name else None
    fixes = ()
    labels = ()
    given = "its definition"
    if entity is not None and entity.set is not None:
        given = f"`{entity.name}` in {entity.set.text}"
        n = calls.dims.resolve(entity.set.shape[0])
        labels = ((entity.span, f"`{name}` is {entity.described}"),)
        if entity.kind in ("param", "given"):
            declared = calls.context.declared_sets.get(entity.name)
            edit = ((declared, f"PSD({n})"),) if declared else ()
            fixes = (unsafe(f"`{entity.kind} {name} in PSD({n})`, or `where {name} = L L^T`", *edit),)
    calls.report.add(
        "IMP604",
        f"`{text}` needs {name or 'its matrix'} ⪰ 0, which {given} does not give",
        span,
        labels=labels,
        fixes=fixes,
        help=None if fixes else "build it as `L L^T` or declare it `in PSD(n)`; non-convex problems: `using nlp()`",
    )

"""`return`: values, unique names, multipliers, and times inside the interval (IMP504)."""

from __future__ import annotations

from collections.abc import Sequence

from implicitdsl.ir.dims import Shape
from implicitdsl.ir.model import OutputValue
from implicitdsl.ir.nodes import Expr, node, walk
from implicitdsl.syntax import ast

from .blocks import Pending
from .calls import Calls
from .constants import number_of
from .report import nearest, unsafe
from .scope import Entity, Typed
from .structure import equation_shape
from .trees import unwrap


def read_outputs(calls: Calls, layer: ast.Layer, blocks: Sequence[Pending]) -> list[OutputValue]:
    """The outputs; default: all unknowns (states at the end of their interval)."""
    labels_once(calls, layer)
    found: list[tuple[str, Expr, ast.Output | None]] = []
    returns = [s for s in layer.sections if isinstance(s, ast.Return)]
    for section in returns[1:]:
        calls.report.add("IMP102", "a layer has one `return`", section.span, labels=((returns[0].span, "the first"),))
    # after an event `t` is the end time, and an unknown of time taken at `t` its end state
    inner = Calls(calls.context, calls.scope.inner(), {})
    for block in blocks:
        for d in block.domains:
            inner.scope.names[d.name] = Entity("variable", d.name, block.section.span, d.node, points=d.points)
    for output in returns[0].items if returns else ():
        label = dual_label(calls, output.value)
        typed = inner.elaborate(output.value) if label is None else dual(calls, output.value, label, blocks)
        if typed is None:
            continue
        found.append(
            (output.alias.text if output.alias else default_name(output.value, len(found)), typed.expr, output)
        )
    if not returns:
        for block in blocks:
            for u in block.unknowns:
                ends = tuple(d.hi for d in block.domains if d.points is None)
                arguments = tuple(d.name for d in block.domains)
                if block.domains and ends:
                    at = tuple(d.hi if d.points is None else d.node for d in block.domains)
                    grids = tuple(d.points for d in block.domains if d.points is not None)
                    expr = node("at", (u.node, *at), arguments, (*grids, *u.shape), u.span)
                else:
                    expr = u.node
                found.append((u.name, expr, None))
        if not blocks and not layer.broken and not calls.report.errors:
            calls.report.add(
                "IMP004",
                "the layer has neither unknowns nor outputs",
                layer.name.span if layer.name else layer.span,
                help="add `find …` or `return …`",
            )
    times_inside(calls, found, blocks)
    outputs: list[OutputValue] = []
    taken: set[str] = set()
    stems = [name for name, _, _ in found]
    for name, expr, output in found:
        unique, count = name, 0
        while unique in taken or (count == 0 and unique in taken):
            count += 1
            unique = f"{name}_{count}"
            if unique in stems and unique not in taken:
                continue
        if output is not None and output.alias is not None and name in taken:
            calls.report.add("IMP102", f"output `{name}` is given twice", output.span)
        taken.add(unique)
        outputs.append(OutputValue(unique, expr, output.span if output else None))
    return outputs


def default_name(expr: ast.Expr, position: int) -> str:
    """`z` for `z` and `z(1)`, `dual_ineq` for `dual(ineq)`, else `out0`, `out1`, …"""
    expr = unwrap(expr)
    if isinstance(expr, ast.Name):
        return expr.text
    if isinstance(expr, ast.Call) and isinstance(expr.func, ast.Name):
        inner = unwrap(expr.args[0]) if expr.args else None
        if expr.func.text == "dual" and isinstance(inner, ast.Name):
            return f"dual_{inner.text}"
        return expr.func.text
    if isinstance(expr, ast.Call) and isinstance(expr.func, ast.Derivative):
        return f"d{expr.func.unknown}d{expr.func.variable}"
    return f"out{position}"


def dual_label(calls: Calls, expr: ast.Expr) -> ast.Name | None:
    """`ineq` of `dual(ineq)`; None for another expression."""
    expr = unwrap(expr)
    if not (isinstance(expr, ast.Call) and isinstance(expr.func, ast.Name) and expr.func.text == "dual"):
        return None
    if calls.scope.find("dual") is not None or len(expr.args) != 1:
        return None
    label = unwrap(expr.args[0])
    return label if isinstance(label, ast.Name) else None


def dual(calls: Calls, expr: ast.Expr, label: ast.Name, blocks: Sequence[Pending]) -> Typed | None:
    """The multiplier of a labelled constraint; None where it has none."""
    labelled = {e.label: (e, b) for b in blocks for e in b.equations if e.label}
    found = labelled.get(label.text)
    if found is None:
        if not calls.context.broken:
            close = nearest(label.text, [name for name, (_, b) in labelled.items() if b.sentence == "optimum"])
            advice = f"label a constraint: `{label.text}: … <= …`"
            calls.report.add(
                "IMP101",
                f"no constraint is labelled `{label.text}`",
                label.span,
                help=f"did you mean `{close}`, or {advice}" if close else advice,
                fixes=(unsafe(f"did you mean `{close}`?", (label.span, close)),) if close else (),
            )
        return None
    equation, block = found
    if block.sentence != "optimum" or (equation.set is not None and equation.set.name not in ("positive", "nonneg")):
        what = "an equation of `find`" if block.sentence != "optimum" else "a membership"
        calls.report.add(
            "IMP113",
            f"`{label.text}` is {what}, which has no multiplier",
            label.span,
            labels=((equation.span, "labelled here"),) if equation.span else (),
            help="multipliers belong to the equalities and inequalities of `argmin_`",
        )
        return None
    shape: Shape = (*(hi - lo for _, lo, hi in equation.index), *equation_shape(equation))
    return Typed(node("dual", (), (label.text,), shape, expr.span))


def labels_once(calls: Calls, layer: ast.Layer) -> None:
    """IMP102 where one label names two relations of a layer."""
    first: dict[str, ast.Ident] = {}
    for section in layer.sections:
        relations = (
            section.relations
            if isinstance(section, ast.Find)
            else section.constraints
            if isinstance(section, ast.Argmin)
            else ()
        )
        for relation in relations:
            label = relation.label
            if label is not None and first.setdefault(label.text, label) is not label:
                calls.report.add(
                    "IMP102",
                    f"label `{label.text}` is given twice",
                    label.span,
                    labels=((first[label.text].span, "the first"),),
                )


def times_inside(calls: Calls, found: Sequence[tuple[str, Expr, ast.Output | None]], blocks: Sequence[Pending]) -> None:
    """IMP504 for numbers outside `[t0, t1]`."""
    for block in blocks:
        for position, d in enumerate(block.domains):
            lo, hi = number_of(d.lo), number_of(d.hi)
            if lo is None or hi is None:
                continue
            for _, expr, output in found:
                for n in walk(expr):
                    if (
                        n.op != "at"
                        or n.args[0].name not in {u.name for u in block.unknowns}
                        or len(n.args) <= position + 1
                    ):
                        continue
                    place = n.args[position + 1]
                    times = place.args if place.op == "stack" else (place,)
                    for time in times:
                        value = number_of(time)
                        if value is not None and not min(lo, hi) <= value <= max(lo, hi):
                            span = calls.context.spans.get(time, block.section.span)
                            calls.report.add(
                                "IMP504",
                                f"output `{n.args[0].name}({value:g})` lies outside {d.name} in [{lo:g}, {hi:g}]",
                                output.span if output else span,
                                help=f"extend the interval: `for {d.name} in [{min(lo, hi, value):g}, "
                                f"{max(lo, hi, value):g}]`",
                            )

"""Warnings about how it reads: `a / b c` (IMP902), a name `T` beside `^T` (IMP903), a shadowed built-in (IMP904)."""

from __future__ import annotations

from implicitdsl.ground.source import Span
from implicitdsl.syntax import ast

from .bare import OPERATORS
from .report import Report, unsafe
from .trees import descend


def check_style(layer: ast.Layer, report: Report, functions: set[str], bare: bool) -> None:
    """Run on the tree as written."""
    nodes = list(descend(layer.sections))
    for n in nodes:
        if isinstance(n, ast.Binary) and n.op == "juxt":
            quotient(n, report)
    idents = declared(layer)
    if any(isinstance(n, ast.Transpose) for n in nodes):
        for ident in idents:
            if ident.text == "T":
                report.add(
                    "IMP903",
                    "`T` is declared, but `^T` is always the transpose",
                    ident.span,
                    help="call it something else; `z^(T)` is the power",
                )
    for ident in idents:
        if ident.text in functions or ident.text in OPERATORS:
            report.add(
                "IMP904",
                f"`{ident.text}` shadows the built-in function of that name",
                ident.span,
                help=f"call it `{ident.text}_`",
            )


def declared(layer: ast.Layer) -> list[ast.Ident]:
    """Every name that a layer declares, where it does."""
    found = list(layer.dims)
    for section in layer.sections:
        match section:
            case ast.Given() | ast.Param() | ast.Const() | ast.Fn() | ast.Let() | ast.Where():
                found += [item.name for item in section.items]
                if isinstance(section, ast.Where):
                    found += [p for item in section.items for p in item.params or ()]
            case ast.Find() | ast.Argmin():
                found += [u.name for u in section.unknowns]
            case _:
                pass
    return found


def quotient(n: ast.Binary, report: Report) -> None:
    """`a / b c`: read from the left, as written, but seldom meant. `1/2 x` and quotients of numbers are usual."""
    left = n.left
    while isinstance(left, ast.Binary) and left.op == "juxt":
        return
    if not (isinstance(left, ast.Binary) and left.op == "/") or isinstance(left.right, ast.Number):
        return
    a, b, c = (report.source.at(e.span) for e in (left.left, left.right, n.right))
    start, middle, end = left.left.span.start, left.right.span.start, n.right.span.end
    report.add(
        "IMP902",
        f"`{report.source.at(n.span)}` reads `({a} / {b}) {c}`",
        n.span,
        fixes=(
            unsafe(
                f"write `({a} / {b}) {c}` or `{a} / ({b} {c})`",
                (Span(middle, middle), "("),
                (Span(end, end), ")"),
            ),
            unsafe(
                f"write `({a} / {b}) {c}`",
                (Span(start, start), "("),
                (Span(left.right.span.end, left.right.span.end), ")"),
            ),
        ),
    )

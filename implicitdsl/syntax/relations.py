"""What a relation may hold beyond its shape: one `=`, or `<=` and `>=` in one direction."""

from __future__ import annotations

import re
from typing import Any

from implicitdsl.ground.diagnostics import Diagnostic
from implicitdsl.ground.source import Source, Span

from . import ast


def check(section: Any, source: Source, found: list[Diagnostic]) -> None:
    """Reports the wrong chains of a `find` or `argmin_`."""
    if isinstance(section, ast.Find):
        listed: tuple[ast.Constraint, ...] = (*section.until, *section.relations)
    elif isinstance(section, ast.Argmin):
        listed = section.constraints
    else:
        return
    for relation in listed:
        if isinstance(relation, ast.Relation) and len(relation.ops) > 1:
            _check_chain(relation, source, found)


def _check_chain(relation: ast.Relation, source: Source, found: list[Diagnostic]) -> None:
    equal = [i for i, op in enumerate(relation.ops) if op == "="]
    if len(equal) > 1:
        found.append(two_equal_signs(_sign(relation, equal[1], source), source))
    elif len(set(relation.ops)) > 1:
        i = next(i for i, op in enumerate(relation.ops) if op != relation.ops[0])
        message = f"`{relation.ops[0]}` and `{relation.ops[i]}` in one relation"
        help_text = "separate relations with a new line, `,` or `;`; a chain such as `0 <= z <= 1` has one direction"
        found.append(Diagnostic("IMP004", message, _sign(relation, i, source), source, help=help_text))


def two_equal_signs(span: Span, source: Source) -> Diagnostic:
    """IMP015 at the second `=` of a relation or definition."""
    return Diagnostic(
        "IMP015",
        "an equation has one `=`; this is its second",
        span,
        source,
        help="separate equations with a new line, `,` or `;`, or put a comparison in parentheses; `==` means `=`",
    )


def _sign(relation: ast.Relation, i: int, source: Source) -> Span:
    """Where the i-th sign of a chain is written."""
    start, end = relation.terms[i].span.end, relation.terms[i + 1].span.start
    sign = re.search(r"==|<=|>=|>>|<<|[=≤≥⪰⪯<>]", source.text[start:end])
    return Span(start + sign.start(), start + sign.end()) if sign else Span(start, end)

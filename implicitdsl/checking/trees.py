"""Walking syntax trees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import cast

from implicitdsl.syntax import ast


def descend(node: object) -> Iterator[ast.Node]:
    """Every node at and below, in reading order."""
    stack: list[object] = [node]
    while stack:
        item = stack.pop()
        if isinstance(item, tuple):
            stack.extend(reversed(item))  # pyright: ignore[reportUnknownArgumentType]
        elif isinstance(item, ast.Node):
            yield item
            stack.extend(getattr(item, f.name) for f in reversed(fields(item)))


def unwrap(expr: ast.Expr) -> ast.Expr:
    """Without parentheses."""
    while isinstance(expr, ast.Paren):
        expr = expr.inner
    return expr


def shape_of_tree(node: object) -> object:
    """A value that is equal for trees that differ only in spans and parentheses."""
    if isinstance(node, ast.Paren):
        return shape_of_tree(node.inner)
    if isinstance(node, tuple):
        return tuple(shape_of_tree(item) for item in cast("tuple[object, ...]", node))
    if isinstance(node, ast.Node):
        inner = (getattr(node, f.name) for f in fields(node) if f.name not in ("span", "op_span"))
        return (type(node).__name__, *map(shape_of_tree, inner))
    return node


def quadratic(expr: ast.Expr) -> tuple[ast.Expr, ast.Expr] | None:
    """(v, Q) if the expression reads `v^T Q v`."""
    if not (isinstance(expr, ast.Binary) and expr.op in ("juxt", "@")):
        return None
    left, right = unwrap(expr.left), unwrap(expr.right)
    if isinstance(left, ast.Binary) and left.op in ("juxt", "@"):
        row, middle = unwrap(left.left), left.right
        if isinstance(row, ast.Binary) and row.op in ("juxt", "@"):  # `1/2 z^T Q z` is `((1/2 z^T) Q) z`
            row = unwrap(row.right)
        if isinstance(row, ast.Transpose) and shape_of_tree(row.operand) == shape_of_tree(right):
            return right, unwrap(middle)
    return None

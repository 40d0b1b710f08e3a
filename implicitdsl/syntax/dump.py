"""Stable text forms of tokens and trees, for `emit --stage tokens|ast` and for tests that compare them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any, cast

from implicitdsl.ground.source import Source

from . import ast
from .tokens import Token


def dump_tokens(tokens: Iterable[Token], source: Source) -> str:
    """One token a line: `line:column TYPE text`."""
    return "".join(f"{_place(source, t.start)} {t.type} {t.text!r}\n" for t in tokens)


def dump_ast(node: ast.Node, source: Source | None = None) -> str:
    """One node a line, indented below its parent, with the field's name before it where a class has several.

    With a source each node shows `@line:column-line:column`; without one, spans are left out.
    """
    lines: list[str] = []
    _dump(node, "", 0, source, lines)
    return "".join(f"{line}\n" for line in lines)


def _dump(node: ast.Node, label: str, indent: int, source: Source | None, lines: list[str]) -> None:
    scalars: list[str] = []
    below: list[tuple[str, Any]] = []
    for f in fields(node):
        value: Any = getattr(node, f.name)
        if f.name in ("span", "op_span"):
            continue
        if type(value) is tuple and not _strings(cast("tuple[Any, ...]", value)):
            below.append((f.name, cast(Any, value)))
        elif isinstance(value, ast.Node):
            below.append((f.name, value))
        elif value is not None:
            scalars.append(f"{f.name}={cast(Any, value)!r}" if f.name != "text" else repr(cast(Any, value)))
    where = f" @{_place(source, node.span.start)}-{_place(source, node.span.end)}" if source else ""
    lines.append("  " * indent + label + " ".join([type(node).__name__, *scalars]) + where)
    for name, value in below:
        for child in cast("tuple[ast.Node, ...]", value) if type(value) is tuple else (value,):
            _dump(child, f"{name}: ", indent + 1, source, lines)


def _strings(values: tuple[Any, ...]) -> bool:
    return bool(values) and all(isinstance(v, str) for v in values)


def _place(source: Source, offset: int) -> str:
    line, column = source.position(offset)
    return f"{line}:{column}"

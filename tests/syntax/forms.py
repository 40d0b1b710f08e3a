"""Short prefix forms of trees, so that a test can state the tree that it wants on one line."""

from __future__ import annotations

from implicitdsl.ground.source import Source
from implicitdsl.syntax import ast
from implicitdsl.syntax.parser import Parsed, parse
from implicitdsl.syntax.printer import print_set


def read(text: str) -> Parsed:
    """What `text` is, which must hold no error."""
    parsed = parse(Source("<test>", text))
    assert not parsed.diagnostics, [(d.code, d.message) for d in parsed.diagnostics]
    return parsed


def sections(text: str) -> tuple[ast.Section, ...]:
    """The sections of the only layer of `text`."""
    (layer,) = read(text).program.layers
    return layer.sections


def codes(text: str) -> list[str]:
    return [d.code for d in parse(Source("<test>", text)).diagnostics]


def expr(text: str) -> str:
    """The form of one expression, read as a `return`."""
    (section,) = sections(f"return {text}")
    assert isinstance(section, ast.Return)
    (output,) = section.items
    assert output.alias is None
    return form(output.value)


def relation_forms(text: str) -> list[str]:
    """The forms of the relations of the last block of `text`."""
    block = [s for s in sections(text) if isinstance(s, ast.Find | ast.Argmin)][-1]
    return [constraint(r) for r in (block.relations if isinstance(block, ast.Find) else block.constraints)]


def constraint(relation: ast.Constraint) -> str:
    label = f"{relation.label.text}: " if relation.label else ""
    if isinstance(relation, ast.Membership):
        text = f"{form(relation.element)} in {print_set(relation.set)}"
    else:
        text = form(relation.terms[0])
        for op, term in zip(relation.ops, relation.terms[1:], strict=True):
            text += f" {op} {form(term)}"
    return label + text + "".join(f" {_binder(b)}" for b in relation.binders)


def form(node: ast.Expr | ast.Slice) -> str:
    match node:
        case ast.Name(text=text) | ast.Number(text=text):
            return text
        case ast.String(text=text):
            return repr(text)
        case ast.Paren(inner=inner):
            return f"({form(inner)})"
        case ast.Negate(operand=operand):
            return f"{{neg {form(operand)}}}"
        case ast.Binary(op=op, left=left, right=right):
            return f"{{{op} {form(left)} {form(right)}}}"
        case ast.Transpose(operand=operand):
            return f"{{T {form(operand)}}}"
        case ast.Call(func=func, args=args):
            return f"{{call {' '.join(form(e) for e in (func, *args))}}}"
        case ast.Comprehension(body=body, binders=binders):
            return " ".join([form(body), *(_binder(b) for b in binders)])
        case ast.Index(operand=operand, items=items):
            return f"{{at {' '.join(form(e) for e in (operand, *items))}}}"
        case ast.Slice(lo=lo, hi=hi):
            return f"{form(lo) if lo else ''}:{form(hi) if hi else ''}"
        case ast.Norm(operand=operand, kind=kind):
            return f"{{norm{kind} {form(operand)}}}"
        case ast.Abs(operand=operand):
            return f"{{abs {form(operand)}}}"
        case ast.Literal(items=items):
            return f"[{', '.join(form(e) for e in items)}]"
        case ast.Derivative(unknown=unknown, order=order, variable=variable, partial=partial):
            return f"{{{'∂' if partial else 'd'}{order} {unknown} {variable}}}"


def _binder(b: ast.Binder) -> str:
    return f"for {b.name.text} in {form(b.range)}"

"""The tree as text: expressions and sets as diagnostics quote them, and whole programs in canonical layout.

Parentheses that the author wrote are nodes and are printed; others are added only where the tree could not be read back
without them, which happens for trees that a program has built.
"""

from __future__ import annotations

from . import ast

SUM, PRODUCT, UNARY, POWER, POSTFIX, ATOM = range(1, 7)
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_LEVELS = {"+": SUM, "-": SUM, "*": PRODUCT, "/": PRODUCT, "@": PRODUCT, "juxt": PRODUCT, "^": POWER}


def print_expr(expr: ast.Expr | ast.Slice) -> str:
    """`expr` as its author would write it, in ASCII where there is a choice."""
    return _slice(expr) if isinstance(expr, ast.Slice) else _text(expr, SUM, "")


def print_set(domain: ast.SetExpr) -> str:
    """`R^(m, n)`, `[0, 1]^n`, `PSD(n)`."""
    match domain:
        case ast.NamedSet(name=name, args=args):
            return f"{name}({_list(args)})" if args else name
        case ast.Interval(lo=lo, hi=hi, closed=closed):
            inner = f"{print_expr(lo)}, {print_expr(hi)}"
            return f"[{inner}]" if closed else f"({inner})"
        case ast.PowerSet(base=base, dims=dims):
            plain = len(dims) == 1 and isinstance(dims[0], ast.Name | ast.Number)
            inner = ", ".join(_dense(d) for d in dims)
            return f"{print_set(base)}^{inner}" if plain else f"{print_set(base)}^({inner})"


def print_constraint(relation: ast.Constraint) -> str:
    """`top: u = tanh(A v)`, `z in simplex(n)`, `x[i+1] = A x[i] for i in N`."""
    label = f"{relation.label.text}: " if relation.label else ""
    if isinstance(relation, ast.Membership):
        text = f"{print_expr(relation.element)} in {print_set(relation.set)}"
    else:
        text = print_expr(relation.terms[0])
        for op, term in zip(relation.ops, relation.terms[1:], strict=True):
            text += f" {op} {print_expr(term)}"
    return label + text + _binders(relation.binders)


def derivative_text(unknown: str, order: int, variable: str, partial: bool) -> str:
    """`dz/dt`, `d2q/dt2`, `∂u/∂x`, `∂²u/∂x²`."""
    sign = "∂" if partial else "d"
    if order == 1:
        return f"{sign}{unknown}/{sign}{variable}"
    if partial or variable[-1].isdigit():
        digits = str(order).translate(_SUPERSCRIPTS)
        return f"{sign}{digits}{unknown}/{sign}{variable}{digits}"
    return f"d{order}{unknown}/d{variable}{order}"


# -- expressions -----------------------------------------------------------------------------------------------------


def _text(expr: ast.Expr, level: int, bar: str) -> str:
    """`expr` where at least `level` binds; `bar` is the innermost open sign if it is `|` or `||`."""
    own = _level(expr)
    if own < level:
        return f"({_text(expr, SUM, '')})"
    match expr:
        case ast.Name(text=text) | ast.Number(text=text):
            return text
        case ast.String(text=text):
            return f'"{text}"'
        case ast.Paren(inner=inner):
            return f"({_text(inner, SUM, '')})"
        case ast.Negate(operand=operand):
            return f"-{_text(operand, UNARY, bar)}"
        case ast.Binary():
            return _binary(expr, bar)
        case ast.Transpose(operand=operand):
            return f"{_text(operand, POSTFIX, bar)}^T"
        case ast.Call(func=func, args=args):
            name = _text(func, ATOM, bar) if _callable(func) else f"({_text(func, SUM, '')})"
            return f"{name}({_list(args)})"
        case ast.Comprehension(body=body, binders=binders):
            return _text(body, SUM, "") + _binders(binders)
        case ast.Index(operand=operand, items=items):
            base = f"({operand.text})" if isinstance(operand, ast.Number) else _text(operand, POSTFIX, bar)
            return f"{base}[{', '.join(_dense(i) for i in items)}]"
        case ast.Norm(operand=operand, kind=kind):
            return _barred("||", _text(operand, SUM, "||")) + ("" if kind == "2" else f"_{kind}")
        case ast.Abs(operand=operand):
            return _barred("|", _text(operand, SUM, "|"))
        case ast.Literal(items=items):
            return f"[{_list(items)}]"
        case ast.Derivative(unknown=unknown, order=order, variable=variable, partial=partial):
            return derivative_text(unknown, order, variable, partial)


def _level(expr: ast.Expr) -> int:
    if isinstance(expr, ast.Binary):
        return _LEVELS[expr.op]
    if isinstance(expr, ast.Negate):
        return UNARY
    return POSTFIX if isinstance(expr, ast.Index | ast.Transpose) else ATOM


def _callable(func: ast.Expr) -> bool:
    return isinstance(func, ast.Name | ast.Derivative | ast.Call)


def _binary(expr: ast.Binary, bar: str) -> str:
    if expr.op == "^":
        base = _text(expr.left, POSTFIX, bar)
        if isinstance(expr.left, ast.Derivative):  # `dz/dt^2` would be a derivative of two orders
            base = f"({base})"
        return f"{base}^{_exponent(expr.right, bar)}"
    left = _text(expr.left, _LEVELS[expr.op], bar)
    if expr.op == "juxt":
        right = _text(expr.right, POWER, bar)
        if right.startswith("|") and (bar == "|" or (bar and right.startswith(bar))):
            right = f"({right})"  # here the bar would close the open one
        return f"{left} {right}"
    right = _text(expr.right, PRODUCT if expr.op in "+-" else UNARY, bar)
    if expr.op == "/" and isinstance(expr.left, ast.Number) and isinstance(expr.right, ast.Number):
        return f"{left}/{right}"
    return f"{left} {expr.op} {right}"


def _exponent(expr: ast.Expr, bar: str) -> str:
    if isinstance(expr, ast.Negate):
        return f"-{_exponent(expr.operand, bar)}"
    text = _text(expr, POWER, bar)
    transposes = text == "T" or (text[:1] == "T" and not (text[1].isalnum() or text[1] == "_"))
    return f"({text})" if transposes else text


def _barred(bar: str, inner: str) -> str:
    before = " " if inner.startswith("|") else ""
    after = " " if inner.endswith("|") else ""
    return f"{bar}{before}{inner}{after}{bar}"


def _list(items: tuple[ast.Expr, ...]) -> str:
    return ", ".join(print_expr(i) for i in items)


def _dense(item: ast.Expr | ast.Slice) -> str:
    """An index or dimension: `i+1` without spaces, anything longer as usual."""
    if isinstance(item, ast.Binary) and item.op in "+-":
        simple = isinstance(item.left, ast.Name | ast.Number) and isinstance(item.right, ast.Name | ast.Number)
        if simple:
            return f"{print_expr(item.left)}{item.op}{print_expr(item.right)}"
    return print_expr(item)


def _slice(item: ast.Slice) -> str:
    return f"{_dense(item.lo) if item.lo else ''}:{_dense(item.hi) if item.hi else ''}"


def _binders(binders: tuple[ast.Binder, ...]) -> str:
    return "".join(f" for {b.name.text} in {print_expr(b.range)}" for b in binders)


# -- sections and programs -------------------------------------------------------------------------------------------


def print_section(section: ast.Section) -> str:
    """A section, one item a line, the first beside the keyword."""
    match section:
        case ast.Given(items=items):
            return _items("given ", [_declaration(d) for d in items])
        case ast.Param(items=items):
            return _items("param ", [_declaration(d) for d in items])
        case ast.Const(items=items):
            return _items("const ", [_declaration(d) for d in items])
        case ast.Fn(items=items):
            return _items("fn ", [_fn(d) for d in items])
        case ast.Let(items=items):
            return _items("let ", [_let(d) for d in items])
        case ast.Where(items=items):
            return _items("where ", [_definition(d) for d in items])
        case ast.Find():
            return _find(section)
        case ast.Argmin():
            return _argmin(section)
        case ast.Using(slots=slots):
            return "using " + ", ".join(_slot(s) for s in slots)
        case ast.Return(items=items):
            return "return " + ", ".join(_output(o) for o in items)


def print_layer(layer: ast.Layer) -> str:
    """A layer with its header, sections indented by two; a bare one without either."""
    sections = [print_section(s) for s in layer.sections]
    if layer.name is None:
        return "\n".join(sections) + "\n"
    dims = f"({', '.join(d.text for d in layer.dims)})" if layer.dims else ""
    body = "\n".join("  " + line for s in sections for line in s.split("\n"))
    return f"layer {layer.name.text}{dims}:\n{body}\n" if body else f"layer {layer.name.text}{dims}:\n"


def print_program(program: ast.Program) -> str:
    """A program from its tree alone, so without comments; `format_program` keeps them."""
    imports = [f'import {", ".join(n.text for n in i.names)} from "{i.path.text}"\n' for i in program.imports]
    return "\n".join(["".join(imports)] * bool(imports) + [print_layer(layer) for layer in program.layers])


def _items(keyword: str, items: list[str]) -> str:
    return keyword + ("\n" + " " * len(keyword)).join(items)


def _declaration(d: ast.Declaration) -> str:
    domain = f" in {print_set(d.set)}" if d.set else ""
    return d.name.text + domain + (f" = {print_expr(d.init)}" if d.init else "")


def _fn(d: ast.FnDeclaration) -> str:
    text = d.name.text
    if d.type is not None:
        domain = ", ".join(print_set(s) for s in d.type.domain)
        single = len(d.type.domain) == 1 and not _open(d.type.domain[0])
        text += f": {domain if single else f'({domain})'} -> {print_set(d.type.codomain)}"
    return text + (f' as "{d.path.text}"' if d.path else "")


def _open(domain: ast.SetExpr) -> bool:
    base = domain.base if isinstance(domain, ast.PowerSet) else domain
    return isinstance(base, ast.Interval) and not base.closed


def _let(d: ast.LetDeclaration) -> str:
    return f"{d.name.text} = {d.layer.text}" + (f"({_list(d.args)})" if d.args else "")


def _definition(d: ast.Definition) -> str:
    params = f"({', '.join(p.text for p in d.params)})" if d.params is not None else ""
    return f"{d.name.text}{params} = {print_expr(d.body)}"


def _unknowns(unknowns: tuple[ast.Unknown, ...]) -> str:
    return ", ".join(
        u.name.text
        + (f"({', '.join(a.text for a in u.args)})" if u.args else "")
        + (f" in {print_set(u.set)}" if u.set else "")
        for u in unknowns
    )


def _find(section: ast.Find) -> str:
    relations = [print_constraint(r) for r in section.relations]
    if section.bare:
        return "\n".join(relations)
    text = "find " + _unknowns(section.unknowns)
    text += "".join(f" for {d.name.text} in {print_set(d.set)}" for d in section.domains)
    if section.until:
        text += " until " + " or ".join(print_constraint(r) for r in section.until)
    return f"{text} such that" + _relations(relations)


def _argmin(section: ast.Argmin) -> str:
    text = f"arg{section.sense}_{{{_unknowns(section.unknowns)}}} {print_expr(section.objective)}"
    if not section.constraints:
        return text
    return f"{text}\n  subject to" + _relations([print_constraint(r) for r in section.constraints], "    ")


def _relations(relations: list[str], indent: str = "  ") -> str:
    return f" {relations[0]}" if len(relations) == 1 else "".join(f"\n{indent}{r}" for r in relations)


def _slot(slot: ast.Slot) -> str:
    if slot.name is None:
        value = print_expr(slot.value) if slot.value else ""
        return f"start {value}" if slot.label == "start" else f"{slot.label}={value}"
    options = ", ".join((f"{o.key.text}=" if o.key else "") + print_expr(o.value) for o in slot.options)
    label = "backward " if slot.label == "backward" else ""
    return label + slot.name.text + (f"({options})" if options else "")


def _output(output: ast.Output) -> str:
    return (f"{output.alias.text} = " if output.alias else "") + print_expr(output.value)

"""Expressions as the mathematics they are: `tanh(W z + x)`, `diag(1 - a^2) W`, `1/2 z^T Q z`, with few parentheses.

Products run left to right and have parentheses only where the value would change; bound names lose the suffix after
`~` that made them unique; the identity is `I` and a zero tensor `0`, for a reader knows their sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import NamedTuple

from .arith import as_dim
from .arrays import Item, items_of
from .dims import ZERO, Dim
from .names import as_dimension, binder_of
from .nodes import Expr, walk

SUM, NEG, PRODUCT, POWER, ATOM = range(5)
"""How tightly a text binds."""

LONGEST = 4000
"""A longer text is cut: a shared sub-expression is printed at every use, so text can grow exponentially."""


class Text(NamedTuple):
    """A printed expression, and how tightly its outermost operator binds; `row` if it reads better so as a row."""

    text: str
    level: int = ATOM
    row: str | None = None

    def at(self, level: int) -> str:
        """With parentheses unless it binds at least so tightly."""
        return self.text if self.level >= level else f"({self.text})"


def show(expr: Expr) -> str:
    """The mathematical text of an expression."""
    texts: dict[Expr, Text] = {}
    for e in walk(expr):
        text = _print(e, [texts[a] for a in e.args])
        texts[e] = text if len(text.text) <= LONGEST else Text(text.text[:LONGEST] + "…", text.level)
    return texts[expr].text


def show_options(options: Iterable[tuple[str, object]]) -> str:
    """`depth=5, tol=1e-06`."""
    return ", ".join(f"{name}={show(value) if isinstance(value, Expr) else value}" for name, value in options)


def show_name(name: str) -> str:
    """A bound name without the suffix that made it unique."""
    return name.split("~")[0]


def show_dim(dim: Dim) -> str:
    """A dimension with bound names shown."""
    return str(dim.subs({n: Dim.of(show_name(n)) for n in dim.names if "~" in n}))


def show_number(value: float) -> Text:
    """`2`, `0.1`, and `1/2` or `1/3` where a fraction says more than its digits."""
    if value.is_integer() and abs(value) < 1e15:
        return _signed(str(abs(int(value))), value, ATOM)
    digits = repr(abs(value))
    if abs(value) < 1e6 and (fraction := Fraction(value).limit_denominator(64)).denominator > 1:
        near = abs(float(fraction)) == abs(value)
        if near and (fraction.denominator == 2 or len(digits) > 8):
            return _signed(f"{abs(fraction.numerator)}/{fraction.denominator}", value, PRODUCT)
    return _signed(digits, value, ATOM)


def _signed(text: str, value: float, level: int) -> Text:
    return Text(text, level) if value >= 0 else Text("-" + text, NEG)


def _print(e: Expr, args: list[Text]) -> Text:
    rule = _RULES.get(e.op)
    return rule(e, args) if rule else Text(f"{e.op}({', '.join(a.text for a in args)})")


# -- leaves ------------------------------------------------------------------------------------------------------------


def _sym(e: Expr, args: list[Text]) -> Text:
    return Text(show_name(e.name))


def _num(e: Expr, args: list[Text]) -> Text:
    return show_number(e.number or 0.0)


def _dim(e: Expr, args: list[Text]) -> Text:
    text = show_dim(as_dim(e) or ZERO)
    if " + " in text or " - " in text:
        return Text(text, SUM)
    return Text(text, NEG if text.startswith("-") else PRODUCT if " " in text else ATOM)


def _ones(e: Expr, args: list[Text]) -> Text:
    return Text(f"ones({', '.join(map(show_dim, e.shape))})")


# -- arithmetic --------------------------------------------------------------------------------------------------------


def _neg(e: Expr, args: list[Text]) -> Text:
    return Text("-" + args[0].at(PRODUCT), NEG)


def _add(e: Expr, args: list[Text]) -> Text:
    a, b = args
    left = a.at(SUM)
    if b.level == NEG or (b.level == SUM and b.text.startswith("-")):
        return Text(f"{left} - {b.text[1:]}", SUM)
    return Text(f"{left} + {b.at(SUM)}", SUM)


def _mul(e: Expr, args: list[Text]) -> Text:
    x, y = e.args
    a, b = args
    value = x.number
    if value is not None and value < 0:
        return Text("-" + _product(show_number(-value), b, x.rank, y.rank), NEG)
    return Text(_product(a, b, x.rank, y.rank), PRODUCT)


def _product(a: Text, b: Text, rank: int, other: int) -> str:
    """Elementwise: by juxtaposition after a scalar, which commutes with whatever product follows, s (A x) = s A x."""
    if rank or b.text[:1].isdigit() or b.text[:1] == "|":
        return f"{a.at(PRODUCT)} * {b.at(POWER if rank and other else PRODUCT)}"
    return f"{a.at(PRODUCT)} {b.at(PRODUCT)}"


def _div(e: Expr, args: list[Text]) -> Text:
    return Text(f"{args[0].at(PRODUCT)} / {args[1].at(POWER)}", PRODUCT)


def _pow(e: Expr, args: list[Text]) -> Text:
    exponent = args[1]
    if (value := e.args[1].number) is not None and not value.is_integer():
        exponent = Text(repr(value))
    return Text(f"{args[0].at(ATOM)}^{exponent.text if exponent.level in (NEG, ATOM) else exponent.at(ATOM)}", POWER)


# -- linear algebra ----------------------------------------------------------------------------------------------------


def _row(text: Text) -> str:
    """A vector as a row, to the left of a product: zᵀ, or xᵀ A of what stands elsewhere as Aᵀ x."""
    return text.row or f"{text.at(ATOM)}^T"


def _matmul(e: Expr, args: list[Text]) -> Text:
    x, y = e.args
    a, b = args
    if x.rank == 1 and y.rank == 2:
        return Text(f"{b.at(ATOM)}^T {a.at(POWER)}", PRODUCT, f"{_row(a)} {b.at(POWER)}")
    # A (B x) = A B x, so a product of matrices needs no parentheses; an elementwise one does
    loose = (y.op == "matmul" and y.rank > 0) or _is_scaling(y)
    return Text(f"{_row(a) if x.rank == 1 else a.at(PRODUCT)} {b.at(PRODUCT if loose else POWER)}", PRODUCT)


def _is_scaling(e: Expr) -> bool:
    return e.op == "call" and e.attrs[0] in ("scale_rows", "scale_columns")


def _outer(e: Expr, args: list[Text]) -> Text:
    return Text(f"{args[0].at(PRODUCT)} {_row(args[1])}", PRODUCT)


def _transpose(e: Expr, args: list[Text]) -> Text:
    return Text(f"{args[0].at(ATOM)}^T", POWER)


def _sum(e: Expr, args: list[Text]) -> Text:
    if e.args[0].op == "diagonal":
        return Text("tr" + args[0].text.removeprefix("diag"))
    return Text(f"sum({args[0].text})")


def _named(name: str) -> Callable[[Expr, list[Text]], Text]:
    return lambda e, args: Text(f"{name}({', '.join(a.text for a in args)})")


# -- arrays and binders ------------------------------------------------------------------------------------------------


def _items(items: tuple[Item, ...]) -> str:
    parts: list[str] = []
    for item in items:
        lo = as_dimension(item[1])
        if len(item) == 2:
            parts.append(show_dim(lo))
        else:
            parts.append(f"{'' if lo == ZERO else show_dim(lo)}:{show_dim(item[2])}")
    return ", ".join(parts)


def _index(e: Expr, args: list[Text]) -> Text:
    return Text(f"{args[0].at(ATOM)}[{_items(items_of(e))}]")


def _embed(e: Expr, args: list[Text]) -> Text:
    return Text(f"embed({args[0].text}, [{_items(items_of(e))}])")


def _stack(e: Expr, args: list[Text]) -> Text:
    return Text(f"[{', '.join(a.text for a in args)}]")


def _reshape(e: Expr, args: list[Text]) -> Text:
    return Text(f"reshape({', '.join([args[0].text, *map(show_dim, e.shape)])})")


def _binder(word: str) -> Callable[[Expr, list[Text]], Text]:
    def rule(e: Expr, args: list[Text]) -> Text:
        name, lo, hi = binder_of(e)
        span = show_dim(hi) if lo == ZERO else f"{show_dim(lo)}:{show_dim(hi)}"
        return Text(f"{word}({args[0].text} for {show_name(name)} in {span})")

    return rule


def _opaque(fn: object) -> str:
    """The text of an opaque name: `f`, or `jvp(f)`, `vjp_0(f)` for a derived one."""
    if isinstance(fn, tuple):
        kind, inner, _, *which = fn  # pyright: ignore[reportUnknownVariableType]  # see `binders.OpaqueName`
        return f"{kind}{''.join(f'_{i}' for i in which)}({_opaque(inner)})"  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]  # as above
    return str(fn)


def _apply(e: Expr, args: list[Text]) -> Text:
    output = f".{e.attrs[1]}" if e.attrs[1] else ""
    return Text(f"{_opaque(e.attrs[0])}{output}({', '.join(a.text for a in args)})")


def _apply_jvp(e: Expr, args: list[Text]) -> Text:
    half = len(args) // 2
    points, tangents = (", ".join(a.text for a in part) for part in (args[:half], args[half:]))
    return Text(f"jvp({_opaque(e.attrs[0])}, ({points}), ({tangents}))")


def _apply_vjp(e: Expr, args: list[Text]) -> Text:
    return Text(f"vjp_{e.attrs[2]}({_opaque(e.attrs[0])}, ({', '.join(a.text for a in args[:-1])}), {args[-1].text})")


def _operator(name: str) -> Callable[[Expr, list[Text]], Text]:
    def rule(e: Expr, args: list[Text]) -> Text:
        body, bound, point = args
        variable = bound.text if bound.text == point.text else f"{bound.text} = {point.text}"
        return Text(f"{name}({', '.join([body.text, variable, *map(str, e.attrs)])})")

    return rule


def _at(e: Expr, args: list[Text]) -> Text:
    return Text(f"{args[0].at(ATOM)}({', '.join(a.text for a in args[1:])})")


def _deriv(e: Expr, args: list[Text]) -> Text:
    order, variable = e.attrs
    power = "" if order == 1 else {2: "²", 3: "³"}.get(int(str(order)), f"^{order}")
    return Text(f"d{power}{args[0].text}/d{variable}{power}")


def _dual(e: Expr, args: list[Text]) -> Text:
    return Text(f"dual({e.attrs[0]})")


# -- functions ---------------------------------------------------------------------------------------------------------


def _call(e: Expr, args: list[Text]) -> Text:
    match e.name:
        case "scale_rows":
            loose = PRODUCT if e.args[1].op == "matmul" or _is_scaling(e.args[1]) else POWER
            return Text(f"diag({args[0].text}) {args[1].at(loose)}", PRODUCT)
        case "scale_columns":
            return Text(f"{args[0].at(PRODUCT)} diag({args[1].text})", PRODUCT)
        case "inv":
            return Text(f"{args[0].at(ATOM)}^-1", POWER)
        case "norm" | "norm_1" | "norm_inf" if "|" not in args[0].text:
            mark = "_F" if e.args[0].rank == 2 else e.name.removeprefix("norm")
            return Text(f"||{args[0].text}||{mark}")
        case "maximum" | "max_all":
            return _named("max")(e, args)
        case "minimum" | "min_all":
            return _named("min")(e, args)
        case "heaviside":
            return Text(f"({args[0].text} > 0)")
        case "reciprocal_or_zero":
            return Text(f"1 / {args[0].at(POWER)}", PRODUCT)
        case name:
            return _named(name)(e, args)


_RULES: dict[str, Callable[[Expr, list[Text]], Text]] = {
    "sym": _sym,
    "num": _num,
    "dim": _dim,
    "zeros": lambda e, args: Text("0"),
    "ones": _ones,
    "eye": lambda e, args: Text("I"),
    "neg": _neg,
    "add": _add,
    "mul": _mul,
    "div": _div,
    "pow": _pow,
    "matmul": _matmul,
    "outer": _outer,
    "transpose": _transpose,
    "sum": _sum,
    "diag": _named("diag"),
    "diagonal": _named("diag"),
    "index": _index,
    "embed": _embed,
    "concat": _named("concat"),
    "stack": _stack,
    "reshape": _reshape,
    "call": _call,
    "sum_for": _binder("sum"),
    "stack_for": _binder("stack"),
    "apply": _apply,
    "apply_jvp": _apply_jvp,
    "apply_vjp": _apply_vjp,
    "grad": _operator("grad"),
    "jac": _operator("jac"),
    "divergence": _operator("div"),
    "hess": _operator("hess"),
    "at": _at,
    "deriv": _deriv,
    "dual": _dual,
}

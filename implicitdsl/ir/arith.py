"""Constants and elementwise constructors with light simplification. Import them from `ir.build`."""

from __future__ import annotations

from implicitdsl.ground.source import Span

from .dims import Dim, Shape, show_shape
from .nodes import Expr, node, num


def require(condition: bool, message: str, *shapes: Shape) -> None:
    """Ill-typed construction is an error of the compiler, never of the user: the checker has typed the text before.

    The shapes fill the message's braces, only where it is needed: constructors run often.
    """
    if not condition:
        raise AssertionError(message.format(*map(show_shape, shapes)))


# -- constants ---------------------------------------------------------------------------------------------------------


def zeros(shape: Shape, *, span: Span | None = None) -> Expr:
    """0 of a shape; the number 0 for a scalar."""
    return node("zeros", (), (), shape, span) if shape else num(0.0, span)


def ones(shape: Shape, *, span: Span | None = None) -> Expr:
    """1 of a shape; the number 1 for a scalar."""
    return node("ones", (), (), shape, span) if shape else num(1.0, span)


def eye(n: Dim, *, span: Span | None = None) -> Expr:
    """The identity matrix."""
    return node("eye", (), (), (n, n), span)


def dimension(dim: Dim, *, span: Span | None = None) -> Expr:
    """A dimension or bound index as a number."""
    return num(float(dim.value), span) if dim.value is not None else node("dim", (), (dim,), (), span)


def as_dim(e: Expr) -> Dim | None:
    """The dimension that a `dim` node or an integral number stands for, else None."""
    if e.op == "dim":
        dim = e.attrs[0]
        assert isinstance(dim, Dim)
        return dim
    value = e.number
    return Dim.of(int(value)) if value is not None and value.is_integer() else None


def fill(value: Expr, shape: Shape, *, span: Span | None = None) -> Expr:
    """A scalar repeated to a shape."""
    require(value.rank == 0, "fill needs a scalar, got {}", value.shape)
    return mul(value, ones(shape), span=span)


def is_zero(e: Expr) -> bool:
    return e.op == "zeros" or e.number == 0.0


def is_one(e: Expr) -> bool:
    return e.op == "ones" or e.number == 1.0


def filled(e: Expr) -> Expr | None:
    """s, if e is s repeated to a (non-scalar) shape."""
    if e.op == "ones":
        return num(1.0)
    if e.op == "mul" and e.args[1].op == "ones" and e.args[0].rank == 0:
        return e.args[0]
    return None


def coefficient(e: Expr) -> tuple[float, Expr]:
    """(c, x) with e = c x, c a number."""
    if e.op == "neg":
        c, x = coefficient(e.args[0])
        return -c, x
    if e.op == "mul" and (value := e.args[0].number) is not None:
        return value, e.args[1]
    return 1.0, e


# -- arithmetic --------------------------------------------------------------------------------------------------------


def broadcast(a: Expr, b: Expr, what: str) -> Shape:
    """The result's shape of an elementwise operation: equal shapes, or one is a scalar."""
    require(
        a.shape == b.shape or not a.shape or not b.shape,
        f"{what} of {{}} and {{}}",
        a.shape,
        b.shape,
    )
    return a.shape or b.shape


def neg(a: Expr, *, span: Span | None = None) -> Expr:
    """-a."""
    value = a.number
    if value is not None:
        return num(-value, span)
    if a.op == "neg":
        return a.args[0]
    if a.op == "zeros":
        return a
    if a.op == "dim" and (dim := as_dim(a)) is not None:
        return dimension(dim * Dim.of(-1), span=span)
    if a.op == "mul" and (value := a.args[0].number) is not None:
        return mul(num(-value), a.args[1], span=span)
    if a.op == "add" and a.args[1].op == "neg" and a.args[0].op != "neg":
        return add(a.args[1].args[0], neg(a.args[0]), span=span)
    return node("neg", (a,), (), a.shape, span)


def add(a: Expr, b: Expr, *, span: Span | None = None) -> Expr:
    """a + b, elementwise; a scalar is added to every element."""
    shape = broadcast(a, b, "sum")
    x, y = a.number, b.number
    if x is not None and y is not None:
        return num(x + y, span)
    if a.op == "dim" or b.op == "dim":
        m, n = as_dim(a), as_dim(b)
        if m is not None and n is not None:
            return dimension(m + n, span=span)
    if is_zero(a):
        return b if b.shape == shape else fill(b, shape, span=span)
    if is_zero(b):
        return a if a.shape == shape else fill(a, shape, span=span)
    if a.shape == b.shape:
        c, p = coefficient(a)
        d, q = coefficient(b)
        if p is q:
            return mul(num(c + d), p, span=span)
        if (s := filled(b)) is not None and filled(a) is None:
            return add(a, s, span=span)
        if (s := filled(a)) is not None and filled(b) is None:
            return add(s, b, span=span)
    return node("add", (a, b), (), shape, span)


def sub(a: Expr, b: Expr, *, span: Span | None = None) -> Expr:
    """a - b, which is a + (-b)."""
    return add(a, neg(b), span=span)


def mul(a: Expr, b: Expr, *, span: Span | None = None) -> Expr:
    """a * b, elementwise; a scalar scales. Numbers and scalars go to the left, signs out."""
    shape = broadcast(a, b, "product")
    x, y = a.number, b.number
    if x is not None and y is not None:
        return num(x * y, span)
    if a.op == "dim" or b.op == "dim":
        m, n = as_dim(a), as_dim(b)
        if m is not None and n is not None:
            return dimension(m * n, span=span)
    if is_zero(a) or is_zero(b):
        return zeros(shape, span=span)
    if y is not None or (b.rank == 0 and a.rank > 0):
        a, b, x, y = b, a, y, x
    if is_one(a) and b.shape == shape:
        return b
    if is_one(b) and a.shape == shape:
        return a
    if x is not None:
        if x == -1.0:
            return neg(b, span=span)
        c, p = coefficient(b)
        if p is not b:
            return mul(num(x * c), p, span=span)
        return node("mul", (a, b), (), shape, span)
    if a.op == "neg":
        return neg(mul(a.args[0], b), span=span)
    if b.op == "neg":
        return neg(mul(a, b.args[0]), span=span)
    c, p = coefficient(a)
    d, q = coefficient(b)
    if p is not a or q is not b:
        return mul(num(c * d), mul(p, q), span=span)
    if (s := filled(a)) is not None and b.shape == shape:
        return mul(s, b, span=span)
    if b.op != "ones" and (s := filled(b)) is not None:
        return mul(s, a, span=span) if a.shape == shape else mul(mul(a, s), ones(shape), span=span)
    return node("mul", (a, b), (), shape, span)


def div(a: Expr, b: Expr, *, span: Span | None = None) -> Expr:
    """a / b, elementwise."""
    shape = broadcast(a, b, "quotient")
    x, y = a.number, b.number
    if x is not None and y is not None and y != 0.0:
        return num(x / y, span)
    if is_zero(a) and y != 0.0:
        return zeros(shape, span=span)
    if is_one(b) and a.shape == shape:
        return a
    if a.op == "neg":
        return neg(div(a.args[0], b), span=span)
    if b.op == "neg":
        return neg(div(a, b.args[0]), span=span)
    c, p = coefficient(a)
    if p is not a and y is not None and y != 0.0:
        return mul(num(c / y), p, span=span)
    return node("div", (a, b), (), shape, span)


def power(a: Expr, b: Expr, *, span: Span | None = None) -> Expr:
    """a^b, elementwise."""
    shape = broadcast(a, b, "power")
    x, y = a.number, b.number
    if y == 1.0:
        return a
    if y == 0.0:
        return ones(shape, span=span)
    if x is not None and y is not None and (x > 0 or (y.is_integer() and (x != 0 or y > 0))):
        try:
            return num(float(x**y), span)
        except OverflowError:
            pass  # leave it to run time, which gives infinity
    if is_one(a) and a.shape == shape:
        return a
    return node("pow", (a, b), (), shape, span)


def scaled(e: Expr) -> tuple[Expr, Expr]:
    """(s, x) with e = s x, s a scalar (the number 1 or -1 where there is none), for a non-scalar e."""
    if e.op == "neg":
        return num(-1.0), e.args[0]
    if e.op == "mul" and e.args[0].rank == 0 and e.args[1].rank > 0 and e.args[1].op != "ones":
        return e.args[0], e.args[1]
    return num(1.0), e

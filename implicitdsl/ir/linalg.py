"""Linear-algebra constructors. Import them from `ir.build`.

Products with a diagonal matrix become row or column scalings.
"""

from __future__ import annotations

from implicitdsl.ground.source import Span

from .arith import add, coefficient, dimension, div, eye, fill, filled, is_zero, mul, num, ones, require, scaled, zeros
from .arrays import reshape
from .dims import ONE, Shape, size_of
from .nodes import Expr, node

SCALE_ROWS = "scale_rows"
"""Internal function: scale_rows(d, A) = diag(d) A, one elementwise product."""
SCALE_COLUMNS = "scale_columns"
"""Internal function: scale_columns(A, d) = A diag(d)."""


def call(name: str, args: tuple[Expr, ...], shape: Shape, *, span: Span | None = None) -> Expr:
    """A function of the language; its type rule is in `functions/`."""
    return node("call", args, (name,), shape, span)


def is_call(e: Expr, name: str) -> bool:
    return e.op == "call" and e.attrs[0] == name


def scale_rows(d: Expr, A: Expr, *, span: Span | None = None) -> Expr:
    """diag(d) A of a vector and a matrix."""
    require(
        d.rank == 1 and A.rank == 2 and d.shape[0] == A.shape[0],
        "diag of {} times {}",
        d.shape,
        A.shape,
    )
    if is_zero(d) or is_zero(A):
        return zeros(A.shape, span=span)
    if (s := filled(d)) is not None:
        return mul(s, A, span=span)
    if A.op == "eye":
        return diag(d, span=span)
    s, x = scaled(d)
    t, B = scaled(A)
    if x is not d or B is not A:
        return mul(mul(s, t), scale_rows(x, B), span=span)
    if A.op == "diag":
        return diag(mul(d, A.args[0]), span=span)
    if A.op == "outer":
        return outer(mul(d, A.args[0]), A.args[1], span=span)
    if (t := filled(A)) is not None:
        return mul(t, outer(d, ones(A.shape[1:])), span=span)
    if is_call(A, SCALE_ROWS):
        return scale_rows(mul(d, A.args[0]), A.args[1], span=span)
    return call(SCALE_ROWS, (d, A), A.shape, span=span)


def scale_columns(A: Expr, d: Expr, *, span: Span | None = None) -> Expr:
    """A diag(d) of a matrix and a vector."""
    require(
        d.rank == 1 and A.rank == 2 and d.shape[0] == A.shape[1],
        "{} times diag of {}",
        A.shape,
        d.shape,
    )
    if is_zero(d) or is_zero(A):
        return zeros(A.shape, span=span)
    if (s := filled(d)) is not None:
        return mul(s, A, span=span)
    if A.op == "eye":
        return diag(d, span=span)
    s, x = scaled(d)
    t, B = scaled(A)
    if x is not d or B is not A:
        return mul(mul(s, t), scale_columns(B, x), span=span)
    if A.op == "diag":
        return diag(mul(A.args[0], d), span=span)
    if A.op == "outer":
        return outer(A.args[0], mul(A.args[1], d), span=span)
    if (t := filled(A)) is not None:
        return mul(t, outer(ones(A.shape[:1]), d), span=span)
    if is_call(A, SCALE_COLUMNS):
        return scale_columns(A.args[0], mul(A.args[1], d), span=span)
    return call(SCALE_COLUMNS, (A, d), A.shape, span=span)


def matmul(a: Expr, b: Expr, *, span: Span | None = None) -> Expr:
    """Matrix-matrix, matrix-vector, vector-matrix (aᵀ B) product, or the dot product of two vectors."""
    require(1 <= a.rank <= 2 and 1 <= b.rank <= 2, "matrix product of {} and {}", a.shape, b.shape)
    require(a.shape[-1] == b.shape[0], "inner dimensions of {} and {}", a.shape, b.shape)
    shape = a.shape[:-1] + b.shape[1:]
    if is_zero(a) or is_zero(b):
        return zeros(shape, span=span)
    if a.op == "eye":
        return b
    if b.op == "eye":
        return a
    c, p = coefficient(a)
    d, q = coefficient(b)
    if p is not a or q is not b:
        return mul(num(c * d), matmul(p, q), span=span)
    special = _left_pattern(a, b) or _right_pattern(a, b)
    return special if special is not None else node("matmul", (a, b), (), shape, span)


def _left_pattern(a: Expr, b: Expr) -> Expr | None:
    """a @ b where a's structure saves the product."""
    if a.op == "diag":
        return mul(a.args[0], b) if b.rank == 1 else scale_rows(a.args[0], b)
    if a.op == "outer":
        u, v = a.args
        inner = matmul(v, b)
        return mul(inner, u) if b.rank == 1 else outer(u, inner)
    if b.rank == 1 and is_call(a, SCALE_ROWS):
        return mul(a.args[0], matmul(a.args[1], b))
    if b.rank == 1 and is_call(a, SCALE_COLUMNS):
        return matmul(a.args[0], mul(a.args[1], b))
    if b.rank == 2 and is_call(a, SCALE_ROWS):
        return scale_rows(a.args[0], matmul(a.args[1], b))
    if a.rank == 1 and b.rank == 1:
        if (s := filled(a)) is not None:
            return mul(s, total(b))
        if a.op == "matmul" and a.args[1].rank == 2:  # (zᵀ Q) y = zᵀ (Q y)
            return matmul(a.args[0], matmul(a.args[1], b))
    if a.rank == 1 and b.op == "transpose":
        return matmul(b.args[0], a)
    return None


def _right_pattern(a: Expr, b: Expr) -> Expr | None:
    """a @ b where b's structure saves the product."""
    if b.op == "diag":
        return mul(a, b.args[0]) if a.rank == 1 else scale_columns(a, b.args[0])
    if b.op == "outer":
        u, v = b.args
        inner = matmul(a, u)
        return mul(inner, v) if a.rank == 1 else outer(inner, v)
    if a.rank == 1 and is_call(b, SCALE_ROWS):
        return matmul(mul(a, b.args[0]), b.args[1])
    if a.rank == 1 and is_call(b, SCALE_COLUMNS):
        return mul(matmul(a, b.args[0]), b.args[1])
    if a.rank == 2 and is_call(b, SCALE_COLUMNS):
        return scale_columns(matmul(a, b.args[0]), b.args[1])
    if a.rank == 1 and b.rank == 1 and (s := filled(b)) is not None:
        return mul(s, total(a))
    return None


def outer(a: Expr, b: Expr, *, span: Span | None = None) -> Expr:
    """a bᵀ of two vectors."""
    require(a.rank == 1 and b.rank == 1, "outer product of {} and {}", a.shape, b.shape)
    shape = a.shape + b.shape
    if is_zero(a) or is_zero(b):
        return zeros(shape, span=span)
    if filled(a) is not None and filled(b) is not None:
        return fill(mul(filled(a) or num(1.0), filled(b) or num(1.0)), shape, span=span)
    c, p = coefficient(a)
    d, q = coefficient(b)
    if p is not a or q is not b:
        return mul(num(c * d), outer(p, q), span=span)
    return node("outer", (a, b), (), shape, span)


def transpose(a: Expr, *, span: Span | None = None) -> Expr:
    """Aᵀ; a vector or scalar is its own transpose (whether it is a row is the product's business)."""
    require(a.rank <= 2, "transpose of {}", a.shape)
    if a.rank < 2 or a.op in ("eye", "diag"):
        return a
    if a.op == "transpose":
        return a.args[0]
    shape = (a.shape[1], a.shape[0])
    if a.op == "zeros":
        return zeros(shape, span=span)
    if (s := filled(a)) is not None:
        return fill(s, shape, span=span)
    s, x = scaled(a)
    if x is not a:
        return mul(s, transpose(x), span=span)
    if a.op == "outer":
        return outer(a.args[1], a.args[0], span=span)
    if is_call(a, SCALE_ROWS):
        return scale_columns(transpose(a.args[1]), a.args[0], span=span)
    if is_call(a, SCALE_COLUMNS):
        return scale_rows(a.args[1], transpose(a.args[0]), span=span)
    return node("transpose", (a,), (), shape, span)


def diag(v: Expr, *, span: Span | None = None) -> Expr:
    """The diagonal matrix of a vector."""
    require(v.rank == 1, "diagonal matrix of {}", v.shape)
    shape = v.shape + v.shape
    if is_zero(v):
        return zeros(shape, span=span)
    if (s := filled(v)) is not None:
        return mul(s, eye(v.shape[0]), span=span)
    s, x = scaled(v)
    if x is not v:
        return mul(s, diag(x), span=span)
    return node("diag", (v,), (), shape, span)


def diagonal(A: Expr, *, span: Span | None = None) -> Expr:
    """The diagonal of a square matrix, without forming a product whose diagonal is asked for."""
    require(A.rank == 2 and A.shape[0] == A.shape[1], "diagonal of {}", A.shape)
    shape = A.shape[:1]
    if A.op == "zeros":
        return zeros(shape, span=span)
    if A.op == "eye":
        return ones(shape, span=span)
    if (s := filled(A)) is not None:
        return fill(s, shape, span=span)
    s, x = scaled(A)
    if x is not A:
        return mul(s, diagonal(x), span=span)
    if A.op in ("diag",):
        return A.args[0]
    if A.op == "transpose":
        return diagonal(A.args[0], span=span)
    if A.op == "outer":
        return mul(A.args[0], A.args[1], span=span)
    if A.op == "add":
        p, q = (diagonal(x) if x.rank == 2 else x for x in A.args)
        return add(p, q, span=span)
    if A.op == "mul" and all(x.rank == 2 for x in A.args):
        return mul(diagonal(A.args[0]), diagonal(A.args[1]), span=span)
    if is_call(A, SCALE_ROWS):
        return mul(A.args[0], diagonal(A.args[1]), span=span)
    if is_call(A, SCALE_COLUMNS):
        return mul(A.args[1], diagonal(A.args[0]), span=span)
    if A.op == "matmul":  # Σ_j A_ij B_ji in O(n m) instead of O(n² m)
        p, d, q = _around_scaling(*A.args)
        return matmul(mul(p, transpose(q)), ones(p.shape[1:]) if d is None else d, span=span)
    return node("diagonal", (A,), (), shape, span)


def _around_scaling(p: Expr, q: Expr) -> tuple[Expr, Expr | None, Expr]:
    """(P, d, Q) of a product p q = P diag(d) Q where a factor holds a scaling: `(U diag(d) W) V` is U, d and W V. What
    does not depend on d is then computed once, and the diagonal costs a product with d. Else (p, None, q).
    """
    if is_call(p, SCALE_COLUMNS):
        return p.args[0], p.args[1], q
    if is_call(q, SCALE_ROWS):
        return p, q.args[0], q.args[1]
    if p.op == "matmul" and is_call(p.args[1], SCALE_ROWS):
        return p.args[0], p.args[1].args[0], matmul(p.args[1].args[1], q)
    if p.op == "matmul" and is_call(p.args[0], SCALE_COLUMNS):
        return p.args[0].args[0], p.args[0].args[1], matmul(p.args[1], q)
    if q.op == "matmul" and is_call(q.args[0], SCALE_COLUMNS):
        return matmul(p, q.args[0].args[0]), q.args[0].args[1], q.args[1]
    if q.op == "matmul" and is_call(q.args[1], SCALE_ROWS):
        return matmul(p, q.args[0]), q.args[1].args[0], q.args[1].args[1]
    return p, None, q


def total(a: Expr, *, span: Span | None = None) -> Expr:
    """The sum of all elements."""
    if a.rank == 0:
        return a
    if is_zero(a):
        return num(0.0, span)
    if (s := filled(a)) is not None:
        return mul(s, dimension(size_of(a.shape)), span=span)
    s, x = scaled(a)
    if x is not a:
        return mul(s, total(x), span=span)
    if a.op == "outer":
        return mul(total(a.args[0]), total(a.args[1]), span=span)
    if a.op in ("diag", "transpose", "embed", "reshape"):
        return total(a.args[0], span=span)
    if a.op == "eye":
        return dimension(a.shape[0], span=span)
    return node("sum", (a,), (), (), span)


def mean(a: Expr, *, span: Span | None = None) -> Expr:
    """The mean of all elements."""
    return div(total(a), dimension(size_of(a.shape)), span=span)


def inner(a: Expr, b: Expr, *, span: Span | None = None) -> Expr:
    """Σ a_ij b_ij of equal shapes; the dot product of vectors."""
    require(a.shape == b.shape, "inner product of {} and {}", a.shape, b.shape)
    if a.rank == 1:
        return matmul(a, b, span=span)
    return total(mul(a, b), span=span)


def trace(A: Expr, *, span: Span | None = None) -> Expr:
    """tr A. `tr(A diag(d) B) = d · diagonal(B A)`, so what does not depend on d can be computed once."""
    require(A.rank == 2 and A.shape[0] == A.shape[1], "trace of {}", A.shape)
    if A.op == "add" and all(x.rank == 2 for x in A.args):
        return add(trace(A.args[0]), trace(A.args[1]), span=span)
    s, x = scaled(A)
    if x is not A:
        return mul(s, trace(x), span=span)
    if is_call(A, SCALE_ROWS):
        return matmul(A.args[0], diagonal(A.args[1]), span=span)
    if is_call(A, SCALE_COLUMNS):
        return matmul(A.args[1], diagonal(A.args[0]), span=span)
    if A.op == "outer":
        return matmul(A.args[0], A.args[1], span=span)
    if A.op == "matmul":
        p, q = A.args
        if is_call(q, SCALE_ROWS):
            return matmul(q.args[0], diagonal(matmul(q.args[1], p)), span=span)
        if is_call(p, SCALE_COLUMNS):
            return matmul(p.args[1], diagonal(matmul(q, p.args[0])), span=span)
        return total(mul(p, transpose(q)), span=span)
    return total(diagonal(A), span=span)


def column(v: Expr) -> Expr:
    """A vector as a matrix of one column."""
    return reshape(v, (v.shape[0], ONE))

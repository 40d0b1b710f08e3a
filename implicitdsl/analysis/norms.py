"""Upper bounds on 2-norms and spectral norms, from sets: ‖W‖₂ ≤ c in SpectralBall(n, c), ‖Q‖₂ = 1 in Orth(n)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from implicitdsl.ir.nodes import Expr
from implicitdsl.ir.printer import show

from . import intervals as iv
from .context import Bound
from .terms import literal

if TYPE_CHECKING:
    from .bounds import Bounds


def _bound(value: float, *because: str) -> Bound:
    return Bound(value, because)


def magnitude_sign(e: Expr) -> str:
    """How the norm of e is written: `‖W‖₂`, `|a|`."""
    return f"|{show(e)}|" if e.rank == 0 else f"‖{show(e)}‖₂"


def number(value: float) -> str:
    """A short decimal, rounded up in the sixth digit if at all."""
    text = f"{value:.6g}"
    return text if float(text) >= value else f"{value + abs(value) * 1e-6:.6g}"


def frobenius(e: Expr, b: Bounds) -> Bound:
    """‖e‖₂ of a vector, ‖e‖_F of a matrix, |e| of a scalar; the better of structure and range."""
    found = _frobenius(e, b)
    entries = _from_entries(e, b)
    return entries if entries.value < found.value else found


def spectral(e: Expr, b: Bounds) -> Bound:
    """‖e‖₂ of a matrix; of a vector or scalar the same as `frobenius`."""
    if e.rank < 2:
        return b.norm(e)
    found = _spectral(e, b)
    other = b.norm(e)
    return other if other.value < found.value else found


def _from_entries(e: Expr, b: Bounds) -> Bound:
    """‖e‖ ≤ √N sup |entry|."""
    count = b.context.size(e.shape)
    if e.op in ("div", "matmul", "call") and e.rank == 0:
        return _bound(math.inf)  # their range asks for this very norm
    if count is None or e.op in ("div", "matmul"):
        return _bound(math.inf)
    size = iv.times(math.sqrt(count), b.magnitude(e))
    return _bound(size, f"{magnitude_sign(e)} ≤ {number(size)} by its entries") if e.rank else _bound(size)


def _set_bound(e: Expr, b: Bounds) -> Bound:
    s = b.context.sets.get(e)
    if s is None:
        return _bound(math.inf, f"{magnitude_sign(e)} is not bounded")
    why = f"since {show(e)} in {s.text}"
    match s.name:
        case "ball":
            return _bound(s.args[0], f"{magnitude_sign(e)} ≤ {number(s.args[0])} {why}")
        case "sphere" | "simplex" if e.rank == 1:
            return _bound(1.0, f"{magnitude_sign(e)} ≤ 1 {why}")
        case "SpectralBall":
            return _bound(s.args[0], f"{magnitude_sign(e)} ≤ {number(s.args[0])} {why}")
        case "Orth" | "Stiefel":
            return _bound(1.0, f"{magnitude_sign(e)} = 1 {why}")
        case "open" | "closed" if e.rank == 0:
            size = max(map(abs, s.args))
            return _bound(size, f"{magnitude_sign(e)} ≤ {number(size)} {why}")
        case _:
            return _bound(math.inf, f"{magnitude_sign(e)} is unbounded because {show(e)} in {s.text}")


def _spectral(e: Expr, b: Bounds) -> Bound:
    match e.op:
        case "sym":
            return _set_bound(e, b)
        case "eye":
            return _bound(1.0)
        case "zeros":
            return _bound(0.0)
        case "neg" | "transpose" | "index":
            return b.operator(e.args[0])
        case "add":
            return _sum(b.operator(e.args[0]), b.operator(e.args[1]))
        case "mul" if 0 in (e.args[0].rank, e.args[1].rank):
            return _product(b.operator(e.args[0]), b.operator(e.args[1]))
        case "div" if e.args[1].rank == 0:
            return _ratio(e, b, b.operator(e.args[0]))
        case "matmul":
            return _product(b.operator(e.args[0]), b.operator(e.args[1]))
        case "outer":
            return _product(b.norm(e.args[0]), b.norm(e.args[1]))
        case "diag":
            return _scaled(e.args[0], _bound(1.0), b)
        case "stack":
            return _rows(e, b)
        case "call" if e.name in ("scale_rows", "scale_columns"):
            d, A = scaling(e)
            return _scaled(d, b.operator(A), b)
        case _:
            return _bound(math.inf, f"{magnitude_sign(e)} is not bounded")


def _rows(e: Expr, b: Bounds) -> Bound:
    """A matrix of numbers: ‖A‖₂² = ‖AᵀA‖₂ ≤ ‖(AᵀA)^k‖_∞^(1/k), which k = 64 makes tight."""
    rows: list[list[float]] = []
    for row in e.args:
        entries = [literal(x) for x in row.args] if row.op in ("stack", "concat") else []
        if not entries or any(x is None for x in entries):
            return _bound(math.inf, f"{magnitude_sign(e)} is not bounded")
        rows.append([x for x in entries if x is not None])
    columns = range(len(rows[0]))
    gram = [[math.fsum(r[i] * r[j] for r in rows) for j in columns] for i in columns]
    scale, exponent = 0.0, 1.0  # log ‖·‖ taken out so far, in units of the current power
    for _ in range(7):
        size = max(math.fsum(map(abs, row)) for row in gram)
        if size == 0.0:
            return _bound(0.0)
        scale = scale + math.log(size) / exponent
        gram = [[x / size for x in row] for row in gram]
        gram = [[math.fsum(r[k] * gram[k][j] for k in columns) for j in columns] for r in gram]
        exponent *= 2.0
    size = max(math.fsum(map(abs, row)) for row in gram)
    value = math.exp((scale + math.log(size) / exponent) / 2.0) * (1.0 + 1e-12) if size else 0.0
    return _bound(value, f"{magnitude_sign(e)} ≤ {number(value)} by its numbers")


def _frobenius(e: Expr, b: Bounds) -> Bound:
    match e.op:
        case "sym":
            s = b.context.sets.get(e)
            return _bound(math.inf, *_set_bound(e, b).because) if e.rank == 2 and s is not None else _set_bound(e, b)
        case "num":
            return _bound(b.magnitude(e))
        case "zeros":
            return _bound(0.0)
        case "index" if e.rank == 1 and e.args[0].rank == 2:
            return b.operator(e.args[0])
        case "neg" | "transpose" | "index" | "reshape" | "embed" | "diag" | "diagonal":
            return b.norm(e.args[0])
        case "add" if e.args[0].shape == e.args[1].shape:
            return _sum(b.norm(e.args[0]), b.norm(e.args[1]))
        case "mul":
            left, right = e.args
            both = _product(b.norm(left), b.norm(right))
            if left.shape != right.shape:
                return both
            return _best(
                both,
                _bound(iv.times(b.magnitude(left), b.norm(right).value), *b.norm(right).because),
                _bound(iv.times(b.norm(left).value, b.magnitude(right)), *b.norm(left).because),
            )
        case "div" if e.args[1].rank == 0:
            return _ratio(e, b, b.norm(e.args[0]))
        case "matmul":
            left, right = e.args
            return _best(_product(b.operator(left), b.norm(right)), _product(b.norm(left), b.operator(right)))
        case "outer":
            return _product(b.norm(e.args[0]), b.norm(e.args[1]))
        case "concat" | "stack":
            parts = [b.norm(a) for a in e.args]
            size = math.sqrt(math.fsum(p.value**2 for p in parts))
            return _bound(size, *(line for p in parts for line in p.because))
        case "call":
            return _call(e, b)
        case _:
            return _bound(math.inf, f"{magnitude_sign(e)} is not bounded")


def _call(e: Expr, b: Bounds) -> Bound:
    if e.name == "softmax" and e.rank == 1:
        return _bound(1.0, f"{magnitude_sign(e)} ≤ 1: it lies in the simplex")
    if e.name == "norm":
        return b.norm(e.args[0])
    if e.name in ("scale_rows", "scale_columns"):
        d, A = scaling(e)
        return _scaled(d, b.norm(A), b)
    function = b.context.functions.get(e.name)
    if function is not None and function.elementwise and e.rank == 0:
        r = b.range(e)
        return _bound(max(abs(r.lo), abs(r.hi)))
    return _bound(math.inf, f"{magnitude_sign(e)} is not bounded")


def scaling(e: Expr) -> tuple[Expr, Expr]:
    """(d, A) of scale_rows(d, A) and scale_columns(A, d)."""
    x, y = e.args
    return (x, y) if e.name == "scale_rows" else (y, x)


def _scaled(d: Expr, A: Bound, b: Bounds) -> Bound:
    """‖diag(d) A‖ ≤ max |dᵢ| ‖A‖."""
    size = b.magnitude(d)
    what = f"|{show(d)}| ≤ {number(size)} entry by entry" if math.isfinite(size) else f"|{show(d)}| is not bounded"
    return _product(_bound(size, what), A)


def _best(first: Bound, *others: Bound) -> Bound:
    for other in others:
        if other.value < first.value:
            first = other
    return first


def _sum(x: Bound, y: Bound) -> Bound:
    return _bound(x.value + y.value, *_reasons(x, y))


def _product(x: Bound, y: Bound) -> Bound:
    return _bound(iv.times(x.value, y.value), *_reasons(x, y))


def _reasons(x: Bound, y: Bound) -> tuple[str, ...]:
    """Both proofs; of a failure only what failed."""
    failed = [r for r in (x, y) if not r.proved]
    return tuple(dict.fromkeys(line for r in (failed or [x, y]) for line in r.because))


def _ratio(e: Expr, b: Bounds, numerator: Bound) -> Bound:
    """A / s with |s| bounded away from 0, and c A / ‖A‖."""
    top, bottom = e.args
    if bottom.op == "call" and bottom.name == "norm":
        factor, rest = 1.0, top
        while rest.op == "mul" and rest is not bottom.args[0]:
            scalar, other = rest.args if rest.args[0].rank == 0 else rest.args[::-1]
            if scalar.rank:
                break
            factor, rest = factor * b.magnitude(scalar), other
        if rest is bottom.args[0]:
            return _bound(factor, f"{magnitude_sign(e)} ≤ {number(factor)}: it is divided by its own norm")
    least = iv.absolute(b.range(bottom)).lo
    if least <= 0.0:
        return _bound(0.0 if numerator.value == 0.0 else math.inf, f"{show(bottom)} is not bounded away from 0")
    return _bound(numerator.value / least, *numerator.because)

"""Interval arithmetic on `ground.facts.Interval`; 0 · ∞ is 0, since an infinite end is never attained."""

from __future__ import annotations

import math

from implicitdsl.ground.facts import Interval

EVERYTHING = Interval()


def point(value: float) -> Interval:
    return Interval(value, value)


def times(a: float, b: float) -> float:
    """a · b with 0 · ∞ = 0."""
    return 0.0 if a == 0.0 or b == 0.0 else a * b


def neg(a: Interval) -> Interval:
    return Interval(-a.hi, -a.lo)


def add(a: Interval, b: Interval) -> Interval:
    return Interval(a.lo + b.lo, a.hi + b.hi)


def mul(a: Interval, b: Interval) -> Interval:
    ends = (times(a.lo, b.lo), times(a.lo, b.hi), times(a.hi, b.lo), times(a.hi, b.hi))
    return Interval(min(ends), max(ends))


def div(a: Interval, b: Interval) -> Interval:
    if b.lo <= 0.0 <= b.hi:
        if b.lo == 0.0 and b.hi > 0.0:
            return mul(a, Interval(1.0 / b.hi, math.inf))
        return EVERYTHING
    return mul(a, Interval(1.0 / b.hi, 1.0 / b.lo))


def absolute(a: Interval) -> Interval:
    lo = 0.0 if a.lo <= 0.0 <= a.hi else min(abs(a.lo), abs(a.hi))
    return Interval(lo, max(abs(a.lo), abs(a.hi)))


def power(a: Interval, exponent: float) -> Interval:
    """a ** exponent for a constant exponent."""
    if exponent == 0.0:
        return point(1.0)
    if exponent < 0.0:
        return div(point(1.0), power(a, -exponent))
    if not exponent.is_integer():
        base = Interval(max(a.lo, 0.0), max(a.hi, 0.0))
        return Interval(base.lo**exponent, base.hi**exponent)
    if exponent % 2 == 0:
        size = absolute(a)
        return Interval(_raise(size.lo, exponent), _raise(size.hi, exponent))
    return Interval(_raise(a.lo, exponent), _raise(a.hi, exponent))


def _raise(base: float, exponent: float) -> float:
    try:
        return base**exponent
    except OverflowError:
        return math.inf if base > 0 or exponent % 2 == 0 else -math.inf


def hull(a: Interval, b: Interval) -> Interval:
    return Interval(min(a.lo, b.lo), max(a.hi, b.hi))


def scale(a: Interval, count: int | None) -> Interval:
    """The sum of `count` numbers of a (None: an unknown count)."""
    if count is not None:
        return mul(a, point(float(count)))
    return Interval(0.0 if a.lo >= 0.0 else -math.inf, 0.0 if a.hi <= 0.0 else math.inf)


def show_interval(a: Interval) -> str:
    """`[0, ∞]`."""
    return f"[{_end(a.lo)}, {_end(a.hi)}]"


def _end(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else "∞" if value > 0 else "-∞"


def widen(a: Interval) -> Interval:
    """Two units in the last place outwards: libm rounds, a proof must not."""
    lo = math.nextafter(math.nextafter(a.lo, -math.inf), -math.inf)
    hi = math.nextafter(math.nextafter(a.hi, math.inf), math.inf)
    return Interval(lo, hi)

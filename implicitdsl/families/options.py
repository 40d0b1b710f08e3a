"""Options that methods of several families share."""

from __future__ import annotations

from implicitdsl.ground.methods import Option

TOL = Option("tol", "float", None, "relative tolerance; default 1e-6 in float32, 1e-12 in float64", lo=0.0, above=True)


def max_iter(default: int) -> Option:
    """The largest number of iterations."""
    return Option("max_iter", "int", default, "iterations after which a sample is given up", lo=1)


def count(name: str, default: int, doc: str, lo: int = 1) -> Option:
    """A whole number from `lo` on."""
    return Option(name, "int", default, doc, lo=lo)


def fraction(name: str, default: float, doc: str) -> Option:
    """A number in (0, 1]."""
    return Option(name, "float", default, doc, lo=0.0, hi=1.0, above=True)


def positive(name: str, default: float | None, doc: str) -> Option:
    """A number above 0."""
    return Option(name, "float", default, doc, lo=0.0, above=True)

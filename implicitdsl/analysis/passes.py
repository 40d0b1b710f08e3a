"""The passes of `calculus` that facts may rest on, handed down because rooms of one floor do not know each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from implicitdsl.ir.function import Functions
from implicitdsl.ir.nodes import Expr


class Calculus(NamedTuple):
    """JVP, VJP and simplification of expressions, the latter also where fractions are of derivatives."""

    linearize: Callable[[Expr, Mapping[Expr, Expr], Functions], Expr]
    vjp: Callable[[Expr, Expr, Sequence[Expr], Functions], tuple[Expr, ...]]
    simplify: Callable[[Expr], Expr]
    cancel: Callable[[Expr], Expr]

"""Mathematics in LaTeX. Names and numbers are printed by SymPy, which knows Greek letters and subscripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import sympy

from implicitdsl.ir.dims import Dim
from implicitdsl.ir.function import Functions
from implicitdsl.ir.nodes import Role

from .notation import ATOM, PRODUCT, SUM, Notation, Printed
from .symbols import GREEK, cotangent_of

_latex: Any = sympy.latex
_SUBSCRIPTS = {ord(c): f"_{i}" for i, c in enumerate("₀₁₂₃₄₅₆₇₈₉")}


@final
class Latex(Notation):
    hadamard = r" \circ "
    times = r" \, "

    def __init__(self, functions: Functions) -> None:
        self.names: Mapping[str, str | None] = {name: f.latex for name, f in functions.items()}

    def symbol(self, name: str, role: Role) -> str:
        under = cotangent_of(name)
        if under is not None:
            return rf"\overline{{{self.symbol(under, role)}}}"
        plain = "".join(GREEK.get(c, c) for c in name.split("~")[0].translate(_SUBSCRIPTS))
        return str(_latex(sympy.Symbol(plain)))

    def number(self, value: float) -> Printed:
        if value.is_integer() and abs(value) < 1e15:
            exact: Any = sympy.Integer(int(value))
        else:
            exact = sympy.nsimplify(value, rational=True) if abs(value) in (0.5, 0.25, 0.75) else sympy.Float(value, 6)
        return Printed(str(_latex(exact)), PRODUCT if value < 0 else ATOM, value < 0)

    def dim(self, value: Dim) -> str:
        total: Any = sympy.Integer(0)
        for names, coefficient in value.terms:
            term: Any = sympy.Integer(coefficient)
            for name in names:
                term = term * sympy.Symbol(name.split("~")[0])
            total = total + term
        return str(_latex(total))

    def parens(self, text: str) -> str:
        return rf"\left({text}\right)"

    def function(self, name: str) -> str:
        base = name.rstrip("'")
        known = self.names.get(base)
        primes = name[len(base) :]
        if known is None:
            escaped = base.replace("_", r"\_")
            known = self.symbol(base, Role.BOUND) if len(base) == 1 else rf"\mathrm{{{escaped}}}"
        known = known if known != r"\sqrt" else r"\mathrm{sqrt}"
        return known.replace(r"\operatorname", r"\mathrm") + primes

    def power(self, base: str, exponent: Printed) -> str:
        return f"{base}^{{{exponent.text}}}"

    def transpose(self, text: str) -> str:
        return rf"{text}^{{\top}}" if not text.endswith("}") or text.startswith(r"\left(") else rf"{{{text}}}^{{\top}}"

    def quotient(self, top: Printed, bottom: Printed) -> Printed:
        return Printed(rf"\frac{{{top.text}}}{{{bottom.text}}}", PRODUCT)

    def norm(self, text: str, kind: str) -> str:
        if kind == "abs":
            return rf"\left|{text}\right|"
        mark = {"norm_1": "1", "norm_inf": r"\infty"}.get(kind, "2")
        return rf"\left\Vert {text}\right\Vert_{{{mark}}}"

    def indicator(self, text: str) -> str:
        return rf"\mathbf{{1}}\left\{{{text} > 0\right\}}"

    def index(self, text: str, items: str) -> str:
        return rf"{{{text}}}_{{[{items}]}}"

    def loop(self, summed: bool, body: Printed, name: str, lo: str, hi: str) -> Printed:
        if summed:
            return Printed(rf"\sum_{{{name}={lo}}}^{{{hi}}} {self.within(body, PRODUCT)}", SUM)
        return Printed(rf"\left[{body.text}\right]_{{{name}={lo}}}^{{{hi}}}")

    def array(self, rows: Sequence[str]) -> str:
        return rf"\left[{', '.join(rows)}\right]"

    def derivative(self, text: str, order: int, variable: str) -> Printed:
        power = f"^{{{order}}}" if order > 1 else ""
        return Printed(rf"\frac{{d{power} {text}}}{{d {variable}{power}}}")

    def operator(self, name: str, variable: str) -> str:
        sign = {"grad": r"\nabla", "jac": r"\partial", "divergence": r"\mathrm{div}", "hess": r"\nabla^{2}"}[name]
        return f"{sign}_{{{variable}}}"

    def pulled(self, function: str, variable: str, arguments: str, cotangent: str) -> Printed:
        name = self.function(function)
        slope = rf"\frac{{\partial {name}}}{{\partial {variable}}}\left({arguments}\right)"
        return Printed(rf"{slope}^{{\top}} {cotangent}", PRODUCT)

    def fixed(self, name: str) -> str:
        return name

"""Mathematics in plain text: `u = w + Wᵀ(tanh'(W z + x) ∘ u)`."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import final

from implicitdsl.ir.dims import Dim
from implicitdsl.ir.nodes import Role
from implicitdsl.ir.printer import show_number

from .notation import ATOM, HADAMARD, POWER, PRODUCT, SUM, Notation, Printed
from .symbols import BAR, cotangent_of

_SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def superscript(number: int) -> str:
    return str(number).translate(_SUPERSCRIPTS)


@final
class Text(Notation):
    hadamard = " ∘ "
    times = " "

    def symbol(self, name: str, role: Role) -> str:
        barred = cotangent_of(name)
        if barred is None:
            return name.split("~")[0]
        if len(barred) == 1 or barred[1:].isdigit():
            return unicodedata.normalize("NFC", barred[0] + BAR) + barred[1:]
        return f"∂L/∂{barred}"

    def number(self, value: float) -> Printed:
        text = show_number(abs(value)).text
        if len(text) > 8 and "/" not in text:
            text = f"{abs(value):.6g}"
        level = PRODUCT if "/" in text else ATOM
        return Printed("-" + text, PRODUCT, negative=True) if value < 0 else Printed(text, level)

    def dim(self, value: Dim) -> str:
        return show_dim(value)

    def parens(self, text: str) -> str:
        return f"({text})"

    def function(self, name: str) -> str:
        return name

    def power(self, base: str, exponent: Printed) -> str:
        if exponent.text.removeprefix("-").isdigit():
            return base + superscript(int(exponent.text))
        return f"{base}^{self.within(exponent, ATOM)}"

    def transpose(self, text: str) -> str:
        return text + "ᵀ"

    def quotient(self, top: Printed, bottom: Printed) -> Printed:
        return Printed(f"{self.within(top, PRODUCT)} / {self.within(bottom, POWER)}", HADAMARD)

    def norm(self, text: str, kind: str) -> str:
        return f"|{text}|" if kind == "abs" else f"‖{text}‖" + {"norm_1": "₁", "norm_inf": "∞"}.get(kind, "₂")

    def indicator(self, text: str) -> str:
        return f"1{{{text} > 0}}"

    def index(self, text: str, items: str) -> str:
        return f"{text}[{items}]"

    def loop(self, summed: bool, body: Printed, name: str, lo: str, hi: str) -> Printed:
        hi = hi.replace(" - ", "-").replace(" + ", "+")
        if summed:
            return Printed(f"Σ_{{{name}={lo}…{hi}}} {self.within(body, PRODUCT)}", SUM)
        return Printed(f"[{body.text}]_{{{name}={lo}…{hi}}}")

    def array(self, rows: Sequence[str]) -> str:
        return f"[{', '.join(rows)}]"

    def derivative(self, text: str, order: int, variable: str) -> Printed:
        power = superscript(order) if order > 1 else ""
        return Printed(f"d{power}{text}/d{variable}{power}")

    def operator(self, name: str, variable: str) -> str:
        return {"grad": "∇_", "jac": "∂_", "divergence": "div_", "hess": "∇²_"}[name] + variable

    def pulled(self, function: str, variable: str, arguments: str, cotangent: str) -> Printed:
        return Printed(f"(∂{function}/∂{variable})({arguments})ᵀ {cotangent}", PRODUCT)

    def fixed(self, name: str) -> str:
        return name


def show_dim(dim: Dim) -> str:
    """`n² + 2 n m`."""
    if not dim.terms:
        return "0"
    parts: list[str] = []
    for names, coefficient in sorted(dim.terms, key=lambda t: (-len(t[0]), t[0])):
        counts = {name: names.count(name) for name in names}
        powers = [name.split("~")[0] + (superscript(k) if k > 1 else "") for name, k in counts.items()]
        size = abs(coefficient)
        body = " ".join(powers if size == 1 and powers else [str(size), *powers])
        sign = "-" if coefficient < 0 else "+"
        parts.append(f" {sign} {body}" if parts else body if sign == "+" else f"-{body}")
    return "".join(parts)


TEXT = Text()

"""Pieces of Python text: values with their precedence, names, numbers and dimensions."""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from implicitdsl.ir.dims import Dim

ADD, MUL, NEG, POW, ATOM = 1, 2, 3, 4, 5
"""Precedence levels; a higher one binds tighter."""


@dataclass(frozen=True, slots=True)
class Value:
    """An expression as text. `number`: a Python number, no tensor. `axes`: index names whose axes precede its core."""

    text: str
    level: int = ATOM
    number: bool = False
    axes: tuple[str, ...] = ()

    def at(self, level: int) -> str:
        """The text, in parentheses unless it binds at least as tightly as `level`."""
        return self.text if self.level >= level else f"({self.text})"


class Names:
    """Python identifiers, each given once."""

    def __init__(self) -> None:
        self._taken = {"torch", "ops"}
        self._temporaries = 0

    def fresh(self, wanted: str) -> str:
        """`wanted`, made an identifier, or with a suffix where it is taken."""
        base = re.sub(r"\W", "_", wanted.lstrip("~")) or "v"
        if base[0].isdigit():
            base = "v" + base
        if keyword.iskeyword(base):
            base += "_"
        name, k = base, 1
        while name in self._taken:
            k += 1
            name = f"{base}_{k}"
        self._taken.add(name)
        return name

    def temporary(self) -> str:
        """The next of `t0`, `t1`, …."""
        while True:
            name = f"t{self._temporaries}"
            self._temporaries += 1
            if name not in self._taken:
                self._taken.add(name)
                return name


def number(value: float) -> Value:
    """A Python literal: integral values without a point."""
    if math.isnan(value):
        return Value("torch.nan", number=True)
    if math.isinf(value):
        return Value("torch.inf", number=True) if value > 0 else Value("-torch.inf", NEG, number=True)
    text = str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return Value(text, NEG if value < 0 else ATOM, number=True)


def dim_value(d: Dim, name: Callable[[str], str]) -> Value:
    """A dimension as Python text; `name` spells a name that is no number."""
    if d.value is not None:
        return number(float(d.value))
    text, level = "", ADD
    for monomial, c in sorted(d.terms, key=lambda t: (-len(t[0]), t[0])):
        factors = [name(n) for n in monomial]
        if abs(c) != 1 or not factors:
            factors.insert(0, str(abs(c)))
        part = " * ".join(factors)
        text += (" - " if c < 0 else " + ") + part if text else ("-" if c < 0 else "") + part
        level = ATOM if len(factors) == 1 and c > 0 else MUL
    return Value(text, level if len(d.terms) == 1 else ADD, number=True)


def is_call(text: str) -> bool:
    """Whether a spelling is one call or attribute chain, so that it needs no parentheses."""
    if not re.match(r"^[A-Za-z_][\w.]*\(", text) or not text.endswith(")"):
        return False
    depth = 0
    for i, c in enumerate(text):
        depth += (c in "([") - (c in ")]")
        if depth == 0 and c == ")" and i < len(text) - 1:
            return False
    return True


def fill_spelling(spelling: str, arguments: list[Value]) -> Value:
    """A format string over `{0}`, `{1}`, … with arguments; those that stand alone inside a call get no parentheses."""

    def put(match: re.Match[str]) -> str:
        before, after = spelling[: match.start()].rstrip(), spelling[match.end() :].lstrip()
        alone = before.endswith(("(", ",")) and after[:1] in (")", ",")
        return arguments[int(match.group(1))].at(ADD if alone else ATOM)

    text = re.sub(r"\{(\d+)\}", put, spelling)
    return Value(text, ATOM if is_call(text) else 0)


def tuple_text(texts: Sequence[str]) -> str:
    """A Python tuple of texts."""
    return f"({texts[0]},)" if len(texts) == 1 else f"({', '.join(texts)})"

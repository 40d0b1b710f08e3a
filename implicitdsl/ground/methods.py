"""Descriptors by which solvers and families introduce themselves without importing what runs them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from implicitdsl.ground.records import dataclass


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a method: `kind` is "float", "int", "bool", "name" or "times" (expression of a number or a list);
    values must lie in [lo, hi] (open at lo if `above`), names among `choices`. It does not stand beside those in
    `without`, and is at most that named `at_most`.
    """

    name: str
    kind: str
    default: object
    doc: str
    lo: float | None = None
    hi: float | None = None
    above: bool = False
    choices: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    at_most: str | None = None


Verdict = tuple[bool, str] | tuple[bool, str, tuple[tuple[str, object], ...]]


@dataclass(frozen=True)
class Method:
    """A solver or a backward rule, as `using` names it.

    `suits(facts, sizes)` gives (True, reason), with the options to take as a third, or (False, what is missing);
    facts are by name as in `ground.facts.Fact`. `takes_over` likewise says whether it serves as a last resort, after
    all that suit.
    `code` is "module:attribute", imported only when a layer is lowered.
    """

    name: str
    sentence: str  # "root", "ode", "optimum", …
    role: str  # "forward" or "backward"
    options: tuple[Option, ...]
    doc: str
    code: str | None = None
    suits: Callable[[Mapping[str, Any], Mapping[str, int | None]], Verdict] | None = None
    takes_over: Callable[[Mapping[str, Any], Mapping[str, int | None]], Verdict] | None = None

    def load(self) -> Any:
        """Import what runs it."""
        assert self.code is not None
        module, _, attribute = self.code.partition(":")
        return getattr(importlib.import_module(module), attribute)


@dataclass(frozen=True)
class Family:
    """A sentence and its methods, in order of preference. `lower` is "module:function", or None while not lowered
    yet (IMP910).

    `gap(block, facts)` says what in a block is not lowered yet, None where all of it is; facts are by name.
    """

    sentence: str
    methods: tuple[Method, ...]
    lower: str | None
    title: str
    gap: Callable[[Any, Mapping[str, Any]], str | None] | None = None

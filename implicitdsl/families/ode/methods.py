"""Integrators and backward rules of `find z(t)`: their names, options and conditions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from implicitdsl.analysis.evolution import KINKS
from implicitdsl.families.options import count, positive
from implicitdsl.ground.methods import Family, Method, Option

from . import rungs

SENTENCE = "ode"

FIXED = (
    Option("dt", "float", None, "step; not together with `steps`", lo=0.0, above=True, without=("steps",)),
    Option("steps", "int", None, "number of equal steps, 100 where `dt` is not given either", lo=1, without=("dt",)),
    Option(KINKS, "times", None, "times at which the right-hand side jumps or has a kink: steps end there"),
)
ADAPTIVE = (
    positive("rtol", None, "relative tolerance; default 1e-5 in float32, 1e-6 in float64"),
    positive("atol", None, "absolute tolerance; default 1e-7 in float32, 1e-9 in float64"),
    positive("dt0", None, "first step; default from the right-hand side"),
    Option(
        "min_step", "float", None, "a sample that needs a smaller step fails", lo=0.0, above=True, at_most="max_step"
    ),
    positive("max_step", None, "no step is larger"),
    count("max_steps", 10000, "steps after which a sample is given up"),
    Option("controller", "name", "i", "step controller", choices=("i", "pi", "pid")),
    *FIXED,
)
FIXED_NAMES = {
    "euler": "explicit Euler, order 1",
    "midpoint": "explicit midpoint, order 2",
    "heun": "Heun, order 2",
    "rk4": "the classical Runge–Kutta method, order 4",
    "implicit_euler": "implicit Euler, order 1, L-stable",
    "trapezoid": "implicit trapezoidal rule, order 2, A-stable",
    "leapfrog": "Störmer–Verlet for separable Hamiltonians, order 2, symplectic",
    "yoshida4": "Yoshida's composition of leapfrogs, order 4, symplectic",
}
ADAPTIVE_NAMES = {
    "dopri5": "Dormand–Prince, order 5",
    "rodas5p": "Rosenbrock, order 5, for stiff equations",
    "tsit5": "Tsitouras, order 5",
    "dopri8": "Dormand–Prince, order 8",
    "bosh3": "Bogacki–Shampine, order 3",
    "kvaerno5": "Kværnø, diagonally implicit, order 5, for stiff equations",
}
SUITS = {"dopri5": rungs.dopri5, "rodas5p": rungs.rodas5p}

BACKWARD = (
    Method(
        "checkpointed",
        SENTENCE,
        "backward",
        (Option("budget", "int", None, "kept states; default all", lo=1),),
        "discrete adjoint over the steps taken",
        suits=rungs.checkpointed,
    ),
    Method("backsolve", SENTENCE, "backward", (), "adjoint equation solved backwards in time, no state is kept"),
    Method("unrolled", SENTENCE, "backward", (), "differentiate through every step"),
    Method(
        "reversible",
        SENTENCE,
        "backward",
        (),
        "discrete adjoint over steps that are undone one by one: none of their states is kept",
    ),
)

SYMMETRIC = ("leapfrog", "yoshida4", "trapezoid")
"""Methods whose steps a step back undoes."""
EXPLICIT = ("euler", "midpoint", "heun", "rk4", "bosh3", "dopri5", "tsit5", "dopri8")


def gap(block: Any, facts: Mapping[str, Any]) -> str | None:
    """What of a block is not lowered yet."""
    form = facts["evolution"]
    if form.value is None:
        return form.proof[0]
    forward, backward = block.wishes.forward, block.wishes.backward
    needed = {"expm": ("linear", "a linear equation"), "leapfrog": SEPARABLE, "yoshida4": SEPARABLE}
    if forward is not None and forward.method in needed:
        name, what = needed[forward.method]
        if facts[name].value is None:
            return f"{forward.method} of what is not {what}: {facts[name].proof[0]}"
        if form.value.events and forward.method == "expm":
            return "events of a matrix exponential"
    if backward is None or backward.method not in ("backsolve", "reversible"):
        return None
    linear = facts["linear"].value is not None and not form.value.events
    method = forward.method if forward is not None else ("expm" if linear else "dopri5")
    if backward.method == "reversible" and method not in SYMMETRIC:
        return f"`backward reversible` of `{method}`: a step back undoes those of {', '.join(SYMMETRIC)}"
    if backward.method == "backsolve" and method not in EXPLICIT:
        return f"`backward backsolve` of `{method}`: it takes explicit methods, such as `using dopri5`"
    return None


SEPARABLE = ("separable", "a separable equation")

ODE = Family(
    SENTENCE,
    (
        Method("expm", SENTENCE, "forward", (), "matrix exponential of a linear autonomous equation", suits=rungs.expm),
        *(
            Method(name, SENTENCE, "forward", ADAPTIVE, doc, suits=SUITS.get(name))
            for name, doc in ADAPTIVE_NAMES.items()
        ),
        *(Method(name, SENTENCE, "forward", FIXED, doc) for name, doc in FIXED_NAMES.items()),
        *BACKWARD,
    ),
    lower="implicitdsl.families.ode.lower:lower",
    title="differential equations",
    gap=gap,
)

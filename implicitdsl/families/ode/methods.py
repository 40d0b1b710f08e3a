"""Integrators and backward rules of `find z(t)`: their names and options. No code yet: the sentence is not lowered."""

from __future__ import annotations

from implicitdsl.families.options import count, positive
from implicitdsl.ground.methods import Family, Method, Option

SENTENCE = "ode"

FIXED = (
    positive("dt", None, "step; not together with `steps`"),
    Option("steps", "int", None, "number of equal steps; not together with `dt`", lo=1),
)
ADAPTIVE = (
    positive("rtol", None, "relative tolerance; default 1e-5 in float32, 1e-6 in float64"),
    positive("atol", None, "absolute tolerance; default 1e-7 in float32, 1e-9 in float64"),
    positive("dt0", None, "first step; default from the right-hand side"),
    positive("min_step", None, "a smaller step fails"),
    count("max_steps", 10000, "steps after which a sample is given up"),
    Option("controller", "name", "pid", "step controller: pid, pi or i"),
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
    "tsit5": "Tsitouras, order 5",
    "dopri8": "Dormand–Prince, order 8",
    "bosh3": "Bogacki–Shampine, order 3",
    "kvaerno5": "Kværnø, diagonally implicit, order 5, for stiff equations",
    "rodas5p": "Rosenbrock, order 5, for stiff equations",
}
BACKWARD = (
    Method(
        "checkpointed",
        SENTENCE,
        "backward",
        (Option("budget", "int", None, "kept states; default all", lo=1),),
        "discrete adjoint over the steps taken",
    ),
    Method("backsolve", SENTENCE, "backward", (), "adjoint equation solved backwards in time"),
    Method("unrolled", SENTENCE, "backward", (), "differentiate through every step"),
    Method("reversible", SENTENCE, "backward", (), "steps undone exactly, memory independent of their number"),
)

ODE = Family(
    SENTENCE,
    (
        *(Method(name, SENTENCE, "forward", ADAPTIVE, doc) for name, doc in ADAPTIVE_NAMES.items()),
        *(Method(name, SENTENCE, "forward", FIXED, doc) for name, doc in FIXED_NAMES.items()),
        Method("expm", SENTENCE, "forward", (), "matrix exponential of a linear autonomous equation"),
        *BACKWARD,
    ),
    lower=None,
    title="differential equations",
)

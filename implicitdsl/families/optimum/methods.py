"""Solvers and backward rules of `argmin`, in order of preference. Torch-free: `code` is imported at lowering."""

from __future__ import annotations

from implicitdsl.families.options import max_iter, positive
from implicitdsl.ground.methods import Family, Method, Option

from . import rungs

SENTENCE = "optimum"

TOL = Option("tol", "float", None, "relative tolerance; default 1e-5 in float32, 1e-9 in float64", lo=0.0, above=True)


def _forward(name: str, doc: str, suits: object, *options: Option, code: str | None = None) -> Method:
    where = None if code is None else f"implicitdsl.solvers.optimum.{code}"
    return Method(name, SENTENCE, "forward", (TOL, *options), doc, where, suits)  # pyright: ignore[reportArgumentType]


FORWARD = (
    _forward(
        "projection",
        "separable problems with bounds and at most one coupling row: closed form, by a sort of breakpoints",
        rungs.projection,
        max_iter(1),
    ),
    _forward(
        "riccati",
        "quadratic problems over a horizon: a recursion over the stages, within an interior point for inequalities",
        rungs.riccati,
        max_iter(100),
        code="riccati:Riccati",
    ),
    _forward("direct", "one factorisation of an equality-constrained quadratic problem", rungs.direct, max_iter(1)),
    _forward(
        "ipm",
        "quadratic problems: pivoting on the dual where the objective is strictly convex, else interior point",
        rungs.ipm,
        max_iter(100),
        code="pivoting:Dense",
    ),
    _forward(
        "conic",
        "problems over second-order and semidefinite cones, by batched interior points or Clarabel",
        rungs.conic,
        max_iter(200),
        Option("solver", "name", None, "clarabel, also where a batched method would be faster"),
        code="conic:Conic",
    ),
    _forward(
        "nlp",
        "Newton's method, interior point with inequalities: smooth convex problems, others to a local minimum",
        rungs.nlp,
        max_iter(200),
        Option("method", "name", None, "newton, which is the default"),
        code="smooth:Smooth",
    ),
)

BACKWARD = (
    Method(
        "kkt", SENTENCE, "backward", (), "differentiates the optimality conditions on the active set", None, rungs.kkt
    ),
    Method(
        "smoothed",
        SENTENCE,
        "backward",
        (positive("mu", 1e-2, "barrier parameter"),),
        "differentiates the barrier problem",
    ),
)

OPTIMUM = Family(
    SENTENCE,
    (*FORWARD, *BACKWARD),
    "implicitdsl.families.optimum.lower:lower",
    "optimisation problems",
    rungs.gap,
)

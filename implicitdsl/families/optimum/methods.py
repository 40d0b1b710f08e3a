"""Solvers and backward rules of `argmin`: their names and options. No code yet: the sentence is not lowered."""

from __future__ import annotations

from implicitdsl.families.options import TOL, max_iter, positive
from implicitdsl.ground.methods import Family, Method, Option

SENTENCE = "optimum"

OPTIMUM = Family(
    SENTENCE,
    (
        Method("ipm", SENTENCE, "forward", (TOL, max_iter(100)), "interior point for quadratic problems"),
        Method("direct", SENTENCE, "forward", (TOL,), "one factorisation of an equality-constrained quadratic problem"),
        Method("projection", SENTENCE, "forward", (TOL,), "a projection in closed form"),
        Method("riccati", SENTENCE, "forward", (TOL, max_iter(100)), "block-banded problems over a horizon"),
        Method(
            "conic",
            SENTENCE,
            "forward",
            (TOL, max_iter(10000), Option("solver", "name", None, "the conic solver's name")),
            "convex problems over cones",
        ),
        Method(
            "nlp",
            SENTENCE,
            "forward",
            (TOL, max_iter(500), Option("method", "name", None, "newton, sqp or augmented_lagrangian")),
            "non-convex problems, to a local minimum",
        ),
        Method("kkt", SENTENCE, "backward", (), "differentiates the optimality conditions on the active set"),
        Method(
            "smoothed",
            SENTENCE,
            "backward",
            (positive("mu", 1e-2, "barrier parameter"),),
            "differentiates the barrier problem",
        ),
    ),
    lower=None,
    title="optimisation problems",
)

"""Root solvers and backward rules of `find`, in order of preference. Torch-free: `code` is imported at lowering."""

from __future__ import annotations

from implicitdsl.families.options import TOL, count, fraction, max_iter, positive
from implicitdsl.ground.methods import Family, Method, Option

from . import rungs

SENTENCE = "root"


def _forward(
    name: str, code: str, doc: str, suits: object, *options: Option, takes_over: object | None = None
) -> Method:
    where = f"implicitdsl.solvers.{code}"
    return Method(name, SENTENCE, "forward", (TOL, *options), doc, where, suits, takes_over)  # pyright: ignore[reportArgumentType]


FORWARD = (
    _forward("direct", "direct:Direct", "one factorisation of an affine equation", rungs.direct, max_iter(1)),
    _forward(
        "schur",
        "schur:Schur",
        "Schur forms of the two matrices beside a matrix unknown",
        rungs.schur,
        max_iter(1),
    ),
    _forward(
        "bisection",
        "bisection:Bisection",
        "halves an interval with a sign change, entry by entry",
        rungs.bisection,
        max_iter(200),
        takes_over=rungs.bracketing,
    ),
    _forward(
        "picard",
        "picard:Picard",
        "fixed-point iteration z ← G(z)",
        rungs.picard,
        max_iter(5000),
        fraction("damping", 1.0, "z ← z + damping (G(z) − z)"),
    ),
    _forward(
        "peaceman_rachford",
        "peaceman_rachford:PeacemanRachford",
        "operator splitting with one kept factorisation, for monotone equilibria",
        rungs.peaceman_rachford,
        max_iter(1000),
        positive("alpha", 1.0, "step of the splitting"),
    ),
    _forward(
        "newton",
        "newton:Newton",
        "Newton steps with the closed-form Jacobian",
        rungs.newton,
        max_iter(100),
        Option("line_search", "bool", True, "halve a step until the residual falls"),
    ),
    _forward(
        "levenberg_marquardt",
        "levenberg_marquardt:LevenbergMarquardt",
        "damped Gauss–Newton steps",
        rungs.levenberg_marquardt,
        max_iter(200),
    ),
    _forward(
        "anderson",
        "anderson:Anderson",
        "accelerated fixed-point iteration over the last `depth` steps",
        rungs.anderson,
        max_iter(1000),
        count("depth", 5, "remembered steps"),
        fraction("damping", 1.0, "mixing with the plain step"),
        Option("ridge", "float", 1e-10, "relative regularisation of the least squares", lo=0.0),
    ),
    _forward(
        "broyden",
        "broyden:Broyden",
        "quasi-Newton steps with a limited-memory inverse",
        rungs.broyden,
        max_iter(1000),
        count("memory", 20, "remembered rank-one updates"),
    ),
    _forward(
        "newton_krylov",
        "newton_krylov:NewtonKrylov",
        "inexact Newton steps by GMRES, without a matrix",
        rungs.newton_krylov,
        max_iter(100),
    ),
    _forward("chord", "chord:Chord", "Newton steps with the Jacobian of the first iterate", None, max_iter(500)),
)


def _backward(name: str, doc: str, suits: object, *options: Option) -> Method:
    return Method(name, SENTENCE, "backward", options, doc, None, suits)  # pyright: ignore[reportArgumentType]


BACKWARD = (
    _backward("implicit", "the implicit function theorem with an LU of the Jacobian", rungs.implicit),
    _backward(
        "gmres",
        "the implicit function theorem, solved by GMRES",
        rungs.gmres,
        TOL,
        max_iter(200),
        count("restart", 20, "Krylov vectors kept before a restart"),
    ),
    _backward("bicgstab", "the implicit function theorem, solved by BiCGStab", None, TOL, max_iter(200)),
    _backward("neumann", "a truncated Neumann series of the inverse", None, count("terms", 20, "terms of the series")),
    _backward(
        "phantom",
        "differentiates a few damped steps from the solution (Geng et al. 2021); inexact",
        None,
        count("steps", 5, "differentiated steps"),
        fraction("damping", 0.5, "damping of each step"),
    ),
    _backward("jfb", "Jacobian-free backward: the gradient of one step (Fung et al. 2021); inexact", None),
    _backward("unrolled", "differentiates every step of a fixed-point iteration", None, count("steps", 50, "steps")),
)

EQUILIBRIUM = Family(
    SENTENCE, (*FORWARD, *BACKWARD), "implicitdsl.families.equilibrium.lower:lower", "fixed points and roots"
)

"""How a solve of one sample ended. The integer travels in `report.status`, the text is advice."""

from __future__ import annotations

from enum import IntEnum


class Outcome(IntEnum):
    """Status of one sample."""

    CONVERGED = 0
    RUNNING = 1
    MAX_ITERATIONS = 2
    DIVERGED = 3
    NOT_FINITE = 4
    STALLED = 5
    SINGULAR = 6
    OUTSIDE = 7
    NO_SIGN_CHANGE = 8
    STEP_UNDERFLOW = 9
    MAX_STEPS = 10
    STIFF = 11
    INFEASIBLE = 12
    UNBOUNDED = 13

    @property
    def advice(self) -> str:
        return _ADVICE[self]


_ADVICE = {
    Outcome.CONVERGED: "converged",
    Outcome.RUNNING: "still running",
    Outcome.MAX_ITERATIONS: "reached max_iter; raise max_iter, loosen tol, or choose another solver with `using`",
    Outcome.DIVERGED: "iterates grow without bound; the map may have no solution near the start, try `using "
    "newton` or a contraction such as SpectralBall",
    Outcome.NOT_FINITE: "NaN or infinity in the inputs or the iterates of this sample",
    Outcome.STALLED: "the residual stopped decreasing before the tolerance; there may be no solution, or the start "
    "is poor",
    Outcome.SINGULAR: "the Jacobian is singular at the solution; the implicit derivative does not exist there",
    Outcome.OUTSIDE: "the solution that was found lies outside the unknown's set; there may be none inside, or another "
    "`start` reaches it",
    Outcome.NO_SIGN_CHANGE: "the equation has the same sign at both ends of the interval (without one, as far out as "
    "numbers reach), so nothing tells that a root lies between; widen the unknown's set, or try `using newton` from "
    "another `start`",
    Outcome.STEP_UNDERFLOW: "the steps became too small to go on: the right-hand side is not smooth or not finite "
    "there, the solution may end there, or the equation is stiff; try `using rodas5p` or looser tolerances",
    Outcome.MAX_STEPS: "reached max_steps before the end of the interval; raise max_steps, loosen rtol, or try `using "
    "rodas5p` if the equation is stiff",
    Outcome.STIFF: "the equation is stiff, and stability limits the steps of this method; try `using rodas5p`",
    Outcome.INFEASIBLE: "no point meets all constraints (a combination of them with the returned multipliers is "
    "contradictory); relax one, or add a slack variable with a penalty",
    Outcome.UNBOUNDED: "the objective falls without bound along a direction that the constraints allow; bound the "
    "unknown by a set, or add a term such as `1e-3 ||z||^2`",
}

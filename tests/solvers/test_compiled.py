"""Every root solver under torch.compile without a graph break: the same verdicts, counts and numbers as eagerly."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from root_problems import CIRCLE, SQUARE_ROOT, TANH, contraction, inputs
from torch import Tensor

from implicitdsl.ground.outcomes import Outcome
from implicitdsl.solvers.anderson import Anderson
from implicitdsl.solvers.bisection import Bisection
from implicitdsl.solvers.broyden import Broyden
from implicitdsl.solvers.chord import Chord
from implicitdsl.solvers.levenberg_marquardt import LevenbergMarquardt
from implicitdsl.solvers.loop import Solver
from implicitdsl.solvers.newton import Newton
from implicitdsl.solvers.newton_krylov import NewtonKrylov
from implicitdsl.solvers.peaceman_rachford import PeacemanRachford
from implicitdsl.solvers.picard import Picard
from implicitdsl.solvers.problem import RootProblem

MONOTONE = replace(TANH, proximal=lambda x, w: (w, x), activation=lambda u, alpha: torch.tanh(u))
ENTRIES = replace(SQUARE_ROOT, jacobian=lambda z, a: 2 * z, diagonal=True, lower=0.0)
FIT = RootProblem(residual=lambda z, y: torch.cat((z * z - y, z - 1), 1), ranks=(1,))
"""z² = y and z = 1 at once: least squares."""

SYSTEM = (inputs(5, 6), contraction(6, 0.7))
CASES = [
    (Picard(), TANH, SYSTEM),
    (Anderson(), TANH, SYSTEM),
    (Newton(), TANH, SYSTEM),
    (Chord(), TANH, SYSTEM),
    (NewtonKrylov(), TANH, SYSTEM),
    (Broyden(), TANH, SYSTEM),
    (LevenbergMarquardt(), TANH, SYSTEM),
    (LevenbergMarquardt(), ENTRIES, (inputs(5, 6).abs() + 0.1,)),
    (LevenbergMarquardt(), FIT, (inputs(5, 3),)),
    (LevenbergMarquardt(), CIRCLE, (inputs(5, 1).tanh(),)),
    (Bisection(), ENTRIES, (inputs(5, 6).abs() + 0.1,)),
    (PeacemanRachford(), MONOTONE, SYSTEM),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "solver, problem, a", CASES, ids=[f"{type(s).__name__}-{a[0].shape[1]}-{len(a)}" for s, _, a in CASES]
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_compiled_equals_eager(solver: Solver, problem: RootProblem, a: tuple[Tensor, ...]) -> None:
    x = a[0].clone()
    x[2, 0] = torch.nan

    def solve(*a: Tensor) -> tuple[Tensor, ...]:
        return solver.solve(problem, torch.full_like(a[0], 0.5), a)[:4]

    torch.compiler.reset()
    compiled = torch.compile(solve, fullgraph=True, backend="aot_eager")(x, *a[1:])
    eager = solve(x, *a[1:])
    converged, lost = int(Outcome.CONVERGED), int(Outcome.NOT_FINITE)
    assert compiled[1].tolist() == eager[1].tolist() == [converged, converged, lost, converged, converged]
    others = torch.tensor([0, 1, 3, 4])
    assert (compiled[0] - eager[0])[others].abs().max() < 1e-10
    # Picard is tested every seventh step, compiled every fifth, which divides its limit of 5000
    assert (compiled[2] - eager[2])[others].abs().max() <= 6
    assert torch.equal(compiled[3].isfinite(), eager[3].isfinite())


@pytest.mark.parametrize("limit", [7, 10, 12])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_a_compiled_loop_keeps_its_limit(limit: int) -> None:
    def solve(*a: Tensor) -> Tensor:
        return Picard(max_iter=limit).solve(TANH, torch.zeros_like(a[0]), a).iterations

    torch.compiler.reset()
    assert torch.compile(solve, fullgraph=True, backend="eager")(*SYSTEM).tolist() == [limit] * 5

"""Solver × problem with known answers, and the behaviour of the loop: per-row verdicts, freezing, compaction."""

from __future__ import annotations

import pytest
import torch
from root_problems import (
    AFFINE,
    CIRCLE,
    COSINE,
    EXPONENTIAL,
    OPAQUE_TANH,
    SHIFT,
    SQUARE_ROOT,
    TANH,
    contraction,
    inputs,
    unrolled_tanh,
)
from torch import Tensor

from implicitdsl.ground.outcomes import Outcome
from implicitdsl.solvers.anderson import Anderson
from implicitdsl.solvers.bicgstab import BiCGStab
from implicitdsl.solvers.broyden import Broyden
from implicitdsl.solvers.cascade import Cascade
from implicitdsl.solvers.chord import Chord
from implicitdsl.solvers.direct import Direct
from implicitdsl.solvers.gmres import Gmres
from implicitdsl.solvers.levenberg_marquardt import LevenbergMarquardt
from implicitdsl.solvers.loop import Solver
from implicitdsl.solvers.newton import Newton
from implicitdsl.solvers.newton_krylov import NewtonKrylov
from implicitdsl.solvers.picard import Picard
from implicitdsl.solvers.problem import RootProblem
from implicitdsl.solvers.verdict import Solved

F64 = torch.float64
GENERAL = [
    Picard(),
    Picard(damping=0.5),
    Anderson(),
    Anderson(depth=3, damping=0.7),
    Newton(),
    Newton(line_search=False),
    LevenbergMarquardt(),
    Broyden(),
    Broyden(memory=6),
    NewtonKrylov(),
    Chord(),
]
LINEAR = [
    Direct(),
    Newton(),
    Gmres(),
    Gmres(restart=12),
    BiCGStab(),
    LevenbergMarquardt(),
    Broyden(),
    NewtonKrylov(),
    Chord(),
]


def name(x: object) -> str:
    return repr(x) if isinstance(x, Solver) else str(x)


def run(solver: Solver, problem: RootProblem, *a: Tensor, start: Tensor | None = None) -> Solved:
    return solver.solve(problem, torch.zeros_like(a[0]) if start is None else start, a)


def outcomes(solved: Solved) -> list[Outcome]:
    return [Outcome(s) for s in solved.status.tolist()]


@pytest.mark.parametrize("solver", GENERAL, ids=name)
@pytest.mark.parametrize("problem", [TANH, OPAQUE_TANH], ids=["closed", "opaque"])
def test_tanh_system(solver: Solver, problem: RootProblem) -> None:
    x, w = inputs(7, 12), contraction(12, 0.9)
    solved = run(solver, problem, x, w)
    assert outcomes(solved) == [Outcome.CONVERGED] * 7
    assert (solved.z - unrolled_tanh(x, w)).abs().max() < 2e-11
    assert (solved.nfe >= solved.iterations).all()


@pytest.mark.parametrize("solver", GENERAL, ids=name)
def test_float32_reaches_its_tolerance(solver: Solver) -> None:
    x, w = inputs(7, 200), contraction(200, 0.9)
    solved = run(solver, OPAQUE_TANH if isinstance(solver, Picard | Anderson) else TANH, x.float(), w.float())
    assert outcomes(solved) == [Outcome.CONVERGED] * 7
    assert (solved.z - unrolled_tanh(x, w)).norm() < 2e-5 * solved.z.norm()


@pytest.mark.parametrize("solver", LINEAR, ids=name)
@pytest.mark.parametrize("radius", [0.5, 1.5, 20.0])
def test_affine_of_any_spectral_radius(solver: Solver, radius: float) -> None:
    x, w = inputs(4, 10), contraction(10, radius)
    solved = run(solver, AFFINE, x, w)
    exact = torch.linalg.solve(torch.eye(10, dtype=F64) - w, x.T).T
    assert outcomes(solved) == [Outcome.CONVERGED] * 4
    assert (solved.z - exact).norm() < 1e-9 * exact.norm()


PERMUTED = torch.tensor(
    [
        [0, 0, 0, 0, 3, 1],
        [0, 2, 0, 1, 0, 0],
        [1, 0, 4, 0, 0, 0],
        [0, 0, 0, 2, 0, 1],
        [2, 0, 0, 0, 1, 0],
        [0, 1, 0, 0, 0, 3],
    ],
    dtype=F64,
)
SYSTEM = RootProblem(
    residual=lambda z, b: z @ PERMUTED.T - b, jacobian=lambda z, b: PERMUTED, ranks=(1,), affine=True
)  # six linear equations in an order that leaves zeros on the diagonal: quasi-Newton methods fail on such systems


@pytest.mark.parametrize("solver", LINEAR, ids=name)
def test_a_permuted_linear_system(solver: Solver) -> None:
    b = inputs(3, 6)
    solved = run(solver, SYSTEM, b)
    assert outcomes(solved) == [Outcome.CONVERGED] * 3
    assert (solved.z @ PERMUTED.T - b).abs().max() < 1e-11


def test_gmres_turns_with_a_rotation() -> None:
    turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=F64)
    problem = RootProblem(residual=lambda z, b: z @ turn.T - b, jvp=lambda z, v, b: v @ turn.T, ranks=(1,))
    b = inputs(3, 2)
    solved = run(Gmres(), problem, b)
    assert outcomes(solved) == [Outcome.CONVERGED] * 3
    assert (solved.z - b @ turn).abs().max() < 1e-14


@pytest.mark.parametrize("solver", [Newton(), Anderson(), LevenbergMarquardt(), Broyden()], ids=name)
def test_repelling_fixed_point(solver: Solver) -> None:
    a = torch.full((1, 1), 2.5, dtype=F64)
    solved = run(solver, COSINE, a)
    assert outcomes(solved) == [Outcome.CONVERGED]
    assert solved.z.item() == pytest.approx(torch.cos(2.5 * solved.z).item(), abs=1e-12)


@pytest.mark.parametrize("solver", [Newton(), Chord(), NewtonKrylov(), LevenbergMarquardt(), Broyden()], ids=name)
def test_a_singular_start_is_left(solver: Solver) -> None:
    a = torch.tensor([[0.6], [0.8], [0.0], [-0.28]], dtype=F64)
    solved = run(solver, CIRCLE, a)
    assert outcomes(solved) == [Outcome.CONVERGED] * 4
    assert (solved.z.abs() - (1 - a * a).sqrt()).abs().max() < 1e-11


def test_newton_stays_in_its_box() -> None:
    a = torch.tensor([[0.6], [-0.8]], dtype=F64)
    for lower, upper in ((0.0, None), (None, 0.0)):
        problem = RootProblem(residual=CIRCLE.residual, jacobian=CIRCLE.jacobian, ranks=(1,), lower=lower, upper=upper)
        solved = run(Newton(), problem, a, start=torch.zeros_like(a))
        assert outcomes(solved) == [Outcome.CONVERGED] * 2
        assert (solved.z * (1 if lower is not None else -1) > 0).all()


NO_ROOT = [(CIRCLE, 1.5), (SHIFT, 1.0), (EXPONENTIAL, 1.0)]


@pytest.mark.parametrize("problem, a", NO_ROOT, ids=["circle", "shift", "exponential"])
@pytest.mark.parametrize("solver", [*GENERAL[:5], *GENERAL[6:9], Chord()], ids=name)
def test_no_root_is_reported_before_max_iter(solver: Solver, problem: RootProblem, a: float) -> None:
    solved = run(solver, problem, torch.full((1, 1), a, dtype=F64))
    assert outcomes(solved)[0] in (Outcome.STALLED, Outcome.DIVERGED)
    assert solved.iterations.item() < solver.max_iter  # type: ignore[attr-defined]  # every solver here has it


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_a_double_root_is_singular(scale: float) -> None:
    problem = RootProblem(
        residual=lambda z, a: scale * (z * z - a), jacobian=lambda z, a: (2 * scale * z).unsqueeze(2), ranks=(1,)
    )
    a = torch.tensor([[0.0], [2.0]], dtype=F64)
    solved = run(Newton(), problem, a, start=torch.ones_like(a))
    assert outcomes(solved) == [Outcome.SINGULAR, Outcome.CONVERGED]
    assert solved.converged.all()


@pytest.mark.parametrize("solver", [Newton(), Newton(line_search=False), LevenbergMarquardt()], ids=name)
def test_a_badly_scaled_simple_root_is_not_singular(solver: Solver) -> None:
    scale = torch.tensor([1.0, 1e-6, 1e-9], dtype=F64)  # the last entries are the last to settle
    problem = RootProblem(
        residual=lambda z, a: scale * (z * z - a), jacobian=lambda z, a: torch.diag_embed(2 * scale * z), ranks=(1,)
    )
    a = torch.linspace(0.2, 9, 100, dtype=F64).unsqueeze(1) * torch.tensor([1.0, 10.0, 100.0], dtype=F64)
    solved = run(solver, problem, a, start=torch.ones_like(a))
    assert set(outcomes(solved)) == {Outcome.CONVERGED}
    assert (scale * (solved.z.square() - a)).abs().max() < 1e-10


@pytest.mark.parametrize("diagonal", [False, True])
def test_a_singular_affine_system_is_singular_with_a_solution_and_unsolved_without(diagonal: bool) -> None:
    w = torch.eye(3, dtype=F64).repeat(3, 1, 1)
    w[0] *= 0.5
    w[1, 0, 0] = 0.5
    x = inputs(3, 3)
    x[1, 1:] = 0.0
    problem = AFFINE
    if diagonal:
        w = w.diagonal(dim1=-2, dim2=-1)
        problem = RootProblem(lambda z, x, w: z - w * z - x, jacobian=lambda z, x, w: 1 - w, diagonal=True)
    solved = run(Direct(), problem, x, w)
    assert outcomes(solved) == [Outcome.CONVERGED, Outcome.SINGULAR, Outcome.STALLED]
    assert (solved.residual[:2] < 1e-12).all()
    assert solved.residual[2] > 0.1
    assert (solved.z[:2, 0] - 2 * x[:2, 0]).abs().max() < 1e-12
    assert solved.z.isfinite().all()


@pytest.mark.parametrize("solver", GENERAL, ids=name)
def test_a_nan_row_leaves_at_once_and_alone(solver: Solver) -> None:
    x, w = inputs(5, 6), contraction(6, 0.8)
    clean = run(solver, TANH, x, w)
    x = x.clone()
    x[3, 2] = torch.nan
    solved = run(solver, TANH, x, w)
    assert outcomes(solved)[3] is Outcome.NOT_FINITE
    assert solved.iterations[3] == 0
    others = torch.tensor([0, 1, 2, 4])
    assert torch.equal(solved.iterations[others], clean.iterations[others])
    assert (solved.z[others] - clean.z[others]).abs().max() < 1e-14


def mixed_rates() -> tuple[Tensor, Tensor]:
    q = torch.linalg.qr(contraction(8, 1.0))[0]
    w = q @ torch.diag(torch.linspace(-1, 1, 8, dtype=F64)) @ q.T
    rates = torch.tensor([0.1, 0.5, 0.9, 0.99, 0.3, 0.95, 0.2, 0.7, 0.6, 0.8], dtype=F64)
    return inputs(10, 8), rates.view(-1, 1, 1) * w


@pytest.mark.parametrize(
    "solver", [Picard(), Anderson(), Newton(), LevenbergMarquardt(), Broyden(), NewtonKrylov()], ids=name
)
def test_rows_are_independent_of_their_batch_mates(solver: Solver) -> None:
    x, w = mixed_rates()
    solved = run(solver, TANH, x, w)
    assert outcomes(solved) == [Outcome.CONVERGED] * 10
    for i in range(10):
        alone = run(solver, TANH, x[i : i + 1], w[i : i + 1])
        assert abs(int(alone.iterations) - int(solved.iterations[i])) <= 1
        assert (alone.z[0] - solved.z[i]).abs().max() < 1e-13


def test_finished_rows_are_compacted_away() -> None:
    x, w = (t.repeat(400, *(1,) * (t.ndim - 1)) for t in mixed_rates())  # large enough to be worth it
    seen: list[int] = []

    def step(z: Tensor, x: Tensor, w: Tensor) -> Tensor:
        seen.append(z.shape[0])
        assert x.shape[0] == w.shape[0] == z.shape[0]
        return torch.tanh(torch.einsum("bij,bj->bi", w, z) + x)

    solved = run(Picard(), RootProblem(step=step, ranks=(1, 2)), x, w)
    assert min(seen) <= 2 * 400
    assert sum(seen) < 0.65 * 4000 * len(seen)
    assert (solved.z - run(Newton(), TANH, x, w).z).abs().max() < 1e-9


def test_max_iter_is_said() -> None:
    x, w = inputs(3, 6), contraction(6, 0.999)
    solved = run(Picard(max_iter=7), AFFINE, x, w)
    assert outcomes(solved) == [Outcome.MAX_ITERATIONS] * 3
    assert solved.iterations.tolist() == [7] * 3


@pytest.mark.parametrize("tol", [1e-3, 1e-6, 1e-9])
def test_the_tolerance_is_relative(tol: float) -> None:
    x, w = inputs(4, 6), contraction(6, 0.9)
    counts = []
    for scale in (1e-5, 1.0, 1e5):
        solved = run(Picard(tol=tol), AFFINE, scale * x, w)
        size = torch.maximum(solved.z.norm(dim=1), scale * x.norm(dim=1))
        assert (solved.residual <= tol * size).all()
        counts.append(solved.iterations.tolist())
    assert counts[0] == counts[1] == counts[2]


@pytest.mark.parametrize("solver", [Picard(), Anderson(), Newton(), Gmres(), LevenbergMarquardt(), Broyden()], ids=name)
def test_a_start_at_the_solution_is_free(solver: Solver) -> None:
    x, w = inputs(4, 6), contraction(6, 0.7)
    exact = run(Direct(), AFFINE, x, w).z
    assert run(solver, AFFINE, x, w, start=exact).iterations.tolist() == [0] * 4


def test_anderson_survives_a_degenerate_history() -> None:
    problem = RootProblem(step=lambda z, x: x + 0 * z, ranks=(1,))  # constant map: every difference of f is parallel
    x = inputs(3, 4)
    solved = run(Anderson(), problem, x)
    assert outcomes(solved) == [Outcome.CONVERGED] * 3
    assert torch.equal(solved.z, x)


def test_an_empty_batch() -> None:
    w = contraction(6, 0.7)
    for solver in (Picard(), Anderson(), Newton()):
        assert run(solver, TANH, inputs(0, 6), w).z.shape == (0, 6)


def test_cascade_hands_on_what_fails_and_says_who_solved() -> None:
    a = torch.tensor([[0.5], [2.5], [0.9]], dtype=F64)
    solved = run(Cascade((Picard(), Newton())), COSINE, a)
    assert outcomes(solved) == [Outcome.CONVERGED] * 3
    assert solved.rung is not None
    assert solved.rung.tolist() == [0, 1, 0]
    assert (solved.z - torch.cos(a * solved.z)).abs().max() < 1e-11
    hopeless = run(Cascade((Picard(), Newton())), EXPONENTIAL, torch.tensor([[0.1], [1.0]], dtype=F64))
    assert outcomes(hopeless)[0] is Outcome.CONVERGED
    assert not hopeless.converged[1]
    assert hopeless.z.isfinite().all()


def test_double_root_from_its_own_place() -> None:
    a = torch.zeros(1, 1, dtype=F64)
    assert outcomes(run(Newton(), SQUARE_ROOT, a)) == [Outcome.SINGULAR]

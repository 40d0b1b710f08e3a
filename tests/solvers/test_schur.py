"""Linear equations of a matrix unknown by Schur forms: against dense solves, singular ones, batches, transposes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from implicitdsl.ground.outcomes import Outcome
from implicitdsl.solvers.problem import RootProblem
from implicitdsl.solvers.schur import Schur, schur_factor

F64 = torch.float64
WEIGHTS = {
    "Stein": (-1.0, 0.0, 0.0, 1.0),
    "Sylvester": (0.0, 1.0, 1.0, 0.0),
    "all": (0.7, -0.3, 1.1, 2.0),
    "product": (1.0, 0.0, 0.0, 0.0),
    "left": (0.0, 1.0, 0.0, 0.5),
}
CASES = {name: torch.tensor(w, dtype=F64) for name, w in WEIGHTS.items()}


def residual(z: Tensor, a: Tensor, b: Tensor, w: Tensor, c: Tensor) -> Tensor:
    n, m = a.shape[-1], b.shape[-1]
    matrix = z.view(-1, n, m)
    w0, w1, w2, w3 = (w[..., k, None, None] for k in range(4))
    return (w0 * (a @ matrix @ b) + w1 * (a @ matrix) + w2 * (matrix @ b) + w3 * matrix).reshape(z.shape) - c


PROBLEM = RootProblem(residual, ranks=(2, 2, 1, 1), affine=True, sylvester=lambda a, b, w, c: (a, b, w))


def matrices(n: int, m: int, batch: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n + m)
    a = torch.randn(*batch, n, n, generator=generator, dtype=F64) / n**0.5
    b = torch.randn(*batch, m, m, generator=generator, dtype=F64) / m**0.5
    return a, b


def dense(a: Tensor, b: Tensor, w: Tensor) -> Tensor:
    """The operator as a matrix of the entries row by row."""
    kron, transpose = torch.kron, b.mT.contiguous()
    eye_n, eye_m = torch.eye(a.shape[-1], dtype=F64), torch.eye(b.shape[-1], dtype=F64)
    return w[0] * kron(a, transpose) + w[1] * kron(a, eye_m) + w[2] * kron(eye_n, transpose) + w[3] * kron(eye_n, eye_m)


@pytest.mark.parametrize("sizes", [(5, 3), (3, 5), (1, 4), (4, 1), (6, 6)])
@pytest.mark.parametrize("w", CASES.values(), ids=CASES.keys())
def test_solutions_and_transposed_ones_equal_dense_solves(w: Tensor, sizes: tuple[int, int]) -> None:
    a, b = matrices(*sizes)
    right = torch.randn(7, sizes[0] * sizes[1], generator=torch.Generator().manual_seed(0), dtype=F64)
    factor, matrix = schur_factor(a, b, w), dense(a, b, w)
    assert factor.shared
    size = float(torch.linalg.cond(matrix))
    for transposed in (False, True):
        found = factor.solve(right, transposed)
        back = found @ (matrix if transposed else matrix.mT)
        torch.testing.assert_close(back, right, rtol=0, atol=1e-12 * size)
    found, expected = factor.eigenvalues().flatten(), torch.linalg.eigvals(matrix)
    assert float((found[:, None] - expected).abs().amin(1).max()) < 1e-10
    solved = Schur().solve(PROBLEM, torch.zeros_like(right), (a, b, w, right))
    assert solved.all_converged()
    torch.testing.assert_close(solved.z, torch.linalg.solve(matrix, right.mT).mT, rtol=0, atol=1e-12 * size**2)


@pytest.mark.parametrize("w", CASES.values(), ids=CASES.keys())
def test_every_sample_may_have_its_own_matrices(w: Tensor) -> None:
    a, b = matrices(4, 3, (5,))
    c = torch.randn(5, 12, dtype=F64)
    found = Schur().solve(PROBLEM, torch.ones_like(c), (a, b, w, c))
    assert found.all_converged()
    for k in range(5):
        one = Schur().solve(PROBLEM, torch.zeros(1, 12, dtype=F64), (a[k], b[k], w, c[k : k + 1]))
        torch.testing.assert_close(found.z[k], one.z[0], rtol=1e-9, atol=1e-9)
    mixed = Schur().solve(PROBLEM, torch.zeros_like(c), (a, b[0], w, c))
    assert not mixed.factor.shared
    assert mixed.all_converged()


def test_float32_reaches_its_own_accuracy() -> None:
    a, b = matrices(12, 9)
    c = torch.randn(3, 108, dtype=F64)
    w = CASES["Stein"]
    exact = Schur().solve(PROBLEM, torch.zeros_like(c), (0.8 * a, b, w, c)).z
    low = [x.float() for x in (0.8 * a, b, w, c)]
    found = Schur().solve(PROBLEM, torch.zeros_like(low[3]), tuple(low))
    assert found.all_converged()
    condition = float(torch.linalg.cond(dense(0.8 * a, b, w)))
    assert float((found.z - exact).norm() / exact.norm()) < 2e-7 * condition


def test_singular_operators_are_told_apart() -> None:
    a = torch.diag(torch.tensor([2.0, 0.25], dtype=F64))
    b = torch.diag(torch.tensor([0.5, 0.1], dtype=F64))  # 2 · 0.5 = 1
    consistent = torch.tensor([[0.0, 1.0, 2.0, 3.0]], dtype=F64)
    without = torch.tensor([[1.0, 1.0, 2.0, 3.0]], dtype=F64)
    c = torch.cat([consistent, without])
    found = Schur().solve(PROBLEM, torch.zeros_like(c), (a, b, CASES["Stein"], c))
    assert found.status.tolist() == [Outcome.SINGULAR, Outcome.STALLED]
    assert found.z.isfinite().all()
    torch.testing.assert_close(residual(found.z[:1], a, b, CASES["Stein"], consistent), torch.zeros_like(consistent))


def test_a_singular_sample_leaves_the_others_alone() -> None:
    a, b = matrices(3, 3, (2,))
    a[0], b[0] = torch.eye(3, dtype=F64), torch.eye(3, dtype=F64)
    c = torch.randn(2, 9, dtype=F64)
    found = Schur().solve(PROBLEM, torch.zeros_like(c), (a, b, CASES["Stein"], c))
    assert found.status.tolist() == [Outcome.STALLED, Outcome.CONVERGED]


def test_nan_is_not_finite() -> None:
    a, b = matrices(3, 2, (2,))
    a[1, 0, 0] = torch.nan
    c = torch.randn(2, 6, dtype=F64)
    found = Schur().solve(PROBLEM, torch.zeros_like(c), (a, b, CASES["Stein"], c))
    assert found.status.tolist() == [Outcome.CONVERGED, Outcome.NOT_FINITE]


def test_other_equations_are_refused() -> None:
    with pytest.raises(ValueError, match="try direct"):
        Schur().solve(RootProblem(step=lambda z: z / 2), torch.zeros(1, 4), ())

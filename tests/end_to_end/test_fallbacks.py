"""Where the first solver or the first start leads nowhere: what takes over finds the root, and nothing is made up."""

from __future__ import annotations

import warnings

import pytest
import scipy.linalg
import torch

import implicitdsl as imp
from implicitdsl.ground.outcomes import Outcome

F64 = torch.float64
RICCATI = """layer Riccati(n):
  given A in R^(n, n), B in R^(n, n), Q in R^(n, n)
  find X in PSD(n) such that {}
"""
FORMS = ["A^T X + X A - X B X + Q = 0", "X B X = A^T X + X A + Q"]


@pytest.mark.parametrize("n", [3, 8, 20])
@pytest.mark.parametrize("size", [0.1, 1.0, 3.0])
def test_a_softmax_that_is_no_contraction(n: int, size: float) -> None:
    layer = imp.compile("layer S(n):\n  given a in R^n\n  find z in R^n such that z = softmax(3 z + a)\n", n=n)
    a = size * torch.randn(64, n, generator=torch.Generator().manual_seed(n), dtype=F64)
    with warnings.catch_warnings():
        warnings.simplefilter("error", imp.ConvergenceWarning)
        solution = layer.solve(a)
    z = solution.value
    assert solution.report.converged.all()
    torch.testing.assert_close(z, torch.softmax(3 * z + a, -1), rtol=0, atol=1e-11)


def _care(a: torch.Tensor, b: torch.Tensor, q: torch.Tensor, rank: int) -> torch.Tensor:
    return torch.from_numpy(scipy.linalg.solve_continuous_are(a.numpy(), b.numpy(), q.numpy(), torch.eye(rank).numpy()))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rank", [1, 2, 4])
def test_the_positive_solution_of_a_riccati_equation(rank: int, form: str) -> None:
    n, generator = 4, torch.Generator().manual_seed(0)
    a = torch.randn(16, n, n, generator=generator, dtype=F64)
    b = torch.randn(16, n, rank, generator=generator, dtype=F64)
    q = torch.eye(n, dtype=F64).expand(16, n, n).clone().requires_grad_()
    right = torch.stack([_care(*rest, rank) for rest in zip(a, b, q.detach(), strict=True)])
    solution = imp.compile(RICCATI.format(form), n=n).solve(a, b @ b.mT, q)
    assert solution.report.converged.all()
    scale = right.abs().amax((-1, -2), keepdim=True)
    assert float(((solution.value.detach() - right) / scale).abs().max()) < 1e-8
    # dX = X' solves the Lyapunov equation of the closed loop A - B X; tr X' for dQ = I is the trace of its adjoint
    (gradient,) = torch.autograd.grad(solution.value.diagonal(dim1=-1, dim2=-2).sum(), q)
    for k in range(16):
        loop = (a[k] - b[k] @ b[k].mT @ right[k]).numpy()
        adjoint = scipy.linalg.solve_continuous_lyapunov(loop, -torch.eye(n, dtype=F64).numpy())
        torch.testing.assert_close(gradient[k], torch.from_numpy(adjoint), rtol=1e-5, atol=1e-8)


def test_where_no_solution_lies_in_the_set_none_is_returned_as_one() -> None:
    layer = imp.compile("layer L():\n  given a in R^(2, 2)\n  find X in PSD(2) such that X + X X X = a\n")
    a = torch.stack([2 * torch.eye(2, dtype=F64), -2 * torch.eye(2, dtype=F64)])
    with pytest.warns(imp.ConvergenceWarning, match="1 of 2"):
        solution = layer.solve(a)
    assert solution.report.converged.tolist() == [True, False]
    torch.testing.assert_close(solution.value[0], torch.eye(2, dtype=F64), rtol=0, atol=1e-10)


def test_another_start_does_not_touch_rows_that_are_solved() -> None:
    layer = imp.compile("layer L():\n  given a in R\n  find z in positive such that z^2 = a\n  using newton\n")
    a = torch.tensor([4.0, -1.0, 9.0], dtype=F64)
    with pytest.warns(imp.ConvergenceWarning, match="1 of 3"):
        solution = layer.solve(a)
    torch.testing.assert_close(solution.value[[0, 2]], torch.tensor([2.0, 3.0], dtype=F64), rtol=0, atol=1e-12)
    alone = layer.solve(a[[0, 2]]).report.iterations
    assert torch.equal(solution.report.iterations[[0, 2]], alone)


QUANTILE = """layer Quantile(n):
  given x in R^n, q in R
  find t in R such that mean(sigmoid(10 * (t - x))) = q
"""


@pytest.mark.parametrize("n", [3, 5])
@pytest.mark.parametrize("spread", [1.0, 10.0])
def test_a_scalar_equation_with_plateaus_is_solved_by_a_change_of_sign(n: int, spread: float) -> None:
    """Between the steps of this function its slope is 1e-20: Newton's steps end nowhere, or far out on a plateau."""
    generator = torch.Generator().manual_seed(n)
    x = (spread * torch.randn(64, n, generator=generator, dtype=F64)).requires_grad_()
    q = torch.linspace(0.11, 0.89, 64, dtype=F64)
    layer = imp.compile(QUANTILE, n=n)
    with warnings.catch_warnings():
        warnings.simplefilter("error", imp.ConvergenceWarning)
        solution = layer.solve(x, q)
    assert (solution.report.status == 0).all()
    t = solution.value
    assert (torch.sigmoid(10 * (t[:, None] - x)).mean(-1) - q).abs().max() < 1e-11
    (found,) = torch.autograd.grad(t.sum(), x)
    step = torch.sigmoid(10 * (t[:, None] - x))
    slope = step * (1 - step)
    torch.testing.assert_close(found, slope / slope.sum(-1, keepdim=True), rtol=1e-8, atol=1e-9)


@pytest.mark.slow
def test_the_compiled_layer_falls_back_too() -> None:
    x = 10 * torch.randn(8, 5, generator=torch.Generator().manual_seed(0), dtype=F64)
    q = torch.linspace(0.11, 0.89, 8, dtype=F64)
    layer = imp.compile(QUANTILE, n=5)
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, q), layer(x, q), rtol=1e-9, atol=1e-10)


def test_a_plateau_far_out_is_no_root() -> None:
    """There |F| is a rounding error of z, but its correction is as large as z."""
    layer = imp.compile("given a in R\nfind t in R such that tanh(t) + a = 0\nusing newton()")
    with pytest.warns(imp.ConvergenceWarning):
        report = layer.solve(torch.tensor([1.5, 0.3, -2.0], dtype=F64)).report
    assert report.converged.tolist() == [False, True, False]


def test_an_interval_without_a_change_of_sign_is_named() -> None:
    layer = imp.compile("given a in R\nfind t in [0, 1] such that t^2 + t = a")
    with pytest.warns(imp.ConvergenceWarning, match="same sign at both ends of the interval"):
        report = layer.solve(torch.tensor([1.5, 7.0], dtype=F64)).report
    assert report.status.tolist() == [0, int(Outcome.NO_SIGN_CHANGE)]

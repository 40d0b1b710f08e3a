"""Policies for samples that were not solved, and the gradients of their batch mates."""

from __future__ import annotations

import warnings

import pytest
import torch
from root_problems import AFFINE, EXPONENTIAL, SQUARE_ROOT, TANH, contraction, inputs
from torch import Tensor
from torch.func import grad, vmap

from implicitdsl.backward.failure import Failures
from implicitdsl.backward.implicit import Implicit, implicit_solve
from implicitdsl.ground.errors import ConvergenceError, ConvergenceWarning
from implicitdsl.solvers.gmres import Gmres
from implicitdsl.solvers.newton import Newton
from implicitdsl.solvers.picard import Picard
from implicitdsl.solvers.problem import RootProblem

F64 = torch.float64
ROWS = torch.tensor([[0.1], [1.0], [0.2]], dtype=F64)  # z = a exp(z) has no root in the middle


def solve(a: Tensor, failures: Failures) -> tuple[Tensor, Tensor]:
    z, solved = implicit_solve(EXPONENTIAL, Newton(), torch.zeros_like(a), (a,), failures=failures)
    return z, solved.status


def test_warn_names_the_sample_the_residual_and_the_place() -> None:
    pattern = r"IMP801\] nets.imp:7: 1 of 3 samples did not converge; worst residual 1\b.* at sample 1: "
    with pytest.warns(ConvergenceWarning, match=pattern) as caught:
        z, _ = solve(ROWS, Failures(where="nets.imp:7"))
    assert len(caught) == 1
    assert z.isfinite().all()


def test_raise_carries_the_solution() -> None:
    with pytest.raises(ConvergenceError, match="IMP801") as caught:
        solve(ROWS, Failures("raise"))
    assert caught.value.solution.converged.tolist() == [True, False, True]


def test_nan_fills_the_row_and_its_gradient_is_zero() -> None:
    a = ROWS.clone().requires_grad_()
    with pytest.warns(ConvergenceWarning):
        z, _ = solve(a, Failures("nan"))
    assert z.isnan().flatten().tolist() == [False, True, False]
    (gradient,) = torch.autograd.grad(z[[0, 2]].sum(), a)
    root = z.detach()[0]
    assert gradient[0].item() == pytest.approx((root.exp() / (1 - 0.1 * root.exp())).item(), rel=1e-12)
    assert gradient[1].isnan()


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ValueError, match="warn, raise, nan"):
        Failures("ignore")


def test_convergence_is_silent() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solve(ROWS[[0, 2]], Failures())


@pytest.mark.parametrize("backward", [Implicit(), Implicit(Gmres())], ids=["dense", "gmres"])
@pytest.mark.parametrize("second", [False, True], ids=["first order", "second order"])
def test_a_nan_sample_leaves_shared_gradients_right(backward: Implicit, second: bool) -> None:
    x, w = inputs(4, 5), contraction(5, 0.7).requires_grad_()
    bad = x.clone()
    bad[2, 1] = torch.nan
    keep = [0, 1, 3]

    def gradients(x: Tensor, rows: list[int]) -> tuple[Tensor, ...]:
        x = x.clone().requires_grad_()
        z, _ = implicit_solve(TANH, Newton(), torch.zeros_like(x), (x, w), backward=backward)
        gx, gw = torch.autograd.grad(z[rows].pow(2).sum(), (x, w), create_graph=second)
        if second:
            (gw,) = torch.autograd.grad(gx[rows].pow(2).sum(), w)
        return gx[rows].detach(), gw.detach()

    with pytest.warns(ConvergenceWarning, match="NaN or infinity"):
        got = gradients(bad, keep)
    for g, h in zip(got, gradients(x[keep], [0, 1, 2]), strict=True):
        torch.testing.assert_close(g, h, rtol=1e-11, atol=1e-11)


def test_a_double_root_is_warned_of_in_backward_and_counts_as_zero() -> None:
    a = torch.tensor([[0.0], [4.0]], dtype=F64, requires_grad=True)
    z, solved = implicit_solve(SQUARE_ROOT, Newton(), torch.ones_like(a), (a,))
    assert solved.converged.all()
    with pytest.warns(ConvergenceWarning, match=r"IMP802.*1 of 2 samples, first at sample 0"):
        (gradient,) = torch.autograd.grad(z.sum(), a)
    assert gradient[:, 0].tolist() == pytest.approx([0.0, 0.25], abs=1e-13)
    z, _ = implicit_solve(SQUARE_ROOT, Newton(), torch.ones_like(a), (a,), failures=Failures("raise"))
    with pytest.raises(ConvergenceError, match="IMP802"):
        torch.autograd.grad(z.sum(), a)


@pytest.mark.parametrize("backward", [Implicit(), Implicit(Gmres())], ids=["dense", "gmres"])
def test_a_singular_jacobian_unseen_by_picard(backward: Implicit) -> None:
    """z = W z with z0 = 0 is solved by 0, where J = I - W is singular for one sample."""
    w = torch.stack([0.5 * torch.eye(3, dtype=F64), torch.diag(torch.tensor([1.0, 0.3, 0.2], dtype=F64))])
    x = torch.zeros(2, 3, dtype=F64, requires_grad=True)
    w.requires_grad_()
    z, solved = implicit_solve(AFFINE, Picard(), torch.zeros_like(x), (x, w), backward=backward)
    assert solved.converged.all()
    with pytest.warns(ConvergenceWarning, match="IMP802"):
        gx, gw = torch.autograd.grad(z.sum(), (x, w))
    assert gx.flatten().tolist() == pytest.approx([2.0] * 3 + [0.0] * 3, abs=1e-12)
    assert gw.isfinite().all()


def test_warnings_reach_out_of_vmap_and_grad() -> None:
    def loss(a: Tensor) -> Tensor:
        return implicit_solve(SQUARE_ROOT, Newton(), torch.ones(1, 1, dtype=F64), (a.view(1, 1),))[0].sum()

    with pytest.warns(ConvergenceWarning, match="IMP802"):
        got = vmap(grad(loss))(torch.tensor([4.0, 0.0, 1.0], dtype=F64))
    assert got.tolist() == pytest.approx([0.25, 0.0, 0.5], abs=1e-12)


def test_diagonal_problems_divide() -> None:
    cube = RootProblem(residual=lambda z, a: z**3 - a, jacobian=lambda z, a: 3 * z**2, diagonal=True, ranks=(1,))
    a = torch.tensor([[8.0, 27.0], [1.0, 64.0]], dtype=F64, requires_grad=True)
    z, _ = implicit_solve(cube, Newton(), torch.ones_like(a), (a,))
    torch.testing.assert_close(z, a.detach() ** (1 / 3), rtol=1e-12, atol=0)
    (gradient,) = torch.autograd.grad(z.sum(), a, create_graph=True)
    torch.testing.assert_close(gradient, a ** (-2 / 3) / 3, rtol=1e-12, atol=0)
    (again,) = torch.autograd.grad(gradient.sum(), a)
    torch.testing.assert_close(again, -2 / 9 * a.detach() ** (-5 / 3), rtol=1e-11, atol=0)

"""`linear_solve` against a Python loop over `torch.inverse`, in every mode and composition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.func import hessian, jacfwd, jacrev, vmap

from implicitdsl.backward.failure import Failures
from implicitdsl.backward.linear_solve import linear_solve, singular_rows
from implicitdsl.ground.errors import ConvergenceError, ConvergenceWarning
from implicitdsl.solvers.factor import factorise

N, B, M = 4, 5, 3


def matrices(*lead: int) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(*lead, N, N, generator=generator, dtype=torch.float64) + 4 * torch.eye(N, dtype=torch.float64)


def vectors(*lead: int) -> Tensor:
    return torch.randn(*lead, N, generator=torch.Generator().manual_seed(8), dtype=torch.float64)


SHAPES = {"one": ((), ()), "shared": ((), (B,)), "batched": ((B,), (B,)), "many matrices": ((B,), ())}


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES.keys())
def test_value_and_gradients(shapes: tuple[tuple[int, ...], tuple[int, ...]], transposed: bool) -> None:
    A, b = matrices(*shapes[0]), vectors(*shapes[1])
    expected = ((torch.inverse(A).mT if transposed else torch.inverse(A)) @ b.unsqueeze(-1)).squeeze(-1)

    def solve(A: Tensor, b: Tensor) -> Tensor:
        return linear_solve(A, b, transposed=transposed)

    torch.testing.assert_close(solve(A, b), expected, rtol=1e-13, atol=1e-13)
    leaves = (A.requires_grad_(), b.requires_grad_())
    assert torch.autograd.gradcheck(solve, leaves, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(solve, leaves)


def plain(A: Tensor, b: Tensor) -> Tensor:
    return torch.inverse(A) @ b


TRANSFORMS = {
    "jacfwd": jacfwd,
    "jacrev": jacrev,
    "hessian": hessian,
    "jacfwd∘jacfwd": lambda f, argnums: jacfwd(jacfwd(f, argnums), argnums),
    "jacrev∘jacrev": lambda f, argnums: jacrev(jacrev(f, argnums), argnums),
    "jacrev∘jacfwd": lambda f, argnums: jacrev(jacfwd(f, argnums), argnums),
}


@pytest.mark.parametrize("argnums", [0, 1])
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS.keys())
def test_vmap_of_transforms_matches_a_loop(transform, argnums: int) -> None:
    A, b = matrices(M), vectors(M)
    for f, g in ((linear_solve, plain), (lambda *t: linear_solve(*t).pow(3).sum(), lambda *t: plain(*t).pow(3).sum())):
        looped = torch.stack([transform(g, argnums)(A[i], b[i]) for i in range(M)])
        torch.testing.assert_close(vmap(transform(f, argnums))(A, b), looped, rtol=1e-12, atol=1e-12)
        shared = torch.stack([transform(g, argnums)(A[0], b[i]) for i in range(M)])
        mapped = vmap(transform(f, argnums), in_dims=(None, 0))(A[0], b)
        torch.testing.assert_close(mapped, shared, rtol=1e-12, atol=1e-12)


def test_vmap_over_the_right_side_keeps_one_factorisation(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    lu = torch.linalg.lu_factor_ex
    monkeypatch.setattr(torch.linalg, "lu_factor_ex", lambda A: calls.append(A.shape) or lu(A))
    vmap(linear_solve, in_dims=(None, 1))(matrices(), vectors(M).T)
    assert calls == [(N, N)]


def test_a_nearby_factor_is_refined() -> None:
    A, b = matrices(B), vectors(B)
    near = factorise(A + 1e-8)
    exact = torch.linalg.solve(A, b)
    assert (near.solve(b) - exact).abs().max() > 1e-10
    assert (linear_solve(A, b, factor=near) - exact).abs().max() < 1e-13


def test_singular_samples_are_named_and_leave_the_others_alone() -> None:
    A, b = matrices(B), vectors(B).requires_grad_()
    A[2, :, 0] = A[2, :, 1]
    A.requires_grad_()
    assert singular_rows(A).tolist() == [False, False, True, False, False]
    with pytest.warns(ConvergenceWarning, match=r"IMP802.*deq.imp:3.*1 of 5 samples, first at sample 2"):
        x = linear_solve(A, b, failures=Failures(where="deq.imp:3"))
    assert torch.equal(x[2], torch.zeros(N, dtype=torch.float64))
    with pytest.warns(ConvergenceWarning):
        gradient = torch.autograd.grad(x.pow(2).sum(), (A, b))
    keep = torch.tensor([0, 1, 3, 4])
    good = (A.detach()[keep].requires_grad_(), b.detach()[keep].requires_grad_())
    for got, want in zip(gradient, torch.autograd.grad(linear_solve(*good).pow(2).sum(), good), strict=True):
        assert torch.equal(got[2], torch.zeros_like(got[2]))
        torch.testing.assert_close(got[keep], want, rtol=1e-13, atol=1e-13)
    with pytest.raises(ConvergenceError, match="IMP802"):
        linear_solve(A, b, failures=Failures("raise"))

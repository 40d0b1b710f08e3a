"""The implicit derivative: solver × mode, against unrolling, closed forms and finite differences."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from root_problems import (
    AFFINE,
    CIRCLE,
    COSINE,
    OPAQUE_TANH,
    TANH,
    contraction,
    inputs,
    unrolled_tanh,
)
from torch import Tensor
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

from implicitdsl.backward.implicit import Implicit, implicit_solve
from implicitdsl.solvers.anderson import Anderson
from implicitdsl.solvers.bicgstab import BiCGStab
from implicitdsl.solvers.direct import Direct
from implicitdsl.solvers.gmres import Gmres
from implicitdsl.solvers.loop import Solver
from implicitdsl.solvers.newton import Newton
from implicitdsl.solvers.picard import Picard
from implicitdsl.solvers.problem import RootProblem

N, B = 5, 3
SOLVERS = {"picard": Picard(), "anderson": Anderson(), "newton": Newton()}
BACKWARD = {
    "auto": Implicit(),
    "gmres": Implicit(Gmres()),
    "bicgstab": Implicit(BiCGStab()),
    "picard": Implicit(Picard()),
}
PROBLEMS = {"closed": TANH, "opaque": OPAQUE_TANH}
CASES = [
    pytest.param(PROBLEMS[p], SOLVERS[s], BACKWARD[b], id=f"{p}-{s}-{b}")
    for p, s, b in [
        ("closed", "picard", "auto"),
        ("closed", "anderson", "auto"),
        ("closed", "newton", "auto"),
        ("closed", "newton", "gmres"),
        ("closed", "newton", "bicgstab"),
        ("closed", "picard", "picard"),
        ("opaque", "newton", "auto"),
        ("opaque", "picard", "gmres"),
    ]
]


def layer(problem: RootProblem, solver: Solver, backward: Implicit | None = None):
    def solve(x: Tensor, w: Tensor) -> Tensor:
        return implicit_solve(problem, solver, torch.zeros_like(x), (x, w), backward=backward)[0]

    return solve


def close(got: Tensor, want: Tensor, tol: float = 1e-9) -> None:
    torch.testing.assert_close(got, want, rtol=tol, atol=tol)


@pytest.mark.parametrize("problem, solver, backward", CASES)
def test_reverse_mode_of_first_and_second_order(problem: RootProblem, solver: Solver, backward: Implicit) -> None:
    solve = layer(problem, solver, backward)
    x, w = inputs(B, N).requires_grad_(), contraction(N, 0.7).requires_grad_()
    weight = inputs(B, N, seed=5)

    def both(f):
        first = torch.autograd.grad((f(x, w).pow(2) * weight).sum(), (x, w), create_graph=True)
        return first, torch.autograd.grad(sum(g.pow(2).sum() for g in first), (x, w))

    for got, want in zip(sum(both(solve), ()), sum(both(unrolled_tanh), ()), strict=True):
        close(got, want)
    fast = torch.autograd.grad((solve(x, w).pow(2) * weight).sum(), (x, w))
    for got, want in zip(fast, both(unrolled_tanh)[0], strict=True):
        close(got, want)


@pytest.mark.parametrize("problem, solver, backward", CASES)
def test_gradcheck(problem: RootProblem, solver: Solver, backward: Implicit) -> None:
    solve = layer(problem, solver, backward)
    leaves = (inputs(2, 3).requires_grad_(), contraction(3, 0.7).requires_grad_())
    assert torch.autograd.gradcheck(solve, leaves, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(solve, leaves, atol=1e-4)


def one(f):
    """A batched layer as a function of one sample."""
    return lambda x, w: f(x.unsqueeze(0), w).squeeze(0)


COMPOSITIONS = {
    "jacrev": jacrev,
    "jacfwd": jacfwd,
    "hessian": hessian,
    "jacfwd∘jacfwd": lambda f, i: jacfwd(jacfwd(f, i), i),
    "jacrev∘jacrev": lambda f, i: jacrev(jacrev(f, i), i),
    "jacrev∘jacfwd": lambda f, i: jacrev(jacfwd(f, i), i),
}


def cubed(f):
    return lambda x, w: f(x, w).pow(3).sum()


def samples_of_three() -> tuple[Tensor, Tensor]:
    return inputs(2, 3), torch.stack((contraction(3, 0.6), contraction(3, 0.6, seed=3)))


@cache
def unrolled_derivatives(transform: str, argnums: int, scalar: bool) -> tuple[Tensor, Tensor]:
    """Sample by sample, each with its own W and all with the first: nearly all of the time, so computed once."""
    x, w = samples_of_three()
    reference = one(lambda x, w: unrolled_tanh(x, w, steps=120))
    derivative = COMPOSITIONS[transform](cubed(reference) if scalar else reference, argnums)
    own = torch.stack([derivative(x[i], w[i]) for i in range(2)])
    return own, torch.stack([own[0], derivative(x[1], w[0])])


@pytest.mark.parametrize("argnums", [0, 1], ids=["x", "W"])
@pytest.mark.parametrize("transform", COMPOSITIONS)
@pytest.mark.parametrize("problem, solver, backward", CASES)
def test_torch_func_compositions(problem, solver, backward, transform: str, argnums: int) -> None:
    solve = one(layer(problem, solver, backward))
    x, w = samples_of_three()
    for scalar, f in ((False, solve), (True, cubed(solve))):
        own, shared = unrolled_derivatives(transform, argnums, scalar)
        derivative = COMPOSITIONS[transform](f, argnums)
        close(vmap(derivative)(x, w), own)
        close(vmap(derivative, in_dims=(0, None))(x, w[0]), shared)


def test_jvp_vjp_and_per_sample_gradients() -> None:
    solve = layer(TANH, Newton())
    x, w = inputs(B, N), contraction(N, 0.7)
    dx, dw = inputs(B, N, seed=11), contraction(N, 1.0, seed=12)
    for got, want in zip(jvp(solve, (x, w), (dx, dw)), jvp(unrolled_tanh, (x, w), (dx, dw)), strict=True):
        close(got, want)
    for got, want in zip(vjp(solve, x, w)[1](dx), vjp(unrolled_tanh, x, w)[1](dx), strict=True):
        close(got, want)

    def loss(f):
        return lambda w, x: f(x.unsqueeze(0), w).pow(2).sum()

    got = vmap(grad(loss(solve)), in_dims=(None, 0))(w, x)
    want = torch.stack([grad(loss(unrolled_tanh))(w, row) for row in x])
    close(got, want)


@pytest.mark.parametrize("mapped", ["x", "W", "both"])
def test_vmap_of_a_direct_solve_whose_factor_is_shared(mapped: str) -> None:
    solve = layer(AFFINE, Direct())
    x, w = inputs(4 * B, N).view(4, B, N), torch.stack([contraction(N, 2.0, seed=s) for s in range(4)])
    dims = (0 if mapped != "W" else None, 0 if mapped != "x" else None)
    args = (x if mapped != "W" else x[0], w if mapped != "x" else w[0])

    def loss(f):
        return lambda x, w: f(x, w).pow(3).sum()

    def plain(x: Tensor, w: Tensor) -> Tensor:
        return x @ torch.inverse(torch.eye(N, dtype=torch.float64) - w).mT

    for transform in (lambda f: f, lambda f: grad(loss(f), (0, 1)), lambda f: jacfwd(f, 1)):
        got = vmap(transform(solve), in_dims=dims)(*args)
        want = vmap(transform(plain), in_dims=dims)(*args)
        for g, h in zip(got, want, strict=True):
            close(g, h, 1e-10)


def test_nested_vmap_over_a_batched_layer() -> None:
    solve = layer(TANH, Newton())
    x, w = inputs(4 * 2 * B, N).view(4, 2, B, N), torch.stack([contraction(N, 0.5, seed=s) for s in range(4)])
    got = vmap(lambda x, w: vmap(lambda x: solve(x, w))(x))(x, w)
    want = torch.stack([torch.stack([unrolled_tanh(x[i, j], w[i]) for j in range(2)]) for i in range(4)])
    close(got, want)


def test_repelling_fixed_point_has_its_exact_gradient() -> None:
    a = torch.full((1, 1), 2.5, dtype=torch.float64, requires_grad=True)
    z, solved = implicit_solve(COSINE, Newton(), torch.zeros_like(a), (a,))
    assert bool(solved.converged.all())
    root = z.item()
    assert abs(root - torch.cos(2.5 * z).item()) < 1e-15
    exact = -root * torch.sin(2.5 * z).item() / (1 + 2.5 * torch.sin(2.5 * z).item())
    (gradient,) = torch.autograd.grad(z.sum(), a)
    assert gradient.item() == pytest.approx(exact, abs=1e-13)
    # ∂z/∂c for z = cos(2.5 z + c) is the figure of the literature
    assert exact / root == pytest.approx(-torch.sin(2.5 * z).item() / (1 + 2.5 * torch.sin(2.5 * z).item()), abs=1e-13)


def test_circle_from_its_singular_start() -> None:
    a = torch.tensor([[0.6], [-0.8], [0.0]], dtype=torch.float64, requires_grad=True)
    z, _ = implicit_solve(CIRCLE, Newton(), torch.zeros_like(a), (a,))
    close(z.abs(), (1 - a.detach().square()).sqrt(), 1e-14)
    (gradient,) = torch.autograd.grad(z.sum(), a)
    close(gradient, (-a / z).detach(), 1e-13)


@pytest.mark.parametrize("solver", [Direct(), Newton(), Gmres(), BiCGStab()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("radius", [0.5, 1.7, 30.0])
def test_affine_of_any_spectral_radius(solver: Solver, radius: float) -> None:
    x, w = inputs(B, N).requires_grad_(), contraction(N, radius).requires_grad_()
    z, solved = implicit_solve(AFFINE, solver, torch.zeros_like(x), (x, w))
    inverse = torch.inverse(torch.eye(N, dtype=torch.float64) - w)
    assert bool(solved.converged.all())
    close(z, x @ inverse.mT, 1e-11)
    weight = inputs(B, N, seed=9)
    got = torch.autograd.grad((z * weight).sum(), (x, w))
    want = torch.autograd.grad((x @ inverse.mT * weight).sum(), (x, w))
    for g, h in zip(got, want, strict=True):
        close(g, h, 1e-10)


@pytest.mark.parametrize("backward", [Implicit(), Implicit(Gmres()), Implicit(Picard()), Implicit(BiCGStab())])
@pytest.mark.parametrize("scale", [1.0, 1e-8, 1e8])
def test_gradient_does_not_depend_on_the_scale_of_the_loss(backward: Implicit, scale: float) -> None:
    x, w = inputs(B, 20).requires_grad_(), contraction(20, 0.9).requires_grad_()
    got = torch.autograd.grad(layer(TANH, Picard(), backward)(x, w).sum() * scale, (x, w))
    want = torch.autograd.grad(unrolled_tanh(x, w).sum() * scale, (x, w))
    for g, h in zip(got, want, strict=True):
        assert (g - h).norm() <= 1e-10 * h.norm()


def test_train_and_no_grad_agree_and_z0_gets_no_gradient() -> None:
    x, w, z0 = inputs(B, N).requires_grad_(), contraction(N, 0.7), inputs(B, N, seed=4).requires_grad_()
    z, _ = implicit_solve(TANH, Newton(), z0, (x, w))
    with torch.no_grad():
        again, _ = implicit_solve(TANH, Newton(), z0, (x, w))
    assert not again.requires_grad
    assert torch.equal(z.detach(), again)
    (gx, gz0) = torch.autograd.grad(z.sum(), (x, z0), allow_unused=True)
    assert gz0 is None
    assert gx is not None


def test_float32_reaches_its_own_accuracy() -> None:
    x, w = inputs(B, 30).float().requires_grad_(), contraction(30, 0.9).float().requires_grad_()
    for solver in (Picard(), Anderson(), Newton()):
        z = implicit_solve(OPAQUE_TANH, solver, torch.zeros_like(x), (x, w))[0]
        want = unrolled_tanh(x.double(), w.double())
        assert (z - want).norm() <= 1e-5 * want.norm()
        got = torch.autograd.grad(z.sum(), (x, w))
        for g, h in zip(got, torch.autograd.grad(want.sum(), (x, w)), strict=True):
            assert (g - h).norm() <= 1e-5 * h.norm()

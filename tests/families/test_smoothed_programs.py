"""`backward smoothed(mu)` of smooth programs, cones and functions over cones, against barrier problems solved apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad, hessian, vmap

import implicitdsl as imp
from implicitdsl.ground.outcomes import Outcome

D = torch.float64
MU = 0.1
SMOOTHED = f"\n  using backward smoothed(mu={MU})"
pytestmark = pytest.mark.filterwarnings("ignore:.*IMP605:implicitdsl.SpecWarning")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


def minimiser(f: Callable[..., Tensor], z: Tensor, data: tuple[Tensor, ...]) -> Tensor:
    """argmin f(·, *data) from a point of its domain, by Newton's method; the last steps are differentiated."""
    fixed = [t.detach() for t in data]
    for _ in range(60):
        step = torch.linalg.solve(hessian(f)(z, *fixed), -grad(f)(z, *fixed))
        length = 1.0
        while not bool(f(z + length * step, *fixed) <= f(z, *fixed) + 1e-13):
            length /= 2
        z = z + length * step
    for _ in range(2):
        z = z - torch.linalg.solve(hessian(f)(z, *data), grad(f)(z, *data))
    return z


def barrier(f: Callable[..., Tensor], *slacks: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """f − μ Σ log(slack)."""
    return lambda *given: f(*given) - MU * sum(s(*given).log().sum() for s in slacks)


PROGRAMS: dict[str, tuple[str, Callable[..., Tensor], float]] = {
    "smooth": (
        "argmin_{z in R^n} exp(c^T z) + ||z||^2 subject to sum(exp(z)) <= b",
        barrier(lambda z, c, b: (c @ z).exp() + z @ z, lambda z, c, b: b - z.exp().sum()),
        -1.0,
    ),
    "entropy": (
        "argmin_{z in nonneg^n} 3 c^T z + sum(z * log(z)) subject to sum(z) <= b",
        barrier(lambda z, c, b: 3 * c @ z + (z * z.log()).sum(), lambda z, c, b: z, lambda z, c, b: b - z.sum()),
        0.1,
    ),
    "ball": (
        "argmin_{z in R^n} c^T z subject to ||z - 1|| <= b",
        barrier(lambda z, c, b: c @ z, lambda z, c, b: b * b - (z - 1).square().sum()),
        1.0,
    ),
    "norm": (  # min over t of t − μ log(t² − ‖z‖²) is at t = μ + √(μ² + ‖z‖²)
        "argmin_{z in R^n} ||z|| + 0.5 ||z - b * c||^2",
        lambda z, c, b: _norm(z) + 0.5 * (z - b * c).square().sum(),
        0.3,
    ),
    "curved": (
        "argmin_{z in R^n} sum(exp(c * z)) + ||z|| subject to sum(z) <= b",
        barrier(lambda z, c, b: (c * z).exp().sum() + _norm(z), lambda z, c, b: b - z.sum()),
        0.1,
    ),
}


def _norm(z: Tensor) -> Tensor:
    t = MU + (MU * MU + z @ z).sqrt()
    return t - MU * (t * t - z @ z).log()


@pytest.mark.parametrize("kind", list(PROGRAMS))
def test_derivatives_are_the_barriers(kind: str) -> None:
    """First and second ones; the value is the optimum itself."""
    text, f, first = PROGRAMS[kind]
    body = f"layer L(n):\n  given c in R^n, b in R\n  {text}"
    layer, exact = imp.compile(body + SMOOTHED, n=3), imp.compile(body, n=3)
    data = (normal(2, 3).requires_grad_(), torch.tensor([2.5, 1.5], dtype=D, requires_grad=True))
    z = layer(*data)
    torch.testing.assert_close(z, exact(*data), rtol=0, atol=1e-12)
    near = torch.stack([minimiser(f, torch.full((3,), first, dtype=D), row) for row in zip(*data, strict=True)])
    weight = normal(2, 3, seed=1)
    found, known = (torch.autograd.grad((t * weight).sum(), data, create_graph=True) for t in (z, near))
    torch.testing.assert_close(found, known, rtol=1e-8, atol=1e-9)
    twice = [torch.autograd.grad((g[0] * weight).sum() + g[1].sum(), data) for g in (found, known)]
    torch.testing.assert_close(*twice, rtol=1e-7, atol=1e-8)


def test_semidefinite_matrices_and_their_multipliers() -> None:
    """min tr(C X), tr X = 1: X = μ (C + ν I)⁻¹ with ν from the trace; all derivatives in one Hessian."""
    text = "layer S(n):\n  given C in Sym(n)\n  argmin_{X in PSD(n)} tr(C X) subject to one: tr(X) = 1" + SMOOTHED
    layer = imp.compile(text + "\n  return X, dual(one)", n=3)
    weight = normal(3, 3, seed=1)

    def known(C: Tensor) -> Tensor:
        values = torch.linalg.eigvalsh(C.detach())
        nu = MU - values[0]
        for _ in range(60):  # Σ μ / (λ + ν) falls and is convex: from the left Newton's method goes up
            left = (MU / (values + nu)).sum() - 1
            nu = nu + left / (MU / (values + nu).square()).sum()
        eye = torch.eye(3, dtype=D)
        for _ in range(3):
            X = MU * torch.linalg.inv(C + nu * eye)
            nu = nu + (X.trace() - 1) / (X @ X).trace() * MU
        return (MU * torch.linalg.inv(C + nu * eye) * weight).sum() + nu

    C = normal(2, 3, 3)
    C = C + C.mT
    found = vmap(hessian(lambda C: (layer(C)[0] * weight).sum() + layer(C)[1]))(C)
    expected = torch.stack([hessian(lambda C: known((C + C.mT) / 2))(row) for row in C])
    torch.testing.assert_close(_symmetric(found), _symmetric(expected), rtol=1e-8, atol=1e-8)
    X = layer(C)[0]
    V = torch.linalg.eigh(C)[1]
    torch.testing.assert_close(X, V[..., :1] @ V[..., :1].mT, atol=1e-8, rtol=0)  # a vertex: one eigenvector


def _symmetric(H: Tensor) -> Tensor:
    H = H + H.transpose(-1, -2)
    return H + H.transpose(-3, -4)


@pytest.mark.parametrize("kind", list(PROGRAMS))
def test_little_smoothing_tends_to_the_exact_derivative(kind: str) -> None:
    body = f"layer L(n):\n  given c in R^n, b in R\n  {PROGRAMS[kind][0]}"
    inputs = [normal(2, 3), torch.tensor([2.5, 1.5], dtype=D)]
    found: list[Tensor] = []
    for using in ("", "\n  using backward smoothed(mu=1e-9)"):
        leaves = [t.clone().requires_grad_() for t in inputs]
        z = imp.compile(body + using, n=3)(*leaves)
        found.append(torch.cat([g.flatten() for g in torch.autograd.grad(z.square().sum(), leaves)]))
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-6)


def test_a_norm_that_vanishes_says_where_to_go() -> None:
    """min ½‖z − y‖² + ‖z‖ at ‖y‖ < 1: z = 0 with a zero derivative; the smoothed one is that of another norm."""
    layer = imp.compile("given y in R^n\nargmin_{z in R^n} 1/2 ||z - y||^2 + ||z||" + SMOOTHED.replace("  ", ""), n=2)
    y = torch.tensor([[0.3, 0.4], [0.0, 0.0]], dtype=D, requires_grad=True)
    z = layer(y)
    torch.testing.assert_close(z, torch.zeros_like(z), rtol=0, atol=1e-12)
    known = torch.stack([minimiser(lambda z, y: 0.5 * (z - y).square().sum() + _norm(z), 0.1 * y.detach()[0], (row,))
                         for row in y])  # fmt: skip
    found, expected = (torch.autograd.grad(t[:, 0].sum(), y)[0] for t in (z, known))
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9)
    assert bool((found[:, 0] > 0.1).all())


LOST = {
    "smooth": "argmin_{z in R^n} sum(exp(z - w * c)) subject to 0 <= sum(z) <= b",
    "ball": "argmin_{z in R^n} w * c^T z + ||z||^2 subject to ||z|| <= 1, 0 <= sum(z) <= b",
    "definite": "argmin_{X in PSD(n)} sum((w * c * c) * diag(X)) + ||X||_F^2 subject to tr(X) = b",
    "quadratic": "argmin_{z in R^n} ||z - w * c||^2 subject to 0 <= sum(z) <= b",
}


@pytest.mark.parametrize("kind", list(LOST))
def test_samples_without_solution_are_told_apart(kind: str) -> None:
    """b > 0: solved; b = 0: solved, but no barrier problem has a solution; b < 0: infeasible."""
    text = f"layer L(n):\n  given c in R^n, b in R\n  param w in R\n  {LOST[kind]}{SMOOTHED}"
    layer = imp.compile(text, n=2).double()
    torch.nn.init.constant_(layer.w, 1.5)
    b = torch.tensor([1.0, 0.0, -1.0, 0.5], dtype=D)
    c = normal(4, 2).requires_grad_()
    with pytest.warns(imp.ConvergenceWarning, match="IMP801.*1 of 4"):
        sol = layer.solve(c, b)
    kinds = [int(k) for k in (Outcome.CONVERGED, Outcome.SINGULAR, Outcome.INFEASIBLE, Outcome.CONVERGED)]
    assert sol.report.status.tolist() == kinds
    with pytest.warns(imp.ConvergenceWarning, match="IMP802.*barrier problem.* in 1 of 4"):
        sol.value.square().sum().backward()
    alone = c.detach()[[0, 3]].requires_grad_()
    shared = layer.w.grad.clone()
    layer.zero_grad()
    layer(alone, b[[0, 3]]).square().sum().backward()
    assert c.grad is not None
    torch.testing.assert_close(c.grad[[0, 3]], alone.grad, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(layer.w.grad, shared, rtol=1e-9, atol=1e-12)
    assert not c.grad[[1, 2]].any()
    assert bool((c.grad[[0, 3]].abs().amax(-1) > 1e-3).all())


@pytest.mark.parametrize("kind", list(LOST))
def test_where_no_sample_is_solved_nothing_has_a_gradient(kind: str) -> None:
    text = f"layer L(n):\n  given c in R^n, b in R\n  param w in R\n  {LOST[kind]}{SMOOTHED}"
    layer = imp.compile(text, n=2).double()
    torch.nn.init.constant_(layer.w, 1.5)
    c = normal(2, 2).requires_grad_()
    with pytest.warns(imp.ConvergenceWarning, match="2 of 2"):
        layer(c, torch.tensor([-1.0, -2.0], dtype=D)).square().sum().backward()
    assert c.grad is not None
    assert not c.grad.any()
    assert not layer.w.grad.any()


def test_other_dtypes_and_policies() -> None:
    body = f"layer L(n):\n  given c in R^n, b in R\n  {PROGRAMS['smooth'][0]}{SMOOTHED}, on_failure=nan"
    layer = imp.compile(body, n=3)
    found: list[Any] = []
    for kind in (D, torch.float32):
        c = normal(3, 3).to(kind).requires_grad_()
        with pytest.warns(imp.ConvergenceWarning):
            z = layer(c, torch.tensor([2.5, -1.0, 1.5], dtype=kind))
        (g,) = torch.autograd.grad(z.nansum(), c)
        assert z.dtype == g.dtype == kind
        assert z.isnan().any(-1).tolist() == g.isnan().any(-1).tolist() == [False, True, False]
        found.append(g)
    torch.testing.assert_close(found[1], found[0].float(), rtol=1e-5, atol=1e-6, equal_nan=True)


def test_without_inequalities_there_is_nothing_to_smooth() -> None:
    body = "layer L(n):\n  given c in R^n\n  argmin_{z in R^n} sum(exp(z)) + c^T z + ||z||^2 subject to sum(z) = 1"
    gradients: list[Tensor] = []
    for using in ("", SMOOTHED):
        c = normal(2, 3).requires_grad_()
        gradients.append(torch.autograd.grad(imp.compile(body + using, n=3)(c).square().sum(), c)[0])
    assert torch.equal(*gradients)


def test_only_convex_programs_are_smoothed() -> None:
    text = "given c in R^n\nargmin_{z in [-1, 1]^n} sum(sin(c * z))\nusing nlp(), backward smoothed()"
    with pytest.raises(imp.SpecError, match=r"IMP910.*not convex"):
        imp.compile(text, n=2)


def test_explain_speaks_of_the_barrier() -> None:
    body = f"layer L(n):\n  given c in R^n, b in R\n  {PROGRAMS['smooth'][0]}"
    assert "multiplier times constraint is −μ" in imp.explain(body + SMOOTHED)
    assert "barrier" not in imp.explain(body)

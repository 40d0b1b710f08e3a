"""`backward smoothed(mu)` of quadratic programs: the exact optimum, with the derivatives of the barrier problem."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.func import hessian, vmap

import implicitdsl as imp

D = torch.float64


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


def barrier_simplex(c: Tensor, mu: float) -> Tensor:
    """argmin cᵀz − μ Σ log z on the simplex: z = μ / (c + ν), Σ z = 1 by bisection on ν, then Newton with autograd."""
    low, high = (-c).amax(-1) + 1e-12, (-c).amax(-1) + 10 + mu * c.shape[-1]
    for _ in range(200):
        middle = (low + high) / 2
        over = (mu / (c.detach() + middle.detach().unsqueeze(-1))).sum(-1) > 1
        low, high = torch.where(over, middle, low).detach(), torch.where(over, high, middle).detach()
    nu = high
    for _ in range(3):
        z = mu / (c + nu.unsqueeze(-1))
        nu = nu + (z.sum(-1) - 1) / (z * z / mu).sum(-1)
    return mu / (c + nu.unsqueeze(-1))


def test_a_linear_program_learns() -> None:
    """On the simplex the vertex is returned, and its gradient by the cost is that of the barrier's path."""
    text = "layer L(n):\n  given c in R^n\n  argmin_{z in simplex(n)} c^T z\n  using backward smoothed(mu=0.1)"
    layer = imp.compile(text, n=4)
    c = normal(5, 4).requires_grad_()
    z = layer(c)
    torch.testing.assert_close(z, torch.nn.functional.one_hot(c.argmin(-1), 4).double(), atol=1e-9, rtol=0)
    weight = normal(5, 4, seed=1)
    (found,) = torch.autograd.grad((z * weight).sum(), c, create_graph=True)
    (expected,) = torch.autograd.grad((barrier_simplex(c, 0.1) * weight).sum(), c, create_graph=True)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)
    again = [torch.autograd.grad((g * normal(5, 4, seed=2)).sum(), c)[0] for g in (found, expected)]
    torch.testing.assert_close(again[0], again[1], rtol=1e-6, atol=1e-8)


def test_a_kink_is_rounded_off() -> None:
    """relu as a projection: z = max(y, 0); the barrier's derivative ½ (1 + y / √(y² + 4μ)) at any y."""
    layer = imp.compile("argmin_{z in nonneg} 1/2 (z - y)^2\nusing backward smoothed(mu=0.01)")
    y = torch.tensor([-0.3, 0.0, 0.05, 2.0], dtype=D, requires_grad=True)
    z = layer(y)
    torch.testing.assert_close(z, y.clamp(min=0), atol=1e-9, rtol=0)
    z.sum().backward()
    torch.testing.assert_close(y.grad, (0.5 * (1 + y / (y**2 + 0.04).sqrt())).detach(), rtol=1e-8, atol=1e-9)


def test_transforms_and_small_mu() -> None:
    """Of a regular program the exact derivative is the limit; vmap of hessian is that of a loop."""
    body = """layer Q(n, m):
  given q in R^n, h in R^m
  param P in PD(n), G in R^(m, n)
  argmin_{z in R^n} 1/2 z^T P z + q^T z subject to ineq: G z <= h, sum(z) = 0.1
"""
    torch.manual_seed(0)
    exact = imp.compile(body, n=4, m=5).double()
    near, soft = (imp.compile(f"{body}  using backward smoothed(mu={mu})", n=4, m=5).double() for mu in (1e-9, 1e-1))
    q, h = 2 * normal(3, 4), normal(3, 5, seed=1).abs() + 0.1
    gradients: list[Tensor] = []
    for layer in (near, soft):
        layer.load_state_dict(exact.state_dict())
    for layer in (exact, near):
        inputs = [t.clone().requires_grad_() for t in (q, h)]
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(layer(*inputs).square().sum(), inputs)]))
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-5, atol=1e-6)
    single = lambda q: soft(q, h[0]).square().sum()
    looped = torch.stack([hessian(single)(v) for v in q])
    torch.testing.assert_close(vmap(hessian(single))(q), looped, rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("ignore::implicitdsl.ConvergenceWarning")
def test_an_infeasible_sample_gets_nothing() -> None:
    text = "layer B(n):\n  given a in R^n, b in R^n\n  argmin_{z in R^n} ||z||^2 subject to a <= z <= b\n"
    layer = imp.compile(text + "  using backward smoothed(mu=0.1)", n=2)
    a = torch.tensor([[1.0, -1.0], [1.0, 0.0]], dtype=D, requires_grad=True)
    sol = layer.solve(a, torch.tensor([[2.0, 1.0], [0.0, 1.0]], dtype=D))
    assert sol.report.converged.tolist() == [True, False]
    sol.value.sum().backward()
    assert a.grad is not None
    assert a.grad[0].abs().min() > 0
    assert (a.grad[1] == 0).all()

"""Continuous normalizing flows: traces in closed form, by products, by Hutchinson's estimate; density and sampling."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import implicitdsl as imp

D = torch.float64
FLOW = """
given x in R^n, t0 in R, t1 in R
{}
find z(t) in R^n, l(t) in R for t in [t0, t1] such that
  dz/dt = f(z, t), dl/dt = -div(f(z, t), z{}), z(t0) = x, l(t0) = 0
{}
return z(t1), l(t1)
"""
FIELDS = {
    "one hidden layer": "param W in R^(5, n), V in R^(n, 5), b in R^5 = normal(0, 1)\n"
    "where f(z, t) = V tanh(W z + b + t)",
    "two hidden layers": "param W in R^(5, n), U in R^(4, 5), V in R^(n, 4), b in R^5 = normal(0, 1)\n"
    "where f(z, t) = V tanh(U softplus(W z + b + t))",
    "gated": "param W in R^(n, n), b in R^n = normal(0, 1), g in R^n = normal(0, 1)\n"
    "where f(z, t) = (W z + b) * sigmoid(t g) - 0.1 z^3",
    "a module": "fn f: (R^n, R) -> R^n",
}
TIGHT = "using dopri8(rtol=1e-10, atol=1e-12)"


class Field(nn.Module):
    def __init__(self, n: int = 3) -> None:
        super().__init__()
        self.linear = nn.Linear(n + 1, n, dtype=D)

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(self.linear(torch.cat([z, t.unsqueeze(1)], 1)))


def flow(field: str, estimate: str = "", using: str = TIGHT) -> nn.Module:
    torch.manual_seed(0)
    bound = {"f": Field()} if field == "a module" else {}
    return imp.compile(FLOW.format(FIELDS[field], estimate, using), bind={"n": 3, **bound}).double()


def points(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("field", list(FIELDS))
def test_the_trace_is_the_change_of_volume(field: str) -> None:
    layer, x = flow(field), points(2, 3)
    ends = (torch.zeros((), dtype=D), torch.ones((), dtype=D))
    z, change = layer(x, *ends)
    for k in range(1 if field == "a module" else 2):
        J = torch.autograd.functional.jacobian(lambda x: layer(x, *ends)[0], x[k])
        assert torch.allclose(J.det().abs().log(), -change[k], atol=1e-8)
    # back in time: samples, with the same change of volume
    back, undone = layer(z, ends[1], ends[0])
    assert torch.allclose(back, x, atol=1e-8)
    assert torch.allclose(undone, -change, atol=1e-8)


def test_density_integrates_to_one() -> None:
    """p(x) = N(z(1)) exp(-l(1)) on a grid, of a flow in the plane with one spec for density and samples."""
    torch.manual_seed(0)
    field = "param W in R^(4, n), V in R^(n, 4), b in R^4 = normal(0, 1)\nwhere f(z, t) = V tanh(W z + b + t)"
    layer = imp.compile(FLOW.format(field, "", ""), n=2).double()
    axis = torch.linspace(-8, 8, 161, dtype=D)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        z, change = layer(grid, torch.zeros((), dtype=D), torch.ones((), dtype=D))
        density = (-0.5 * z.square().sum(1) - math.log(2 * math.pi) - change).exp()
    assert float(density.sum()) * 0.1**2 == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("field", ["one hidden layer", "a module"])
def test_hutchinson_is_unbiased_and_frozen(field: str) -> None:
    exact, estimated = flow(field, using=""), flow(field, ", hutchinson", "")
    ends = (torch.zeros((), dtype=D), torch.ones((), dtype=D))
    x = points(3)
    torch.manual_seed(1)
    with torch.no_grad():
        states, found = estimated(x.expand(4000, 3).contiguous(), *ends)
        state, change = exact(x, *ends)
    assert torch.allclose(states, state.expand_as(states), atol=1e-9)
    assert float(found.std()) > 1e-3
    assert float(found.mean()) == pytest.approx(float(change), abs=5 * float(found.std()) / 4000**0.5)

    # frozen: for one draw the estimate is a smooth function with the gradient that is computed
    def drawn(x: Tensor) -> Tensor:
        torch.manual_seed(2)
        return torch.cat([y.flatten() for y in estimated(x, *ends)])

    assert torch.equal(drawn(x), drawn(x))
    assert torch.autograd.gradcheck(drawn, (points(2, 3, seed=1).requires_grad_(),), atol=1e-5)


def test_parameters_get_the_gradient_of_the_estimate() -> None:
    layer, x = flow("one hidden layer", ", hutchinson"), points(4, 3)
    ends = (torch.zeros((), dtype=D), torch.ones((), dtype=D))

    def total() -> Tensor:
        torch.manual_seed(3)
        return layer(x, *ends)[1].sum()

    found = torch.autograd.grad(total(), list(layer.parameters()))
    with torch.no_grad():
        for p, g in zip(layer.parameters(), found, strict=True):
            flat = p.view(-1)
            flat[1] += 1e-5
            up = total()
            flat[1] -= 2e-5
            down = total()
            flat[1] += 1e-5
            assert float(g.view(-1)[1]) == pytest.approx(float(up - down) / 2e-5, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize(
    "text",
    [
        "given x in R^2\nreturn y = div(tanh(x), x, hutchinson)",
        "given x in R^2\nfind z in R^2 such that z = 0.1 x * div(tanh(z), z, hutchinson)",
    ],
    ids=["output", "fixed point"],
)
def test_estimates_belong_to_differential_equations(text: str) -> None:
    with pytest.raises(imp.SpecError, match="outside of a differential equation"):
        imp.compile(text)


def test_regularisers_are_integrals() -> None:
    """Kinetic energy and the Jacobian's Frobenius norm along the path, against sums over many states; no more steps."""
    torch.manual_seed(0)
    layer = imp.compile(f"""
    given x in R^n, ts in R^k
    param W in R^(n, n)
    where f(z) = tanh(W z)
    find z(t) in R^n, e(t) in R, k(t) in R for t in [0, 1] such that
      dz/dt = f(z), de/dt = ||f(z)||^2, dk/dt = ||jac(f(z), z)||_F^2, z(0) = x, e(0) = 0, k(0) = 0
    {TIGHT}
    return z(ts), e(1), k(1)
    """, n=3).double()  # fmt: skip
    x, ts = points(2, 3), torch.linspace(0, 1, 201, dtype=D)
    z, energy, size = layer(x, ts)
    W = layer.W.detach()
    rate = torch.tanh(z @ W.T)
    weights = torch.full((201,), 1 / 200, dtype=D)
    weights[1:-1:2] *= 4
    weights[2:-1:2] *= 2
    weights /= 3  # Simpson
    assert torch.allclose(energy, (rate.square().sum(-1) * weights).sum(1), atol=1e-8)
    J = (1 - rate.square()).unsqueeze(-1) * W
    assert torch.allclose(size, (J.square().sum((-1, -2)) * weights).sum(1), atol=1e-8)

"""The Euler–Lagrange equation as it stands, with mass matrices that depend on the state: closed forms, modules."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import implicitdsl as imp

D = torch.float64
MOTION = """
given q0 in R^n, v0 in R^n
{}
find q(t) in R^n for t in [0, 2] such that
  hess(L(q, dq/dt), dq/dt) d²q/dt² + jac(grad(L(q, dq/dt), dq/dt), q) dq/dt = grad(L(q, dq/dt), q)
  q(0) = q0, dq/dt(0) = v0
using {}
return q(2), dq/dt(2)
"""
POLAR = "param k in R = 1\nwhere L(q, v) = 1/2 v[0]^2 + 1/2 q[0]^2 v[1]^2 + k / q[0]"
Q, V = torch.tensor([[1.0, 0.3], [1.3, -0.5]], dtype=D), torch.tensor([[0.1, 1.1], [-0.2, 0.6]], dtype=D)


class Polar(nn.Module):
    """The Lagrangian of `POLAR`, as a module."""

    def __init__(self) -> None:
        super().__init__()
        self.k = nn.Parameter(torch.ones((), dtype=D))

    def forward(self, q: Tensor, v: Tensor) -> Tensor:
        return 0.5 * v[:, 0] ** 2 + 0.5 * q[:, 0] ** 2 * v[:, 1] ** 2 + self.k / q[:, 0]


def layer(closed: bool, using: str) -> nn.Module:
    if closed:
        return imp.compile(MOTION.format(POLAR, using), n=2).double()
    return imp.compile(MOTION.format("fn L: (R^n, R^n) -> R", using), n=2, L=Polar())


@pytest.mark.parametrize("closed", [True, False], ids=["closed form", "module"])
def test_kepler_in_polar_coordinates(closed: bool) -> None:
    """Against x'' = −x / |x|³ in the plane."""
    plane = imp.compile("given x in R^2, u in R^2\nfind x1(t) in R^2 for t in [0, 2] such that "
                        "d²x1/dt² = -x1 / ||x1||^3, x1(0) = x, dx1/dt(0) = u\nusing dopri8(rtol=1e-11, atol=1e-13)\n"
                        "return x1(2)")  # fmt: skip
    r, angle = Q.unbind(1)
    out, around = (torch.stack(p, 1) for p in ((angle.cos(), angle.sin()), (-angle.sin(), angle.cos())))
    x, u = r[:, None] * out, V[:, :1] * out + (r * V[:, 1])[:, None] * around
    end = plane(x, u)
    q, v = layer(closed, "dopri8(rtol=1e-7, atol=1e-9)")(Q, V)
    assert torch.allclose(q[:, :1] * torch.stack((q[:, 1].cos(), q[:, 1].sin()), 1), end, atol=1e-6)
    assert torch.allclose(q[:, 0] ** 2 * v[:, 1], r**2 * V[:, 1], atol=1e-6)  # angular momentum


@pytest.mark.parametrize("closed", [True, False], ids=["closed form", "module"])
def test_gradients_against_differences(closed: bool) -> None:
    """By positions, velocities, and what the Lagrangian learns."""
    motion = layer(closed, "rk4(steps=1)")
    (k,) = motion.parameters()
    given = (Q[:1].clone().requires_grad_(), V[:1].clone().requires_grad_())
    assert torch.autograd.gradcheck(lambda q, v: motion(q, v), given)
    (found,) = torch.autograd.grad(motion(*given)[0].sum(), k)
    with torch.no_grad():
        ends = []
        for d in (1e-5, -2e-5):
            k += d
            ends.append(float(motion(*given)[0].sum()))
    assert float(found) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-7)


def test_states_and_derivatives_are_variables_of_their_own() -> None:
    """∂/∂q of q dq/dt is dq/dt, ∂/∂(dq/dt) of it is q: q'' = (dq/dt) · (−q) in one number."""
    text = (
        "given a in R\nfind q(t) in R for t in [0, 1] such that "
        "d²q/dt² = -grad(q dq/dt, q) * grad(q dq/dt, dq/dt), q(0) = a, dq/dt(0) = {}\nreturn {}"
    )
    other = text.replace("-grad(q dq/dt, q) * grad(q dq/dt, dq/dt)", "-dq/dt q")
    a = torch.tensor([0.5, 1.0], dtype=D)
    for asked in ("q(1)", "dq/dt(1)"):
        assert torch.allclose(imp.compile(text.format(2, asked))(a), imp.compile(other.format(2, asked))(a), atol=1e-12)

"""`until`: batched event times and states, and their gradients with respect to everything."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import implicitdsl as imp

D = torch.float64
FALL = """
given h in R, v in R
const g in R = 9.81
find q(t) in R for t in [0, 10] until q {} such that d²q/dt² = -g, q(0) = h, dq/dt(0) = v
return t, q(t), dq/dt(t)
"""


def landing(h: Tensor, v: Tensor) -> Tensor:
    return (v + (v * v + 2 * 9.81 * h).sqrt()) / 9.81


@pytest.mark.parametrize("op", ["<= 0", "= 0"])
def test_a_thrown_ball(op: str) -> None:
    """Thrown from the ground, dropped, thrown from above, and one that does not land in time."""
    layer = imp.compile(FALL.format(op))
    h = torch.tensor([0.0, 1.0, 5.0, 800.0], dtype=D, requires_grad=True)
    v = torch.tensor([10.0, 0.0, 2.0, 0.0], dtype=D, requires_grad=True)
    t, q, speed = layer(h, v)
    exact = landing(h, v)
    assert torch.allclose(t[:3], exact[:3], atol=1e-9)
    assert float(t[3].detach()) == 10.0
    assert torch.allclose(q[:3], torch.zeros(3, dtype=D), atol=1e-10)
    assert torch.allclose(q[3], 800 - 9.81 * 50 * torch.ones((), dtype=D))
    assert torch.allclose(speed[:3], v[:3] - 9.81 * exact[:3], atol=1e-8)
    for mine, theirs in ((t, exact), (speed, v - 9.81 * exact)):
        a = torch.autograd.grad(mine[:3].sum(), (h, v), retain_graph=True)
        b = torch.autograd.grad(theirs[:3].sum(), (h, v), retain_graph=True)
        for x, y in zip(a, b, strict=True):
            assert torch.allclose(x, y, atol=1e-8)


@pytest.mark.parametrize("asked", ["dq/dt(t)", "dq/dt"])
def test_a_rate_that_is_asked_for_and_stands_in_its_equation(asked: str) -> None:
    """q'' = −q' reaches 1 − e^(−t) = level with the rate 1 − level."""
    layer = imp.compile("given level in R\nfind q(t) in R for t in [0, 9] until q >= level such that d²q/dt² = -dq/dt, "
                        f"q(0) = 0, dq/dt(0) = 1\nreturn t, {asked}")  # fmt: skip
    level = torch.tensor([0.3, 0.9], dtype=D)
    t, rate = layer(level)
    assert torch.allclose(t, -torch.log(1 - level), atol=1e-7)
    assert torch.allclose(rate, 1 - level, atol=1e-8)


def test_each_row_is_the_same_alone() -> None:
    layer = imp.compile(FALL.format("<= 0"))
    h, v = torch.tensor([0.0, 1.0, 5.0], dtype=D), torch.tensor([10.0, 0.0, 2.0], dtype=D)
    whole = layer(h, v)
    for i in range(3):
        for a, b in zip(layer(h[i], v[i]), whole, strict=True):
            assert torch.allclose(a, b[i], atol=1e-12)


def test_rising_falling_and_either() -> None:
    """q = sin t from 0: it first rises to 0.5 at π/6, falls to it at 5π/6, and falls to −0.5 at 7π/6."""
    found = {}
    for name, until in {
        "rise": "q >= 0.5",
        "fall": "q <= 0.5",
        "either": "q = 0.5",
        "first of two": "q <= -0.5 or p <= 0",
        "by time": "t >= 2",
    }.items():
        layer = imp.compile(f"""
        given a in R
        find q(t) in R, p(t) in R for t in [0, 6] until {until} such that dq/dt = p, dp/dt = -q, q(0) = 0, p(0) = a
        using dopri5(rtol=1e-10, atol=1e-12)
        return t
        """)
        found[name] = float(layer(torch.ones((), dtype=D)))
    third = torch.pi / 6
    exact = {"rise": third, "fall": 5 * third, "either": third, "first of two": 3 * third, "by time": 2.0}
    assert found == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize("using", ["dopri5(rtol=1e-9)", "rodas5p(steps=30)", "rk4(steps=60)"])
def test_gradients_with_respect_to_everything(using: str) -> None:
    """Of event time, state and what is asked before and after it: by inputs, parameters and the threshold."""
    torch.manual_seed(0)
    layer = imp.compile(f"""
    given x in R^n, level in R, ts in R^k
    param W in R^(n, n)
    find z(t) in R^n, e(t) in R for t in [0, 5] until e >= level such that
      dz/dt = tanh(W z) + sin(t), de/dt = z^T z + 0.3, z(0) = x, e(0) = 0
    using {using}
    return t, z(t), z(ts)
    """, n=2).double()  # fmt: skip
    x = torch.tensor([[0.3, -0.4], [1.0, 0.2]], dtype=D, requires_grad=True)
    level = torch.tensor([1.0, 2.0], dtype=D, requires_grad=True)
    ts = torch.tensor([0.2, 4.5], dtype=D)

    def total(x: Tensor, level: Tensor) -> Tensor:
        t, z, zs = layer(x, level, ts)
        return torch.cat([t.unsqueeze(1), z, zs.flatten(1)], 1)

    assert torch.allclose(total(x, level)[:, 1:3], total(x, level)[:, 5:7])  # what lies after the event is asked at it
    assert torch.autograd.gradcheck(total, (x, level), atol=1e-5, eps=1e-5)
    (g,) = torch.autograd.grad(total(x, level).sum(), layer.W)
    with torch.no_grad():
        ends = []
        for d in (1e-5, -1e-5):
            layer.W[0, 1] += d
            ends.append(float(total(x, level).sum()))
            layer.W[0, 1] -= d
    assert float(g[0, 1]) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5, abs=1e-6)


def test_transforms() -> None:
    layer = imp.compile(FALL.format("<= 0"))
    h, v = torch.tensor([1.0, 5.0], dtype=D), torch.tensor([0.0, 2.0], dtype=D)

    def when(h: Tensor, v: Tensor) -> Tensor:
        return layer(h, v)[0]

    assert torch.allclose(torch.func.vmap(when)(h, v), landing(h, v), atol=1e-9)
    slope = torch.autograd.functional.jacobian(lambda h: landing(h, v), h).diagonal()
    assert torch.allclose(torch.func.vmap(torch.func.grad(when))(h, v), slope, atol=1e-8)
    assert torch.allclose(torch.func.jacfwd(when)(h, v).diagonal(), slope, atol=1e-8)

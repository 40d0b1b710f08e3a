"""Every method by its name: nominal order on a non-autonomous system, gradients by all that a spec may ask."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import implicitdsl as imp

D = torch.float64
ORDERS = {
    "euler": 1, "midpoint": 2, "heun": 2, "rk4": 4, "bosh3": 3, "dopri5": 5, "tsit5": 5, "dopri8": 8,
    "implicit_euler": 1, "trapezoid": 2, "kvaerno5": 5, "rodas5p": 5, "leapfrog": 2, "yoshida4": 4,
}  # fmt: skip
DRIVEN = """
given q0 in R^n, p0 in R^n, c in R, ts in R^k, t0 in R, t1 in R
param W in R^(n, n)
find q(t) in R^n, p(t) in R^n for t in [t0, t1] such that
  dq/dt = p * (1 + 0.5 sin(2 t)), dp/dt = -tanh(W q) + c cos(3 t), q(t0) = q0, p(t0) = p0
using {}
return q(ts), p(t1)
"""
W = torch.tensor([[1.2, -0.4], [0.3, 0.8]], dtype=D)
GIVEN = (
    torch.tensor([[1.0, -0.3]], dtype=D),
    torch.tensor([[0.5, 0.2]], dtype=D),
    torch.tensor([0.7], dtype=D),
    torch.tensor([[0.9, 1.6]], dtype=D),
    torch.tensor([0.2], dtype=D),
    torch.tensor([2.1], dtype=D),
)


def run(using: str, given: tuple[Tensor, ...]) -> Tensor:
    """States at the output times and at the end, (1, 6)."""
    layer = imp.compile(DRIVEN.format(using), n=2, k=2).double()
    with torch.no_grad():
        layer.W.copy_(W)
    return torch.cat([y.flatten(1) for y in layer(*given)], 1)


@pytest.fixture(scope="module")
def exact() -> Tensor:
    return run("dopri8(rtol=1e-13, atol=1e-15)", GIVEN).detach()


@pytest.mark.parametrize("method", list(ORDERS))
def test_order_on_a_non_autonomous_system(method: str, exact: Tensor) -> None:
    """At the end and at times inside, where outputs have the order of the method or of its interpolant."""
    few = {8: 4, 5: 12}.get(ORDERS[method], 40)
    ends, inner = [], []
    for steps in (few, 2 * few):
        gap = (run(f"{method}(steps={steps})", GIVEN).detach() - exact).abs()
        ends.append(float(gap[:, 4:].max()))
        inner.append(float(gap[:, :4].max()))
    assert math.log2(ends[0] / ends[1]) > ORDERS[method] - 0.4, ends
    assert math.log2(inner[0] / inner[1]) > min(ORDERS[method], 4) - 0.5, inner


LANDING = ("dopri8", "implicit_euler", "trapezoid", "kvaerno5", "leapfrog", "yoshida4")
"""Their steps end at output times, so that the steps after one move with it; the gradient holds them."""


@pytest.mark.parametrize("method", list(ORDERS))
def test_gradients_against_differences(method: str) -> None:
    """Of states at both kinds of times by states, inputs and parameters; by both ends and each output time too where
    differences leave the steps where they are.
    """
    layer = imp.compile(DRIVEN.format(f"{method}(steps=4)"), n=2, k=2).double()
    weight = W.clone().requires_grad_()

    def call(weight: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.func.functional_call(layer, {"W": weight}, given))

    held = 3 if method in LANDING else len(GIVEN)
    given = tuple(x.clone().requires_grad_(k < held) for k, x in enumerate(GIVEN))
    layer(*GIVEN)
    assert torch.autograd.gradcheck(call, (weight, *given), atol=1e-8, rtol=1e-6, fast_mode=method == "kvaerno5")


def by_times(using: str) -> Tensor:
    """Gradients of a sum of all outputs by output times and both ends, (4,)."""
    given = tuple(x.clone().requires_grad_(k > 2) for k, x in enumerate(GIVEN))
    y = run(using, given)
    return torch.cat([g.flatten() for g in torch.autograd.grad((torch.arange(1, 7) * y).sum(), given[3:])])


@pytest.fixture(scope="module")
def slopes() -> Tensor:
    return by_times("dopri5(rtol=1e-8, atol=1e-10)")


@pytest.mark.parametrize("method", LANDING)
def test_gradients_by_times_converge(method: str, slopes: Tensor) -> None:
    """To those of the solution, by both ends and each output time, at the order of the method."""
    few = {8: 3, 5: 6}.get(ORDERS[method], 20)
    errors = [float((by_times(f"{method}(steps={n})") - slopes).abs().max()) for n in (few, 2 * few)]
    assert math.log2(errors[0] / errors[1]) > min(ORDERS[method], 4) - 0.5, errors

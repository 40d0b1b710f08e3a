"""Small steps are transposed many at once: the same gradients as one by one, in few operators."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import implicitdsl as imp
from implicitdsl.backward import ode_propagators

D = torch.float64
DRIVEN = """
given x in R^n, w in R, ts in R^k
param A in R^(n, n), c in R^n
find z(t) in R^n, e(t) in R for t in [0, 3] such that
  dz/dt = A sin(z + w t) - z^3 + c + abs(t - 0.7), de/dt = sum(z^2), z(0) = x, e(0) = 0
using {}
return z(ts), z(3), e(3)
"""
CUBE = """
given x in R
find z(t) in R for t in [0, 1] such that dz/dt = -5 z^3, z(0) = x
using {}
"""

GROWTH = """
given x in R, k in R, c in R
find z(t) in R for t in [0, 1] such that dz/dt = k z + c, z(0) = x
using heun(steps=8), on_failure=nan
"""


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


def gradients(layer: Any) -> list[Tensor]:
    """Of rows of very different speed: some are refused, some finish long before others."""
    x = (random(7, 2, seed=0) * torch.logspace(-2, 0.5, 7, dtype=D).unsqueeze(1)).requires_grad_()
    w = torch.logspace(-1, 1.5, 7, dtype=D).requires_grad_()
    y = layer(x, w, torch.tensor([0.3, 0.9, 2.1], dtype=D))
    total = torch.stack([(random(*v.shape, seed=1) * v).sum() for v in y]).sum()
    return list(torch.autograd.grad(total, (x, w, *layer.parameters())))


class Calls(TorchDispatchMode):
    """Counts operators."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count[str(func)] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.filterwarnings("ignore::implicitdsl.SpecWarning")
@pytest.mark.parametrize(
    "using",
    ["dopri5", "tsit5(rtol=1e-5, jump_t=[0.7, 2])", "dopri8(jump_t=[0.7])", "bosh3(rtol=1e-4)", "heun(steps=120)"],
)
def test_the_gradients_of_single_steps(using: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over interpolated outputs, outputs at which steps end, kinks, integrals, and a time that enters."""
    layer = imp.compile(DRIVEN.format(using), n=2, k=3).double()
    together = gradients(layer)
    monkeypatch.setattr(ode_propagators, "GATHERED", 3000)  # a few at a time
    few = gradients(layer)
    monkeypatch.setattr(ode_propagators, "SMALL", 0)
    for found, other, alone in zip(together, few, gradients(layer), strict=True):
        assert torch.allclose(found, alone, rtol=1e-11, atol=1e-12)
        assert torch.allclose(other, alone, rtol=1e-11, atol=1e-12)


def test_functions_that_are_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).double()
    layer: Any = imp.compile("find z(t) in R^2 for t in [0, 2] such that dz/dt = f(z), z(0) = x", f=net)
    x = random(5, 2, seed=3)

    def found() -> list[Tensor]:
        return list(torch.autograd.grad(layer(x).square().sum(), list(net.parameters())))

    together = found()
    monkeypatch.setattr(ode_propagators, "SMALL", 0)
    for mine, alone in zip(together, found(), strict=True):
        assert torch.allclose(mine, alone, rtol=1e-11, atol=1e-13)


def test_operators_do_not_grow_with_the_steps() -> None:
    """Backwards through ten times the steps: three operators more for each."""
    counts: list[int] = []
    for steps in (20, 200):
        layer: Any = imp.compile(CUBE.format(f"rk4(steps={steps})"))
        y = layer(torch.linspace(0.1, 1.0, 6, dtype=D, requires_grad=True))
        with Calls() as calls:
            y.sum().backward()
        counts.append(calls.count.total())
    assert counts[1] - counts[0] < 3.5 * 180


@pytest.mark.filterwarnings("ignore::implicitdsl.ConvergenceWarning")
def test_where_a_matrix_overflows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that is lost, with a step whose matrix is not finite, takes nothing from the others."""
    layer: Any = imp.compile(GROWTH)
    x, k = torch.tensor([0.5, 1.0, 1e-10]), torch.tensor([1.0, -2.0, 8e20], requires_grad=True)
    c = torch.tensor(0.1, requires_grad=True)
    found = torch.autograd.grad(layer(x, k, c)[:2].sum(), (k, c))
    monkeypatch.setattr(ode_propagators, "SMALL", 0)
    for mine, alone in zip(found, torch.autograd.grad(layer(x, k, c)[:2].sum(), (k, c)), strict=True):
        assert torch.allclose(mine, alone, rtol=1e-6)
        assert mine.isfinite().all()
    assert found[0][:2].abs().min() > 0

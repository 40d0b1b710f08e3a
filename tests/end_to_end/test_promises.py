"""What sets and certificates promise holds at every step of a training run; and where solves may start."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import implicitdsl as imp

F64 = torch.float64
pytestmark = [
    pytest.mark.filterwarnings("error::implicitdsl.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore::implicitdsl.SpecWarning"),
]

BALL = """layer Ball(n, m):
  given x in R^m
  param W in SpectralBall(n, 0.9)
        U in R^(n, m)
  find z in R^n such that z = tanh(W z + U x)
"""
MONOTONE = """layer Mon(n, m):
  given x in R^m
  param W in Monotone(n, 0.1)
        U in R^(n, m)
  find z in R^n such that z = relu(W z + U x)
"""


def trained(layer: nn.Module, x: Tensor, optimiser: torch.optim.Optimizer, looked: Callable[[], None]) -> list[float]:
    """Losses of a regression that pulls the weights out of their set, `looked` at before each of its steps."""
    target = 3 * torch.sin(2 * x.cumsum(-1))
    losses: list[float] = []
    for _ in range(12):
        looked()
        optimiser.zero_grad()
        loss = (layer(x)[:, : x.shape[1]] - target).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    looked()
    return losses


OPTIMISERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "adam": lambda layer: torch.optim.Adam(layer.parameters(), lr=0.3),
    "sgd": lambda layer: torch.optim.SGD(layer.parameters(), lr=0.5, momentum=0.9),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_spectral_ball_keeps_its_rate_and_its_bound_in_training(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = imp.compile(BALL, n=8, m=3).to(dtype)
    x = torch.randn(16, 3, dtype=dtype)
    norms: list[float] = []

    def looked() -> None:
        W, U = layer.W.detach(), layer.U.detach()
        norms.append(float(torch.linalg.matrix_norm(W.double(), 2)))
        assert norms[-1] <= 0.9 * (1 + 1e-6)
        solution = layer.solve(x, start=torch.full((16, 8), 0.5, dtype=dtype))
        report, z = solution.report, solution.value.detach()
        assert report.converged.all()
        assert report.certified.all()
        assert (report.rate <= 0.9 * (1 + 1e-6)).all()
        exact = z.double()
        for _ in range(300):
            exact = torch.tanh(exact @ W.double().T + x.double() @ U.double().T)
        assert ((z - exact).norm(dim=-1) <= report.error_bound).all()

    losses = trained(layer, x, OPTIMISERS[name](layer), looked)
    assert max(norms) > 0.85  # the promise was needed
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_monotone_layer_stays_monotone_in_training(name: str) -> None:
    torch.manual_seed(1)
    layer = imp.compile(MONOTONE, n=8, m=3).to(F64)
    x = torch.randn(16, 3, dtype=F64)
    norms: list[float] = []

    def looked() -> None:
        W = layer.W.detach()
        norms.append(float(torch.linalg.matrix_norm(W, 2)))
        margin = torch.linalg.eigvalsh(torch.eye(8, dtype=F64) - (W + W.T) / 2).min()
        assert margin >= 0.1 * (1 - 1e-9)
        here = layer.solve(x)
        there = layer.solve(x, start=torch.full((16, 8), 7.0, dtype=F64))
        assert here.report.converged.all()
        assert there.report.converged.all()
        torch.testing.assert_close(here.value, there.value, rtol=0, atol=1e-9)  # the only one
        torch.testing.assert_close(here.value, torch.relu(here.value @ W.T + x @ layer.U.T), rtol=0, atol=1e-9)

    losses = trained(layer, x, OPTIMISERS[name](layer), looked)
    assert max(norms) > 1  # a contraction would have been another promise
    assert losses[-1] < losses[0]


SYSTEM = """layer S(n):
  given x in R^n, y in R^n
  param A in SpectralBall(n, 0.8)
  find u in R^n, v in R^n such that u = tanh(A v + x), v = sigmoid(u + y)
  using picard{}
"""


@pytest.mark.parametrize("start", ["", ", start zeros", ", start 0.3", ", start x", ", start tanh(x + A y)"])
def test_a_system_starts_where_it_is_told(start: str) -> None:
    torch.manual_seed(2)
    layer = imp.compile(SYSTEM.format(start), n=4).to(F64)
    x, y = torch.randn(5, 4, dtype=F64), torch.randn(5, 4, dtype=F64)
    solution = layer.solve(x, y)
    u, v = solution.value
    torch.testing.assert_close(u, torch.tanh(v @ layer.A.T + x), rtol=0, atol=1e-11)
    torch.testing.assert_close(v, torch.sigmoid(u + y), rtol=0, atol=1e-11)
    for again in (solution, (u, v), {"v": v, "u": u}):
        warm = layer.solve(x, y, start=again)
        assert (warm.report.iterations < solution.report.iterations).all()
        torch.testing.assert_close(warm.value.u, u, rtol=0, atol=1e-11)


def test_the_start_decides_between_two_solutions_of_a_system() -> None:
    text = """layer P():
  given a in R
  find u in R, v in R such that u^2 + v^2 = 1 + a, u = v
  using newton, start {}
"""
    a = torch.tensor([1.0, 7.0], dtype=F64)
    for start, sign in (("1", 1.0), ("-1", -1.0), ("a", 1.0), ("-a", -1.0)):
        u, v = imp.compile(text.format(start))(a)
        torch.testing.assert_close(u, sign * torch.tensor([1.0, 2.0], dtype=F64), rtol=0, atol=1e-10)
        torch.testing.assert_close(v, u, rtol=0, atol=1e-10)

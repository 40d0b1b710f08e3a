"""Autocast: the bound cell runs in bfloat16, everything that is solved stays in float32."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

import implicitdsl as imp

CELL = """layer Cell(n):
  given x in R^n
  param W in SpectralBall(n, 0.5)
  fn f: (R^n, R^n) -> R^n
  find z in R^n such that z = f(z, x) + 1/2 W z
"""
USINGS = {
    "ladder": "",
    "newton": "  using newton\n",
    "picard": "  using picard\n",
    "anderson, gmres": "  using anderson, backward gmres\n",
    "broyden, bicgstab": "  using broyden, backward bicgstab\n",
    "newton_krylov": "  using newton_krylov, backward gmres\n",
}


class Step(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n, n)
        self.seen: set[torch.dtype] = set()
        nn.init.orthogonal_(self.linear.weight, 0.4)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        y = torch.tanh(self.linear(z) + x)
        self.seen.add(self.linear(z).dtype)
        return y


def run(layer: nn.Module, x: Tensor, low: bool) -> tuple[Tensor, list[Tensor]]:
    """The solution, and the gradients of a loss in everything."""
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=low):
        z = layer(x)
    return z.detach(), list(torch.autograd.grad(z.square().sum(), [x, *layer.parameters()]))


@pytest.mark.parametrize("n", [6, 90])
@pytest.mark.parametrize("using", USINGS.values(), ids=USINGS.keys())
def test_the_cell_is_low_and_the_algebra_high(using: str, n: int) -> None:
    torch.manual_seed(0)
    cell = Step(n)
    with warnings.catch_warnings():
        warnings.simplefilter("error", imp.ConvergenceWarning)
        warnings.simplefilter("ignore", imp.SpecWarning)
        layer = imp.compile(CELL + using, n=n, f=cell)
        x = torch.randn(4, n, requires_grad=True)
        exact, right = run(layer, x, low=False)
        assert cell.seen == {torch.float32}
        cell.seen.clear()
        z, found = run(layer, x, low=True)
    assert cell.seen == {torch.bfloat16}
    assert z.dtype == torch.float32
    assert 0 < float((z - exact).norm() / exact.norm()) < 1e-2
    for gradient, reference in zip(found, right, strict=True):
        assert gradient.dtype == torch.float32
        assert gradient.isfinite().all()
        assert float((gradient - reference).norm() / reference.norm()) < 3e-2


def test_equations_of_the_language_alone_are_not_rounded() -> None:
    text = CELL.replace("  fn f: (R^n, R^n) -> R^n\n", "").replace("f(z, x) + 1/2 W z", "tanh(W z + x)")
    torch.manual_seed(0)
    layer, x = imp.compile(text, n=6), torch.randn(4, 6, requires_grad=True)
    exact, right = run(layer, x, low=False)
    z, found = run(layer, x, low=True)
    torch.testing.assert_close(z, exact, rtol=0, atol=0)
    for gradient, reference in zip(found, right, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-5, atol=1e-6)

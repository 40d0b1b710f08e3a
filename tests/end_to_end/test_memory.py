"""What a call keeps for its backward pass does not grow with the solver's iterations: measured, not argued."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import implicitdsl as imp

N, B = 32, 16
SLOW = """layer Slow(n):
  given x in R^n
  param W in SpectralBall(n, 0.999)
  find z in R^n such that z = W z + x
"""
CELL = """layer Cell(n):
  given x in R^n
  fn f: (R^n, R^n) -> R^n
  find z in R^n such that z = f(z, x)
"""


class Step(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(N, N)
        nn.init.orthogonal_(self.linear.weight, 0.999)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return self.linear(z) + x


def kept_bytes(run: Callable[[], Tensor]) -> int:
    """What autograd saves, every storage once, and gets back in the backward pass."""
    sizes: dict[int, int] = {}
    alive: list[Tensor] = []

    def pack(t: Tensor) -> Tensor:
        alive.append(t)
        sizes[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        z = run()
    total = sum(sizes.values())
    z.sum().backward()
    return total


def layer(cell: bool, using: str) -> nn.Module:
    torch.manual_seed(0)
    if cell:
        return imp.compile(f"{CELL}  using {using}\n", n=N, f=Step())
    made = imp.compile(f"{SLOW}  using {using}\n", n=N)
    made.W = 0.999 * torch.linalg.qr(torch.randn(N, N))[0]
    return made


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("cell", [False, True], ids=["equation", "bound cell"])
@pytest.mark.parametrize("method", ["picard", "anderson", "broyden"])
def test_ten_and_a_thousand_iterations_keep_the_same(method: str, cell: bool) -> None:
    x = torch.randn(B, N, generator=torch.Generator().manual_seed(0))
    sizes, counts = [], []
    for limit in (10, 1000):
        made = layer(cell, f"{method}(max_iter={limit}, tol=1e-7), backward gmres")
        counts.append(int(made.solve(x).report.iterations.max()))
        sizes.append(kept_bytes(lambda made=made: made(x)))
    assert counts[0] <= 10
    assert counts[1] >= (1000 if method == "picard" else 20)
    assert sizes[0] == sizes[1] > 0
    assert sizes[1] <= 40 * x.numel() * x.element_size() + 8 * N * N * 4

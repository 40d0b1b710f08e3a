"""Fused attention has no second derivatives in torch; layers around it have them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import implicitdsl as imp

TEXT = """layer Tokens(t, d):
  given x in R^(t, d)
  fn f: (R^(t, d), R^(t, d)) -> R^(t, d)
  find z in R^(t, d) such that z = f(z, x)
"""
F64 = torch.float64


class Fused(nn.Module):
    def __init__(self, d: int) -> None:
        super().__init__()
        self.q = nn.Linear(d, d)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        q = self.q(z)[:, None]
        return torch.tanh(x + 0.3 * F.scaled_dot_product_attention(q, q, q, is_causal=True)[:, 0])


@pytest.fixture
def layer() -> nn.Module:
    torch.manual_seed(0)
    return imp.compile(TEXT, t=3, d=2, f=Fused(2)).double()


@pytest.mark.parametrize("using", ["", "  using newton_krylov, backward gmres\n", "  using anderson, backward gmres\n"])
@pytest.mark.filterwarnings("ignore::implicitdsl.SpecWarning")
def test_every_solver_and_second_derivatives(using: str) -> None:
    torch.manual_seed(0)
    layer = imp.compile(TEXT + using, t=3, d=2, f=Fused(2)).double()
    x = torch.randn(2, 3, 2, dtype=F64, requires_grad=True)
    assert layer.solve(x).report.converged.all()
    assert torch.autograd.gradcheck(layer, x)
    assert torch.autograd.gradgradcheck(layer, x)


def test_forward_mode_and_hessians(layer: nn.Module) -> None:
    x = torch.randn(1, 3, 2, dtype=F64)
    jacobians = torch.func.jacfwd(layer)(x), torch.func.jacrev(layer)(x)
    torch.testing.assert_close(*jacobians, rtol=1e-9, atol=1e-11)
    hessian = torch.func.hessian(lambda x: layer(x).sum())(x).reshape(6, 6)
    torch.testing.assert_close(hessian, hessian.T, rtol=1e-8, atol=1e-10)
    assert float(hessian.detach().abs().max()) > 1e-3

"""Without a certificate: rows of one batch at attracting and at repelling solutions, forward and backward."""

from __future__ import annotations

import pytest
import torch

import implicitdsl as imp


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 2e-4), (torch.float64, 1e-9)])
def test_gradients_are_right_where_plain_iteration_diverges(dtype: torch.dtype, tolerance: float) -> None:
    generator = torch.Generator().manual_seed(0)
    layer = imp.compile("find z such that z = tanh(W z + x)").to(dtype)
    x = torch.randn(48, 96, generator=generator, dtype=dtype)
    layer(x)
    w = torch.randn(96, 96, generator=generator, dtype=dtype)
    layer.W = 3 * w / torch.linalg.matrix_norm(w, 2)
    x.requires_grad_()
    solution = layer.solve(x)
    assert solution.report.converged.all()
    assert "newton" in repr(solution.report), "some rows have no attracting solution"
    (found,) = torch.autograd.grad(solution.value.sum(), x)
    z, w = solution.value.detach().double(), layer.W.detach().double()
    slope = 1 - torch.tanh(z @ w.T + x.detach().double()).square()
    jacobian = torch.eye(96, dtype=torch.float64) - slope.unsqueeze(2) * w
    u = torch.linalg.inv(jacobian).mT @ torch.ones(48, 96, 1, dtype=torch.float64)
    exact = slope * u.squeeze(2)
    assert ((found - exact).norm(dim=1) / exact.norm(dim=1)).max() < tolerance


def test_a_trial_of_plain_steps_comes_first_where_it_is_cheap() -> None:
    layer = imp.compile("find z such that z = tanh(W z + x)", n=128)
    assert "picard(max_iter=" in imp.explain(layer)
    small = imp.compile("find z such that z = tanh(W z + x)", n=8)
    assert "picard" not in imp.explain(small)

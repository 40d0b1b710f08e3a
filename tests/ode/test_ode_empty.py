"""Batches without a sample: shapes, gradients and reports as of any other."""

from __future__ import annotations

import pytest
import torch

import implicitdsl as imp

SPEC = """layer A(n):
  given x in R^n, a in R
  fn f: (R^n, R) -> R^n
  find z(t) in R^n for t in [0, 1] such that dz/dt = f(z, t) + a x, z(0) = x
  using METHOD
  return z(1), z([0.2, 0.7])
"""


@pytest.mark.parametrize("method", ["dopri5", "rk4", "rodas5p", "trapezoid", "dopri5, backward unrolled"])
def test_no_samples(method: str) -> None:
    layer = imp.compile(SPEC.replace("METHOD", method), f=lambda z, t: -z.tanh())
    x = torch.zeros(0, 3, requires_grad=True)
    last, between = layer(x, 0.5)
    assert last.shape == (0, 3)
    assert between.shape == (0, 2, 3)
    (last.sum() + between.sum()).backward()
    assert x.grad is not None
    assert x.grad.shape == (0, 3)
    assert layer.solve(x, 0.5).report.converged.shape == (0,)

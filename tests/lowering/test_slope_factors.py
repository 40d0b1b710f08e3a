"""u (1 - a^2) where u or a is a number to Python: a constant or a dimension."""

from __future__ import annotations

import pytest
import torch

import implicitdsl as imp


@pytest.mark.parametrize(
    "body, expected",
    [
        ("0.5 (1 - tanh(c)^2)", lambda c: 0.5 * (1 - c.tanh() ** 2)),
        ("n (1 - tanh(c)^2)", lambda c: 3 * (1 - c.tanh() ** 2)),
        ("c (1 - n^2)", lambda c: -8 * c),
        ("(1 - c^2) c", lambda c: c * (1 - c**2)),
    ],
    ids=["constant", "dimension", "dimension-squared", "tensors"],
)
def test_numbers_among_the_factors(body: str, expected) -> None:
    layer = imp.compile(f"layer A(n):\n  given x in R^n, c in R\n  return y = {body}, x\n")
    c = torch.tensor([0.3, -0.7])
    torch.testing.assert_close(layer(torch.ones(3), c).y, expected(c))


def test_a_recurrence_as_a_root_has_the_jacobian_of_its_entries() -> None:
    text = """layer A(n):
  given x in R^n
  find z in R^(n+1) such that z[0] = 1, z[i+1] = 0.5 tanh(z[i]) + x[i] for i in n
"""
    x = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    z = torch.ones(2, dtype=torch.float64)
    steps = [z]
    for i in range(3):
        steps.append(0.5 * steps[-1].tanh() + x[:, i])
    expected = torch.stack(steps, -1)
    found = imp.compile(text)(x)
    torch.testing.assert_close(found, expected)
    weight = torch.arange(4.0, dtype=torch.float64)
    (g,) = torch.autograd.grad((found * weight).sum(), x)
    torch.testing.assert_close(g, torch.autograd.grad((expected * weight).sum(), x)[0])

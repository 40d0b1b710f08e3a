"""`(a, inf)`, `[a, inf]` and their mirror images are sets wherever intervals are."""

from __future__ import annotations

import math

import pytest
import torch

import implicitdsl as imp


def codes(text: str) -> list[str]:
    return [d.code for d in imp.check(text) if d.is_error]


@pytest.mark.parametrize(
    "where, y", [("(-1, inf)", [-0.36, -0.1, 1e-8, 3.0, 1e6]), ("(-inf, -1)", [-0.36, -0.1, -1e-8])]
)
def test_they_pick_a_branch_of_lamberts_function(where: str, y: list[float]) -> None:
    layer = imp.compile(f"given y in R\nfind w in {where} such that w exp(w) = y").double()
    given = torch.tensor(y, dtype=torch.float64, requires_grad=True)
    found = layer.solve(given)
    w = found.value
    assert found.report.converged.all()
    assert torch.allclose(w * w.exp(), given, rtol=1e-12, atol=0)
    assert ((w > -1) if "-1, " in where else (w < -1)).all()
    (slope,) = torch.autograd.grad(w.sum(), given)
    assert torch.allclose(slope * (1 + w) * w.exp(), torch.ones_like(w), rtol=1e-9)


def test_they_bound_programs_on_one_side() -> None:
    y = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for text, low, high, total in (
        ("[0.5, inf]", 0.5, math.inf, 3.0),
        ("[-inf, 0.2]", -math.inf, 0.2, 0.9),
        ("(-inf, inf)", -9.0, 9.0, 0.9),
    ):
        layer = imp.compile(f"given y in R^n\nargmin_{{x in {text}^n}} ||x - y||^2")
        assert torch.allclose(layer(y), y.clamp(low, high), atol=1e-9)
        tied = imp.compile(f"given y in R^n\nargmin_{{x in {text}^n}} ||x - y||^2 subject to sum(x) = {total}")
        x = tied(y)
        assert torch.allclose(x.sum(-1), torch.full_like(x[:, 0], total))
        assert ((x >= low - 1e-9) & (x <= high + 1e-9)).all()


def test_they_hold_parameters_and_signs() -> None:
    layer = imp.compile(
        """layer L(n):
          given y in R^n, c in (1, inf)
          param a in (2, inf), b in [-inf, -1]^n
          argmin_{x in R^n} a ||x - y||^2 + log(c) ||x||^2 + b^T x"""
    )
    y = torch.randn(3, 4)
    x = layer(y, torch.tensor([2.0, 3.0, 4.0]))
    x.sum().backward()
    assert (layer.a > 2).all()
    assert (layer.b <= -1).all()
    assert layer.get_parameter("a").grad is not None
    with pytest.raises(imp.SpecError, match=r"outside \(2, inf\)"):
        layer.a = torch.tensor(1.9)


def test_zero_and_both_infinities_are_sets_with_a_name() -> None:
    text = "given y in R^n, c in {}\nargmin_{{x in R^n}} ||x - y||^2 + c ||x||^2"
    assert codes(text.format("[0, inf]")) == codes(text.format("(0, inf)")) == []
    assert codes(text.format("(-inf, inf)")) == ["IMP601"]
    assert codes(text.format("(inf, 2)")) == ["IMP107"]

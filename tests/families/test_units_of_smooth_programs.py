"""Smooth programs whose data are tiny or huge have the solutions of the same programs in other units."""

from __future__ import annotations

import warnings

import pytest
import torch

import implicitdsl as imp

PROGRAMS = {
    "exponentials": "||z - a||^2 subject to sum(exp(z / c)) <= 2",
    "sines": "||z - a||^2 + c^2 * sum(sin(z / c)) using nlp",
    "sphere": "||z - a||^2 subject to ||z||^2 = c^2 using nlp",
    "quartic": "sum((z - a)^4) + c^2 * ||z||^2 subject to sum(z) = c, sum(z^4) <= c^4",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_units_do_not_matter(name: str) -> None:
    text = f"layer L(n):\n  given a in R^n, c in positive\n  argmin_{{z in R^n}} {PROGRAMS[name]}\n  return z\n"
    layer = imp.compile(text, n=3)
    a = torch.tensor([[1.0, 0.7, -0.3], [0.2, -1.0, 0.4]], dtype=torch.float64)
    expected = layer(a, a.new_tensor(1.0))
    for unit in (1e-8, 1e-6, 1e-3, 1e3, 1e6, 1e8):
        sol = layer.solve(unit * a, a.new_tensor(unit))
        assert sol.report.converged.all()
        torch.testing.assert_close(sol.value / unit, expected, rtol=1e-9, atol=1e-9)


def test_a_point_outside_of_the_domain_is_no_optimum() -> None:
    """-c² Σ log(z / c) has a slope at negative z, too: starts are in units of the argument, ends are looked at."""
    text = """layer L(n):
      given a in R^n, c in positive
      argmin_{z in R^n} ||z - a||^2 - c^2 * sum(log(SCALED)) subject to ||z||^2 <= c^2"""
    torch.manual_seed(0)
    a, c = torch.randn(4, 3, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    for scaled, scales in (("z / c", (1e-12, 1e8)), ("z", (1e-8, 1e3))):
        layer = imp.compile(text.replace("SCALED", scaled), n=3).double()
        expected = layer(a, c)
        for s in scales:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", imp.ConvergenceWarning)
                found = layer.solve(s * a, s * c)
            right = ((found.value / s - expected).abs() < 1e-9).all(-1)
            negative = (found.value < 0).any(-1)
            assert not (found.report.converged & negative).any()
            assert right.all() or (scaled == "z" and s < 1e-6)

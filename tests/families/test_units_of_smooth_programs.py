"""Smooth programs whose data are tiny or huge have the solutions of the same programs in other units."""

from __future__ import annotations

import pytest
import torch

import implicitdsl as imp

PROGRAMS = {
    "exponentials": "||z - a||^2 subject to sum(exp(z / c)) <= 2",
    "sines": "||z - a||^2 + c^2 * sum(sin(z / c)) using nlp",
    "sphere": "||z - a||^2 subject to ||z||^2 = c^2 using nlp",
    "quartic": "sum((z - a)^4) + c^2 * ||z||^2 subject to sum(z) = c, sum(z^4) <= c^4",
    "separable exponentials": "||z - a||^2 + c^2 * sum(exp(z / c)) subject to sum(z) = c",
    "separable quartic": "sum((z - a)^4) + c^2 * ||z||^2 subject to sum(z) = c, z <= c / 2",
    "separable logarithms": "||z - a||^2 - c^2 * sum(log(z)) subject to sum(z) <= c",
    "entropy": "a^T z + c * sum(z * log(z)) - c * log(c) * sum(z) subject to sum(z) = c",
    "roots": "||z - a||^2 - c^1.5 * sum(sqrt(z)) subject to ||z|| <= c",
    "powers": "(sum(z) - c)^2 + 0.1 * ||z - a||^2 + c^0.5 * sum(z^1.5) subject to sum(z) <= 4 * c",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_units_do_not_matter(name: str) -> None:
    text = f"layer L(n):\n  given a in R^n, c in positive\n  argmin_{{z in R^n}} {PROGRAMS[name]}\n  return z\n"
    layer = imp.compile(text, n=3)
    a = torch.tensor([[1.0, 0.7, -0.3], [0.2, -1.0, 0.4]], dtype=torch.float64)
    expected = layer(a, a.new_tensor(1.0))
    for unit in (1e-20, 1e-13, 1e-8, 1e-6, 1e-3, 1e3, 1e6, 1e8):
        sol = layer.solve(unit * a, a.new_tensor(unit))
        assert sol.report.converged.all()
        torch.testing.assert_close(sol.value / unit, expected, rtol=1e-9, atol=1e-9)


def test_the_units_of_a_logarithm_are_found() -> None:
    """-c² Σ log(z / c) has a slope at negative z, too: starts are in units of the argument, ends are looked at. That of
    log(z) tells nothing about c: solutions that are tiny in the units of the start are looked at in their own."""
    text = """layer L(n):
      given a in R^n, c in positive
      argmin_{z in R^n} ||z - a||^2 - c^2 * sum(log(SCALED)) subject to ||z||^2 <= c^2"""
    torch.manual_seed(0)
    a, c = torch.randn(4, 3, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    for scaled in ("z / c", "z"):
        layer = imp.compile(text.replace("SCALED", scaled), n=3).double()
        expected = layer(a, c)
        for s in (1e-20, 1e-12, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-3, 1e3, 1e8):
            found = layer.solve(s * a, s * c)
            assert found.report.converged.all()
            torch.testing.assert_close(found.value / s, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("program", ["sum(x^4) subject to sum(x) <= 1", "sum(x^1.5) + ||x||^2", "sum(x^1.5) + sum(x)"])
def test_a_solution_that_is_zero_is_found_in_any_unit(program: str) -> None:
    """However small the unit, the point is smaller: that is no sign of a wrong one."""
    sol = imp.compile(f"argmin_{{x in R^3}} {program}").double().solve()
    assert sol.report.converged
    assert sol.value.abs().max() < 1e-25

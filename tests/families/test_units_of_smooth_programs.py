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


def test_the_gradient_at_a_bound_beside_a_large_multiplier() -> None:
    """z = 0 and does not move; the other entry's multiplier of 1e5 says nothing about which bounds are active."""
    layer = imp.compile("layer L(n):\n  given x in R^n\n  argmin_{z in nonneg^n} sum(z^3) / 3 - x^T z\n")
    x = torch.tensor([-1e-9, -1e5], dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(layer(x).sum(), x)
    assert (grad == 0).all()


def test_a_start_without_curvature_and_solutions_near_the_smallest_numbers() -> None:
    """z = x^(1/3) from a start where the Hessian vanishes, and z = sqrt(x / c) at 1e-5, which looked like a bound."""
    cubes = imp.compile("layer L(n):\n  given x in R^n\n  argmin_{z in R^n} sum(z^4) / 4 - x^T z\n", n=2)
    for x in ([1.0, 8.0], [1e-11, 2e-11], [1e8, 8e8]):
        given = torch.tensor(x, dtype=torch.float64)
        torch.testing.assert_close(cubes(given), given ** (1 / 3), rtol=1e-10, atol=0.0)
    text = "layer L(n):\n  given x in positive, c in R^n\n  argmin_{z in positive^n} c^T z + sum(x / z)\n"
    roots = imp.compile(text, n=1)
    for power in range(-20, 1):
        x = torch.tensor(10.0**power, dtype=torch.float64, requires_grad=True)
        z = roots(x, x.new_ones(1))
        (grad,) = torch.autograd.grad(z.sum(), x)
        torch.testing.assert_close(z, x.sqrt().expand(1), rtol=1e-9, atol=0.0)
        torch.testing.assert_close(grad, 0.5 / x.sqrt(), rtol=1e-8, atol=0.0)


@pytest.mark.parametrize("total", [1.0, 1e-6, 1e-7, 1e-8, 1e-12])
def test_entropies_of_a_small_total(total: float) -> None:
    """z = s softmax(x), under an inequality that is active and under an equation in A z; and its derivative."""
    x = torch.tensor([0.5, 2.0], dtype=torch.float64, requires_grad=True)
    A, s = torch.tensor([[1.0, 0.3], [-0.2, 0.8]], dtype=torch.float64), torch.tensor(total, dtype=torch.float64)
    expected = s * torch.softmax(x, -1)
    (slope,) = torch.autograd.grad(expected[0], x)
    bounded = imp.compile(
        "layer L(n):\n  given x in R^n, s in R\n  argmin_{z in R^n} sum(z * log(z)) - x^T z subject to sum(z) <= s\n"
    )
    turned = imp.compile("""layer L(n):
      given x in R^n, s in R, A in R^(n, n)
      argmin_{z in R^n} sum((A z) * log(A z)) - x^T (A z) subject to sum(A z) = s
    """)
    for found in (bounded(x, s), A @ turned(x, s, A)):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=0.0)
        (grad,) = torch.autograd.grad(found[0], x)
        torch.testing.assert_close(grad, slope, rtol=1e-8, atol=1e-12 * total)

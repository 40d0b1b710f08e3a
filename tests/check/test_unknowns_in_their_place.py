"""Unknowns where they cannot stand: under a derivative by an input, in their own start; and how far a count is off."""

from __future__ import annotations

import pytest

import implicitdsl as imp

DEQ = """layer L(n):
  given x in R^n
  param W in SpectralBall(n, 0.5)
  where h = 2 z
  find z in R^n such that z = tanh(W z + x)
"""


def codes(text: str) -> list[str]:
    return [d.code for d in imp.check(text) if d.is_error]


@pytest.mark.parametrize("output", ["jac(z, x)", "div(z, x)", "grad(sum(z), x)", "jac(h, x)", "hess(z^T z, x)"])
def test_a_derivative_of_the_solution_by_an_input_is_no_silent_zero(output: str) -> None:
    assert codes(f"{DEQ}  return y = {output}") == ["IMP113"]


@pytest.mark.parametrize("output", ["grad(z^T x, x)", "grad(sum(h), z)", "jac(x, x)", "jac(W z, z)"])
def test_partial_derivatives_are_allowed(output: str) -> None:
    assert codes(f"{DEQ}  return y = {output}") == []


@pytest.mark.parametrize("start", ["z", "h", "x + z"])
def test_a_start_does_not_use_what_is_solved_for(start: str) -> None:
    assert codes(f"{DEQ}  using start {start}") == ["IMP113"]


def test_a_start_may_use_an_earlier_unknown() -> None:
    text = f"{DEQ}  find v in R^n such that v = tanh(W v + z)\n  using start z"
    assert codes(text) == []


def test_a_vector_equation_for_a_scalar_is_too_many() -> None:
    found = imp.check("layer L(n):\n given x in R^n\n find z in R such that z = x")
    assert [d.code for d in found] == ["IMP302"]
    assert "n - 1 scalar equations too many" in found[0].message

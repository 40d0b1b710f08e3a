"""Dimensions that only the number of equations fixes."""

from __future__ import annotations

import pytest

import implicitdsl as imp


@pytest.mark.parametrize(
    "text, declaration",
    [
        ("find z in R^n such that A z = x", "given x in R^n"),
        ("find u in R^n, v in R^m such that A u + B v = x, C u = y", "y in R^(-k + m + n)"),
    ],
)
def test_a_dimension_that_nothing_else_fixes_makes_the_system_square(text: str, declaration: str) -> None:
    found = imp.check(text)
    assert not [d for d in found if d.is_error]
    assert declaration in repr(imp.compile(text))


def test_beside_an_unknown_number_inputs_are_numbers() -> None:
    text = "find z in nonneg such that a^2 + z^2 = 1"
    assert "given a in R\n" in repr(imp.compile(text))


def test_the_completed_spec_of_such_a_system_is_a_spec() -> None:
    text = repr(imp.compile("find u in R^n, v in R^m such that A u + B v = x, C u = y"))
    assert not [d for d in imp.check("layer L(n, m, k):\n" + text) if d.is_error]


def test_levels_are_the_names_of_the_json_output() -> None:
    found = imp.check("layer L:\n given a in R, b in R, c in R\n return y = a / b c, z = q")
    assert {d.level for d in found} == {"error", "warning"}
    assert f"{found[0].level}" in ("error", "warning")

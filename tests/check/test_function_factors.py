"""A function as a factor (IMP111): one reading is a safe fix, two are offered and none is applied."""

from __future__ import annotations

import pytest

import implicitdsl as imp
from implicitdsl.ground.diagnostics import Applicability
from implicitdsl.ground.fixes import apply_safe_fixes

HEAD = """layer A(n, m):
  given x in R^m, a in R
  param W in R^(n, n), U in R^(n, m)
  fn f: R^n -> R^n
  find z in R^n such that z = """


@pytest.mark.parametrize(
    "wrong, right",
    [
        ("tanh (W z) + U x", "tanh(W z) + U x"),
        ("a tanh (W z + U x) a", "a tanh(W z + U x) a"),
        ("f z + U x", "f(z) + U x"),
        ("W tanh z^2 + U x", "W tanh(z^2) + U x"),
    ],
)
def test_the_only_reading_is_a_safe_fix(wrong: str, right: str) -> None:
    text = f"{HEAD}{wrong} + f(z)\n"
    (found,) = (d for d in imp.check(text) if d.is_error)
    assert found.code == "IMP111"
    assert apply_safe_fixes(text, [found]).text == f"{HEAD}{right} + f(z)\n"


@pytest.mark.parametrize(
    "wrong, readings",
    [
        ("tanh W z", ["tanh(W z)", "tanh(W)"]),
        ("a f W z", ["f(W z)", "f(W)"]),
        ("tanh sin z", ["tanh(sin z)"]),
    ],
)
def test_several_readings_are_offered(wrong: str, readings: list[str]) -> None:
    text = f"{HEAD}{wrong} + U x + f(z)\n"
    (found,) = (d for d in imp.check(text) if d.is_error)
    assert [(f.message, f.applicability) for f in found.fixes] == [
        (f"write `{r}`", Applicability.UNSAFE) for r in readings
    ]
    assert found.help == "write " + " or ".join(f"`{r}`" for r in readings)
    assert apply_safe_fixes(text, [found]).text == text


def test_the_transpose_of_a_sum_is_written_with_parentheses() -> None:
    (found,) = (d for d in imp.check(f"{HEAD}W z + U x + z^T\n") if d.is_error)
    assert found.help == "transpose one side: `(W z + U x)^T`"

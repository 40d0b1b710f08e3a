"""One slip is one error: what a slip leaves open is not reported beside it."""

from __future__ import annotations

import pytest

import implicitdsl as imp


@pytest.mark.parametrize(
    "text, code",
    [
        ("find z such that z = tanh(W z + )", "IMP001"),
        ("find z such that z = tanh(W z + x", "IMP003"),
        ("find z such that z = |x", "IMP003"),
        ("find z such that", "IMP001"),
        ("find u, v such that u = tanh(A v + x), v = sigmoid(B u + )", "IMP001"),
    ],
    ids=["operand", "bracket", "bar", "nothing", "system"],
)
def test_a_slip_in_a_text_of_defaults_is_one_error(text: str, code: str) -> None:
    assert [d.code for d in imp.check(text) if d.is_error] == [code]

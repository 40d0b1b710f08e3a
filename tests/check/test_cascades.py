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
        ("layer A(n):\n  given x in R^n\n  find z in R^n such that z = 0.1 z + x, w = 2\n", "IMP101"),
        ("layer A(n):\n  given x in R^n\n  argmin_{z in R^n} ||z||^2 subject to z = x, w <= 2\n", "IMP101"),
        ("layer A(n):\n  given x in R^n\n  find z in R^n, z in R^n such that z = x\n", "IMP102"),
        ("layer A(n):\n  given x in R^n\n  where H(a, a) = a\n  return H(x, x)\n", "IMP102"),
        ("layer A(n):\n  given W in R^(n, n)\n  return W^-T\n", "IMP206"),
        ("find u, v such that u = tanh(A v + x), v = sigmoid(B u + )", "IMP001"),
    ],
    ids=["operand", "bracket", "bar", "nothing", "name", "constraint", "unknown", "argument", "power", "system"],
)
def test_a_slip_is_one_error(text: str, code: str) -> None:
    assert [d.code for d in imp.check(text) if d.is_error] == [code]


def test_a_character_without_meaning_makes_no_name_of_the_keyword_before_it() -> None:
    assert [d.code for d in imp.check("find € in R^n such that € = tanh(x)") if d.is_error] == ["IMP005", "IMP005"]


def test_a_chain_of_definitions_beyond_the_stack_is_no_internal_error() -> None:
    chain = "".join(f"  where a{i} = a{i + 1} + 1\n" for i in range(400))
    found = imp.check(f"layer A(n):\n  given a400 in R^n\n{chain}  return a0\n")
    assert [d.code for d in found if d.is_error] == ["IMP004"]


@pytest.mark.parametrize(
    "text",
    [
        "find z in R^0 such that softmax(z) = x, c sum(z) = c\nreturn z",
        "find z in R^0, w in R^n such that w = 0.5 tanh(w) + x\nreturn z, w",
    ],
    ids=["equations", "none"],
)
def test_unknowns_without_entries_are_no_internal_error(text: str) -> None:
    assert "IMP999" not in {d.code for d in imp.check(text)}

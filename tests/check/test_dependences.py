"""Unknowns of differential equations without their argument, interval or equations: one error, whose fix is right."""

from __future__ import annotations

import pytest

import implicitdsl as imp

HEAD = "layer L(n):\n  given x in R^n\n  param A in R^(n, n)\n  find "


@pytest.mark.parametrize(
    "find, code, fixed",
    [
        ("z(t) in R^n such that dz/dt = A z, z(0) = x", "IMP101", None),
        ("z(s) in R^n for t in [0, 1] such that dz/dt = A z, z(0) = x", "IMP101", None),
        ("z in R^n such that dz/dt = A z, z(0) = x", "IMP112", None),
        ("z in R^n such that d²z/dt² = A z, z(0) = x, dz/dt(0) = x", "IMP112", None),
        ("z in R^n for t in [0, 1] such that dz/dt = A z, z(0) = x", "IMP112", "z(t) in R^n"),
        ("z in R^n for t in [0, 1] such that dz = A z dt + 0.1 dW, z(0) = x", "IMP112", "z(t) in R^n"),
        (
            "u in R for y in grid(0, 1, 8) for t in [0, 1] such that ∂u/∂t = ∂u/∂y, u(y, 0) = y",
            "IMP112",
            "u(y, t) in R",
        ),
    ],
)
def test_one_error(find: str, code: str, fixed: str | None) -> None:
    text = HEAD + find
    (error,) = [d for d in imp.check(text) if d.is_error]
    assert (error.code, error.line) == (code, 4)
    assert bool(error.fixes) == (fixed is not None)
    for edit in error.fixes[0].edits if error.fixes else ():
        text = text[: edit.span.start] + edit.text + text[edit.span.end :]
        assert fixed is not None
        assert HEAD + fixed in text
        assert "IMP112" not in {d.code for d in imp.check(text)}


def test_a_quotient_of_declared_names_is_one() -> None:
    text = "layer L(n):\n  given x in R^n, dt in R\n  find z in R^n, dz in R^n such that dz/dt = x, z = x + dz\n"
    assert not [d for d in imp.check(text) if d.is_error]


def test_two_times_in_one_block_are_not_lowered() -> None:
    text = HEAD + (
        "z(t) in R^n, w(s) in R for t in [0, 1] for s in [0, 1] such that dz/dt = A z, z(0) = x, dw/ds = w, w(0) = 1"
    )
    (found,) = imp.check(text)
    assert (found.code, found.message.split(": ")[1]) == (
        "IMP910",
        "one block evolves by `t` and `s`; write a block for each",
    )


@pytest.mark.parametrize(
    "sizes, equation, code",
    [("m, n", "A dz/dt = x", "IMP301"), ("3, 2", "A dz/dt = x", "IMP302"), ("m, n", "x^T A dz/dt = 1", "IMP301")],
)
def test_an_evolution_equation_has_the_size_of_its_state(sizes: str, equation: str, code: str) -> None:
    m, n = sizes.split(", ")
    text = (
        f"layer L(n, m):\n  given x in R^{m}\n  param A in R^({sizes})\n"
        f"  find z(t) in R^{n} for t in [0, 1] such that {equation}, z(0) = 0"
    )
    (error,) = [d for d in imp.check(text) if d.is_error]
    assert (error.code, error.line) == (code, 4)


def test_a_chain_of_equations_is_the_only_error() -> None:
    text = "find q(t) in R for t in [0, 10] such that dq/dt = f(n) - g, q(0) = dq/dt(0) = 0"
    assert [d.code for d in imp.check(text) if d.is_error] == ["IMP015"]


@pytest.mark.parametrize("start", ["t x", "z + x", "w(0)", "2 w(0) + x"])
def test_an_initial_condition_is_made_of_inputs_and_parameters(start: str) -> None:
    text = HEAD + f"z(t) in R^n, w(t) in R^n for t in [0, 1] such that dz/dt = A z, z(0) = {start}, dw/dt = w, w(0) = x"
    (error,) = [d for d in imp.check(text) if d.is_error]
    assert (error.code, error.line) == ("IMP113", 4)

"""`z in S` among the equations of a `find` is the set of its unknown."""

from __future__ import annotations

import pytest
import torch

import implicitdsl as imp


@pytest.mark.parametrize(
    "text, sign",
    [
        ("find z in R^n such that z^2 = x, z in nonneg", 1),
        ("find z in R^n such that z^2 = x, z in (-5, 0)", -1),
        ("find z such that z in nonneg; z^2 = x", 1),
    ],
    ids=["nonneg", "interval", "bare"],
)
def test_the_set_picks_the_branch(text: str, sign: int) -> None:
    layer = imp.compile(text)
    torch.testing.assert_close(layer(torch.tensor([0.25, 4.0])), sign * torch.tensor([0.5, 2.0]))
    assert not [d for d in imp.check(repr(layer)) if d.is_error]


@pytest.mark.parametrize(
    "relation", ["W z in nonneg", "z[i] in nonneg for i in n", "z in simplex(n), z in nonneg", "z >= 0"]
)
def test_what_is_no_set_of_an_unknown_is_an_error(relation: str) -> None:
    found = imp.check(f"param W in R^(n, n)\nfind z in R^n such that z^2 + W z = x, {relation}\nreturn z\n")
    assert [d.code for d in found if d.is_error] == ["IMP004"]


def test_an_inequality_beside_a_differential_equation_is_an_error() -> None:
    text = "find z(t) in R^n for t in [0, 1] such that dz/dt = -z, z(0) = x, z >= 0\nreturn z(1)"
    assert [d.code for d in imp.check(text) if d.is_error] == ["IMP004"]


@pytest.mark.parametrize("constraint", ["diag(z) in PSD(n)", "diag(z) >> 0", "diag(z) in Sym(n)"])
def test_a_matrix_that_is_symmetric_as_it_is_written(constraint: str) -> None:
    text = f"argmin_{{z in R^n}} ||z - x||^2 subject to {constraint}"
    assert not [d for d in imp.check(text) if d.is_error]
    x = torch.tensor([2.0, -0.3, 0.1], dtype=torch.float64)
    expected = x if "Sym" in constraint else x.clamp(min=0)
    torch.testing.assert_close(imp.compile(text)(x), expected, rtol=0, atol=1e-6)

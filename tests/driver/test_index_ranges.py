"""Indices into axes of symbolic length: decided by `check` where every size agrees, else when the sizes are known."""

from __future__ import annotations

import pytest
import torch

import implicitdsl as imp

PICK = "layer P(n, N):\n  given x in R^N, y in R^n\n  return x[n], y\n"
REVERSED = "layer R(N):\n  given x in R^N\n  return stack(x[{}] for i in N)\n"


def test_an_index_that_sizes_decide_is_checked_at_compile() -> None:
    assert imp.check(PICK) == []
    assert imp.compile(PICK, n=2, N=4)(torch.arange(4.0), torch.ones(2))[0] == 2
    with pytest.raises(imp.SpecError, match=r"index `n` is outside an axis of length 4 at N = 4, n = 4") as caught:
        imp.compile(PICK, n=4, N=4)
    (error,) = caught.value.diagnostics
    assert (error.code, error.line, error.column) == ("IMP205", 3, 12)


def test_or_at_the_first_call() -> None:
    layer = imp.compile(PICK)
    with pytest.raises(imp.SpecError, match="outside an axis of length 2 at N = 2, n = 3"):
        layer(torch.ones(2), torch.ones(3))


def test_both_ends_of_a_falling_index() -> None:
    assert imp.check(REVERSED.format("N - 1 - i")) == []
    value = imp.compile(REVERSED.format("N - 1 - i"))(torch.arange(4.0))
    assert value.tolist() == [3, 2, 1, 0]
    (error,) = imp.check(REVERSED.format("N - i"))
    assert (error.code, error.message) == ("IMP205", "index `N - i` is outside an axis of length N")


def test_the_horizon_of_a_program_fits_its_states() -> None:
    text = (
        "layer M(n, N, K):\n  given x0 in R^n\n  argmin_{x in R^(K, n)} sum(x[i]^T x[i] for i in K)\n"
        "    subject to x[0] = x0, x[i+1] = 0.5 x[i] for i in N\n"
    )
    with pytest.raises(imp.SpecError, match=r"index `i\+1` is outside an axis of length 3 at K = 3, N = 3"):
        imp.compile(text, n=2, N=3, K=3)
    x = imp.compile(text, n=2, N=2, K=3)(torch.ones(2))
    torch.testing.assert_close(x, torch.tensor([[1.0, 1], [0.5, 0.5], [0.25, 0.25]]), rtol=0, atol=1e-5)


def test_a_layer_may_be_called_like_a_keyword() -> None:
    value = imp.compile("layer as(n):\n  given x in R^n\n  return x, y = 2 x\n", n=2)(torch.ones(2))
    assert (type(value).__name__, value.y.tolist()) == ("as_", [2, 2])

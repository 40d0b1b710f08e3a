"""Rows without a derivative leave the gradients of the others, and of what the batch shares, as they are."""

from __future__ import annotations

import pytest
import torch

import implicitdsl as imp

CIRCLE = "layer L:\n given a in R\n param w in R = 1\n find z in R such that a^2 + z^2 = w\n using start 1"
LINE = "layer L:\n given a in R\n param w in R = 2\n find z in R such that a z = w"
PLANE = "layer L(n):\n given a in R\n param W in R^(n, n), b in R^n = 1\n find z in R^n such that a W z = b"
FLAT = "layer L:\n given a in R\n param w in R = 2\n find z in R such that a tanh(z) = w a^2 + 0.1\n using newton"
TANH = "find z such that z = tanh(W z + x)"
SHARED = "layer L:\n given x in R^2\n param W in R^(2, 2) = [[1, 2], [2, 4]]\n find z in R^2 such that W z = x"


@pytest.mark.filterwarnings("ignore::implicitdsl.ConvergenceWarning")
@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("text, rows, good", [
    (CIRCLE, [1.0], []),
    (CIRCLE, [1.0, 1.0], []),
    (CIRCLE, [0.6, 1.0], [0]),
    (LINE, [0.0, 1.0, 2.0], [1, 2]),
    (LINE, [0.0], []),
    (PLANE, [0.0, 1.0, 2.0], [1, 2]),
    (FLAT, [0.0, 0.3], [1]),
    (TANH, [[float("nan")] * 2] * 2, []),
    (SHARED, [[1.0, 2.0], [1.0, 1.0]], []),
])  # fmt: skip
def test_shared_parameters_get_the_gradient_of_the_good_rows(
    text: str, rows: list[float], good: list[int], create_graph: bool
) -> None:
    torch.manual_seed(0)
    sizes = {} if text.startswith("layer L:") else {"n": 2}
    layer = imp.compile(text, **sizes).double()

    def gradients(x: torch.Tensor) -> list[torch.Tensor]:
        x.requires_grad_()
        return list(torch.autograd.grad(layer(x).sum(), [*layer.parameters(), x], create_graph=create_graph))

    x = torch.tensor(rows, dtype=torch.float64)
    *shared, of_x = gradients(x)
    if good:
        *expected, of_good = gradients(x.detach()[good])
        assert (of_x[good] - of_good).abs().max() < 1e-12
    else:
        expected = [torch.zeros_like(g) for g in shared]
        assert not of_x.any()
    for mine, theirs in zip(shared, expected, strict=True):
        assert (mine - theirs).abs().max() < 1e-12


@pytest.mark.filterwarnings("ignore::implicitdsl.ConvergenceWarning")
def test_under_the_policy_nan_only_their_own_rows_are_nan() -> None:
    layer = imp.compile(CIRCLE + ", on_failure=nan").double()
    a = torch.tensor([0.6, 1.0], dtype=torch.float64, requires_grad=True)
    layer(a).sum().backward()
    assert a.grad is not None
    assert a.grad.isnan().tolist() == [False, True]

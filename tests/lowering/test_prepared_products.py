"""Products prepared once a solve give what the plain ones give."""

from __future__ import annotations

import pytest
import torch

import implicitdsl as imp
from implicitdsl.lowering import ops


@pytest.mark.parametrize("matrix", [(3, 4), (2, 3, 4)])
@pytest.mark.parametrize("offset", [(3,), (2, 3)])
@pytest.mark.parametrize("point", [(4,), (2, 4)])
def test_prepared_equals_plain(matrix: tuple[int, ...], offset: tuple[int, ...], point: tuple[int, ...]) -> None:
    A, h, x = (torch.randn(*shape, dtype=torch.float64) for shape in (matrix, offset, point))
    torch.testing.assert_close(ops.affine_by(A, h)(x), ops.matvec(A, x) + h)


def test_a_step_with_prepared_products_is_the_step() -> None:
    text = """layer Two(n):
  given x in R^n, y in R^n
  param A in R^(n, n), B in R^(n, n)
  find u in R^n, v in R^n such that
    u = tanh(A v + x)
    v = sigmoid(B u + y)
  using picard
"""
    layer = imp.compile(text, n=3).double()
    program = layer._runners[0].recipe.program
    z, a = torch.randn(5, 6, dtype=torch.float64), [torch.randn(3, 3, dtype=torch.float64) for _ in range(2)]
    a += [torch.randn(5, 3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)]
    torch.testing.assert_close(program["stepper"](*a)(z), program["step"](z, *a))


@pytest.mark.parametrize("rows", [3, 100])  # the matrix is copied, or is too large for it
def test_compiled_products_are_the_plain_ones(rows: int) -> None:
    A, h, x = (torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((rows, 60), (rows,), (5, 60)))

    def every(A: torch.Tensor, h: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return ops.matvec(A, x), ops.affine(A, x, h), ops.affine_by(A, h)(x), ops.affine(A, x[0], h)

    compiled = torch.compile(every, fullgraph=True, dynamic=False, backend="aot_eager")
    for mine, plain in zip(compiled(A, h, x), every(A, h, x), strict=True):
        torch.testing.assert_close(mine, plain)
        found, exact = (torch.autograd.grad(v.square().sum(), (A, x), retain_graph=True) for v in (mine, plain))
        torch.testing.assert_close(found, exact)

"""Equations of a matrix between matrices: which of them Schur forms solve, their gradients, and what is said of it."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

import implicitdsl as imp

F64 = torch.float64
TEXT = """layer Between(n, m):
  given C in R^(n, m)
  param A in R^(n, n)
        B in R^(m, m)
        s in R = 0.5
  find Z in R^(n, m) such that {}
"""
EQUATIONS = {
    "Stein": "Z = A Z B + s C",
    "Sylvester": "A Z + Z B + (4 + s) Z = C",
    "Lyapunov": "A Z + Z A^T + 4 Z = s C",
    "all terms": "3 Z = s A Z B + 2 A Z - Z B / 3 + C",
    "joined": "Z (B + 4 I(m)) + Z B - A Z = s C",
    "one-sided": "A Z + (3 + s) Z = C",
    "products": "Z = A A Z B B / 2 + s C",
}


def build(equation: str, n: int, m: int, using: str = "  using schur\n") -> nn.Module:
    torch.manual_seed(0)
    text = TEXT.format(equation) + using
    if n == m:
        text = text.replace("Between(n, m)", "Square(n)").replace("(m, m)", "(n, n)").replace("(n, m)", "(n, n)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", imp.SpecWarning)
        return imp.compile(text, **({"n": n} if n == m else {"n": n, "m": m})).double()


def sizes(name: str) -> tuple[int, int]:
    return (3, 3) if name == "Lyapunov" else (3, 2)


@pytest.mark.parametrize("name", EQUATIONS)
def test_schur_forms_and_a_dense_factor_agree(name: str) -> None:
    n, m = sizes(name)
    layer, other = (build(EQUATIONS[name], n, m, using) for using in ("  using schur\n", "  using direct\n"))
    c = torch.randn(2, 3, n, m, dtype=F64, requires_grad=True)
    solution = layer.solve(c)
    assert solution.report.converged.all()
    assert solution.report.solver == "schur"
    torch.testing.assert_close(solution.value, other(c), rtol=1e-9, atol=1e-10)
    wanted = [p for k, p in layer.named_parameters() if k != "B" or name not in ("Lyapunov", "one-sided")]
    same = [other.get_parameter(k) for k, p in layer.named_parameters() if any(p is w for w in wanted)]
    found = torch.autograd.grad(solution.value.sin().sum(), [c, *wanted])
    right = torch.autograd.grad(other(c).sin().sum(), [c, *same])
    for f, r in zip(found, right, strict=True):
        torch.testing.assert_close(f, r, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", ["Stein", "Sylvester", "all terms"])
def test_first_and_second_derivatives(name: str) -> None:
    layer = build(EQUATIONS[name], 3, 2)
    names = [k for k, _ in layer.named_parameters()]

    def call(c: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (c,))

    leaves = [torch.randn(2, 3, 2, dtype=F64), *(p.detach().clone() for p in layer.parameters())]
    leaves = [x.requires_grad_() for x in leaves]
    assert torch.autograd.gradcheck(call, leaves, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(call, leaves)


def test_per_sample_matrices() -> None:
    text = "layer P(n):\n  given A in R^(n, n), C in R^(n, n)\n  find Z in R^(n, n) such that Z = A Z A^T + C\n"
    layer = imp.compile(text + "  using schur\n", n=3)
    a, c = 0.3 * torch.randn(4, 3, 3, dtype=F64), torch.randn(4, 3, 3, dtype=F64)
    a.requires_grad_()
    z = torch.zeros_like(c)
    for _ in range(300):
        z = a @ z @ a.mT + c
    found = layer(a, c)
    torch.testing.assert_close(found, z, rtol=1e-10, atol=1e-11)
    (gradient,), (right,) = (torch.autograd.grad(v.cos().sum(), a) for v in (found, z))
    torch.testing.assert_close(gradient, right, rtol=1e-8, atol=1e-10)
    one = torch.func.vmap(torch.func.jacrev(layer))(a.detach(), c)
    loop = torch.stack([torch.func.jacrev(layer)(*pair) for pair in zip(a.detach(), c, strict=True)])
    torch.testing.assert_close(one, loop, rtol=1e-9, atol=1e-10)


def test_the_ladder_takes_it_where_it_is_cheaper() -> None:
    equation = EQUATIONS["Stein"]
    large = imp.explain(build(equation, 20, 20, ""))
    assert "schur: Schur forms of the two matrices solve it" in large
    assert "the transposed equation, by the same Schur forms" in large
    assert "the terms are A Z B + Z" in large
    assert "direct: affine in the unknowns" in imp.explain(build(equation, 3, 3, ""))
    other = imp.explain(build("Z = A Z B + Z A + C", 20, 20, ""))
    assert "direct: affine in the unknowns" in other  # A stands left here and right there
    assert "schur" not in other


def test_four_thousand_unknowns_need_no_matrix_of_them() -> None:
    layer = build("Z = A Z B + s C", 64, 64, "")
    with torch.no_grad():
        for name in ("A", "B"):
            raw = layer.get_parameter(name)
            raw.copy_(0.999 * torch.linalg.qr(torch.randn(64, 64, dtype=F64))[0])  # plain iteration takes 14,000 steps
    c = torch.randn(2, 64, 64, dtype=F64, requires_grad=True)
    solution = layer.solve(c)
    z = solution.value
    assert solution.report.solver == "schur"
    assert solution.report.converged.all()
    torch.testing.assert_close(z, layer.A @ z @ layer.B + layer.s * c, rtol=0, atol=1e-9)
    (gradient,) = torch.autograd.grad((z * z.detach()).sum(), c)
    u = gradient / layer.s.detach()
    torch.testing.assert_close(u, layer.A.mT @ u @ layer.B.mT + z, rtol=0, atol=1e-6)


def test_an_equation_without_solution_is_announced() -> None:
    layer = build("Z = A Z B + C", 2, 2)
    layer.A, layer.B = torch.eye(2, dtype=F64), torch.eye(2, dtype=F64)
    with pytest.warns(imp.ConvergenceWarning, match="1 of 1"):
        assert not layer.solve(torch.ones(1, 2, 2, dtype=F64)).report.converged.any()


@pytest.mark.filterwarnings("ignore")
def test_compiled() -> None:
    torch.compiler.reset()
    layer = build("Z = A Z B + s C", 3, 2)
    c = torch.randn(2, 3, 2, dtype=F64, requires_grad=True)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(c), layer(c))
    leaves = [c, *layer.parameters()]
    found, right = (torch.autograd.grad(f(c).sin().sum(), leaves) for f in (compiled, layer))
    for f, r in zip(found, right, strict=True):
        torch.testing.assert_close(f, r, rtol=1e-9, atol=1e-10)

"""The derived equations are true: solved by numbers, they give the gradients that autograd gives."""

from __future__ import annotations

import pytest
import reference_evaluator
import torch
from hand_built import (
    SQUARE,
    VECTOR,
    equation,
    f,
    given,
    model,
    param,
    real,
    root,
    shape,
    unknown,
    x,
    z,
)
from reference_evaluator import FUNCTIONS, evaluate
from torch import Tensor

from implicitdsl.analysis import normal_form
from implicitdsl.explanation.derive import derive
from implicitdsl.functions import TABLE
from implicitdsl.ir import build
from implicitdsl.ir.build import add, matmul, mul, num, transpose
from implicitdsl.ir.model import Model
from implicitdsl.ir.nodes import Expr

SIZES = {"n": 4, "m": 3}
W, U, a = param("W", real(SQUARE)), param("U", real(shape("n", "m"))), param("a", real(()))
y = given("y", real(shape("m")))


def fixed_point() -> Model:
    inner = add(add(matmul(W.node, z.node), matmul(U.node, y.node)), mul(a.node, x.node))
    return model([root([z], [equation(z.node, f("tanh", inner))])], W, U, a, x, y)


def cubic() -> Model:
    lhs = add(build.power(z.node, num(3.0)), mul(a.node, matmul(W.node, f("sin", z.node))))
    return model([root([z], [equation(lhs, add(x.node, mul(num(4.0), z.node)))])], W, a, x)


def system() -> Model:
    u, v = unknown("p", real(VECTOR)), unknown("q", real(VECTOR))
    first = equation(u.node, f("tanh", add(matmul(W.node, v.node), x.node)))
    second = equation(v.node, mul(a.node, f("sigmoid", matmul(transpose(W.node), u.node))))
    return model([root([u, v], [first, second])], W, a, x)


def normalised() -> Model:
    scaled = build.div(mul(a.node, f("softmax", matmul(W.node, z.node))), add(num(2.0), f("norm", z.node)))
    return model([root([z], [equation(z.node, add(scaled, f("gelu", x.node)))])], W, a, x)


def prime(name: str) -> object:
    def slope(s: Tensor) -> Tensor:
        s = s.detach().requires_grad_()
        return torch.autograd.grad(FUNCTIONS[name](s).sum(), s)[0]

    return slope


@pytest.fixture(autouse=True)
def primes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tanh", "sigmoid", "gelu"):
        monkeypatch.setitem(reference_evaluator.FUNCTIONS, name + "'", prime(name))


@pytest.mark.parametrize("make", [fixed_point, cubic, system, normalised])
def test_equations_and_gradients(make: object) -> None:
    m = make()  # type: ignore[operator]  # one of the functions above
    solved = normal_form(m.blocks[0])
    wanted = [s.node for s in (*m.givens, *m.params)]
    d = derive(solved, wanted, TABLE, solved.step is not None)

    g = torch.Generator().manual_seed(0)
    leaves = [*solved.unknowns, *wanted, *d.incoming]
    sizes = [tuple(dim.evaluate(SIZES) for dim in e.shape) for e in leaves]
    values: dict[Expr, Tensor] = {
        e: 0.5 * torch.randn(s, dtype=torch.float64, generator=g) for e, s in zip(leaves, sizes, strict=True)
    }

    def residual(at: dict[Expr, Tensor]) -> Tensor:
        return torch.cat([evaluate(r, {**values, **at}, SIZES) for r in solved.residual])

    def of(e: Expr) -> Tensor:
        """∂F/∂e, with the entries of e in one dimension."""
        jacobian = torch.func.jacrev(lambda value: residual({e: value}))(values[e])
        return jacobian.flatten(1) if values[e].ndim else jacobian.unsqueeze(1)

    J = torch.cat([of(u) for u in solved.unknowns], 1)
    w = torch.cat([values[e] for e in d.incoming])
    adjoint = torch.linalg.solve(J.T, w)
    start = 0
    for e in d.adjoints:
        count = e.shape[0].evaluate(SIZES)
        values[e] = adjoint[start : start + count]
        start += count
    for e, expression in reversed(d.named):
        values[e] = evaluate(expression, values, SIZES)
    for left, right in d.equations:
        torch.testing.assert_close(evaluate(left, values, SIZES), evaluate(right, values, SIZES))
    assert len(d.cotangents) == len(wanted)
    for e, (_, expression) in zip(wanted, d.cotangents, strict=True):
        expected = -(of(e).T @ adjoint).reshape(values[e].shape)
        torch.testing.assert_close(evaluate(expression, values, SIZES), expected)

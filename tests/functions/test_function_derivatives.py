"""Every function's JVP, VJP, Jacobian and second derivatives against torch's autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from reference_evaluator import evaluate
from torch import Tensor

from implicitdsl.calculus import dense_jacobian, expand, gradient, jacobian, linearize, vjp
from implicitdsl.functions import FUNCTIONS, TABLE
from implicitdsl.ir import build
from implicitdsl.ir.dims import Dim
from implicitdsl.ir.function import Function
from implicitdsl.ir.nodes import Expr, Role, num, sym
from implicitdsl.ir.remake import replace
from implicitdsl.ir.verify import verify

TOLERANCE = 1e-10

Case = tuple[str, Callable[[Sequence[Expr]], Expr], list[Tensor]]


def tensor(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def spd(n: int, seed: int) -> Tensor:
    A = torch.randn((n, n), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return A @ A.T + torch.eye(n, dtype=torch.float64)


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def built(f: Function, *extra: Expr) -> Callable[[Sequence[Expr]], Expr]:
    return lambda args: f.build([*args, *extra])


def cases() -> list[Case]:
    found: list[Case] = []
    for f in FUNCTIONS:
        if f.elementwise and f.arity == (1, 1):
            x = tensor([0.3, 1.7, 0.9]) if f.name in ("log", "sqrt") else tensor([-1.3, 0.4, 2.1])
            found.append((f.name, built(f), [x]))
    for name in ("min", "max"):
        found.append((f"{name}(a, b)", built(TABLE[name]), [normal(4), normal(4, seed=2)]))
        found.append((f"{name}(a, s)", built(TABLE[name]), [normal(4), tensor(0.1)]))
        found.append((f"{name}(x)", built(TABLE[name]), [normal(4)]))
        found.append((f"{name}(A)", built(TABLE[name]), [normal(3, 2)]))
    found.append(("clamp", built(TABLE["clamp"]), [tensor([-3.0, 0.2, 5.0]), tensor([-1.0, -1.0, 0.0]), tensor(2.0)]))
    for name in ("softmax", "logsumexp", "norm", "norm_1", "norm_inf", "sum", "mean", "prod", "diag"):
        found.append((name, built(TABLE[name]), [normal(4)]))
    for name in ("softmax", "norm_F", "sum", "mean", "prod"):
        found.append((f"{name}(A)", built(TABLE[name]), [normal(3, 2)]))
    for name in ("tr", "det", "logdet", "inv", "diag"):
        found.append((f"{name}(A)", built(TABLE[name]), [spd(3, 3)]))
    found.append(("norm(s)", built(TABLE["norm"]), [tensor(-2.0)]))
    found.append(("prod with a zero", built(TABLE["prod"]), [tensor([2.0, 0.0, -3.0])]))
    found.append(("prod with two zeros", built(TABLE["prod"]), [tensor([0.0, 5.0, 0.0, 2.0])]))
    found.append(("prod with three zeros", built(TABLE["prod"]), [tensor([0.0, 0.0, 0.0])]))
    found.append(("dot", built(TABLE["dot"]), [normal(4), normal(4, seed=2)]))
    found.append(("concat", built(TABLE["concat"]), [normal(4), tensor(0.5), normal(2, seed=2)]))
    found.append(("concat matrices", built(TABLE["concat"]), [normal(2, 3), normal(1, 3, seed=2)]))
    found.append(("stack", built(TABLE["stack"]), [normal(4), normal(4, seed=2)]))
    found.append(("stack scalars", built(TABLE["stack"]), [tensor(0.5), tensor(1.5)]))
    found.append(("reshape", built(TABLE["reshape"], num(3.0), num(2.0)), [normal(2, 3)]))
    found.append(("scale_rows", lambda a: build.scale_rows(a[0], a[1]), [normal(3), normal(3, 2)]))
    found.append(("scale_columns", lambda a: build.scale_columns(a[0], a[1]), [normal(3, 2), normal(2)]))
    return found


CASES = cases()


@pytest.fixture(params=CASES, ids=[c[0] for c in CASES])
def case(request: pytest.FixtureRequest) -> tuple[Expr, list[Expr], list[Tensor]]:
    _, make, points = request.param
    nodes = [sym(f"x{k}", Role.GIVEN, tuple(map(Dim.of, p.shape))) for k, p in enumerate(points)]
    return make(nodes), nodes, points


def function(expr: Expr, nodes: Sequence[Expr]) -> Callable[..., Tensor]:
    return lambda *args: evaluate(expr, dict(zip(nodes, args, strict=True)))


def close(a: Tensor, b: Tensor) -> None:
    assert a.shape == b.shape
    assert torch.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE), (a, b)


def checked(expr: Expr) -> Expr:
    verify(expr, TABLE)
    return expr


def test_jvp(case: tuple[Expr, list[Expr], list[Tensor]]) -> None:
    expr, nodes, points = case
    directions = [normal(*p.shape, seed=7 + k) for k, p in enumerate(points)]
    tangents = [sym(f"t{k}", Role.TANGENT, x.shape) for k, x in enumerate(nodes)]
    ours = checked(linearize(expr, dict(zip(nodes, tangents, strict=True)), TABLE))
    value = evaluate(ours, dict(zip([*nodes, *tangents], [*points, *directions], strict=True)))
    close(value, torch.func.jvp(function(expr, nodes), tuple(points), tuple(directions))[1])


def test_vjp(case: tuple[Expr, list[Expr], list[Tensor]]) -> None:
    expr, nodes, points = case
    g = sym("g", Role.COTANGENT, expr.shape)
    cotangent = normal(*evaluate(expr, dict(zip(nodes, points, strict=True))).shape, seed=5)
    ours = vjp(expr, g, nodes, TABLE)
    theirs = torch.func.vjp(function(expr, nodes), *points)[1](cotangent)
    for a, b in zip(ours, theirs, strict=True):
        close(evaluate(checked(a), dict(zip([*nodes, g], [*points, cotangent], strict=True))), b)


def test_jacobian(case: tuple[Expr, list[Expr], list[Tensor]]) -> None:
    expr, nodes, points = case
    values = dict(zip(nodes, points, strict=True))
    for k, x in enumerate(nodes):
        theirs = torch.func.jacrev(function(expr, nodes), argnums=k)(*points)
        close(evaluate(checked(dense_jacobian(expr, x, TABLE)), values), theirs)
        closed = jacobian(expr, x, TABLE)
        if closed is None:
            assert expr.rank == 2 or x.rank == 2
        else:
            close(evaluate(closed, values), theirs)


def test_second_derivatives(case: tuple[Expr, list[Expr], list[Tensor]]) -> None:
    """The Hessian of Σ w ∘ f by a VJP of a VJP, mixed blocks too, and by hess where it is by a vector or number."""
    expr, nodes, points = case
    weight = normal(*evaluate(expr, dict(zip(nodes, points, strict=True))).shape, seed=9)
    w = sym("w", Role.CONST, expr.shape)
    scalar = build.inner(w, expr) if expr.rank else build.mul(w, expr)
    values = dict(zip([*nodes, w], [*points, weight], strict=True))

    def loss(*args: Tensor) -> Tensor:
        return (weight * evaluate(expr, dict(zip(nodes, args, strict=True)))).sum()

    for i, x in enumerate(nodes):
        first = gradient(scalar, x, TABLE)
        for j, y in enumerate(nodes):
            direction = normal(*points[i].shape, seed=11)
            g = sym("g", Role.COTANGENT, x.shape)
            ours = checked(vjp(first, g, (y,), TABLE)[0])
            theirs = torch.func.jacfwd(torch.func.grad(loss, argnums=i), argnums=j)(*points)
            flat = direction.reshape(-1) @ theirs.reshape(direction.numel(), -1)
            close(evaluate(ours, values | {g: direction}), flat.reshape(points[j].shape))
        if x.rank < 2:
            bound = sym("v", Role.BOUND, x.shape)
            hessian = build.hess(replace(scalar, {x: bound}), bound, x)
            theirs = torch.func.hessian(loss, argnums=i)(*points)
            close(evaluate(checked(expand(hessian, TABLE)), values), theirs)


KINKS = [
    ("relu", [[0.0, 1.0, -1.0]]),
    ("abs", [[0.0, 1.0, -1.0]]),
    ("sign", [[0.0, 1.0, -1.0]]),
    ("max", [[0.0, 1.0, 2.0], [0.0, 2.0, 1.0]]),
    ("min", [[0.0, 1.0, 2.0], [0.0, 2.0, 1.0]]),
    ("max", [[1.0, 1.0, 0.0, 1.0]]),
    ("min", [[1.0, 1.0, 3.0, 1.0]]),
    ("clamp", [[-1.0, 2.0, 0.0], [-1.0, -1.0, -1.0], [2.0, 2.0, 2.0]]),
    ("norm", [[0.0, 0.0, 0.0]]),
    ("norm_1", [[0.0, 1.0, -2.0]]),
]


@pytest.mark.parametrize("name, points", KINKS)
def test_kinks_as_in_torch(name: str, points: list[list[float]]) -> None:
    values = [tensor(p) for p in points]
    nodes = [sym(f"x{k}", Role.GIVEN, tuple(map(Dim.of, p.shape))) for k, p in enumerate(values)]
    expr = TABLE[name].build(nodes)
    (ours,) = vjp(expr, build.ones(expr.shape), nodes[:1], TABLE)
    x = values[0].clone().requires_grad_()
    evaluate(expr, dict(zip(nodes, [x, *values[1:]], strict=True))).sum().backward()
    assert x.grad is not None
    close(evaluate(ours, dict(zip(nodes, values, strict=True))), x.grad)


@pytest.mark.parametrize("f", [f for f in FUNCTIONS if "{" in f.torch and "ops." not in f.torch], ids=lambda f: f.name)
def test_the_spelling_is_the_function(f: Function) -> None:
    """The text that generated code holds computes what the oracle computes."""
    from reference_evaluator import FUNCTIONS as ORACLE

    args = [tensor([0.3, 1.2, 0.0]) for _ in range(f.arity[0])]
    text = f.torch.format(*(f"x{k}" for k in range(len(args))))
    value = eval(text, {"torch": torch, **{f"x{k}": a for k, a in enumerate(args)}})  # the package's own text
    close(value, ORACLE[f.name](*args))

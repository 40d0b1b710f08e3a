"""The derivatives that people know, in the form in which they know them; and that the passes stay cheap and shallow."""

from __future__ import annotations

import time

import pytest
import torch
from reference_evaluator import evaluate

from implicitdsl.calculus import (
    dense_jacobian,
    divergence,
    expand,
    gradient,
    hoist,
    inline,
    jacobian,
    linearize,
    simplify,
    transpose,
    vjp,
)
from implicitdsl.functions import TABLE
from implicitdsl.ir import build
from implicitdsl.ir.build import add, at_item, index, matmul, mul, power, sub, sum_for
from implicitdsl.ir.dims import ZERO, Dim
from implicitdsl.ir.nodes import Expr, Role, num, sym, walk
from implicitdsl.ir.printer import show
from implicitdsl.ir.remake import replace
from implicitdsl.ir.verify import verify

N, H = Dim.of("n"), Dim.of("h")
z, x, b, g = (sym(name, Role.GIVEN, (N,)) for name in "zxbg")
W = sym("W", Role.PARAM, (N, N))
U, V = sym("U", Role.PARAM, (H, N)), sym("V", Role.PARAM, (N, H))
a = sym("a", Role.DEFINITION, (N,))
i = Dim.of("i")


def call(name: str, *args: Expr) -> Expr:
    return TABLE[name].build(args)


step = call("tanh", add(add(matmul(W, z), x), b))
mlp = matmul(V, call("tanh", matmul(U, z)))


def test_jacobian_of_a_layer() -> None:
    J = jacobian(step, z, TABLE)
    assert J is not None
    assert show(sub(build.eye(N), J)) == "I - diag(1 - tanh(W z + x + b)^2) W"


def test_vjp_of_a_layer() -> None:
    by_z, by_W, by_b = vjp(step, g, (z, W, b), TABLE)
    u = by_b
    assert show(u) == "g * (1 - tanh(W z + x + b)^2)"
    assert by_z is matmul(build.transpose(W), u)
    assert by_W is build.outer(u, z)


def test_quadratic() -> None:
    q = mul(num(0.5), matmul(matmul(z, W), z))
    assert show(gradient(q, z, TABLE)) == "1/2 W z + 1/2 W^T z"
    assert show(expand(build.hess(q, z, x), TABLE)) == "1/2 W + 1/2 W^T"
    assert gradient(q, W, TABLE) is mul(num(0.5), build.outer(z, z))


def test_the_trace_of_a_network_needs_no_jacobian() -> None:
    """div(V tanh(U z)) = (1 - tanh²)ᵀ diag(U V), whose second factor is computed once."""
    d = divergence(mlp, z, TABLE)
    assert all(e.rank < 2 or not _depends(e) for e in walk(d))
    (rest,), parts = hoist([d], [z])
    assert show(rest) == "(1 - tanh(U z)^2)^T c0"
    assert [show(part) for _, part in parts] == ["U * V^T ones(n)"]


def test_the_trace_of_two_hidden_layers_is_one_product() -> None:
    """tr(V D₁ M D₀ U) = d₁ᵀ (M ∘ (U V)ᵀ) d₀: nothing but vectors depends on z, and one matrix is computed once."""
    M = sym("M", Role.PARAM, (H, H))
    d = divergence(matmul(V, call("tanh", matmul(M, call("tanh", matmul(U, z))))), z, TABLE)
    assert all(e.rank < 2 or not _depends(e) for e in walk(d))
    _, parts = hoist([d], [z])
    assert [show(part) for _, part in parts] == ["M * (U V)^T"]


def _depends(e: Expr) -> bool:
    return any(y is z for y in walk(e))


def test_jacobian_of_softmax_has_rank_one_correction() -> None:
    J = jacobian(call("softmax", matmul(W, z)), z, TABLE)
    assert J is not None
    assert show(J) == "diag(softmax(W z)) W - softmax(W z) softmax(W z)^T W"


def test_a_matrix_that_depends_has_no_closed_form_but_columns() -> None:
    e = matmul(add(W, build.outer(z, x)), z)
    assert jacobian(e, z, TABLE) is None
    generator = torch.Generator().manual_seed(0)
    shapes = {z: (3,), x: (3,), W: (3, 3)}
    values = {s: torch.randn(shape, dtype=torch.float64, generator=generator) for s, shape in shapes.items()}
    theirs = torch.func.jacfwd(lambda v: evaluate(e, values | {z: v}, {"n": 3}))(values[z])
    assert torch.allclose(evaluate(dense_jacobian(e, z, TABLE), values, {"n": 3}), theirs, atol=1e-12)


def test_sums_over_indices() -> None:
    entry = index(z, (at_item(i),))
    cubes = sum_for(power(entry, num(3)), "i", ZERO, N)
    assert show(gradient(cubes, z, TABLE)) == "3 stack(z[i]^2 for i in n)"
    assert show(expand(build.hess(cubes, z, x), TABLE)) == "6 diag(x)"


def test_work_outside_a_loop_stays_outside() -> None:
    """Σ aᵢ (W z)ᵢ: the cotangent of W z is a, so Wᵀ is applied once, not in the loop."""
    s = sum_for(mul(index(x, (at_item(i),)), index(matmul(W, z), (at_item(i),))), "i", ZERO, N)
    assert gradient(s, z, TABLE) is matmul(build.transpose(W), x)


def test_nested_loops_over_one_name_do_not_capture() -> None:
    """Σᵢ zᵢ² (Σᵢ zᵢ²) sin zᵢ, both loops over i: the Hessian against autograd."""
    entry = index(z, (at_item(i),))
    inner = sum_for(power(entry, num(2)), "i", ZERO, N)
    e = sum_for(mul(mul(entry, entry), mul(inner, call("sin", entry))), "i", ZERO, N)
    point = torch.tensor([0.3, -1.2, 0.8], dtype=torch.float64)

    def f(v: torch.Tensor) -> torch.Tensor:
        return (v**2 * (v**2).sum() * v.sin()).sum()

    bound = sym("v", Role.BOUND, (N,))
    ours = expand(build.hess(replace(e, {z: bound}), bound, z), TABLE)
    verify(ours, TABLE)
    assert torch.allclose(evaluate(ours, {z: point}, {"n": 3}), torch.func.hessian(f)(point), atol=1e-12)


def test_opaque_functions_are_closed_under_differentiation() -> None:
    f = build.apply("f", (z,), (N,))
    assert show(gradient(matmul(f, f), z, TABLE)) == "vjp_0(f, (z), 2 f(z))"
    assert show(linearize(f, {z: g}, TABLE)) == "jvp(f, (z), (g))"
    assert show(divergence(f, z, TABLE)) == "sum(jvp(f, (z), (embed(1, [k])))[k] for k in n)"
    again = linearize(gradient(matmul(f, f), z, TABLE), {z: g}, TABLE)
    verify(again, TABLE)
    assert show(again) == "vjp_0(f, (z), 2 jvp(f, (z), (g))) + jvp(vjp_0(f), (z, 2 f(z)), (g, 0))"


def test_transpose_is_the_adjoint_and_refuses_what_is_not_linear() -> None:
    linear = matmul(build.transpose(W), mul(x, matmul(W, z)))
    assert show(transpose(linear, z, g, TABLE)) == "W^T (W g * x)"
    with pytest.raises(AssertionError):
        transpose(mul(z, z), z, g, TABLE)


def test_hoisting_regroups_sums_and_leaves_trivia() -> None:
    h = sym("h", Role.GIVEN, (H,))
    e = add(add(matmul(W, z), matmul(V, h)), b)
    (rest,), parts = hoist([e], [z])
    assert show(rest) == "W z + c0"
    assert [show(part) for _, part in parts] == ["V h + b"]
    same, none = hoist([matmul(build.transpose(W), z), index(b, (at_item(0),))], [z])
    assert none == ()
    assert [show(s) for s in same] == ["W^T z", "b[0]"]


def test_hoisting_shares_between_expressions_and_stays_out_of_loops() -> None:
    square = matmul(W, W)
    both, parts = hoist([matmul(square, z), matmul(square, x)], [z])
    assert len(parts) == 2
    assert show(both[0]) == "c0 z"
    loop = sum_for(mul(index(z, (at_item(i),)), call("exp", index(x, (at_item(i),)))), "i", ZERO, N)
    (kept,), found = hoist([loop], [z])
    assert kept is loop
    assert found == ()


def test_simplify() -> None:
    assert show(simplify(add(mul(z, mul(x, z)), add(x, mul(num(2), add(x, z)))))) == "x * z^2 + 3 x + 2 z"
    assert simplify(sub(add(x, z), add(z, x))) is build.zeros((N,))
    assert simplify(mul(power(z, num(2)), z)) is power(z, num(3))


def test_inline_follows_definitions_in_definitions() -> None:
    c = sym("c", Role.DEFINITION, (N,))
    assert inline(add(a, z), [(c, matmul(W, x)), (a, call("tanh", c))]) is add(call("tanh", matmul(W, x)), z)


def test_deep_expressions_take_linear_time_and_no_recursion() -> None:
    """A network of 400 layers, whose text would be exponential."""
    e = z
    for _ in range(400):
        e = add(mul(call("tanh", add(matmul(W, e), x)), e), b)
    start = time.perf_counter()
    size = sum(1 for _ in walk(e))
    back = vjp(e, g, (z, W, x), TABLE)
    forward = linearize(e, {z: g}, TABLE)
    J = jacobian(e, z, TABLE)
    (rest,), _ = hoist([simplify(e)], [z])
    assert J is not None
    assert sum(1 for _ in walk(*back)) < 12 * size
    assert sum(1 for _ in walk(forward)) < 12 * size
    assert sum(1 for _ in walk(rest)) <= size
    assert time.perf_counter() - start < 5

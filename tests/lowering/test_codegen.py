"""Generated functions against an interpreter, sample by sample, for every way in which inputs can carry the batch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import pytest
import torch
from reference import evaluate
from symbols import ONE, SIZES, ZERO, A, N, U, W, X, bias, i, j, m, n, row, s, tanh, u, x, z

from implicitdsl.ir import build as b
from implicitdsl.ir.dims import Dim
from implicitdsl.ir.function import Function
from implicitdsl.ir.nodes import Expr, Role, node, num, sym, symbols
from implicitdsl.lowering.codegen import generate, opaques_of
from implicitdsl.lowering.source import Program

Functions = Mapping[str, Function]
BATCH = 6


def call(name: str, *args: Expr, shape: tuple[Dim, ...] | None = None) -> Expr:
    return b.call(name, args, args[0].shape if shape is None else shape)


pre = b.add(b.add(b.matmul(W, z), b.matmul(U, x)), bias)
gain = b.sub(num(1.0), b.power(tanh(pre), num(2.0)))
Xi = row(X, i)
two = Dim.of(2)

CASES: dict[str, Expr] = {
    "residual": b.sub(z, tanh(pre)),
    "two matrices only": b.add(b.matmul(W, z), b.matmul(U, x)),
    "difference of products": b.sub(b.matmul(W, z), b.matmul(U, x)),
    "batched matrix": b.add(b.matmul(A, z), bias),
    "transposes": b.add(b.matmul(b.transpose(A), z), b.matmul(z, b.transpose(W))),
    "vector times matrix": b.matmul(x, b.transpose(U)),
    "scalar times vector": b.mul(s, b.mul(b.call("logsumexp", (z,), ()), z)),
    "scalar times matrix": b.add(b.mul(s, A), b.mul(num(2.0), W)),
    "scalar plus matrix vector": b.add(s, b.matmul(z, b.matmul(A, z))),
    "slope of tanh": b.mul(b.matmul(A, z), b.sub(num(1.0), b.power(tanh(pre), num(2.0)))),
    "slope of one for all": b.mul(b.sub(num(1.0), b.power(tanh(bias), num(2.0))), z),
    "quotient and power": b.div(b.power(z, num(3.0)), b.add(num(2.0), b.power(s, num(2.0)))),
    "power of two": b.power(num(2.0), z),
    "maximum with a number": call("max", z, num(0.25)),
    "maximum with a scalar": call("max", s, z, shape=(n,)),
    "spelling without a call": b.mul(num(2.0), call("cube", b.add(z, bias))),
    "clamp": b.add(call("clamp", z, num(-0.1), num(0.2)), call("clamp", z, s, num(0.2))),
    "softmax": call("softmax", b.matmul(A, z)),
    "determinant": call("det", b.add(A, b.eye(n)), shape=()),
    "inverse": call("inv", b.add(A, b.mul(num(4.0), b.eye(n)))),
    "norm of a matrix": call("norm", A, shape=()),
    "common factor": b.add(b.mul(num(0.5), A), b.mul(num(0.5), b.transpose(A))),
    "common factor of products": b.sub(b.mul(num(3.0), b.matmul(A, z)), b.mul(num(3.0), b.mul(s, z))),
    "outer": b.outer(b.matmul(A, z), x),
    "closed Jacobian": b.sub(b.eye(n), b.scale_rows(gain, W)),
    "column scaling": b.scale_columns(A, z),
    "diag": b.add(b.diag(z), A),
    "diagonal": b.diagonal(call("inv", b.add(A, b.mul(num(4.0), b.eye(n))))),
    "sums": b.add(b.total(A), b.total(b.mul(z, z))),
    "index": b.add(row(A, ONE), b.index(X, [b.at_item(2)])),
    "slice of columns": b.index(A, [b.slice_item(ZERO, n), b.slice_item(1, 3)]),
    "element": b.mul(row(z, ZERO), row(A, ONE, two)),
    "embed": b.embed(b.mul(s, x), [b.slice_item(ONE, ONE + m), b.at_item(2)], (n, n)),
    "concat": b.concat([z, s, x]),
    "concat rows": b.concat([A, b.reshape(z, (ONE, n))]),
    "stack": b.stack([s, num(2.0), row(z, ONE)]),
    "matrix literal": b.stack([b.stack([s, num(0.0)]), b.stack([num(1.0), row(x, ZERO)])]),
    "numbers": b.mul(s, b.stack([b.stack([num(1.0), num(-2.0), num(0.5)]), b.stack([num(3.0)] * 3)])),
    "reshape": b.reshape(b.matmul(A, W), (n * n,)),
    "fill": b.add(z, node("mul", (s, b.ones((n,))), (), (n,))),
    "dimension": b.div(b.total(z), b.dimension(n)),
    "sum of quadratics": b.sum_for(b.add(b.matmul(Xi, b.matmul(W, Xi)), b.mul(s, b.matmul(bias, Xi))), "i", ZERO, N),
    "batched form": b.sum_for(b.matmul(Xi, b.matmul(A, Xi)), "i", ZERO, N),
    "next minus this": b.stack_for(b.sub(row(X, i + ONE), b.matmul(W, Xi)), "i", ZERO, N - ONE),
    "every other": b.sum_for(b.mul(row(z, i * two), row(X, i, ZERO)), "i", ZERO, two),
    "index as a number": b.sum_for(b.mul(b.dimension(i * i + ONE), row(z, i)), "i", ZERO, n),
    "column of a matrix": b.stack_for(tanh(b.index(A, [b.slice_item(ZERO, n), b.at_item(i)])), "i", ONE, n),
    "nested": b.sum_for(b.sum_for(b.mul(row(A, i, j), b.mul(row(z, i), row(bias, j))), "j", ZERO, n), "i", ZERO, n),
    "nested stacks": b.stack_for(b.stack_for(b.mul(row(z, i), b.mul(s, row(x, j))), "j", ZERO, m), "i", ZERO, n),
    "diagonal by index": b.stack_for(tanh(row(A, i, i)), "i", ZERO, n),
    "windows": b.stack_for(b.total(b.index(z, [b.slice_item(i, i + two)])), "i", ZERO, n - ONE),
    "triangle": b.sum_for(b.sum_for(b.mul(row(A, i, j), row(z, j)), "j", ZERO, i + ONE), "i", ZERO, n),
    "convolution": b.stack_for(b.sum_for(b.mul(row(z, i + j), row(x, j)), "j", ZERO, two), "i", ZERO, n - ONE),
    "same index, two ranges": b.add(
        b.sum_for(b.mul(row(z, i), row(bias, i)), "i", ZERO, two),
        b.sum_for(b.mul(row(z, i), row(bias, i)), "i", ONE, n),
    ),
    "loop in a vectorised sum": b.sum_for(
        b.mul(row(z, i), b.sum_for(b.mul(row(A, j, j), row(X, j, i)), "j", ZERO, n)), "i", ZERO, n
    ),
}


def symbols_of(e: Expr) -> list[Expr]:
    return [v for v in (z, x, s, X, A, W, U, bias, u) if v in symbols(e)]


def value(v: Expr, batch: int | None, seed: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    shape = [d.evaluate(SIZES) for d in v.shape]
    return 0.5 * torch.randn([*([] if batch is None else [batch]), *shape], generator=g, dtype=torch.float64)


def per_sample(
    e: Expr, inputs: Sequence[Expr], tensors: Sequence[torch.Tensor], batched: Sequence[bool]
) -> torch.Tensor:
    def sample(k: int) -> torch.Tensor:
        return evaluate(e, {v: t[k] if is_b else t for v, t, is_b in zip(inputs, tensors, batched, strict=True)}, SIZES)

    return torch.stack([sample(k) for k in range(BATCH)]) if any(batched) else sample(0)


def patterns(count: int) -> list[tuple[bool, ...]]:
    """Which inputs carry the batch: all ways for few inputs, else none, all, and each one alone or alone not."""
    if count <= 3:
        return list(itertools.product([False, True], repeat=count))
    alone = [tuple(k == c for k in range(count)) for c in range(count)]
    return [(False,) * count, (True,) * count, *alone, *[tuple(not p for p in a) for a in alone]]


@pytest.mark.parametrize("sized", [True, False], ids=["sizes", "sizes from inputs"])
@pytest.mark.parametrize("case", CASES)
def test_any_batch(case: str, sized: bool, functions: Functions) -> None:
    e = CASES[case]
    inputs = symbols_of(e)
    known = {d.names for v in inputs for d in v.shape if len(d.names) == 1}
    text = generate("f", inputs, [e], functions, {k: v for k, v in SIZES.items() if sized or {k} not in known})
    f = Program("test", text)["f"]
    for batched in patterns(len(inputs)):
        tensors = [
            value(v, BATCH if is_b else None, k) for k, (v, is_b) in enumerate(zip(inputs, batched, strict=True))
        ]
        expected = per_sample(e, inputs, tensors, batched)
        torch.testing.assert_close(f(*tensors), expected, msg=lambda m, b=batched: f"{b}: {m}\n{text}")


def test_two_batch_dimensions(functions: Functions) -> None:
    e = CASES["residual"]
    f = Program("test", generate("f", symbols_of(e), [e], functions, {}))["f"]
    tensors = [value(v, 6, k) if v in (z, x) else value(v, None, k) for k, v in enumerate(symbols_of(e))]
    flat = f(*tensors)
    shaped = f(*[t.reshape(2, 3, -1) if v in (z, x) else t for t, v in zip(tensors, symbols_of(e), strict=True)])
    torch.testing.assert_close(shaped.reshape(6, -1), flat)


VJP = {
    "W": (b.outer(b.mul(u, gain), z), W),
    "U": (b.outer(b.mul(u, gain), x), U),
    "b": (b.mul(u, gain), bias),
    "x": (b.matmul(b.transpose(U), b.mul(u, gain)), x),
    "s": (b.matmul(u, z), s),
    "sum of products": (b.sub(b.outer(u, z), b.mul(num(2.0), b.outer(z, u))), W),
    "product and more": (b.sub(b.outer(u, z), b.mul(b.total(u), A)), W),
    "matrix product": (b.matmul(A, b.diag(z)), W),
    "product of matrices": (b.matmul(A, b.transpose(A)), W),
}


@pytest.mark.parametrize("case", VJP)
def test_cotangents_of_shared_inputs_are_sums(case: str, functions: Functions) -> None:
    e, like = VJP[case]
    inputs = list(dict.fromkeys([*symbols_of(e), like]))
    f = Program("test", generate("f", inputs, [e], functions, {}, reduce_like=[like]))["f"]
    for batched in patterns(len(inputs)):
        if any(batched) and u in inputs and not batched[inputs.index(u)]:
            continue  # a cotangent carries the batch of what it belongs to
        tensors = [
            value(v, BATCH if is_b else None, k) for k, (v, is_b) in enumerate(zip(inputs, batched, strict=True))
        ]
        each = per_sample(e, inputs, tensors, batched)
        shared = not batched[inputs.index(like)]
        expected = each.sum(0) if shared and any(batched) else each
        torch.testing.assert_close(f(*tensors), expected, msg=lambda m, b=batched: f"{b}: {m}")


def test_no_outer_product_per_sample(functions: Functions) -> None:
    e, like = VJP["sum of products"]
    text = generate("f", [u, z, W], [e], functions, {}, reduce_like=[like])
    assert "ops.outer(" not in text
    assert text.count("outer_like") == 2


def test_inner_function_computes_the_rest_once(functions: Functions) -> None:
    e = b.sub(u, b.matmul(b.transpose(W), b.mul(gain, u)))
    text = generate("pull", [z, x, W, U, bias], [e], functions, {}, inner=[u])
    outer, inner = text.split("    def ")
    assert "torch.tanh" in outer
    assert "torch.tanh" not in inner
    tensors = [value(v, BATCH if v in (z, x) else None, k) for k, v in enumerate([z, x, W, U, bias, u])]
    tensors[-1] = value(u, BATCH, 9)
    whole = Program("test", generate("f", [z, x, W, U, bias, u], [e], functions, {}))["f"]
    torch.testing.assert_close(Program("test", text)["pull"](*tensors[:-1])(tensors[-1]), whole(*tensors))


def test_definitions_keep_their_names(functions: Functions) -> None:
    Q = sym("Q", Role.DEFINITION, (n, n))
    h = sym("h", Role.DEFINITION, (n,))
    defs = [(Q, b.add(b.matmul(W, b.transpose(W)), b.eye(n))), (h, b.matmul(Q, z))]
    text = generate("f", [z, W], [b.add(h, z), b.matmul(h, h)], functions, {}, definitions=defs)
    assert "\n    Q = W @ W.mT + torch.eye(" in text
    assert "\n    h = ops.matvec(Q, z)" in text
    Wv, zv = value(W, None, 0), value(z, BATCH, 1)
    expected = zv @ (Wv @ Wv.T + torch.eye(4, dtype=torch.float64))
    first, second = Program("test", text)["f"](zv, Wv)
    torch.testing.assert_close(first, expected + zv)
    torch.testing.assert_close(second, (expected**2).sum(-1))


def test_names_python_reserves(functions: Functions) -> None:
    lam, op = sym("lambda", Role.CONST), sym("ops", Role.GIVEN, (n,))
    t0 = sym("t0", Role.GIVEN, (n,))
    e = b.add(tanh(b.mul(lam, op)), b.mul(tanh(b.mul(lam, op)), t0))
    text = generate("f", [lam, op, t0], [e], functions, {})
    a, c = value(op, None, 1), value(t0, None, 2)
    f = Program("test", text)["f"]
    torch.testing.assert_close(f(torch.tensor(2.0), a, c), torch.tanh(2 * a) * (1 + c))


def test_deep_chains_do_not_recurse(functions: Functions) -> None:
    e: Expr = z
    for _ in range(3000):
        e = tanh(e)
    f = Program("test", generate("f", [z], [e], functions, {}))["f"]
    expected = value(z, None, 0)
    for _ in range(3000):
        expected = torch.tanh(expected)
    torch.testing.assert_close(f(value(z, None, 0)), expected)


def test_what_cannot_be_spelled(functions: Functions) -> None:
    with pytest.raises(ValueError, match="`grad`"):
        generate("f", [z], [b.grad(b.matmul(z, z), z, z)], functions, {})
    with pytest.raises(ValueError, match="is neither an input"):
        generate("f", [z], [b.matmul(U, x)], functions, {})
    with pytest.raises(KeyError, match="N"):
        generate("f", [z], [b.mul(row(z, ZERO), b.power(b.dimension(N), num(2.0)))], functions, {})


class Field(torch.nn.Module):
    """f(z, s) = tanh(V z) s + z and its square; insists on exactly one batch dimension and counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(3)
        self.V = torch.nn.Parameter(torch.randn(4, 4, generator=g, dtype=torch.float64))
        self.calls = 0

    def forward(self, z: torch.Tensor, s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert z.dim() == 2
        assert s.dim() == 1
        self.calls += 1
        y = torch.tanh(z @ self.V.T) * s[:, None] + z
        return y, y**2


@pytest.mark.parametrize("batched", patterns(2))
def test_opaque_function(batched: tuple[bool, bool], functions: Functions) -> None:
    e = b.add(b.apply("f", (z, s), (n,)), b.apply("f", (b.mul(num(2.0), z), s), (n,), 1))
    assert opaques_of(e) == ("f",)
    field = Field()
    f = Program("test", generate("g", [z, s], [e], functions, {}))["g"]
    zv, sv = (value(v, BATCH if is_b else None, k) for k, (v, is_b) in enumerate(zip((z, s), batched, strict=True)))
    out = f(zv, sv, field)
    for k in range(BATCH if any(batched) else 1):
        sample = {z: zv[k] if batched[0] else zv, s: sv[k] if batched[1] else sv}
        torch.testing.assert_close(out[k] if any(batched) else out, evaluate(e, sample, SIZES, {"f": field}))


def test_opaque_outputs_share_a_call(functions: Functions) -> None:
    e = [b.apply("f", (z, s), (n,), k) for k in range(2)]
    field = Field()
    f = Program("test", generate("g", [z, s], e, functions, {}))["g"]
    first, second = f(value(z, BATCH, 0), value(s, BATCH, 1), field)
    torch.testing.assert_close(second, first**2)
    assert field.calls == 1


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own use of it in forward mode
def test_opaque_derivatives(functions: Functions) -> None:
    t = sym("t", Role.TANGENT, (n,))
    ts = sym("ts", Role.TANGENT)
    jvp = b.apply_jvp("f", (z, s), (t, ts), (n,))
    vjps = [b.apply_vjp("f", (z, s), u, k) for k in range(2)]
    second = b.apply(("vjp", "f", 0, 0), (z, s, u), (n,))
    field = Field()
    values = [value(v, BATCH, k) for k, v in enumerate([z, s, u, t, ts])]
    text = generate("g", [z, s, u, t, ts], [jvp, *vjps, second], functions, {})
    out = Program("test", text)["g"](*values, field)
    zv, sv, uv, tv, tsv = values
    expected = torch.func.jvp(lambda a, c: field(a, c)[0], (zv, sv), (tv, tsv))[1]
    gz, gs = torch.func.vjp(lambda a, c: field(a, c)[0], zv, sv)[1](uv)
    for got, want in zip(out, [expected, gz, gs, gz], strict=True):
        torch.testing.assert_close(got, want)
    assert text.count("apply_vjp") == 1


def test_opaque_parameters_receive_gradients(functions: Functions) -> None:
    field = Field()
    f = Program("test", generate("g", [z, s, u], [b.apply_vjp("f", (z, s), u, 0)], functions, {}))["g"]
    values = [value(v, BATCH, k) for k, v in enumerate([z, s, u])]
    (got,) = torch.autograd.grad(f(*values, field).sum(), [field.V])
    zv = values[0].clone().requires_grad_()
    (g,) = torch.autograd.grad((field(zv, values[1])[0] * values[2]).sum(), [zv], create_graph=True)
    (want,) = torch.autograd.grad(g.sum(), [field.V])
    torch.testing.assert_close(got, want)


GOLDEN: dict[str, tuple[list[Expr], list[Expr], dict[str, object]]] = {
    "residual": ([z, x, W, U, bias], [CASES["residual"]], {"doc": "F(z; x) = z - tanh(W z + U x + b)"}),
    "jacobian": ([z, x, W, U, bias], [CASES["closed Jacobian"]], {}),
    "vjp_inputs": ([z, u, x, W, U, bias], [VJP[k][0] for k in "WUbx"], {"reduce_like": [W, U, bias, x]}),
    "pullback": ([z, x, W, U, bias], [b.sub(u, b.matmul(b.transpose(W), b.mul(gain, u)))], {"inner": [u]}),
    "cost": ([X, W, bias, s], [CASES["sum of quadratics"]], {}),
    "windows": ([z], [CASES["windows"]], {}),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_text(name: str, functions: Functions, golden: Callable[[str, str], None]) -> None:
    inputs, outputs, options = GOLDEN[name]
    golden(f"lowering/{name}.py.txt", generate(name, inputs, outputs, functions, SIZES, **options))  # pyright: ignore[reportArgumentType]

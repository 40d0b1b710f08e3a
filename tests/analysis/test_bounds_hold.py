"""Random expressions over random members of the sets: every proved range, norm and Lipschitz constant holds."""

from __future__ import annotations

import torch
from hand_built import SQUARE, VECTOR, f, in_set, model, param, real, unknown
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_evaluator import evaluate
from torch import Tensor

from implicitdsl.analysis import Bounds, Context, context
from implicitdsl.analysis.lipschitz import Lipschitz
from implicitdsl.functions import TABLE
from implicitdsl.ir import build
from implicitdsl.ir.dims import Dim
from implicitdsl.ir.nodes import Expr

SIZES = {"n": 4}
CASES = 150
TOLERANCE = 1 + 1e-9

z = unknown("z", real(VECTOR))
W = param("W", in_set("SpectralBall", "SpectralBall(n, 0.9)", SQUARE, 0.9))
Q = param("Q", in_set("Orth", "Orth(n)", SQUARE))
p = param("p", in_set("simplex", "simplex(n)", VECTOR))
r = param("r", in_set("ball", "ball(n, 2)", VECTOR, 2.0))
d = param("d", in_set("closed", "[-0.5, 1.5]^n", VECTOR, -0.5, 1.5))
a = param("a", in_set("closed", "[0.2, 0.8]", (), 0.2, 0.8))
k = param("k", in_set("positive", "positive", ()))
CONSTANTS = (W, Q, p, r, d, a, k)
MODEL = model([], *CONSTANTS)
UNARY = ["tanh", "sigmoid", "relu", "softplus", "sin", "cos", "abs", "erf", "gelu", "silu", "softmax", "exp", "sqrt"]


def draw_values(seed: int) -> dict[Expr, Tensor]:
    """A member of each set, often on its boundary."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=g)

    n = SIZES["n"]
    orthogonal = torch.linalg.qr(normal(n, n))[0]
    scale = torch.rand(n, dtype=torch.float64, generator=g).round(decimals=1)
    direction = normal(n)
    return {
        W.node: 0.9 * orthogonal @ torch.diag(scale) @ torch.linalg.qr(normal(n, n))[0],
        Q.node: orthogonal,
        p.node: torch.softmax(6 * normal(n), 0),
        r.node: 2 * direction / direction.norm(),
        d.node: 2 * torch.rand(n, dtype=torch.float64, generator=g).round() - 0.5,
        a.node: 0.2 + 0.6 * torch.rand((), dtype=torch.float64, generator=g).round(),
        k.node: normal(1)[0].exp(),
    }


@st.composite
def expressions(draw: st.DrawFn) -> Expr:
    """A vector, matrix or scalar over the unknown and the constants."""
    vectors, scalars, matrices = [z.node, p.node, r.node, d.node], [a.node, k.node], [W.node, Q.node]

    def pick(pool: list[Expr]) -> Expr:
        return draw(st.sampled_from(pool[-3:] + pool[:1]))

    for _ in range(draw(st.integers(1, 7))):
        u, v, s, A, B = pick(vectors), pick(vectors), pick(scalars), pick(matrices), pick(matrices)
        c = build.num(draw(st.sampled_from([-2.0, -0.5, 0.25, 1.5])))
        match draw(st.integers(0, 16)):
            case 0 | 1 | 2:
                vectors.append(build.matmul(A, u))
            case 3:
                vectors.append(build.add(u, build.mul(c, v)))
            case 4:
                vectors.append(build.mul(u, v))
            case 5 | 6:
                vectors.append(f(draw(st.sampled_from(UNARY)), u))
            case 7:
                vectors.append(build.mul(s, u))
            case 8:
                vectors.append(build.div(u, build.add(build.num(1.0), build.power(v, build.num(2.0)))))
            case 9:
                scalars.append(build.matmul(u, v))
            case 10:
                scalars.append(f("norm", u))
            case 11:
                matrices.append(build.add(build.matmul(A, B), build.mul(c, build.eye(Dim.of("n")))))
            case 12:
                matrices.append(build.scale_rows(u, A))
            case 13:
                matrices.append(build.div(A, build.call("norm", (A,), ())))
            case 14:
                vectors.append(build.add(build.mul(build.sub(build.num(1.0), a.node), u), build.mul(a.node, v)))
            case 15:
                i = build.index(z.node, (build.at_item(Dim.of("i")),))
                vectors.append(build.stack_for(f("tanh", build.mul(s, i)), "i", Dim.of(0), Dim.of("n")))
            case _:
                vectors.append(f(draw(st.sampled_from(["max", "min"])), u, v))
    return pick(draw(st.sampled_from([vectors, scalars, matrices])))


def value(e: Expr, constants: dict[Expr, Tensor], point: Tensor) -> Tensor:
    return evaluate(e, {**constants, z.node: point}, SIZES)


def points(seed: int) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed + 1)
    sizes = [0.1, 1.0, 10.0]
    return [size * torch.randn(SIZES["n"], dtype=torch.float64, generator=g) for size in sizes]


def about(sized: bool) -> Context:
    return context(MODEL, TABLE, SIZES if sized else None)


@settings(max_examples=CASES, deadline=None, derandomize=True)
@given(expressions(), st.integers(0, 10**6), st.booleans())
def test_ranges_and_norms_hold(e: Expr, seed: int, sized: bool) -> None:
    bounds = Bounds(about(sized))
    constants = draw_values(seed)
    for point in points(seed):
        x = value(e, constants, point)
        if not x.isfinite().all():
            continue
        interval = bounds.range(e)
        slack = 1e-9 * (1 + float(x.abs().max()))
        assert interval.lo - slack <= float(x.min())
        assert float(x.max()) <= interval.hi + slack
        assert float(x.norm()) <= bounds.norm(e).value * TOLERANCE + slack
        if e.rank == 2:
            assert float(torch.linalg.matrix_norm(x, 2)) <= bounds.operator(e).value * TOLERANCE + slack


@settings(max_examples=CASES, deadline=None, derandomize=True)
@given(expressions(), st.integers(0, 10**6), st.booleans())
def test_lipschitz_constants_hold(e: Expr, seed: int, sized: bool) -> None:
    constant = Lipschitz(about(sized), (z.node,)).of(e).get(z.node, 0.0)
    constants = draw_values(seed)
    base = points(seed)
    for u in base:
        for v in (*(other for other in base if other is not u), u + 1e-3 * base[0]):
            x, y = value(e, constants, u), value(e, constants, v)
            if x.isfinite().all() and y.isfinite().all():
                rounding = 1e-11 * (1 + float(x.norm()))
                assert float((x - y).norm()) <= constant * float((u - v).norm()) * TOLERANCE + rounding


def test_the_property_is_about_finite_constants() -> None:
    """The random expressions do have proved constants: the property is not empty."""
    seen: list[float] = []

    @settings(max_examples=CASES, deadline=None, derandomize=True, database=None)
    @given(expressions())
    def collect(e: Expr) -> None:
        seen.append(Lipschitz(about(True), (z.node,)).of(e).get(z.node, 0.0))

    collect()
    finite = [c for c in seen if 0.0 < c < float("inf")]
    assert len(finite) > CASES / 10


def test_samples_lie_in_their_sets() -> None:
    for seed in range(20):
        values = draw_values(seed)
        assert float(torch.linalg.matrix_norm(values[W.node], 2)) <= 0.9 * TOLERANCE
        assert float(values[p.node].sum()) == 1.0 or abs(float(values[p.node].sum()) - 1.0) < 1e-12
        assert 0.2 <= float(values[a.node]) <= 0.8 + 1e-12


def test_signs_are_certain_where_a_function_vanishes() -> None:
    bounds = Bounds(context(MODEL, TABLE))
    one_more = build.add(k.node, build.num(1.0))
    assert bounds.range(build.call("log", (one_more,), ())).lo == 0.0
    assert bounds.range(build.call("tanh", (k.node,), ())).lo == 0.0
    assert bounds.range(build.call("erf", (build.neg(k.node),), ())).hi == 0.0

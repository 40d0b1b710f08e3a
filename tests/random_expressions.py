"""Random well-typed expressions for property tests: scalars, vectors, matrices, every operation, shared terms."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from torch import Tensor

from implicitdsl.functions import TABLE
from implicitdsl.ir import build
from implicitdsl.ir.dims import ZERO, Dim, Shape
from implicitdsl.ir.nodes import Expr, Role, num, sym

N, M = Dim.of("n"), Dim.of("m")
SIZES = {"n": 3, "m": 2}
SHAPES: list[Shape] = [(), (N,), (M,), (N, N), (M, N)]
MIX = torch.tensor([[0.3, -1.1, 0.5], [0.8, 0.2, -0.4], [-0.6, 0.9, 0.7]], dtype=torch.float64)
OPAQUES = {"f": lambda x, s: torch.tanh(MIX @ x * s) + x**2}

z, s, x, W, A = (
    sym("z", Role.UNKNOWN, (N,)),
    sym("s", Role.GIVEN, ()),
    sym("x", Role.GIVEN, (M,)),
    sym("W", Role.PARAM, (N, N)),
    sym("A", Role.PARAM, (M, N)),
)
LEAVES = (z, s, x, W, A)


def sizes_of(shape: Shape) -> tuple[int, ...]:
    return tuple(d.evaluate(SIZES) for d in shape)


def values_of(seed: int, nodes: tuple[Expr, ...] = LEAVES) -> dict[Expr, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {e: 0.7 * torch.randn(sizes_of(e.shape), dtype=torch.float64, generator=generator) for e in nodes}


@dataclass
class Pool:
    """Expressions so far, by shape; draws prefer recent ones, so that sub-terms are shared and nested."""

    draw: st.DrawFn
    found: dict[Shape, list[Expr]] = field(default_factory=dict)
    definitions: dict[Expr, Expr] = field(default_factory=dict)

    def add(self, e: Expr) -> None:
        self.found.setdefault(e.shape, []).append(e)

    def pick(self, *shapes: Shape) -> Expr:
        choices = [e for shape in shapes for e in self.found.get(shape, [])[-5:]]
        return self.draw(st.sampled_from(choices))


UNARY = ["tanh", "sigmoid", "sin", "cos", "softplus", "silu", "gelu", "erf", "relu", "abs"]


def elementwise(pool: Pool) -> Expr:
    shape = pool.draw(st.sampled_from(SHAPES))
    a, b = pool.pick(shape, ()), pool.pick(shape)
    safe = build.add(num(1.5), build.power(b, num(2.0)))
    match pool.draw(st.integers(0, 8)):
        case 0:
            return build.add(a, b)
        case 1:
            return build.sub(b, a)
        case 2:
            return build.mul(a, b)
        case 3:
            return build.div(a, safe)
        case 4:
            return build.power(b, num(pool.draw(st.sampled_from([2.0, 3.0]))))
        case 5:
            return build.power(safe, build.call("tanh", (a,), a.shape))
        case 6:
            return TABLE[pool.draw(st.sampled_from(["max", "min"]))].build([a, b])
        case 7:
            return build.mul(num(pool.draw(st.sampled_from([-1.0, 0.5, 2.0]))), b)
        case _:
            return TABLE[pool.draw(st.sampled_from(UNARY))].build([b])


def linear_algebra(pool: Pool) -> Expr:
    v, u, P, Q = pool.pick((N,)), pool.pick((M,)), pool.pick((N, N)), pool.pick((M, N))
    match pool.draw(st.integers(0, 13)):
        case 0:
            return build.matmul(P, v)
        case 1:
            return build.matmul(Q, v)
        case 2:
            return build.matmul(build.transpose(Q), u)
        case 3:
            return build.matmul(u, Q)
        case 4:
            return build.matmul(Q, P)
        case 5:
            return build.matmul(pool.pick((N,)), v)
        case 6:
            return build.outer(u, v)
        case 7:
            return build.diag(v)
        case 8:
            return build.diagonal(P)
        case 9:
            return build.trace(build.matmul(P, pool.pick((N, N))))
        case 10:
            return build.scale_rows(u, Q)
        case 11:
            return build.scale_columns(Q, v)
        case 12:
            return build.matmul(build.transpose(Q), Q)
        case _:
            return build.inner(P, pool.pick((N, N)))


def arrays(pool: Pool) -> Expr:
    v, u, P, Q = pool.pick((N,)), pool.pick((M,)), pool.pick((N, N)), pool.pick((M, N))
    two = (build.slice_item(0, M),)
    match pool.draw(st.integers(0, 9)):
        case 0:
            return build.index(v, (build.at_item(1),))
        case 1:
            return build.index(build.concat((u, v)), (build.slice_item(1, N + Dim.of(1)),))
        case 2:
            return build.index(Q, (build.at_item(1),))
        case 3:
            return build.index(P, (*two, build.slice_item(0, N)))
        case 4:
            return build.index(Q, (build.slice_item(0, M), build.at_item(2)))
        case 5:
            return build.reshape(build.reshape(Q, (M * N,)), (M, N))
        case 6:
            return build.embed(pool.pick(()), (build.at_item(1),), (N,))
        case 7:
            return build.index(build.stack((v, pool.pick((N,)))), (build.slice_item(0, 2), build.at_item(0)))
        case 8:
            return build.total(P)
        case _:
            return build.mean(build.concat((u, pool.pick(()), v)))


def reductions(pool: Pool) -> Expr:
    v = pool.pick((N,))
    name = pool.draw(st.sampled_from(["softmax", "logsumexp", "norm", "prod", "det", "inv"]))
    if name in ("det", "inv"):
        P = build.call("tanh", (pool.pick((N, N)),), (N, N))
        return TABLE[name].build([build.add(build.mul(num(4.0), build.eye(N)), P)])
    if name == "norm":
        return TABLE["norm"].build([build.concat((num(1.0), v))])
    return TABLE[name].build([v])


def loops(pool: Pool) -> Expr:
    name = f"i~{len(pool.found)}"
    i = Dim.of(name)
    at = (build.at_item(i),)
    v, P, Q, c = pool.pick((N,)), pool.pick((N, N)), pool.pick((M, N)), pool.pick(())
    entry, row = build.index(v, at), build.index(P, at)
    match pool.draw(st.integers(0, 6)):
        case 0:
            return build.sum_for(build.mul(build.dimension(i), build.mul(entry, entry)), name, ZERO, N)
        case 1:
            return build.stack_for(build.mul(build.call("tanh", (entry,), ()), c), name, ZERO, N)
        case 2:
            return build.sum_for(build.mul(entry, build.call("sin", (row,), (N,))), name, ZERO, N)
        case 3:
            return build.stack_for(build.matmul(P, build.mul(entry, row)), name, ZERO, N)
        case 4:
            return build.sum_for(build.matmul(row, build.matmul(P, row)), name, Dim.of(1), N)
        case 5:
            shifted = build.index(v, (build.at_item(i + Dim.of(1)),))
            return build.sum_for(build.mul(entry, shifted), name, ZERO, N - Dim.of(1))
        case _:
            inner = f"j~{len(pool.found)}"
            j = build.index(Q, (build.at_item(Dim.of(inner)), build.at_item(i)))
            body = build.mul(build.mul(j, entry), build.call("cos", (j,), ()))
            return build.stack_for(build.sum_for(body, inner, ZERO, M), name, ZERO, N)


def others(pool: Pool) -> Expr:
    if pool.draw(st.booleans()):
        return build.apply("f", (pool.pick((N,)), pool.pick(())), (N,))
    value = pool.pick(*SHAPES)
    name = sym(f"d{len(pool.definitions)}", Role.DEFINITION, value.shape)
    pool.definitions[name] = value
    return name


@dataclass(frozen=True)
class Sample:
    expr: Expr
    definitions: dict[Expr, Expr]
    seed: int


@st.composite
def samples(draw: st.DrawFn, *shapes: Shape, opaque: bool = True) -> Sample:
    pool = Pool(draw)
    for leaf in LEAVES:
        pool.add(leaf)
    makers = [elementwise, elementwise, linear_algebra, linear_algebra, arrays, reductions, loops]
    makers += [others] if opaque else []
    for _ in range(draw(st.integers(2, 9))):
        e = draw(st.sampled_from(makers))(pool)
        if e.shape in SHAPES:
            # squashed, so that values stay in the range where 1e-10 is a sharp test
            pool.add(e if draw(st.booleans()) else build.call("tanh", (e,), e.shape))
    wanted = shapes or tuple(SHAPES)
    last = [e for shape in wanted for e in pool.found[shape][-3:]]
    combined = draw(st.sampled_from(last))
    return Sample(combined, pool.definitions, draw(st.integers(0, 2**20)))


CHECKED = settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))

"""Facts about hand-built fixed points: what is proved, what is refused, and the proofs' words."""

from __future__ import annotations

import math

import pytest
from hand_built import (
    SQUARE,
    VECTOR,
    const,
    deq,
    equation,
    f,
    given,
    in_set,
    model,
    param,
    real,
    root,
    shape,
    unknown,
    x,
    z,
)

from implicitdsl.analysis import BlockFacts, analyse
from implicitdsl.functions import TABLE
from implicitdsl.ground.facts import Interval, Smoothness
from implicitdsl.ir import build
from implicitdsl.ir.build import add, matmul, mul, num, sub
from implicitdsl.ir.model import Model, SetInfo, Symbol
from implicitdsl.ir.nodes import Expr

BALL = in_set("SpectralBall", "SpectralBall(n, 0.9)", SQUARE, 0.9)


def facts(m: Model, **sizes: int) -> BlockFacts:
    (found,) = analyse(m, TABLE, sizes=sizes).blocks
    return found


def fixed_point(step: Expr, u: Symbol = z, *others: Symbol, **sizes: int) -> BlockFacts:
    return facts(model([root([u], [equation(u.node, step)])], *others), **sizes)


def proof(found: BlockFacts, name: str) -> tuple[str, ...]:
    fact = found.fact(name)
    assert fact is not None
    return fact.proof


def test_certified_contraction_states_its_proof() -> None:
    found = facts(deq(BALL))
    assert found.value("contraction") == 0.9
    assert proof(found, "contraction") == (
        "|tanh'| ≤ 1",
        "‖W‖₂ ≤ 0.9 since W in SpectralBall(n, 0.9)",
        "so ‖G(u) − G(v)‖₂ ≤ 0.9 ‖u − v‖₂",
    )
    assert found.value("existence") is True


def test_unbounded_weights_are_named() -> None:
    found = facts(deq(real(SQUARE)))
    assert found.value("contraction") is None
    assert proof(found, "contraction") == ("‖W‖₂ is unbounded because W in R^(n, n)",)
    assert found.value("existence") is True  # by Brouwer: tanh is bounded
    assert "Brouwer" in proof(found, "existence")[-1]
    assert found.value("range") == (Interval(-1.0, 1.0),)


@pytest.mark.parametrize(
    "where, activation, rate",
    [
        (BALL, "sigmoid", 0.225),
        (BALL, "relu", 0.9),
        (in_set("Orth", "Orth(n)", SQUARE), "sigmoid", 0.25),
        (in_set("Orth", "Orth(n)", SQUARE), "tanh", None),
        (BALL, "exp", None),
        (BALL, "softmax", 0.45),
        (BALL, "abs", 0.9),
    ],
)
def test_rate_is_slope_times_norm(where: SetInfo, activation: str, rate: float | None) -> None:
    value = facts(deq(where, activation)).value("contraction")
    assert value == (None if rate is None else pytest.approx(rate))


def test_terms_are_collected_before_they_are_bounded() -> None:
    W = param("W", BALL)
    g = f("tanh", add(matmul(W.node, z.node), x.node))
    damped = add(z.node, mul(num(0.5), sub(g, z.node)))
    assert fixed_point(damped, z, W, x).value("contraction") == pytest.approx(0.95)


def test_convex_combination_is_bounded_at_the_ends_of_its_weight() -> None:
    W, a = param("W", BALL), param("a", in_set("closed", "[0.2, 1]", (), 0.2, 1.0))
    g = f("tanh", add(matmul(W.node, z.node), x.node))
    mixed = add(mul(sub(num(1.0), a.node), z.node), mul(a.node, g))
    found = fixed_point(mixed, z, W, a, x)
    assert found.value("contraction") == pytest.approx(0.98)
    assert proof(found, "contraction")[0].startswith("affine in a")


def test_a_weight_of_any_size_proves_nothing() -> None:
    a = const("a", real(()))
    found = fixed_point(mul(a.node, f("tanh", z.node)), z, a)
    assert found.value("contraction") is None
    assert "a in R" in proof(found, "contraction")[0]


def test_slopes_come_from_the_range_of_the_argument() -> None:
    s = unknown("s", real(()))
    cosine = fixed_point(f("cos", s.node), s)  # cos maps into [-1, 1], where |sin| ≤ 1: not below one
    assert cosine.value("contraction") is None
    halved = fixed_point(mul(num(0.5), f("cos", s.node)), s)
    assert halved.value("contraction") == pytest.approx(0.5)
    decayed = fixed_point(mul(num(0.3), f("exp", f("tanh", s.node))), s)
    assert decayed.value("contraction") == pytest.approx(0.3 * math.e, rel=1e-6)


def test_an_interval_that_is_mapped_into_itself_certifies() -> None:
    s = unknown("s", in_set("closed", "[0, 1]", (), 0.0, 1.0))
    step = add(mul(num(0.25), build.power(s.node, num(2.0))), num(0.2))
    found = fixed_point(step, s)
    assert found.value("contraction") == pytest.approx(0.5)
    assert "into [0, 1]" in proof(found, "contraction")[0]
    assert fixed_point(add(step, num(0.9)), s).value("contraction") is None  # leaves the interval


def test_normalised_weights_are_bounded() -> None:
    W = param("W", real(SQUARE))
    norm = build.call("norm", (W.node,), ())
    scaled = build.div(mul(num(0.8), W.node), norm)
    assert fixed_point(f("tanh", matmul(scaled, z.node)), z, W).value("contraction") == pytest.approx(0.8)


def test_literal_matrices_are_bounded_tightly() -> None:
    rows = [[0.0, 0.9], [-0.9, 0.0]]
    A = build.stack([build.stack([num(v) for v in row]) for row in rows])
    v = unknown("v", real(shape(2)))
    assert fixed_point(f("tanh", matmul(A, v.node)), v).value("contraction") == pytest.approx(0.9, rel=1e-9)


def test_coupled_unknowns_contract_by_their_gain_matrix() -> None:
    A, B = param("A", in_set("SpectralBall", "SpectralBall(n, 3)", SQUARE, 3.0)), param("B", BALL)
    u, v = unknown("u", real(VECTOR)), unknown("v", real(VECTOR))
    steps = f("sigmoid", matmul(A.node, v.node)), f("tanh", matmul(B.node, u.node))  # gains 0.75 and 0.9
    m = model([root([u, v], [equation(u.node, steps[0]), equation(v.node, steps[1])])], A, B)
    assert facts(m).value("contraction") == pytest.approx(math.sqrt(0.75 * 0.9), rel=1e-3)


def test_monotone_margin() -> None:
    found = facts(deq(in_set("Monotone", "Monotone(n, 0.1)", SQUARE, 0.1), "relu"))
    assert found.value("monotone") == pytest.approx(0.1)
    assert "I − W ⪰ 0.1 I since W in Monotone(n, 0.1)" in proof(found, "monotone")
    assert found.value("existence") is True
    assert found.value("smoothness") is Smoothness.CONTINUOUS


@pytest.mark.parametrize("activation", ["exp", "sin", "erf"])
def test_monotone_needs_a_nondecreasing_function_with_slope_one(activation: str) -> None:
    assert facts(deq(in_set("Monotone", "Monotone(n, 0.1)", SQUARE, 0.1), activation)).value("monotone") is None


def test_skew_minus_square_is_monotone() -> None:
    S, L = param("S", in_set("Skew", "Skew(n)", SQUARE)), param("L", real(SQUARE))
    A = sub(S.node, matmul(build.transpose(L.node), L.node))
    found = fixed_point(f("relu", add(matmul(A, z.node), x.node)), z, S, L, x)
    assert found.value("monotone") == pytest.approx(1.0)


def test_affine_structures() -> None:
    W, d, h = param("W", real(SQUARE)), param("d", real(VECTOR)), given("h", real(VECTOR))
    assert fixed_point(add(matmul(W.node, z.node), h.node), z, W, h).value("affine") == "dense"
    assert fixed_point(add(mul(d.node, z.node), h.node), z, d, h).value("affine") == "diagonal"
    Z = unknown("Z", real(shape("n", "m")))
    A, B, C = param("A", real(SQUARE)), param("B", real(shape("m", "m"))), given("C", real(shape("n", "m")))
    step = add(matmul(matmul(A.node, Z.node), B.node), C.node)
    assert fixed_point(step, Z, A, B, C).value("affine") == "sylvester"
    assert proof(facts(deq(BALL)), "affine") == ("tanh(W z + x) is not affine in z",)


def test_elementwise_equations() -> None:
    d = param("d", real(VECTOR))
    assert fixed_point(f("tanh", add(mul(d.node, z.node), x.node)), z, d, x).value("elementwise") is True
    assert facts(deq(BALL)).value("elementwise") is None
    mean = build.mean(z.node)
    assert fixed_point(add(f("tanh", z.node), mean), z).value("elementwise") is None


def test_bracket_proves_a_sign_change() -> None:
    s, c = (
        unknown("s", in_set("closed", "[0, 2]", (), 0.0, 2.0)),
        given("c", in_set("closed", "[0.1, 1]", (), 0.1, 1.0)),
    )
    block = root([s], [equation(build.power(s.node, num(3.0)), c.node)])
    found = facts(model([block], c))
    assert found.value("bracket") == Interval(0.0, 2.0)
    assert len(proof(found, "bracket")) == 2
    unknown_sign = facts(model([root([s], [equation(build.power(s.node, num(3.0)), num(9.0))])]))
    assert len(proof(unknown_sign, "bracket")) == 1
    assert found.system is not None
    assert found.system.step is None


def test_opaque_functions_are_named() -> None:
    step = build.apply("net", (z.node, x.node), VECTOR)
    found = fixed_point(step, z, x)
    assert found.value("opaque") == ("net",)
    assert proof(found, "contraction") == ("nothing is known about net: it is bound from Python",)
    assert found.value("existence") is None


def test_sizes_sharpen_bounds() -> None:
    W = param("W", in_set("closed", "[-0.1, 0.1]^(n, n)", SQUARE, -0.1, 0.1))
    step = f("tanh", matmul(W.node, z.node))
    assert fixed_point(step, z, W).value("contraction") is None
    assert fixed_point(step, z, W, n=5).value("contraction") == pytest.approx(0.5)

"""The equilibrium ladder: which solver is taken, for which stated reason."""

from __future__ import annotations

import pytest
from hand_built import (
    SQUARE,
    VECTOR,
    deq,
    equation,
    f,
    given,
    in_set,
    model,
    param,
    real,
    root,
    unknown,
    x,
    z,
)

from implicitdsl.ground.methods import Method, Option
from implicitdsl.ir import build
from implicitdsl.ir.build import add, matmul, mul, num
from implicitdsl.ir.model import Model, Options, SetInfo, Wishes
from implicitdsl.ir.nodes import Role, substitute
from implicitdsl.ir.plan import BlockPlan
from implicitdsl.language import LANGUAGE, Language
from implicitdsl.planner import EXPLICIT, plan

BALL = in_set("SpectralBall", "SpectralBall(n, 0.9)", SQUARE, 0.9)
MONOTONE = in_set("Monotone", "Monotone(n, 0.1)", SQUARE, 0.1)
FREE = real(SQUARE)


def planned(m: Model, language: Language = LANGUAGE, **sizes: int | None) -> BlockPlan:
    (found,) = plan(m, language, sizes).blocks
    return found


@pytest.mark.parametrize(
    "where, activation, n, method, reason",
    [
        (BALL, "tanh", 512, "picard", "contracts with rate 0.9: at most 132 cheap steps"),
        (BALL, "tanh", 4, "newton", "4 unknowns"),
        (FREE, "tanh", 16, "newton", "16 unknowns"),
        (FREE, "tanh", 16, "newton", "line search"),
        (FREE, "tanh", 256, "picard", "84 plain steps cost less"),
        (FREE, "tanh", 257, "anderson", "257 unknowns: accelerated"),
        (MONOTONE, "relu", 64, "peaceman_rachford", "margin 0.1"),
        (in_set("SpectralBall", "SpectralBall(n, 0.99)", SQUARE, 0.99), "tanh", 512, "anderson", "slow rate 0.99"),
    ],
)
def test_first_rung(where: SetInfo, activation: str, n: int, method: str, reason: str) -> None:
    first = planned(deq(where, activation), n=n).forward[0]
    assert first.method == method
    assert reason in first.reason


@pytest.mark.parametrize("where", [BALL, FREE, MONOTONE])
@pytest.mark.parametrize("n", [1, 32, 300, 5000])
def test_ladders_go_on(where: SetInfo, n: int) -> None:
    forward = planned(deq(where, "relu"), n=n).forward
    assert 2 <= len(forward) <= 3
    assert len({choice.method for choice in forward}) == len(forward)
    assert all(choice.reason.startswith("takes over what stalls") for choice in forward[1:])


def test_picard_wins_where_its_price_is_lower() -> None:
    methods = [planned(deq(BALL), n=n).forward[0].method for n in (2, 8, 32, 128, 512, 2048)]
    assert methods == sorted(methods, reverse=False)  # "newton" up to some size, "picard" from there on
    assert {"newton", "picard"} == set(methods)


def test_reasons_say_what_is_not_known_yet() -> None:
    assert "n is not known yet; Newton while n ≤ 256" in planned(deq(FREE)).forward[0].reason
    assert "n is not known yet" in planned(deq(BALL)).forward[0].reason


def test_affine_equations_are_solved_directly_whatever_their_rate() -> None:
    W = param("W", FREE)
    m = model([root([z], [equation(z.node, add(matmul(W.node, z.node), x.node))])], W, x)
    for n in (None, 8, 1024):
        (choice,) = planned(m, n=n).forward
        assert choice.method == "direct"
    assert planned(m, n=4096).forward[0].method == "newton_krylov"
    assert planned(m, n=4096).backward.method == "gmres"


def test_diagonal_affine_equations_are_a_division() -> None:
    d = param("d", real(VECTOR))
    block = planned(model([root([z], [equation(z.node, add(mul(d.node, z.node), x.node))])], d, x), n=10**6)
    assert block.forward[0].method == "direct"
    assert "division" in block.forward[0].reason
    assert "division" in block.backward.reason


def test_elementwise_equations_take_scalar_newton_at_any_size() -> None:
    m = model([root([z], [equation(add(build.power(z.node, num(3.0)), z.node), x.node)])], x)
    choice = planned(m, n=10**6).forward[0]
    assert choice.method == "newton"
    assert "scalar equation" in choice.reason


def test_a_proved_sign_change_bisects() -> None:
    s, c = (
        unknown("s", in_set("closed", "[0, 2]", (), 0.0, 2.0)),
        given("c", in_set("closed", "[0.1, 1]", (), 0.1, 1.0)),
    )
    m = model([root([s], [equation(build.power(s.node, num(3.0)), c.node)])], c)
    assert planned(m).forward[0].method == "bisection"
    free = given("c", real(()))
    m = model([root([s], [equation(build.power(s.node, num(3.0)), free.node)])], free)
    assert planned(m).forward[0].method == "newton"


def test_explicit_blocks_need_no_solver() -> None:
    block = planned(model([root([z], [equation(z.node, f("tanh", x.node))])], x))
    assert [c.method for c in block.forward] == [EXPLICIT]
    assert block.backward.method == EXPLICIT


def test_opaque_functions_limit_dense_steps() -> None:
    m = model([root([z], [equation(z.node, build.apply("net", (z.node, x.node), VECTOR))])], x)
    assert [c.method for c in planned(m, n=64).forward[:2]] == ["picard", "newton"]
    assert planned(m, n=65).forward[0].method == "anderson"
    assert planned(m, n=512).backward.method == "gmres"


def test_coupled_blocks_split_before_anything_else() -> None:
    u, v = unknown("u", real(VECTOR)), unknown("v", real(VECTOR))
    A = param("A", FREE)
    equations = [
        equation(u.node, f("tanh", add(matmul(A.node, u.node), v.node))),
        equation(v.node, add(matmul(A.node, v.node), x.node)),
    ]
    first, second = plan(model([root([u, v], equations)], A, x), LANGUAGE, {"n": 20}).blocks
    assert (first.block.unknowns[0].name, first.forward[0].method) == ("v", "direct")
    assert (second.block.unknowns[0].name, second.forward[0].method) == ("u", "newton")


def test_using_overrides_and_stays_alone() -> None:
    wishes = Wishes(Options("anderson", (("depth", 7),)), Options("gmres", (("tol", 1e-6),)))
    block = planned(deq(BALL, wishes=wishes), n=4)
    (choice,) = block.forward
    assert (choice.method, choice.get("depth"), choice.reason) == ("anderson", 7, "asked for by `using`")
    assert (block.backward.method, block.backward.get("tol")) == ("gmres", 1e-6)


def test_invariants_are_hoisted_and_can_be_put_back() -> None:
    W, U = param("W", FREE), param("U", FREE)
    step = f("tanh", add(add(matmul(W.node, z.node), matmul(U.node, x.node)), x.node))
    system = planned(model([root([z], [equation(z.node, step)])], W, U, x)).system
    assert system is not None
    ((symbol, value),) = system.hoisted
    assert symbol.role is Role.HOISTED
    assert value is add(matmul(U.node, x.node), x.node)
    assert system.step == (f("tanh", add(matmul(W.node, z.node), symbol)),)
    assert symbol not in substitute(system.residual[0], {symbol: value}).args


def test_definitions_are_inlined_before_anything_is_proved() -> None:
    W = param("W", BALL)
    h = build.sym("h", Role.DEFINITION, VECTOR)
    m = model([root([z], [equation(z.node, f("tanh", h))])], W)
    m = Model(**{**vars(m), "definitions": ((h, matmul(W.node, z.node)),)})
    fact = planned(m).fact("contraction")
    assert fact is not None
    assert fact.value == 0.9


def test_users_extend_the_language() -> None:
    def suits(facts: object, sizes: object) -> tuple[bool, str]:
        return True, "suits everything"

    aitken = Method("aitken", "root", "forward", (Option("omega", "float", 1.0, "relaxation"),), "Aitken", None, suits)
    extended = LANGUAGE.with_solver(aitken)
    assert planned(deq(BALL), extended, n=512).forward[0].method == "aitken"
    assert planned(deq(BALL), n=512).forward[0].method == "picard"
    with pytest.raises(KeyError):
        LANGUAGE.with_solver(Method("aitken", "riddle", "forward", (), ""))

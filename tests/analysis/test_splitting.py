"""The parts of z = σ(W z + h)."""

from __future__ import annotations

from hand_built import SQUARE, VECTOR, equation, f, given, model, param, real, root, unknown, x, z

from implicitdsl.analysis import normal_form, splitting
from implicitdsl.functions import TABLE
from implicitdsl.ir.build import add, matmul, mul, num, sub
from implicitdsl.ir.nodes import Expr
from implicitdsl.ir.printer import show

W, d = param("W", real(SQUARE)), param("d", real(VECTOR))


def parts(step: Expr) -> tuple[str, str, str] | None:
    found = splitting(normal_form(model([root([z], [equation(z.node, step)])]).blocks[0]), TABLE)
    return None if found is None else (found.activation, show(found.weight), show(found.offset))


def test_parts_are_collected_from_the_sum() -> None:
    inner = add(sub(matmul(W.node, z.node), mul(num(2.0), z.node)), add(x.node, d.node))
    assert parts(f("relu", inner)) == ("relu", "W - 2 I", "x + d")
    assert parts(f("tanh", mul(d.node, z.node))) == ("tanh", "diag(d)", "0")
    assert parts(f("relu", matmul(W.node, matmul(W.node, z.node)))) == ("relu", "W W", "0")


def test_a_scalar_offset_is_spread() -> None:
    found = splitting(
        normal_form(root([z], [equation(z.node, f("relu", add(matmul(W.node, z.node), num(1.0))))])), TABLE
    )
    assert found is not None
    assert found.offset.shape == VECTOR


def test_what_has_another_form_has_no_parts() -> None:
    y = given("y", real(VECTOR))
    assert parts(f("exp", matmul(W.node, z.node))) is None  # not 1-Lipschitz
    assert parts(f("sin", matmul(W.node, z.node))) is None  # not monotone
    assert parts(f("relu", mul(z.node, z.node))) is None
    assert parts(add(f("relu", z.node), y.node)) is None
    other = unknown("v", real(VECTOR))
    both = root([z, other], [equation(z.node, f("relu", other.node)), equation(other.node, f("relu", z.node))])
    assert splitting(normal_form(both), TABLE) is None

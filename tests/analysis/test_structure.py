"""Normal forms, block-triangular order and explicit equations."""

from __future__ import annotations

from hand_built import SQUARE, VECTOR, deq, equation, f, given, model, param, real, root, shape, unknown, x, z

from implicitdsl.analysis import analyse, explicit_equations, normal_form, split
from implicitdsl.functions import TABLE
from implicitdsl.ground.source import Span
from implicitdsl.ir import build
from implicitdsl.ir.build import add, matmul, mul, num, sub
from implicitdsl.ir.dims import Dim
from implicitdsl.ir.model import Equation
from implicitdsl.ir.printer import show

A, B = param("A", real(SQUARE)), param("B", real(SQUARE))
u, v, w = (unknown(name, real(VECTOR)) for name in "uvw")


def test_fixed_point_gives_residual_and_step() -> None:
    (block,) = deq(real(SQUARE)).blocks
    system = normal_form(block)
    assert show(system.residual[0]) == "z - tanh(W z + x)"
    assert system.step is not None
    assert show(system.step[0]) == "tanh(W z + x)"


def test_either_side_or_a_difference_defines_the_unknown() -> None:
    g = f("tanh", z.node)
    for e in (equation(g, z.node), equation(sub(z.node, g), num(0.0)), equation(num(0.0), sub(g, z.node))):
        assert normal_form(root([z], [e])).step == (g,)
    cubic = equation(add(build.power(z.node, num(3.0)), z.node), x.node)
    assert normal_form(root([z], [cubic])).step is None


def test_equations_are_matched_to_unknowns_in_any_order() -> None:
    equations = [equation(v.node, matmul(B.node, u.node)), equation(f("tanh", v.node), u.node)]
    system = normal_form(root([u, v], equations))
    assert system.unknowns == (u.node, v.node)
    assert system.step == (f("tanh", v.node), matmul(B.node, u.node))


def test_implicit_equations_are_matched_by_augmenting_paths() -> None:
    one = equation(add(f("exp", u.node), v.node), x.node)
    two = equation(f("exp", u.node), x.node)  # only u: so the first one stands for v
    system = normal_form(root([u, v], [one, two]))
    assert [show(r) for r in system.residual] == ["exp(u) - x", "exp(u) + v - x"]
    assert system.step is None


def test_entries_are_joined() -> None:
    p = unknown("p", real(shape(2)))
    first, second = (build.index(p.node, (build.at_item(i),)) for i in (0, 1))
    equations = [equation(second, f("sin", first)), equation(first, f("cos", second))]
    system = normal_form(root([p], equations))
    assert system.step == (build.concat([f("cos", second), f("sin", first)]),)
    assert system.residual[0].shape == shape(2)


def test_a_list_of_equations_is_stacked() -> None:
    at = build.index(z.node, (build.at_item(Dim.of("i")),))
    e = Equation(at, "=", f("cos", at), Span(0, 1), index=(("i", Dim.of(0), Dim.of("n")),))
    system = normal_form(root([z], [e]))
    assert system.residual[0].shape == VECTOR
    assert system.step is not None
    assert system.step[0].shape == VECTOR


def test_one_way_coupling_splits_in_solving_order() -> None:
    equations = [
        equation(u.node, f("tanh", add(matmul(A.node, u.node), v.node))),
        equation(v.node, f("tanh", add(matmul(B.node, v.node), x.node))),
    ]
    block = root([u, v], equations)
    parts = split(block)
    assert [[s.name for s in part.unknowns] for part in parts] == [["v"], ["u"]]
    assert [part.equations for part in parts] == [(equations[1],), (equations[0],)]
    assert [b.block.unknowns[0].name for b in analyse(model([block], A, B, x), TABLE).blocks] == ["v", "u"]


def test_a_cycle_stays_together() -> None:
    equations = [
        equation(u.node, f("tanh", v.node)),
        equation(v.node, f("tanh", u.node)),
        equation(w.node, f("tanh", add(w.node, u.node))),
    ]
    parts = split(root([w, u, v], [equations[2], equations[0], equations[1]]))
    assert [[s.name for s in part.unknowns] for part in parts] == [["u", "v"], ["w"]]


def test_explicit_equations_are_found() -> None:
    named, cyclic = equation(u.node, f("tanh", x.node)), equation(v.node, f("tanh", add(v.node, u.node)))
    block = root([u, v], [named, cyclic])
    assert explicit_equations(block) == (named,)
    first, second = analyse(model([block], x), TABLE).blocks
    assert first.value("explicit") is True
    assert second.value("explicit") is None


def test_definitions_are_looked_through() -> None:
    hidden = build.sym("h", z.node.role, VECTOR)
    block = root([z], [equation(z.node, f("tanh", hidden))])
    assert explicit_equations(block, lambda e: e) != ()
    expand = lambda e: f("tanh", z.node) if e.op == "call" else e
    assert explicit_equations(block, expand) == ()


def test_more_equations_than_unknowns_keep_every_residual() -> None:
    y = given("y", real(VECTOR))
    system = normal_form(root([z], [equation(mul(num(2.0), z.node), x.node), equation(z.node, y.node)]))
    assert len(system.residual) == 2
    assert system.step is None

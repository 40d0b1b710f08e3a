"""IMP305, IMP401, IMP402 and IMP403: levels, places and remedies."""

from __future__ import annotations

import pytest
from hand_built import SQUARE, VECTOR, deq, equation, f, in_set, model, param, real, root, shape, unknown, x, z

from implicitdsl.analysis import analyse, diagnose
from implicitdsl.functions import TABLE
from implicitdsl.ground.diagnostics import Diagnostic, Level
from implicitdsl.ground.source import Span
from implicitdsl.ir.build import add, matmul
from implicitdsl.ir.model import Model, Options, Wishes

BALL = in_set("SpectralBall", "SpectralBall(n, 0.9)", SQUARE, 0.9)


def found(m: Model, code: str, **sizes: int) -> list[Diagnostic]:
    return [d for d in diagnose(analyse(m, TABLE, sizes=sizes)) if d.code == code]


def using(method: str, slot: str = "forward", **values: object) -> Wishes:
    options = Options(method, tuple(values.items()), Span(2, 6))
    return Wishes(forward=options) if slot == "forward" else Wishes(backward=options)


def test_unproved_contraction_is_an_info_with_a_remedy() -> None:
    (d,) = found(deq(real(SQUARE)), "IMP401")
    assert d.level is Level.INFO
    assert d.notes == ("‖W‖₂ is unbounded because W in R^(n, n)",)
    assert d.help == "`param W in SpectralBall(n, 0.9)` or `using newton`"


@pytest.mark.parametrize(
    "slot, method",
    [
        ("forward", "picard"),
        ("forward", "anderson"),
        ("backward", "neumann"),
        ("backward", "phantom"),
        ("backward", "jfb"),
    ],
)
def test_it_is_a_warning_where_the_plan_relies_on_it(slot: str, method: str) -> None:
    (d,) = found(deq(real(SQUARE), wishes=using(method, slot)), "IMP401")
    assert d.level is Level.WARNING
    assert method in d.message
    assert d.span == Span(2, 6)


@pytest.mark.parametrize("wishes", [None, using("anderson"), using("picard")])
def test_a_certificate_is_an_info_with_its_rate(wishes: Wishes | None) -> None:
    (d,) = found(deq(BALL, wishes=wishes), "IMP401")
    assert d.level is Level.INFO
    assert "0.9" in d.message
    assert d.notes[0] == "|tanh'| ≤ 1"


def test_other_methods_do_not_rely_on_it() -> None:
    (d,) = found(deq(real(SQUARE), wishes=using("newton")), "IMP401")
    assert d.level is Level.INFO


def test_affine_equations_need_no_contraction_unless_one_relies_on_it() -> None:
    def affine(wishes: Wishes | None) -> Model:
        W = param("W", real(SQUARE))
        return model([root([z], [equation(z.node, add(matmul(W.node, z.node), x.node))], wishes)], W, x)

    assert found(affine(None), "IMP401") == []
    (d,) = found(affine(using("picard")), "IMP401")
    assert d.level is Level.WARNING


def test_monotone_equations_have_a_certificate_too() -> None:
    (d,) = found(deq(in_set("Monotone", "Monotone(n, 0.1)", SQUARE, 0.1), "relu"), "IMP401")
    assert d.level is Level.INFO
    assert "margin 0.1" in d.message


def test_kinks_are_named_with_their_expression() -> None:
    (d,) = found(deq(BALL, "relu"), "IMP403")
    assert d.level is Level.WARNING
    assert "relu" in d.message
    assert "`relu(W z + x)`" in d.message
    assert found(deq(BALL), "IMP403") == []


def test_a_deeper_memory_than_numbers() -> None:
    p = unknown("p", real(shape(3)))
    m = model([root([p], [equation(p.node, f("tanh", p.node))], using("anderson", depth=5))])
    (d,) = found(m, "IMP402")
    assert d.level is Level.WARNING
    assert "3" in d.message
    assert d.help == "`anderson(depth=3)`"


def test_memory_is_checked_once_sizes_are_known() -> None:
    m = deq(BALL, wishes=using("anderson", depth=5))
    assert found(m, "IMP402") == []
    assert found(m, "IMP402", n=8) == []
    assert len(found(m, "IMP402", n=4)) == 1


def test_splitting_names_the_order() -> None:
    u, v = unknown("u", real(VECTOR)), unknown("v", real(VECTOR))
    equations = [equation(u.node, f("tanh", add(u.node, v.node))), equation(v.node, f("tanh", v.node))]
    (d,) = found(model([root([u, v], equations)]), "IMP305")
    assert d.level is Level.INFO
    assert "2 smaller systems: v, then u" in d.message

"""Long sums and deep compositions neither exhaust the stack nor take long."""

from __future__ import annotations

import time

from hand_built import equation, f, model, real, root, unknown

from implicitdsl.explanation import explain
from implicitdsl.ir.build import add, mul, num
from implicitdsl.language import LANGUAGE
from implicitdsl.planner import plan

s = unknown("s", real(()))


def test_a_thousand_terms() -> None:
    total = num(0.0)
    for k in range(1000):
        total = add(total, mul(num(1e-4), f("sin", mul(num(1.0 + k), s.node))))
    begin = time.perf_counter()
    (block,) = plan(model([root([s], [equation(s.node, total)])]), LANGUAGE).blocks
    assert block.fact("affine") is not None
    assert time.perf_counter() - begin < 20.0


def test_five_hundred_compositions() -> None:
    e = s.node
    for _ in range(500):
        e = f("tanh", mul(num(0.999), e))
    m = model([root([s], [equation(s.node, e)])])
    found = plan(m, LANGUAGE)
    rate = found.blocks[0].fact("contraction")
    assert rate is not None
    assert isinstance(rate.value, float)
    assert abs(rate.value - 0.999**500) < 1e-9
    assert explain(found, LANGUAGE.function_table)

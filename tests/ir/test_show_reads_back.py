"""What the printer writes, the parser and checker read as the same value."""

from __future__ import annotations

import torch
from hypothesis import assume, given
from random_expressions import CHECKED, LEAVES, SIZES, Sample, samples, values_of
from reference_evaluator import evaluate

from implicitdsl.calculus import inline
from implicitdsl.checking import check
from implicitdsl.functions import FUNCTIONS
from implicitdsl.ground.source import Source
from implicitdsl.ir.nodes import Expr, walk
from implicitdsl.ir.printer import show
from implicitdsl.language import LANGUAGE
from implicitdsl.syntax.parser import parse

UNWRITTEN = {"eye", "zeros", "embed", "apply"}
"""Printed for readers only: `I`, `0`, and what only derivatives produce; elementwise powers of matrices
and powers by vectors too."""


def written(e: Expr) -> bool:
    internal = {f.name for f in FUNCTIONS if f.internal} - {"maximum", "minimum", "max_all", "min_all"}
    internal -= {"scale_rows", "scale_columns"}
    return not any(
        x.op in UNWRITTEN
        or (x.op == "call" and x.name in internal)
        or (x.op == "pow" and (x.rank == 2 or x.args[1].rank))
        for x in walk(e)
    )


@CHECKED
@given(samples())
def test_read_back(sample: Sample) -> None:
    e = inline(sample.expr, sample.definitions)
    assume(written(e))
    text = show(e)
    assume("…" not in text)
    spec = (
        "layer L(n, m):\n"
        "  given z in R^n, s in R, x in R^m, W in R^(n, n), A in R^(m, n)\n"
        f"  return y = {text} + 0 * (s + sum(z) + sum(x) + sum(W) + sum(A))\n"
    )
    source = Source("<string>", spec)
    parsed = parse(source)
    checked = check(parsed.program, source, LANGUAGE)
    wrong = [d for d in (*parsed.diagnostics, *checked.diagnostics) if d.is_error]
    assert not wrong, (text, [d.message for d in wrong])
    model = checked.models["L"]
    again = inline(model.outputs[0].expr, model.definitions)
    values = values_of(sample.seed)
    by_name = {leaf.name: values[leaf] for leaf in LEAVES}
    found = evaluate(again, {s.node: by_name[s.name] for s in model.givens}, SIZES)
    expected = evaluate(e, values, SIZES)
    assert torch.allclose(found, expected, rtol=1e-10, atol=1e-10), text

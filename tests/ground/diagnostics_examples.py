"""Diagnostics over one small spec, for the tests of the renderers."""

from __future__ import annotations

from implicitdsl.ground.diagnostics import Applicability, Diagnostic, Edit, Fix, Label
from implicitdsl.ground.source import Source, Span

TEXT = """\
layer Deq(n, m):
  given x in R^m
  param W in SpectralBall(n, 0.9)

  find z in R^n such that
    z = tanh(W z + x)
"""
DEQ = Source("deq.imp", TEXT)


def span(source: Source, text: str, after: str = "") -> Span:
    """The span of the first `text` behind the first `after`."""
    start = source.text.index(text, source.text.index(after) + len(after))
    return Span(start, start + len(text))


def shapes_differ() -> Diagnostic:
    """The example of the language's reference."""
    return Diagnostic(
        "IMP201",
        "shapes differ in `W z + x`: (n) and (m)",
        span(DEQ, "W z + x"),
        DEQ,
        labels=(
            Label(span(DEQ, "n", "Deq("), "`n` introduced here"),
            Label(span(DEQ, "m", "Deq("), "`m` is a different dimension"),
            Label(span(DEQ, "W z"), ""),
            Label(span(DEQ, "x", "W z + "), ""),
        ),
        help="project the input: `W z + U x` with `param U in R^(n, m)`",
    )


def with_fix(source: Source, wrong: str, right: str, applicability: Applicability = Applicability.SAFE) -> Diagnostic:
    """A finding at `wrong` whose fix writes `right` there."""
    at = span(source, wrong)
    fix = Fix(f"write `{right}`", (Edit(at, right),), applicability)
    return Diagnostic("IMP208", f"`{wrong}` multiplies elementwise", at, source, fixes=(fix,))

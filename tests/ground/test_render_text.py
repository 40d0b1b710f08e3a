"""The rustc-like layout of diagnostics."""

from __future__ import annotations

import io
import re

import pytest
from diagnostics_examples import DEQ, shapes_differ, span

from implicitdsl.ground.diagnostics import Diagnostic, Fix, Label
from implicitdsl.ground.render.text import render, summary, wants_colour
from implicitdsl.ground.source import Source, Span


def layout(text: str) -> str:
    """The text without the indentation of its closing quotes."""
    lines = text.split("\n")
    return "\n".join(line[len(lines[-1]) :] for line in lines[1:-1])


def finding(text: str, at: Span, *labels: Label, help: str | None = None) -> Diagnostic:
    return Diagnostic("IMP101", "message", at, Source("a.imp", text), labels=labels, help=help)


def body(diagnostic: Diagnostic) -> str:
    return "\n".join(render([diagnostic]).splitlines()[3:])


def test_the_example_of_the_reference() -> None:
    assert render([shapes_differ()]) == layout(
        """
        error[IMP201]: shapes differ in `W z + x`: (n) and (m)
          --> deq.imp:6:14
           |
         1 | layer Deq(n, m):
           |           -  - `m` is a different dimension
           |           `n` introduced here
         6 |     z = tanh(W z + x)
           |              --- ^ -
           = help: project the input: `W z + U x` with `param U in R^(n, m)`
        """
    )


def test_three_labels_hang_from_right_to_left() -> None:
    text = "a b c d"
    labels = [Label(Span(i, i + 1), f"this is {text[i]}") for i in (0, 2, 6)]
    assert body(finding(text, Span(4, 5), *labels)) == layout(
        """
         1 | a b c d
           | - - ^ - this is d
           | | this is b
           | this is a
        """
    )


def test_a_label_left_of_the_caret_moves_below() -> None:
    assert body(finding("a bcd", Span(2, 5), Label(Span(0, 1), "first"))) == layout(
        """
         1 | a bcd
           | - ^^^
           | first
        """
    )


def test_the_caret_of_a_product_stays_on_its_blank() -> None:
    got = body(finding("W z", Span(0, 3), Label(Span(0, 1), ""), Label(Span(2, 3), "")))
    assert got.splitlines()[1] == "   | -^-"


def test_a_label_around_the_span_does_not_hide_it() -> None:
    got = body(finding("f(x y)", Span(2, 3), Label(Span(0, 6), "in this call")))
    assert got.splitlines()[1] == "   | --^--- in this call"


@pytest.mark.parametrize(
    "text, at, row",
    [
        ("\tx = 1", Span(1, 2), "   |     ^"),
        ("a\tx", Span(2, 3), "   |     ^"),
        ("変数 x", Span(3, 4), "   |      ^"),
        ("変数 x", Span(0, 2), "   | ^^^^"),
        ("e\u0301 x", Span(3, 4), "   |   ^"),
        ("x", Span(1, 1), "   |  ^"),
        ("", Span(0, 0), "   | ^"),
    ],
)
def test_columns_are_those_of_the_terminal(text: str, at: Span, row: str) -> None:
    assert body(finding(text, at)).splitlines()[1] == row


def test_end_of_file_after_a_newline() -> None:
    diagnostic = finding("find z\n", Span(7, 7))
    assert (diagnostic.line, diagnostic.column) == (2, 1)
    assert body(diagnostic) == " 2 |\n   | ^"


def test_control_characters_cannot_reach_the_terminal() -> None:
    rendered = render([finding("a\x1b[31m \u202e b", Span(0, 1))])
    assert "\x1b" not in rendered
    assert "\u202e" not in rendered


def test_a_span_of_several_lines() -> None:
    text = "find z such that\n  z = tanh(\n\n    W z\n  )\nreturn z\n"
    assert body(finding(text, Span(text.index("z ="), text.index(")") + 1), Label(Span(0, 6), "of this"))) == layout(
        """
         1 | find z such that
           | ------ of this
         2 |   z = tanh(
           |   ^^^^^^^^^
         4 |     W z
           |     ^^^
         5 |   )
           |   ^
        """
    )


def test_a_long_span_is_elided() -> None:
    text = "".join(f"line {i}\n" for i in range(12))
    assert body(finding(text, Span(0, len(text) - 1))) == layout(
        """
          1 | line 0
            | ^^^^^^
          2 | line 1
            | ^^^^^^
        ...
         11 | line 10
            | ^^^^^^^
         12 | line 11
            | ^^^^^^^
        """
    )


def test_the_arrow_follows_the_width_of_the_line_numbers() -> None:
    text = "\n" * 99 + "x"
    assert render([finding(text, Span(99, 100))]).splitlines()[1:] == [
        "    --> a.imp:100:1",
        "     |",
        " 100 | x",
        "     | ^",
    ]


def test_notes_and_every_fix_are_listed() -> None:
    diagnostic = Diagnostic(
        "IMP012",
        "message",
        Span(0, 1),
        Source("a.imp", "z'"),
        notes=("one\ntwo",),
        fixes=(Fix("transpose: `z^T`"), Fix("derivative: `dz/dt`")),
    )
    assert render([diagnostic]).splitlines()[5:] == [
        "   = note: one",
        "           two",
        "   = help: transpose: `z^T`",
        "   = help: derivative: `dz/dt`",
    ]


def test_infos_can_be_brief() -> None:
    info = Diagnostic("IMP120", "`W` is a parameter", span(DEQ, "W"), DEQ)
    assert render([info, info], brief_infos=True) == "\n".join(
        2 * ["info[IMP120]: `W` is a parameter", "  --> deq.imp:3:9"]
    )
    assert "SpectralBall" in render([info])


def test_colour_only_changes_colour() -> None:
    coloured = render([shapes_differ()], colour=True)
    assert "\x1b[1;31merror[IMP201]" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == render([shapes_differ()])


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert wants_colour(Terminal())
    assert not wants_colour(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_colour(Terminal())


def test_summary_counts_levels() -> None:
    error, warning = shapes_differ(), Diagnostic("IMP103", "unused", Span(0, 1), DEQ)
    assert summary([error, warning, error]) == "2 errors, 1 warning"
    assert summary([]) == ""

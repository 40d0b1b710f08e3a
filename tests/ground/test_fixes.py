"""Which fixes are applied, and how."""

from __future__ import annotations

from diagnostics_examples import DEQ, TEXT, with_fix

from implicitdsl.ground.diagnostics import Applicability, Diagnostic, Edit, Fix
from implicitdsl.ground.fixes import apply_safe_fixes
from implicitdsl.ground.source import Source, Span


def test_safe_fixes_are_applied_and_named() -> None:
    first, second = with_fix(DEQ, "W z", "W @ z"), with_fix(DEQ, "0.9", "0.5")
    fixed = apply_safe_fixes(TEXT, [first, second])
    assert fixed.text == TEXT.replace("W z", "W @ z").replace("0.9", "0.5")
    assert fixed.applied == (first, second)


def test_other_fixes_are_left_to_the_author() -> None:
    findings = [with_fix(DEQ, "W z", "z W", kind) for kind in (Applicability.UNSAFE, Applicability.DISPLAY)]
    assert apply_safe_fixes(TEXT, findings).text == TEXT
    assert apply_safe_fixes(TEXT, findings).applied == ()


def test_overlapping_fixes_are_applied_one_at_a_time() -> None:
    inner, outer = with_fix(DEQ, "W z", "W @ z"), with_fix(DEQ, "tanh(W z + x)", "W z")
    fixed = apply_safe_fixes(TEXT, [inner, outer])
    assert fixed.applied == (inner,)
    assert "tanh(W @ z + x)" in fixed.text


def test_neighbours_do_not_overlap() -> None:
    source = Source("a", "abcd")
    fixed = apply_safe_fixes("abcd", [with_fix(source, "ab", "1"), with_fix(source, "cd", "2")])
    assert fixed.text == "12"


def test_two_insertions_at_one_place_do_not_mix() -> None:
    source = Source("a", "xy")

    def insert(text: str) -> Diagnostic:
        fix = Fix(text, (Edit(Span(1, 1), text),), Applicability.SAFE)
        return Diagnostic("IMP101", text, Span(0, 1), source, fixes=(fix,))

    assert apply_safe_fixes("xy", [insert("+"), insert("-")]).text == "x+y"


def test_a_fix_is_applied_whole_or_not_at_all() -> None:
    source = Source("a", "abcdef")
    both = Fix("both", (Edit(Span(0, 1), "A"), Edit(Span(3, 4), "D")), Applicability.SAFE)
    blocked = Diagnostic("IMP101", "m", Span(0, 1), source, fixes=(both,))
    fixed = apply_safe_fixes("abcdef", [with_fix(source, "d", "!"), blocked])
    assert fixed.text == "abc!ef"

"""What is said about wrong text: codes, places, help, fixes, and that the rest is still read."""

from __future__ import annotations

import re

import pytest
from forms import codes, form

from implicitdsl.ground.diagnostics import Applicability, Diagnostic
from implicitdsl.ground.source import Source
from implicitdsl.syntax import ast
from implicitdsl.syntax.parser import parse


def find(text: str) -> list[Diagnostic]:
    return list(parse(Source("<test>", text)).diagnostics)


def one(text: str) -> Diagnostic:
    found = find(text)
    assert len(found) == 1, [(d.code, d.message) for d in found]
    return found[0]


def fixed(text: str, which: int = 0) -> str:
    """The text after the `which`-th fix of each diagnostic."""
    edits = sorted((e for d in find(text) for e in d.fixes[which].edits), key=lambda e: e.span, reverse=True)
    for edit in edits:
        text = text[: edit.span.start] + edit.text + text[edit.span.end :]
    return text


# Marked text: the part in «…» is the diagnostic's span; an empty «» is a place.
@pytest.mark.parametrize(
    "code, marked, message",
    [
        ("IMP001", "find z such that z = tanh(W z +«)»", "expected an operand after `+`, found `)`"),
        ("IMP001", "find z such that z = x^«»", "found the end of the statement"),
        ("IMP001", "find z such that z = W * «*» x", "after `*`, found `*`"),
        ("IMP001", "find z such that z = f(a, «,» b)", "after `,`, found `,`"),
        ("IMP001", "find z such that «=» x", "expected an operand after `such that`, found `=`"),
        ("IMP001", "find z such that z = x[«]»", "after `[`, found `]`"),
        ("IMP001", "find z in R^n such that«»\nreturn z", "expected an operand after `such that`"),
        ("IMP001", "find z such that z = a\n «+» b", "a line that begins with `+` does not continue"),
        ("IMP001", "find z such that z = a\n «-» b", "a line that begins with `-` does not continue"),
        ("IMP001", "return«»", "after `return`"),
        ("IMP001", "using anderson(depth=«,» tol=1)", "after `=`, found `,`"),
        ("IMP002", "«find» z in R^n z = tanh(z)", "lacks `such that`"),
        ("IMP002", "«find» z", "lacks `such that`"),
        ("IMP002", "«find» z\nreturn z", "lacks `such that`"),
        ("IMP003", "find z such that z = tanh«(»W z + x", "never closed"),
        ("IMP003", "find z such that z = a + b«)»", "closes nothing"),
        ("IMP003", "find z such that z = |x| + «|»y", "`|` opened here is never closed"),
        ("IMP003", "find z such that z = «||»x", "`||` opened here is never closed"),
        ("IMP003", "find z such that z = (a«]»", "`(` is closed by `]`"),
        ("IMP003", "find z«(»t such that z = 1", "never closed"),
        ("IMP003", "find z such that z = f(«[»1, 2)", "`[` opened here is never closed"),
        ("IMP003", "argmin_«{»z in R^n ||z||^2", "never closed"),
        ("IMP003", "param W in [0, 1«)»", "`[` is closed by `)`"),
        ("IMP003", 'fn f as «"»abc', "string"),
        ("IMP003", "layer D«(»n:\n return 1", "never closed"),
        ("IMP004", "find z such that «tanh(z)»", "no `=`"),
        ("IMP004", "find «such that» z = 1", "expected a name after `find`"),
        ("IMP004", "given x in R^n «y» in R^n", "`y` cannot stand after `n`"),
        ("IMP004", "given x in«»", "expected a set"),
        ("IMP004", "fn f: R^n ->«»", "expected a set"),
        ("IMP004", "given x in R^n,«»", "expected a name"),
        ("IMP004", "given x «=» 3", "an input has no initial value"),
        ("IMP004", "given x«:» R^n", "with `in`"),
        ("IMP004", "given x in R^«{»n}", "`{` is only for"),
        ("IMP004", "find z such that z = [1, 2«;» 3]", "`;` cannot stand in brackets"),
        ("IMP004", "find z such that z = «_x»", "names begin with a letter"),
        ("IMP004", "find z such that z = sum(x[i] for i«)»", "`)` cannot stand after `i`"),
        ("IMP004", "argmin_z ||z||^2«,» A z = b", "after `subject to`"),
        ("IMP004", "argmin_z ||z||^2 A z «=» b", "after `subject to`"),
        ("IMP004", "argmin_z ||z||^2«»\n A z = b", "after `subject to`"),
        ("IMP004", "find z such that z «<» 1", "`<` is not a relation"),
        ("IMP004", "find z such that z = x«**»2", "a power is `^`"),
        ("IMP004", "find z such that 0 <= z «>=» 1", "`<=` and `>=` in one relation"),
        ("IMP004", "find z such that 0 <= z «=» 1", "`<=` and `=` in one relation"),
        ("IMP004", "import Deq from«»", "after `from`"),
        ("IMP004", "«hello world»", "`hello` begins no section"),
        ("IMP004", "«z = tanh(W z + x)»", "a relation stands outside any section"),
        ("IMP004", "«parma» W in R^n", "`parma` is not a section"),
        ("IMP004", "given x in R^n\n«parma» W in R^n", "`parma` is not a section"),
        ("IMP004", "find z such that z = 1\n«retrun» z", "`retrun` is not a section"),
        ("IMP004", "«inputs» x in R", "`inputs` is not a section"),
        ("IMP004", "«given» x in R\nlayer D(n):\n return 1", "`given` stands before the first `layer`"),
        ("IMP004", "layer «(»n):\n return 1", "a layer needs a name"),
        ("IMP004", "«layer»", "a layer needs a name"),
        ("IMP004", "«layer D(n)»\n return 1", "does not end in `:`"),
        ("IMP004", "layer D(n, «2»):\n return 1", "`2` cannot stand in the header of `D`"),
        ("IMP005", "find z such that z = x «¿» 3", "`¿` (inverted question mark)"),
        ("IMP005", "find z such that z = x «€€» 3", "`€€` has no meaning"),
        ("IMP005", "find z such that z = x«₁₂» + 3", "the subscript `₁₂`"),
        ("IMP005", "find z such that z = 3 «.» 5", "`.` has no meaning"),
        ("IMP005", "find z such that z = 3 «\x00»", r"`\x00` has no meaning"),
        ("IMP012", "find z such that z = W«'» z", "neither transpose nor derivative"),
        ("IMP012", "import Deq from «'deq.imp'»", "double quotes"),
        ("IMP015", "find z such that z = W z «=» 3", "one `=`"),
        ("IMP015", "find z such that z == W z «==» 3", "one `=`"),
        ("IMP015", "where a = b «=» c", "one `=`"),
        ("IMP016", "given «given» in R^n", "`given` is a keyword"),
        ("IMP016", "given «for» in R^n", "`for` is a keyword"),
        ("IMP016", "given «in» in R^n", "`in` is a keyword"),
        ("IMP016", "find z such that z = x + «const»", "`const` is a keyword"),
        ("IMP016", "find z such that z = f(«let»)", "`let` is a keyword"),
        ("IMP016", "given x in R, «param» in R", "`param` is a keyword"),
        ("IMP016", "return x + «given»", "`given` is a keyword"),
        ("IMP016", "return «where»", "`where` is a keyword"),
        ("IMP016", "layer «find»(n):\n return 1", "`find` is a keyword"),
        ("IMP016", "layer «let»:\n return 1", "`let` is a keyword"),
        ("IMP016", "layer D(n, «for»):\n return 1", "`for` is a keyword"),
        ("IMP016", "find «given» such that z = 1", "`given` is a keyword"),
        ("IMP003", 'import D from «"»d.imp', "string"),
        ("IMP003", 'find z such that z = «"»a.b) (\nreturn z', "string"),
    ],
)
def test_one_diagnostic(code: str, marked: str, message: str) -> None:
    before, inside, after = re.split("[«»]", marked)
    text = before + inside + after
    d = one(text)
    assert d.code == code
    assert message in d.message
    assert (d.span.start, d.span.end) == (len(before), len(before) + len(inside))


def test_such_that_is_inserted_where_it_belongs() -> None:
    assert fixed("find z in R^n z = tanh(z)") == "find z in R^n such that z = tanh(z)"
    assert fixed("find z in R^n\n  z = tanh(z)") == "find z in R^n such that\n  z = tanh(z)"
    assert fixed("find u, v\n u = v\n v = u") == "find u, v such that\n u = v\n v = u"
    assert fixed("find u in R, v in R, u = v, v = u") == "find u in R, v in R such that u = v, v = u"
    assert fixed("find z = tanh(z)") == "find z such that z = tanh(z)"
    for text in ("find z in R^n z = tanh(z)", "find u, v\n u = v\n v = u", "find z = tanh(z)"):
        assert one(text).fixes[0].applicability is Applicability.SAFE
        assert not find(fixed(text))
    assert not one("find z").fixes


def test_a_find_without_such_that_is_still_read() -> None:
    program = parse(Source("x", "find z in R^n z = tanh(z)\nreturn z")).program
    (section, _) = program.layers[0].sections
    assert isinstance(section, ast.Find)
    assert len(section.relations) == 1
    assert not program.layers[0].broken


def test_both_readings_of_a_quote() -> None:
    text = "find z such that z' = W z"
    d = one(text)
    assert fixed(text, 0) == "find z such that z^T = W z"
    assert fixed(text, 1) == "find z such that dz/dt = W z"
    assert [f.applicability for f in d.fixes] == [Applicability.UNSAFE] * 2
    assert d.help is not None
    assert "z^T" in d.help
    assert "dz/dt" in d.help
    assert fixed("import A from 'a.imp'") == 'import A from "a.imp"'


def test_keywords_are_renamed_at_each_place() -> None:
    text = "given given in R^n\nfind z such that z = given"
    assert codes(text) == ["IMP016", "IMP016"]
    assert all(d.fixes[0].applicability is Applicability.SAFE for d in find(text))
    assert fixed(text) == "given given_ in R^n\nfind z such that z = given_"
    assert not find(fixed(text))


def test_other_fixes() -> None:
    assert fixed("given x: R^n") == "given x in R^n"
    assert fixed("find z such that z = x**2") == "find z such that z = x^2"
    assert fixed("find z such that z < 1") == "find z such that z <= 1"
    assert fixed("find z such that z = x₁₂") == "find z such that z = x_12"
    assert fixed("layer D(n)\n return 1") == "layer D(n):\n return 1"
    assert fixed("layer D\n return 1") == "layer D:\n return 1"
    assert fixed("argmin_z ||z||, A z = b") == "argmin_z ||z|| subject to A z = b"
    assert fixed("parma W in R") == "param W in R"


def test_brackets_are_labelled_at_the_opener() -> None:
    text = "layer D(n):\n find z in R^n such that z = tanh(W z + x\n return z"
    d = one(text)
    opener, reached = d.labels
    assert text[opener.span.start : opener.span.end] == "("
    assert d.span == opener.span
    assert text[reached.span.start : reached.span.end] == "return"
    (label,) = one("find z such that z = (a]").labels
    assert label.span.start == 21
    help_text = one("param W in [0, 1)").help
    assert help_text is not None
    assert "half-open" in help_text


# -- recovery --------------------------------------------------------------------------------------------------------


def test_every_section_is_read_by_itself() -> None:
    text = (
        "layer D(n):\n given x in\n param W in R^(n, n\n find z in R^n such that z = W * * z\n return z +\n"
        "layer E(n):\n given x in R^n\n return x +"
    )
    assert [(d.code, d.line) for d in find(text)] == [
        ("IMP004", 2),
        ("IMP003", 3),
        ("IMP001", 4),
        ("IMP001", 5),
        ("IMP001", 8),
    ]
    first, second = parse(Source("x", text)).program.layers
    assert first.broken
    assert second.broken
    assert [type(s).__name__ for s in second.sections] == ["Given"]
    (block,) = [s for s in first.sections if isinstance(s, ast.Find)]
    assert (block.unknowns[0].name.text, block.relations) == ("z", ())


def test_only_the_wrong_items_are_lost() -> None:
    text = (
        "param A in R^; B in R^n\n  C in R^(n\n  D in 3\n  E in R\n"
        "where a = 1; b = ; c = 3\nfind u, v, w such that u = 1, v = +, w = 3\nreturn u, v w +, w"
    )
    found = find(text)
    assert [d.line for d in found] == [1, 2, 3, 5, 6, 7]
    layer = parse(Source("x", text)).program.layers[0]
    param, where, block, returned = layer.sections
    assert isinstance(param, ast.Param)
    assert [d.name.text for d in param.items] == ["B", "E"]
    assert isinstance(where, ast.Where)
    assert [d.name.text for d in where.items] == ["a", "c"]
    assert isinstance(block, ast.Find)
    assert [form(r.terms[0]) for r in block.relations if isinstance(r, ast.Relation)] == ["u", "w"]
    assert isinstance(returned, ast.Return)
    assert [form(o.value) for o in returned.items] == ["u", "w"]
    assert layer.broken


def test_what_one_pass_has_said_no_other_repeats() -> None:
    assert codes("find z such that z = x ¿ , w = 3") == ["IMP005"]
    assert codes("find z such that z = ) , w = 3") == ["IMP003"]
    assert codes("find z such that ∂ = 3") == ["IMP004"]
    assert codes("where f(x = 3") == ["IMP003"]
    assert codes("find z such that z = (a [b\nreturn z") == ["IMP003"]
    assert [d.line for d in find("where a = (\n b = f((x\n c = 1\n d = [")] == [1, 2, 4]


def test_many_errors_are_not_all_told() -> None:
    text = "find z such that\n" + "z = * 1\n" * 500
    assert len(find(text)) == 20
    assert len(find("where\n" + "a = (\n" * 50)) == 20


# -- depth -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "inner",
    [
        "(" * 2000,
        "(" * 2000 + "x" + ")" * 2000,
        "[" * 3000,
        "-" * 5000 + "x",
        "x" + " + x" * 5000,
        "x" + "^x" * 5000,
        "f(" * 2000,
        "x" + "[0]" * 5000,
        "x" + "ᵀ" * 5000,
        "f" + "(x)" * 5000,
        "x " * 5000,
        "|(" * 2000,
        "| " * 5000,
        "x[" * 90 + "0" + "]" * 90 + " + x" * 300,
    ],
    ids=lambda text: text[:4],
)
def test_depth_is_bounded(inner: str) -> None:
    found = find(f"find z such that z = {inner}\nreturn z")
    assert found
    assert {d.code for d in found} <= {"IMP003", "IMP004"}
    assert len(found) == 1


def test_ordinary_depth_is_not() -> None:
    assert not find("return " + "(" * 90 + "x" + ")" * 90)
    assert not find("return " + " + ".join(["x"] * 150))
    assert not find("return " + ", ".join(["x"] * 3000))
    assert not find("return [" + ", ".join(["x"] * 3000) + "]")


def test_no_raw_terminal_names() -> None:
    """Messages are in words: the parser's own names never show."""
    wrong = ["given x y z", "find z in R for x", "let e f", "fn f R", "const = 3", "using (", "import 3", "return ,"]
    for text in wrong:
        for d in find(text):
            assert not re.search(r"\b[A-Z]{3,}\b|\$END", d.message + (d.help or "")), d.message


@pytest.mark.parametrize(
    "marked, right, applicability",
    [
        ("«find z = argmin_»{z in R^n} z^2", "argmin_{z in R^n} z^2", Applicability.SAFE),
        ("given x in R\n«z = argmax_»z -(z - x)^2", "given x in R\nargmax_z -(z - x)^2", Applicability.SAFE),
        ("«where z = argmin_»z z^2", "argmin_z z^2", Applicability.SAFE),
        ("where y = 2 x; «z = argmin_»z (z - y)^2", "where y = 2 x; argmin_z (z - y)^2", Applicability.SAFE),
        ("«find z in simplex(3) = argmin_»z z^2", "argmin_z z^2", Applicability.UNSAFE),
        ("«find z such that y = 1, z = argmin_»z z^2", "argmin_z z^2", Applicability.UNSAFE),
    ],
)
def test_a_program_is_a_sentence_and_not_a_value(marked: str, right: str, applicability: Applicability) -> None:
    text = marked.replace("«", "").replace("»", "")
    finding = one(text)
    assert (finding.code, finding.message.split("`")[2]) == ("IMP001", " is a sentence of its own, not a value")
    assert text[finding.span.start : finding.span.end] == marked[marked.index("«") + 1 : marked.index("»")]
    assert finding.fixes[0].applicability == applicability
    assert fixed(text) == right
    assert find(right) == []

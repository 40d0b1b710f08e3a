"""Sections, sets, separators and lines."""

from __future__ import annotations

from typing import Any

import pytest
from forms import form, read, relation_forms, sections

from implicitdsl.syntax import ast
from implicitdsl.syntax.printer import print_set


def only(text: str) -> Any:
    (section,) = sections(text)
    return section


SETS = (
    "R; R^n; R^(m, n); R^(2 n + 1, N+1); positive; (0, 1); [a, b]^n; (0, 1)^(m, n); R^3; R^T; SpectralBall(n, 0.9); "
    "PSD(n); grid(0, 1, N, periodic); Monotone(n, m); positive^n"
)


@pytest.mark.parametrize("text", SETS.split("; "))
@pytest.mark.parametrize("frame", ["given x in {}", "param x in {}", "find x in {} such that x = 1"])
def test_sets(text: str, frame: str) -> None:
    section = only(frame.format(text))
    item = section.unknowns[0] if isinstance(section, ast.Find) else section.items[0]
    assert print_set(item.set) == text


def test_set_of_reals_in_unicode() -> None:
    assert only("given x ∈ ℝ^n") == only("given x in R^n").__class__(
        only("given x ∈ ℝ^n").span, only("given x ∈ ℝ^n").items
    )
    assert print_set(only("given x ∈ ℝ^n").items[0].set) == "R^n"
    assert print_set(only("given x ∈ ℝ²").items[0].set) == "R^2"


def test_declarations() -> None:
    section = only("param Q in PSD(n); A in R^(m, n)\n  b = zeros, W in S = normal(0, 0.1)\n c in R^2 = [1, 2]")
    assert isinstance(section, ast.Param)
    assert [d.name.text for d in section.items] == ["Q", "A", "b", "W", "c"]
    assert [form(d.init) if d.init else None for d in section.items] == [
        None, None, "zeros", "{call normal 0 0.1}", "[1, 2]",
    ]  # fmt: skip
    assert section.items[2].set is None


def test_fn() -> None:
    section = only('fn f: (R^n, R) -> R^n as "pkg.mod:Class", g: R^n -> R\n h as "a:b"; k: ([0, 1]^n, (0, 1)) -> R')
    assert isinstance(section, ast.Fn)
    f, g, h, k = section.items
    assert f.type is not None
    assert ([print_set(s) for s in f.type.domain], print_set(f.type.codomain)) == (["R^n", "R"], "R^n")
    assert f.path is not None
    assert f.path.text == "pkg.mod:Class"
    assert g.type is not None
    assert len(g.type.domain) == 1
    assert g.path is None
    assert h.type is None
    assert h.path is not None
    assert k.type is not None
    assert [print_set(s) for s in k.type.domain] == ["[0, 1]^n", "(0, 1)"]


def test_let_where_import() -> None:
    parsed = read(
        'import Deq, Other from "deq.imp"\nlayer L(n):\n let enc = Deq(n, 2 n), dec = Other\n'
        " where H(q, p) = p^T p; c = 2\n  d = f()\n return enc(c)"
    )
    (imported,) = parsed.program.imports
    assert ([n.text for n in imported.names], imported.path.text) == (["Deq", "Other"], "deq.imp")
    let, where, _ = parsed.program.layers[0].sections
    assert isinstance(let, ast.Let)
    assert [(d.name.text, d.layer.text, [form(a) for a in d.args]) for d in let.items] == [
        ("enc", "Deq", ["n", "{juxt 2 n}"]),
        ("dec", "Other", []),
    ]
    assert isinstance(where, ast.Where)
    assert [(d.name.text, None if d.params is None else [p.text for p in d.params]) for d in where.items] == [
        ("H", ["q", "p"]),
        ("c", None),
        ("d", None),
    ]


def test_find_header() -> None:
    section = only(
        "find q(t) in R^n, u(x, t) for t in [t0, t1] for x in grid(0, 1, N, periodic)\n"
        "  until q <= 0 or u(0, t) >= 1\n such that\n  top: q = 1\n  q in simplex(n) for i in n, 0 <= u <= 1"
    )
    assert isinstance(section, ast.Find)
    assert [(u.name.text, [a.text for a in u.args]) for u in section.unknowns] == [("q", ["t"]), ("u", ["x", "t"])]
    assert [(d.name.text, print_set(d.set)) for d in section.domains] == [
        ("t", "[t0, t1]"),
        ("x", "grid(0, 1, N, periodic)"),
    ]
    assert [e.ops for e in section.until] == [("<=",), (">=",)]
    assert len(section.relations) == 3
    assert isinstance(section.relations[1], ast.Membership)
    assert section.relations[2] == section.relations[2]
    assert not section.bare


def test_or_is_a_word_only_after_until() -> None:
    assert relation_forms("find z such that z = or + x") == ["z = {+ or x}"]


def test_argmin() -> None:
    section = only("argmin_{x in R^(N+1, n), u in R^(N, m)} f(x, u) subject to x in S, ineq: -1 <= u <= 1")
    assert isinstance(section, ast.Argmin)
    assert (section.sense, [u.name.text for u in section.unknowns]) == ("min", ["x", "u"])
    assert len(section.constraints) == 2
    bare = only("argmin_z (z - y)^T Q (z - y)")
    assert [u.name.text for u in bare.unknowns] == ["z"]
    assert form(bare.objective) == "{juxt {juxt {T ({- z y})} Q} ({- z y})}"
    assert only("argmin_z ||z||").constraints == ()
    assert only("argmax_{z} z").sense == "max"
    assert form(only("argmin_z(z)").objective) == "(z)"
    assert form(only("argmin_z [1, 2]").objective) == "[1, 2]"


def test_using() -> None:
    section = only(
        "using anderson(depth=5, tol=1e-6),\n backward gmres(tol=1e-6), start zeros, on_failure=raise,"
        " forward newton(3)\n"
        ' start 2 x + 1\n conic(solver="clarabel")'
    )
    assert isinstance(section, ast.Using)
    assert [(s.label, s.name.text if s.name else None) for s in section.slots] == [
        ("forward", "anderson"),
        ("backward", "gmres"),
        ("start", None),
        ("on_failure", None),
        ("forward", "newton"),
        ("start", None),
        ("forward", "conic"),
    ]
    assert [(o.key.text if o.key else None, form(o.value)) for o in section.slots[0].options] == [
        ("depth", "5"),
        ("tol", "1e-6"),
    ]
    assert section.slots[4].options[0].key is None
    assert form(section.slots[5].value) == "{+ {juxt 2 x} 1}"
    assert form(section.slots[6].options[0].value) == "'clarabel'"


def test_words_of_using_are_names_elsewhere() -> None:
    text = "given forward, backward, start in R\nfind z such that z = forward + backward start"
    assert relation_forms(text) == ["z = {+ forward {juxt backward start}}"]
    assert [d.name.text for d in sections("given to in R, such in R, from, as, or")[0].items] == [
        "to", "such", "from", "as", "or",
    ]  # fmt: skip


def test_return() -> None:
    section = only("return z, y = C z\n  dual(ineq); z(1)")
    assert [(o.alias.text if o.alias else None, form(o.value)) for o in section.items] == [
        (None, "z"),
        ("y", "{juxt C z}"),
        (None, "{call dual ineq}"),
        (None, "{call z 1}"),
    ]


def test_relations() -> None:
    text = "find z in R^n such that 0 <= z <= 1; A ⪰ B, B >> C, top: z == 1\n x[i+1] = A x[i] for i in 1:N, z in [0, 1]"
    assert relation_forms(text) == [
        "0 <= z <= 1",
        "A >> B",
        "B >> C",
        "top: z = 1",
        "{at x {+ i 1}} = {juxt A {at x i}} for i in 1:N",
        "z in [0, 1]",
    ]


# -- lines -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "find z such that z =\n a + b",
        "find z such that z = a +\n\n  # why\n b",
        "find z such that z = (a\n + b\n)",
        "find z such that z = |a\n + b|",
        "find z\nsuch that z = a + b",
        "find z such that\n\n z = a + b",
        "find\n z such that z = a + b",
        "\n\nfind z such that z = a + b\n\n",
        "find z such that z = a + b;",
        "find z such that z = a + b;\n",
        "find z such that z = a + b  # done",
        "find z\r\nsuch that\tz = a + b\r\n",
        "\ufefffind z such that z = a + b",
    ],
)
def test_continued_lines(text: str) -> None:
    (relation,) = relation_forms(text)
    assert relation.startswith("z = ")
    assert "+ a b" in relation


def test_newlines_separate() -> None:
    assert relation_forms("find u, v such that u = a\n\n v = b") == ["u = a", "v = b"]
    assert relation_forms("find u, v such that u = a,\n v = b") == ["u = a", "v = b"]
    assert relation_forms("find u, v such that u = a;\n v = b") == ["u = a", "v = b"]
    assert relation_forms("find u\n v such that u = a\n v = b") == ["u = a", "v = b"]
    assert relation_forms("find z such that z = x[i]\n for i in n\n z = 1") == ["z = {at x i} for i in n", "z = 1"]
    assert relation_forms("argmin_z z\n subject to z = 1\n z = 2") == ["z = 1", "z = 2"]
    assert relation_forms("find z(t) for t in [0, 1]\n for x in [0, 1]\n until z = 0\n such that z = 1") == ["z = 1"]


def test_sections_may_share_a_line() -> None:
    text = "layer D(n): given x in R^n param W in R^(n, n) find z such that z = tanh(W z + x) return z"
    (layer,) = read(text).program.layers
    assert [type(s).__name__ for s in layer.sections] == ["Given", "Param", "Find", "Return"]
    assert [d.text for d in layer.dims] == ["n"]


def test_headers() -> None:
    layers = read("layer A:\n return 1\nlayer B(n,\n  m):\n return 2\nlayer C():\nlayer D (k):").program.layers
    assert [(la.name.text if la.name else None, [d.text for d in la.dims]) for la in layers] == [
        ("A", []),
        ("B", ["n", "m"]),
        ("C", []),
        ("D", ["k"]),
    ]


def test_nothing() -> None:
    for text in ("", "\n", "  \t\r\n", "# only a comment", "# one\n\n# two\n"):
        program = read(text).program
        assert program.layers == ()
        assert len(program.comments) == text.count("#")


def test_comments_are_kept() -> None:
    text = "given x # an input\n# above\nreturn x"
    program = read(text).program
    assert [(c.text, text[c.span.start : c.span.end]) for c in program.comments] == [
        ("# an input", "# an input"),
        ("# above", "# above"),
    ]


def test_names_are_not_normalised() -> None:
    section = only("given ﬁ, fi, K")
    assert [d.name.text for d in section.items] == ["ﬁ", "fi", "K"]


def test_spans_are_what_was_written() -> None:
    text = "find z in R^n such that top: z = tanh(W z + x²)"
    section = only(text)
    relation = section.relations[0]
    assert text[section.span.start : section.span.end] == text
    assert text[relation.span.start : relation.span.end] == "top: z = tanh(W z + x²)"
    call = relation.terms[1]
    assert text[call.span.start : call.span.end] == "tanh(W z + x²)"
    total = call.args[0]
    assert text[total.op_span.start : total.op_span.end] == "+"
    assert text[total.right.span.start : total.right.span.end] == "x²"
    assert total.left.op_span.start == total.left.op_span.end

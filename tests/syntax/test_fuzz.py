"""Properties: printed trees read back; no text makes the parser fail or point outside the text."""

from __future__ import annotations

import random
from typing import Any

from forms import read
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from syntax_specs import EVERYTHING, SPECS

from implicitdsl.ground.source import Source, Span
from implicitdsl.syntax import ast
from implicitdsl.syntax.dump import dump_ast
from implicitdsl.syntax.formatter import format_program
from implicitdsl.syntax.parser import Parsed, parse
from implicitdsl.syntax.printer import print_expr

S = Span(0, 0)
OPERATORS = ["+", "-", "*", "/", "@", "^", "juxt"]
fixed = settings(derandomize=True, max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])

leaves = st.one_of(
    st.sampled_from(["x", "W", "T", "θ", "dz", "T2", "inf"]).map(lambda t: ast.Name(S, t)),
    st.sampled_from(["2", "0.5", "1e-3", "2.", ".5"]).map(lambda t: ast.Number(S, t)),
    st.sampled_from([("z", 1, "t", False), ("z", 2, "t", False), ("z", 2, "t", True)]).map(
        lambda d: ast.Derivative(S, *d)
    ),
)


def trees(below: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    items = st.lists(below, min_size=1, max_size=3).map(tuple)
    function = below.map(lambda e: e if isinstance(e, ast.Name | ast.Derivative | ast.Call) else ast.Name(S, "f"))
    slices = st.builds(ast.Slice, st.just(S), st.none() | below, st.none() | below)
    binders = st.lists(st.builds(ast.Binder, st.just(S), st.just(ast.Ident(S, "i")), below | slices), min_size=1)
    return st.one_of(
        st.builds(ast.Binary, st.just(S), st.sampled_from(OPERATORS), below, below, st.just(S)),
        st.builds(ast.Negate, st.just(S), below),
        st.builds(ast.Transpose, st.just(S), below),
        st.builds(ast.Paren, st.just(S), below),
        st.builds(ast.Abs, st.just(S), below),
        st.builds(ast.Norm, st.just(S), below, st.sampled_from(["2", "1", "inf", "F"])),
        st.builds(ast.Literal, st.just(S), items),
        st.builds(ast.Index, st.just(S), below, st.lists(below | slices, min_size=1, max_size=2).map(tuple)),
        st.builds(ast.Call, st.just(S), function, st.lists(below, max_size=2).map(tuple)),
        st.builds(
            lambda f, body, bs: ast.Call(S, f, (ast.Comprehension(S, body, tuple(bs)),)), function, below, binders
        ),
    )  # fmt: skip


expressions = st.recursive(leaves, trees, max_leaves=12)


def strip(node: Any) -> Any:
    """A tree as nested tuples, without spans and parentheses."""
    if isinstance(node, ast.Paren):
        return strip(node.inner)
    if isinstance(node, ast.Node):
        names = [f for f in node.__dataclass_fields__ if f not in ("span", "op_span")]
        return (type(node).__name__, *(strip(getattr(node, f)) for f in names))
    return tuple(strip(x) for x in node) if isinstance(node, tuple) else node


@fixed
@given(expressions)
def test_printed_trees_read_back(tree: Any) -> None:
    text = print_expr(tree)
    parsed = read(f"find z(t) for t in [0, 1] such that z = {text}")
    block = parsed.program.layers[0].sections[0]
    assert isinstance(block, ast.Find)
    relation = block.relations[0]
    assert isinstance(relation, ast.Relation)
    assert strip(relation.terms[1]) == strip(tree)
    again = print_expr(relation.terms[1])
    assert again == text, "the second print is the first"


def test_a_power_of_a_derivative_is_printed_in_parentheses() -> None:
    tree = ast.Binary(S, "^", ast.Derivative(S, "z", 1, "t", False), ast.Number(S, "2"), S)
    assert print_expr(tree) == "(dz/dt)^2"


@fixed
@given(expressions)
def test_formatted_expressions_read_back(tree: Any) -> None:
    text = f"find z(t) for t in [0, 1] such that z = {print_expr(tree)}\n"
    formatted = format_program(Source("x", text))
    assert strip(read(formatted).program.layers) == strip(read(text).program.layers)
    assert format_program(Source("x", formatted)) == formatted


def sound(parsed: Parsed, text: str) -> None:
    """Every span lies in the text, every message is said, and the tree can be walked."""
    for d in parsed.diagnostics:
        for span in (d.span, *(label.span for label in d.labels), *(e.span for f in d.fixes for e in f.edits)):
            assert 0 <= span.start <= span.end <= len(text)
        assert d.message
        assert d.line >= 1
    for layer in parsed.program.layers:
        assert 0 <= layer.span.start <= layer.span.end <= len(text)
    dump_ast(parsed.program, Source("x", text))


def test_mutations_of_tokens() -> None:
    """Deleting, doubling and swapping tokens of right specs: never a crash, never a place outside."""
    rng = random.Random(7)
    names = ("deq", "event", "mpc", "pde", "optnet_layer", "bare_ode", "lorenz", "hamiltonian")
    specs = [SPECS[name] for name in names]
    pieces = {text: [t for t in parse(Source("x", text)).tokens if t.text] for text in [*specs, EVERYTHING]}
    wrong = 0
    for round_ in range(2000):
        text = EVERYTHING if round_ % 20 == 0 else rng.choice(specs)
        tokens = pieces[text]
        i = rng.randrange(len(tokens))
        a, b = tokens[i], tokens[min(i + 1, len(tokens) - 1)]
        kind = rng.randrange(4)
        if kind == 0:
            mutated = text[: a.start] + text[a.end :]
        elif kind == 1:
            mutated = text[: a.end] + " " + text[a.start :]
        elif kind == 2:
            mutated = text[: a.start] + b.text + text[a.end : b.start] + a.text + text[b.end :]
        else:
            other = rng.choice(tokens)
            mutated = text[: a.start] + other.text + text[a.end :]
        parsed = parse(Source("x", mutated))
        sound(parsed, mutated)
        wrong += bool(parsed.diagnostics)
        if not parsed.diagnostics:
            formatted = format_program(Source("x", mutated))
            assert strip(read(formatted).program.layers) == strip(parsed.program.layers)
    assert wrong > 900


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.text(max_size=80))
def test_any_text(text: str) -> None:
    sound(parse(Source("x", text)), text)


WORDS = (
    "find such that z in R ^ n = ( ) [ ] { } | || , ; : \n + - * / @ given param where using return layer argmin_z "
    "subject to for until or import from as \" ' ∂ ² ᵀ _1 0.5 dz/dt 'a' # < ** ₁ € -> fn let const f("
)
words = st.sampled_from(WORDS.split(" "))


@settings(derandomize=True, max_examples=500, deadline=None)
@given(st.lists(words, max_size=40), st.sampled_from(["", " "]))
def test_any_words(parts: list[str], glue: str) -> None:
    text = glue.join(parts)
    sound(parse(Source("x", text)), text)

"""Whole specs: they parse, their trees are golden, formatting and printing keep them."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import pytest
from forms import read
from syntax_specs import DEQ, EVERYTHING, SENTENCES, SPECS

from implicitdsl.ground.source import Source
from implicitdsl.syntax import ast
from implicitdsl.syntax.dump import dump_ast, dump_tokens
from implicitdsl.syntax.formatter import format_program
from implicitdsl.syntax.parser import parse
from implicitdsl.syntax.printer import print_layer, print_program


def layers(text: str) -> list[str]:
    return [dump_ast(layer) for layer in read(text).program.layers]


def comments(text: str) -> list[str]:
    return [c.text.rstrip() for c in read(text).program.comments]


@pytest.mark.parametrize("name", SPECS)
def test_parses(name: str) -> None:
    program = read(SPECS[name]).program
    assert program.layers
    assert not any(layer.broken for layer in program.layers)


@pytest.mark.parametrize("name", ["deq", "everything", "event", "pde", "mpc", "bare_ode"])
def test_golden_tree(name: str, golden: Callable[[str, str], None]) -> None:
    source = Source(f"{name}.imp", SPECS[name])
    golden(f"syntax/{name}.ast", dump_ast(parse(source).program, source))


@pytest.mark.parametrize("name", ["deq", "event"])
def test_golden_tokens(name: str, golden: Callable[[str, str], None]) -> None:
    source = Source(f"{name}.imp", SPECS[name])
    golden(f"syntax/{name}.tokens", dump_tokens(parse(source).tokens, source))


# -- fmt -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPECS)
def test_format_keeps_the_tree_and_the_comments(name: str) -> None:
    text = SPECS[name]
    formatted = format_program(Source("x", text))
    assert layers(formatted) == layers(text)
    assert comments(formatted) == comments(text)
    assert format_program(Source("x", formatted)) == formatted
    assert not any(line != line.rstrip() for line in formatted.split("\n"))


def test_format_golden(golden: Callable[[str, str], None]) -> None:
    golden("syntax/everything.formatted", format_program(Source("x", EVERYTHING)))


@pytest.mark.parametrize("text", [DEQ, *(s + "\n" for n, s in SENTENCES.items() if n != "event")])
def test_canonical_text_is_left_alone(text: str) -> None:
    assert format_program(Source("x", text)) == text


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("", ""),
        ("\n\n# a\n\n\n# b\n\n", "# a\n\n# b\n"),
        ("find z such that z==2x", "find z such that z = 2 x\n"),
        ("find z such that z = a  +\n b", "find z such that z = a +\n    b\n"),
        ("given x∈ℝ^n", "given x in R^n\n"),
        ("given ℝ\nreturn ℝ", "given ℝ\nreturn ℝ\n"),
        ("return xᵀ y²,  -x, a-b,a - -b, 2^-3", "return x^T y^2, -x, a - b, a - -b, 2^-3\n"),
        ("return x ^ T, x^(T)", "return x^ T, x^(T)\n"),
        ("return x[i + 1], x[2 i+1], x[0:n - 1], 1 / 2 x, a/b", "return x[i+1], x[2 i + 1], x[0:n-1], 1/2 x, a / b\n"),
        ("return x[0 : n], x[n:2 n], x[2 n: 3 n - 1]", "return x[0:n], x[n : 2 n], x[2 n : 3 n - 1]\n"),
        ("return x[ :2 n], x[2 n: ]", "return x[: 2 n], x[2 n :]\n"),
        ("given x in R^(N + 1, 2 n+1)", "given x in R^(N+1, 2 n + 1)\n"),
        ("find z(t) for t in R such that dz/dt ² = 1", "find z(t) for t in R such that dz/dt ^2 = 1\n"),
        ("argmin_z -z", "argmin_z -z\n"),
        ("argmin_{z in R} - z", "argmin_{z in R} -z\n"),
        ("return f (x), f(x) (y), (a+b)(c)", "return f (x), f(x) (y), (a + b) (c)\n"),
        ("return ||x||_∞ |y||z|", "return ||x||_inf |y| |z|\n"),
        ("given x in R;\n y in R", "given x in R\n      y in R\n"),
        ("given x in R; y in R", "given x in R; y in R\n"),
        ("given x\nreturn x # c", "given x\nreturn x  # c\n"),
        ("layer A: # a\n given x\n\n\n # b\n return x\nlayer B:",
         "layer A:  # a\n  given x\n\n  # b\n  return x\n\nlayer B:\n"),
        ("where dz=1\n v = dz/dt", "where dz = 1\n      v = dz / dt\n"),
        ("using a( b = 1 ),on_failure = nan", "using a(b=1), on_failure=nan\n"),
        ("fn f:R→R as \"a:b\"", 'fn f: R -> R as "a:b"\n'),
    ],
)  # fmt: skip
def test_format(text: str, wanted: str) -> None:
    formatted = format_program(Source("x", text))
    assert formatted == wanted
    assert format_program(Source("x", formatted)) == formatted
    assert layers(formatted) == layers(text)


def test_a_wrong_spec_is_left_alone() -> None:
    text = "find  z such that z = tanh(W z"
    assert format_program(Source("x", text)) == text


# -- printing trees --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPECS)
def test_print_keeps_the_tree(name: str) -> None:
    text = SPECS[name].replace("x ^ T", "x^(T)")  # printed so, since `x^T` is the transpose
    assert layers(print_program(read(text).program)) == layers(text)


def test_print_layer() -> None:
    (layer,) = read(DEQ).program.layers
    assert print_layer(layer) == "\n".join(line.split("#")[0].rstrip() for line in DEQ.split("\n"))


def test_print_program_with_imports() -> None:
    text = 'import A, B from "x.imp"\n\nlayer C(n):\n  given x in R^n\n\nlayer D:\n'
    assert print_program(read(text).program) == text


def test_dump_shows_places() -> None:
    source = Source("x", "return z\n  y")
    text = dump_ast(parse(source).program, source)
    assert "Name 'y' @2:3-2:4" in text
    assert isinstance(read(source.text).program.layers[0].sections[0], ast.Return)


def test_time_is_linear_in_the_length() -> None:
    """Twelve times the text takes far less than the square of it."""
    short, long = Source("x", EVERYTHING * 5), Source("x", EVERYTHING * 60)

    def best(source: Source) -> float:
        times: list[float] = []
        for _ in range(3):
            start = perf_counter()
            parse(source)
            times.append(perf_counter() - start)
        return min(times)

    best(short)
    assert best(long) < 40 * best(short)

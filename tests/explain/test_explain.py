"""What an explanation says in the user's names, and that its Markdown and LaTeX are valid mathematics."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
from hand_built import (
    SQUARE,
    VECTOR,
    N,
    deq,
    equation,
    f,
    given,
    in_set,
    model,
    param,
    real,
    root,
    shape,
    unknown,
    x,
    z,
)
from matplotlib.mathtext import MathTextParser

import implicitdsl as imp
from implicitdsl.explanation import FORMATS, explain
from implicitdsl.ground.facts import Interval
from implicitdsl.ir import build
from implicitdsl.ir.build import add, matmul, mul, num, transpose
from implicitdsl.ir.dims import Dim
from implicitdsl.ir.model import Model, Opaque, Options, Wishes
from implicitdsl.ir.nodes import Role
from implicitdsl.language import LANGUAGE
from implicitdsl.planner import plan

matplotlib.use("agg")
TABLE = LANGUAGE.function_table
BALL = in_set("SpectralBall", "SpectralBall(n, 0.9)", SQUARE, 0.9)


def explained(m: Model, form: str = "text", /, **sizes: int) -> str:
    return explain(plan(m, LANGUAGE, sizes), TABLE, form, sizes)


def lines(m: Model, /, **sizes: int) -> list[str]:
    return [line.strip() for line in explained(m, "text", **sizes).splitlines()]


def affine_deq() -> Model:
    W, U, b = param("W", BALL), param("U", real(shape("n", "m"))), param("b", real(VECTOR))
    y = given("y", real(shape("m")))
    inner = add(add(matmul(W.node, z.node), matmul(U.node, y.node)), b.node)
    return model([root([z], [equation(z.node, f("tanh", inner))])], W, U, b, y)


def circle() -> Model:
    s, a = unknown("s", real(())), given("a", real(()))
    lhs = add(build.power(a.node, num(2.0)), build.power(s.node, num(2.0)))
    return model([root([s], [equation(lhs, num(1.0))])], a)


def coupled() -> Model:
    W = param("W", real(SQUARE))
    u, v = unknown("u", real(VECTOR)), unknown("v", real(VECTOR))
    first = equation(u.node, f("tanh", add(matmul(W.node, v.node), x.node)))
    second = equation(v.node, f("sigmoid", matmul(transpose(W.node), u.node)))
    return model([root([u, v], [first, second])], W, x)


def opaque() -> Model:
    m = model([root([z], [equation(z.node, build.apply("f", (z.node, x.node), VECTOR))])], x)
    return Model(**{**vars(m), "opaques": (Opaque("f", (VECTOR, VECTOR), (VECTOR,), "nets:Cell"),)})


def assorted() -> Model:
    """Many kinds of nodes at once."""
    W, lam = param("W_1", real(SQUARE)), param("lambda", in_set("closed", "[0, 1]", (), 0.0, 1.0))
    i = build.index(z.node, (build.at_item(Dim.of("i")),))
    rows = build.stack_for(f("cos", mul(lam.node, i)), "i", Dim.of(0), N)
    quotient = build.div(x.node, add(num(1.0), f("norm", z.node)))
    total = build.sum_for(build.power(i, num(3.0)), "i", Dim.of(0), N)
    inner = add(add(matmul(W.node, z.node), rows), add(quotient, mul(total, f("relu", z.node))))
    extra = add(f("softmax", z.node), f("max", z.node, x.node))
    return model([root([z], [equation(mul(num(2.5), z.node), add(f("gelu", inner), extra))])], W, lam, x)


MODELS = {
    "deq": deq(BALL),
    "affine": affine_deq(),
    "circle": circle(),
    "coupled": coupled(),
    "opaque": opaque(),
    "assorted": assorted(),
}


def test_fixed_point_in_the_users_names() -> None:
    text = lines(deq(BALL))
    assert "z = tanh(W z + x)" in text
    assert "F(z) = z - tanh(W z + x) = 0" in text
    assert "u = w + Wᵀ(tanh'(W z + x) ∘ u)" in text
    assert "x̄ = tanh'(W z + x) ∘ u" in text
    assert "W̄ = (tanh'(W z + x) ∘ u) zᵀ" in text
    assert "tanh'(s) = 1 - tanh(s)²" in text


def test_a_product_of_many_formulas_gets_a_name() -> None:
    text = lines(affine_deq())
    assert text.index("s = tanh'(W z + U y + b) ∘ u") > text.index("u = w + Wᵀ s")
    for line in ("ȳ = Uᵀ s", "W̄ = s zᵀ", "Ū = s yᵀ", "b̄ = s", "c0 = U y + b"):
        assert line in text


def test_roots_use_the_residual() -> None:
    text = lines(circle())
    assert "2 s u = w" in text
    assert "ā = -2 a u" in text


def test_systems_have_an_adjoint_for_each_unknown() -> None:
    text = lines(coupled())
    assert "u_u = w_u + W (sigmoid'(Wᵀ u) ∘ u_v)" in text
    assert "u_v = w_v + Wᵀ(tanh'(W v + x) ∘ u_u)" in text
    assert "W̄ = (tanh'(W v + x) ∘ u_u) vᵀ + u (sigmoid'(Wᵀ u) ∘ u_v)ᵀ" in text


def test_names_of_the_derivation_avoid_the_users() -> None:
    w, u = given("w", real(VECTOR)), given("u", real(VECTOR))
    step = f("tanh", add(matmul(param("W", BALL).node, z.node), mul(w.node, u.node)))
    text = lines(model([root([z], [equation(z.node, step)])], param("W", BALL), w, u))
    assert "v = g + Wᵀ s" in text
    assert "w̄ = s ∘ u" in text


def test_opaque_functions_are_differentiated_by_name() -> None:
    text = lines(opaque())
    assert "u = w + (∂f/∂z)(z, x)ᵀ u" in text
    assert "x̄ = (∂f/∂x)(z, x)ᵀ u" in text
    assert "0 parameters, and those of f." in text


def test_proofs_reasons_shapes_and_counts() -> None:
    text = lines(affine_deq(), n=4, m=3)
    assert "W  param  (n, n)  SpectralBall(n, 0.9)" in [re.sub(r" {2,}", "  ", line) for line in text]
    assert "m n + n² + n = 32 parameters for m = 3, n = 4." in text
    assert "contraction: 0.9" in text
    assert "‖W‖₂ ≤ 0.9 since W in SpectralBall(n, 0.9)" in text
    assert any(line.startswith("newton: 4 unknowns") for line in text)
    assert any(line.startswith("implicit: implicit function theorem") for line in text)
    assert text[-1] == "z    (n)"


def test_parameters_of_sublayers_count_in_our_dimensions() -> None:
    inner = affine_deq()
    m = model([root([z], [equation(z.node, f("tanh", z.node))])], param("A", real(shape("n", "n"))))
    renamed = (("n", Dim.of("n") + Dim.of("n")), ("m", Dim.of(3)))
    m = Model(**{**vars(m), "opaques": (Opaque("enc", (), (), layer=inner, sizes=renamed),)})
    assert "5 n² + 8 n parameters." in lines(m)


@pytest.mark.parametrize(
    "method, values, says",
    [
        ("jfb", {}, "Jacobian-free"),
        ("neumann", {"terms": 7}, "7 terms of its Neumann series"),
        ("phantom", {"steps": 3, "damping": 0.5}, "3 damped steps (damping 0.5)"),
        ("unrolled", {"steps": 9}, "differentiates every step"),
    ],
)
def test_inexact_rules_say_what_they_drop(method: str, values: dict[str, object], says: str) -> None:
    wishes = Wishes(backward=Options(method, tuple(values.items())))
    text = lines(deq(BALL, wishes=wishes))
    assert any(says in line for line in text)
    assert ("u = w" in text) == (method == "jfb")
    assert any(line.startswith(method) and "asked for by `using`" in line for line in text)


def test_definitions_stay_as_written() -> None:
    W = param("W", BALL)
    h = build.sym("h", Role.DEFINITION, VECTOR)
    m = model([root([z], [equation(z.node, f("tanh", h))])], W)
    text = lines(Model(**{**vars(m), "definitions": ((h, matmul(W.node, z.node)),)}))
    assert "h = W z" in text
    assert "z = tanh(h)" in text
    assert "F(z) = z - tanh(W z) = 0" in text


def test_explicit_blocks_are_the_chain_rule() -> None:
    text = lines(model([root([z], [equation(z.node, f("tanh", x.node))])], x))
    assert "u = w" in text
    assert "x̄ = tanh'(x) ∘ u" in text


def test_unknown_formats_are_refused() -> None:
    with pytest.raises(ValueError, match="no format 'html'"):
        explained(deq(BALL), "html")


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", MODELS)
def test_every_format_of_every_model(name: str, form: str) -> None:
    text = explained(MODELS[name], form)
    assert text.endswith("\n")
    assert "Role." not in text  # no internal name leaks
    assert "bar:" not in text


@pytest.mark.parametrize("name", MODELS)
def test_formulas_are_valid_latex(name: str) -> None:
    formulas = re.findall(r"\$\$\n(.*?)\n\$\$", explained(MODELS[name], "markdown"), flags=re.DOTALL)
    assert len(formulas) > 3
    parser = MathTextParser("agg")
    for formula in formulas:
        parser.parse(f"${formula}$")  # raises ValueError where it is not mathematics


@pytest.mark.parametrize("name", MODELS)
def test_latex_is_ascii_and_balanced(name: str) -> None:
    text = explained(MODELS[name], "latex")
    assert text.isascii()
    depth = 0
    for c in re.sub(r"\\[{}]", "", text):
        depth += {"{": 1, "}": -1}.get(c, 0)
        assert depth >= 0
    assert depth == 0
    opened: list[str] = []
    for kind, environment in re.findall(r"\\(begin|end)\{(\w+\*?)\}", text):
        if kind == "begin":
            opened.append(environment)
        else:
            assert opened.pop() == environment
    assert opened == []
    assert text.count(r"\left") == text.count(r"\right")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX here")
def test_latex_compiles(tmp_path: Path) -> None:
    (tmp_path / "e.tex").write_text(explained(assorted(), "latex"), encoding="utf-8")
    subprocess.run(["pdflatex", "-halt-on-error", "e.tex"], cwd=tmp_path, check=True, timeout=120, capture_output=True)


def test_text_needs_no_sympy() -> None:
    code = "import sys, implicitdsl.explanation; print('sympy' in sys.modules or 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"


def test_a_separable_program_is_told_by_what_it_means() -> None:
    text = imp.compile("given y in R^n\nargmin_{x in [0, 1]^n} ||x - y||^2").explain()
    assert "separable: yes" in text
    assert "Separable(" not in text


def test_brackets_are_shown_as_intervals() -> None:
    s = unknown("s", in_set("closed", "[0, 2]", (), 0.0, 2.0))
    m = model([root([s], [equation(build.power(s.node, num(3.0)), num(1.0))])])
    (block,) = plan(m, LANGUAGE).blocks
    fact = block.fact("bracket")
    assert fact is not None
    assert fact.value == Interval(0.0, 2.0)
    assert "bracket: [0, 2]" in lines(m)


@pytest.mark.parametrize("form", FORMATS)
def test_several_layers_are_one_document(form: str) -> None:
    plans = [plan(m, LANGUAGE) for m in (deq(BALL), circle())]
    text = explain(plans, TABLE, form)
    assert text.count("Symbols") == 2
    assert text.count(r"\documentclass") == text.count(r"\end{document}") == (form == "latex")

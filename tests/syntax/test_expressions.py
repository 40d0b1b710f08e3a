"""Products, calls, indices, bars, powers and literals: what text reads as what tree."""

from __future__ import annotations

import pytest
from forms import expr


@pytest.mark.parametrize(
    "text, wanted",
    [
        # products by juxtaposition have the rank of * and /
        ("W z", "{juxt W z}"),
        ("W z + U x + b", "{+ {+ {juxt W z} {juxt U x}} b}"),
        ("2x", "{juxt 2 x}"),
        ("2 x", "{juxt 2 x}"),
        ("2e3 x", "{juxt 2e3 x}"),
        ("1/2 z^T Q z", "{juxt {juxt {juxt {/ 1 2} {T z}} Q} z}"),
        ("a / b c", "{juxt {/ a b} c}"),
        ("a * b @ c", "{@ {* a b} c}"),
        ("a * -b", "{* a {neg b}}"),
        ("a - b", "{- a b}"),
        ("-a b", "{juxt {neg a} b}"),
        ("(a+b)(c+d)", "{juxt ({+ a b}) ({+ c d})}"),
        ("2(x + 1)", "{juxt 2 ({+ x 1})}"),
        ("x[0] (28 - z[2])", "{juxt {at x 0} ({- 28 {at z 2}})}"),
        ("x[0](28)", "{juxt {at x 0} (28)}"),
        ("L L^T + 1e-4 I(n)", "{+ {juxt L {T L}} {juxt 1e-4 {call I n}}}"),
        # aliases
        ("a ∘ b ⊙ c .* d", "{* {* {* a b} c} d}"),
        ("a ⋅ b", "{@ a b}"),
        ("a ./ b", "{/ a b}"),
        ("a − b", "{- a b}"),
        # calls by adjacency
        ("f(x)", "{call f x}"),
        ("W (x)", "{juxt W (x)}"),
        ("f(x, y)", "{call f x y}"),
        ("f(x)(y)", "{call {call f x} y}"),
        ("f(x) (y)", "{juxt {call f x} (y)}"),
        ("r z(1 - z)", "{juxt r {call z {- 1 z}}}"),
        ("tanh(W z)", "{call tanh {juxt W z}}"),
        ("f()", "{call f}"),
        ("z^T(y)", "{juxt {T z} (y)}"),
        # indices and literals
        ("z[i]", "{at z i}"),
        ("z [i]", "{juxt z [i]}"),
        ("2[i]", "{juxt 2 [i]}"),
        ("z[1:n]", "{at z 1:n}"),
        ("A[:, 0]", "{at A : 0}"),
        ("A[1:, :2]", "{at A 1: :2}"),
        ("x[i+1]", "{at x {+ i 1}}"),
        ("f(x)[0]", "{at {call f x} 0}"),
        ("(A x)[0]", "{at ({juxt A x}) 0}"),
        ("A^T[0]", "{at {T A} 0}"),
        ("z[0][1]", "{at {at z 0} 1}"),
        ("[a, b, c]", "[a, b, c]"),
        ("[[a, b], [c, d]]", "[[a, b], [c, d]]"),
        ("A [1, 2]", "{juxt A [1, 2]}"),
        # powers and transposes
        ("-x^2", "{neg {^ x 2}}"),
        ("2^-3", "{^ 2 {neg 3}}"),
        ("a^b^c", "{^ a {^ b c}}"),
        ("2^-x^2", "{^ 2 {neg {^ x 2}}}"),
        ("x²", "{^ x 2}"),
        ("x² y", "{juxt {^ x 2} y}"),
        ("x¹²", "{^ x 12}"),
        ("A^-1 x", "{juxt {^ A {neg 1}} x}"),
        ("A⁻¹ x", "{juxt {^ A {neg 1}} x}"),
        ("z^T", "{T z}"),
        ("zᵀ Q z", "{juxt {juxt {T z} Q} z}"),
        ("z^(T)", "{^ z (T)}"),
        ("z ^ T", "{^ z T}"),
        ("z^Tau", "{^ z Tau}"),
        ("--x", "{neg {neg x}}"),
        # comprehensions
        ("sum(x[i] for i in n)", "{call sum {at x i} for i in n}"),
        ("sum(A[i, j] for i in 1:n for j in N+1)", "{call sum {at A i j} for i in 1:n for j in {+ N 1}}"),
        # derivative operators are calls
        ("grad(H(q, p), p)", "{call grad {call H q p} p}"),
        # numbers
        (".5 x", "{juxt .5 x}"),
        ("2. x", "{juxt 2. x}"),
        ("1e-6", "1e-6"),
        # letters of other alphabets are letters
        ("λ θ_1", "{juxt λ θ_1}"),
        ("∞", "inf"),
    ],
)
def test_tree(text: str, wanted: str) -> None:
    assert expr(text) == wanted


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("|x|", "{abs x}"),
        ("||x||", "{norm2 x}"),
        ("||x||_1", "{norm1 x}"),
        ("||x||_inf + 1", "{+ {norminf x} 1}"),
        ("||x||_∞", "{norminf x}"),
        ("||A||_F^2", "{^ {normF A} 2}"),
        ("‖x‖²", "{^ {norm2 x} 2}"),
        ("lam ||z||_1", "{juxt lam {norm1 z}}"),
        ("|x||y|", "{juxt {abs x} {abs y}}"),
        ("|x| |y|", "{juxt {abs x} {abs y}}"),
        ("| |x| - |y| |", "{abs {- {abs x} {abs y}}}"),
        ("|x - |y||", "{abs {- x {abs y}}}"),
        ("|| |x| - y ||", "{norm2 {- {abs x} y}}"),
        ("|a + ||b|| |", "{abs {+ a {norm2 b}}}"),
        ("|f(|x|)|", "{abs {call f {abs x}}}"),
        ("|(|x|)|", "{abs ({abs x})}"),
        ("|x[|y|]|", "{abs {at x {abs y}}}"),
        ("|A x|^2 |y|", "{juxt {^ {abs {juxt A x}} 2} {abs y}}"),
        ("||z - y||^2", "{^ {norm2 {- z y}} 2}"),
        ("||x||[0]", "{at {norm2 x} 0}"),
        ("2|x|", "{juxt 2 {abs x}}"),
    ],
)
def test_bars(text: str, wanted: str) -> None:
    assert expr(text) == wanted

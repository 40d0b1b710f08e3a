"""10,000 mutated specs: deletions, duplications, swaps and replacements of tokens never crash `check`."""

from __future__ import annotations

import random
import re

import pytest
from right_specs import BARE, DECLARED

from implicitdsl.driver import check_source
from implicitdsl.frontend import DEBUG
from implicitdsl.ground.source import Source

SPECS = [*BARE.values(), *DECLARED.values()]
TOKEN = re.compile(r"\w+|\s+|[^\w\s]")
SIGNS = "( ) [ ] { } | || ^ ^T = in for find R z x W 0.5 3 , ; : where return using ' ∂ ² as # \\ λ until"
POOL = [
    *SIGNS.split(),
    *("such that", "subject to", "W z", "f(z)", "\n", "layer A(n):", "grad(", "sum(", "dz/dt", '"'),
]


def mutate(text: str, rng: random.Random) -> str:
    tokens = TOKEN.findall(text)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        if not tokens:
            break
        i, j = rng.randrange(len(tokens)), rng.randrange(len(tokens))
        match rng.randrange(5):
            case 0:
                del tokens[i]
            case 1:
                tokens.insert(i, tokens[j])
            case 2:
                tokens[i], tokens[j] = tokens[j], tokens[i]
            case 3:
                tokens[i] = rng.choice(POOL)
            case _:
                tokens.insert(i, rng.choice(POOL))
    return "".join(tokens)


@pytest.mark.parametrize("chunk", range(10))
def test_mutated_specs_never_crash(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DEBUG, "1")  # internal errors propagate and fail the test with their traceback
    rng = random.Random(chunk)
    for _ in range(1000):
        text = mutate(rng.choice(SPECS), rng)
        try:
            found = check_source(Source("<fuzz>", text))
        except Exception as error:
            raise AssertionError(f"check crashed on:\n{text}") from error
        for d in found:
            assert d.code != "IMP999", text
            assert 0 <= d.span.start <= d.span.end <= len(text), text


@pytest.mark.parametrize(
    "text",
    [
        "argmin_z sum(log(1} ||z  + exp(A z))) + 0.1 ||z||^2 subject to ||z||_inf =  < >= = 1, G z = h",
        "find f(z) in R^n, v in R^n such that u = tanh(A v + x), v = sigmoid(B u + y)",
        "find z(t) in R^n for t in [0, 1] [i] that dz/dt = f(z, t), z(0) = x",
        "find z such that z = ||A z||_infx x",
    ],
)
def test_what_once_crashed(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DEBUG, "1")
    assert [d for d in check_source(Source("<fuzz>", text)) if d.is_error]

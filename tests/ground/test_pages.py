"""The pages of the codes: the wrong example of a page raises exactly its code, the right one is clean."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import implicitdsl
from implicitdsl import driver
from implicitdsl.ground.codes import CODES
from implicitdsl.ground.diagnostics import Diagnostic, Level
from implicitdsl.ground.render.page import PAGES, page
from implicitdsl.ground.source import Source

AT_RUN_TIME = {"IMP209", "IMP801", "IMP802", "IMP999"}
CHECKED = sorted(set(CODES) - AT_RUN_TIME)

DEQ = """\
layer Deq(n, m):
  given x in R^m
  param W in SpectralBall(n, 0.9)
        U in R^(n, m)
  find z in R^n such that z = tanh(W z + U x)
  return z
"""


def example(code: str, heading: str, language: str = "imp") -> str:
    found = re.search(rf"^## {heading}\n\n```{language}\n(.*?)^```$", page(code), re.MULTILINE | re.DOTALL)
    assert found, f"{code} has no example `{heading}`"
    return found[1]


@pytest.fixture
def check(tmp_path: Path):
    """Check a text in a folder that holds `deq.imp`, for the page about imports."""
    (tmp_path / "deq.imp").write_text(DEQ)

    def run(text: str) -> list[Diagnostic]:
        return driver.check_source(Source(str(tmp_path / "page.imp"), text))

    return run


def described(findings: list[Diagnostic]) -> list[str]:
    return [f"{d.code} {d.line}:{d.column} {d.message}" for d in findings]


def test_every_code_has_a_page_and_every_page_a_code() -> None:
    assert {file.stem for file in PAGES.glob("*.md")} == set(CODES)


@pytest.mark.parametrize("code", CODES)
def test_a_page_opens_with_code_title_and_level(code: str) -> None:
    assert page(code).startswith(f"# {code}: {CODES[code].title}\n\n*{CODES[code].level}*\n")


@pytest.mark.parametrize("code", CHECKED)
def test_the_wrong_example_raises_exactly_its_code(check, code: str) -> None:
    findings = check(example(code, "Wrong"))
    loud = {d.code for d in findings if d.level is not Level.INFO}
    if CODES[code].level == "info":
        assert code in {d.code for d in findings}
        assert loud <= {code}, described(findings)
    else:
        assert loud == {code}, described(findings)


@pytest.mark.parametrize("code", CHECKED)
def test_the_right_example_is_clean(check, code: str) -> None:
    findings = check(example(code, "Right"))
    assert [d for d in findings if d.level is not Level.INFO] == [], described(findings)
    if code != "IMP401":  # also says that contraction is certified
        assert code not in {d.code for d in findings}, described(findings)


def test_the_compiler_mentions_every_code() -> None:
    root = Path(implicitdsl.__file__).parent
    sources = "".join(f.read_text() for f in root.rglob("*.py") if f.name != "codes.py")
    assert [code for code in CODES if code not in AT_RUN_TIME and f'"{code}"' not in sources] == []


@pytest.mark.slow
@pytest.mark.parametrize("code", sorted(AT_RUN_TIME))
def test_run_time_examples_run(code: str) -> None:
    text = example(code, "Example", "python")
    if code == "IMP802":
        with pytest.warns(implicitdsl.ConvergenceWarning):
            exec(text, {})
    else:
        exec(text, {})

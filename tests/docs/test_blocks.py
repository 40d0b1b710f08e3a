"""Every code block of README and docs runs: `imp` blocks check without errors, `python` blocks run page by page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from implicitdsl.driver import check_source
from implicitdsl.ground.source import Source

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)( one a sentence)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
SENTENCE = re.compile(r"^\S.*\n(?: .*\n)*", re.MULTILINE)


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """Line and text of each block; of a block marked `one a sentence`, of each sentence with its indented lines."""
    text, found = page.read_text(encoding="utf-8"), []
    for block in BLOCK.finditer(text):
        if block.group(1) == language:
            parts = SENTENCE.finditer(block.group(3)) if block.group(2) else [re.match(r"(?s).*", block.group(3))]
            for part in parts:
                found.append((text.count("\n", 0, block.start(3) + part.start()) + 1, part.group()))
    return found


SPECS = [(page, line, text) for page in PAGES for line, text in blocks(page, "imp")]


@pytest.mark.parametrize("page, line, text", SPECS, ids=[f"{p.name}:{line}" for p, line, _ in SPECS])
def test_specs_check(page: Path, line: int, text: str) -> None:
    found = check_source(Source(f"{page.name}:{line}", text))
    expected = set(re.findall(r"# error: (IMP\d+)", text))
    assert {d.code for d in found if d.is_error} == expected


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=lambda p: p.name)
def test_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {"__name__": "__docs__"}
    for line, text in blocks(page, "python"):
        exec(compile("\n" * line + text, str(page), "exec"), scope)

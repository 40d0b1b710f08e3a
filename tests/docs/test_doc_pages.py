"""Pages that name files and tests name ones that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FILE = re.compile(r"`((?:docs|tests|examples|benchmarks|implicitdsl|grammar|changelog\.d)/[\w./-]+)(?:::(\w+))?`")
NAMED = [(page, path, test) for page in PAGES for path, test in FILE.findall(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page, path, test", NAMED, ids=[f"{p.name}-{f}-{t}" for p, f, t in NAMED])
def test_what_a_page_names_exists(page: Path, path: str, test: str) -> None:
    assert (ROOT / path).exists()
    if test:
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_page_is_in_the_index_of_the_readme() -> None:
    index = PAGES[0].read_text(encoding="utf-8")
    missing = [page.name for page in PAGES[1:] if f"docs/{page.relative_to(ROOT / 'docs')}" not in index]
    assert missing == []

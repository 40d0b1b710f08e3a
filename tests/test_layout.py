"""Test modules need names of their own: pytest imports those without a package by their base name."""

from __future__ import annotations

from collections import Counter
from pathlib import Path


def test_base_names_are_unique() -> None:
    tests = Path(__file__).parent
    plain = [p.name for p in tests.rglob("*.py") if not (p.parent / "__init__.py").exists() and p.name != "conftest.py"]
    assert [name for name, count in Counter(plain).items() if count > 1] == []

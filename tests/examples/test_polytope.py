"""The sides of a polytope are found from projections onto it."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent.parent.parent / "examples/polytope/train.py"


@pytest.mark.slow
def test_sides_are_found(tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    result = runpy.run_path(str(EXAMPLE))["main"](["--fast", "--out", str(picture)])
    assert result["agreement_before"] < 0.85
    assert result["agreement"] > 0.95
    assert result["error"] < 0.05
    assert picture.stat().st_size > 10_000

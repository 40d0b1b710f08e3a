"""A forecast trained through the portfolio earns more than one fitted to the returns."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent.parent.parent / "examples/portfolio/train.py"


@pytest.mark.slow
def test_decisions_are_learned(tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    result = runpy.run_path(str(EXAMPLE))["main"](["--fast", "--out", str(picture)])
    assert result["equal"] < result["fitted"] < result["for the decision"] < result["all known"]
    assert result["for the decision"] > result["fitted"] + 0.01
    assert picture.stat().st_size > 10_000

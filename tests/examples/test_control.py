"""Imitation through a predictive controller: unknown dynamics are found well enough to drive the building."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent.parent.parent / "examples/control/train.py"


@pytest.mark.slow
def test_dynamics_are_learned(tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    result = runpy.run_path(str(EXAMPLE))["main"](["--fast", "--out", str(picture)])
    assert result["learned dynamics"] < 1.12 * result["expert"]
    assert result["learned dynamics_error"] < 0.03
    assert picture.stat().st_size > 10_000
